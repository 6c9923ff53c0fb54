"""Tasks of a batch, with a pool and without; scratch memory that threads share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from slicfast.data.recycling import ScratchPool
from slicfast.data.tasks import Tasks


@pytest.fixture(params=[0, 1, 3])
def pool(request):
    if not request.param:
        yield None
        return
    with ThreadPoolExecutor(request.param) as executor:
        yield executor


def test_all_tasks_have_run_when_they_are_finished(pool):
    done, tasks = [], Tasks(pool)
    for number in range(20):
        tasks.add(lambda number=number: done.append(number))
    tasks.finish()
    assert sorted(done) == list(range(20))


def test_a_failure_is_raised_once_nothing_runs_any_more(pool):
    running, tasks = threading.Semaphore(8), Tasks(pool)

    def fail() -> None:
        raise OSError("of a task")

    def run() -> None:
        with running:
            threading.Event().wait(0.02)

    for number in range(8):
        tasks.add(fail if number == 3 else run)
    with pytest.raises(OSError, match="of a task"):
        tasks.finish()
    assert all(running.acquire(blocking=False) for _ in range(8))


def test_dropped_tasks_do_not_begin_any_more(pool):
    done, tasks, gate = [], Tasks(pool), threading.Event()
    for number in range(20):
        tasks.add(lambda number=number: (gate.wait(5), done.append(number)))
    threading.Timer(0.05, gate.set).start()
    tasks.drop()
    assert len(done) <= 3  # those that had begun
    if pool is not None:
        pool.submit(int).result()
    assert len(done) <= 3


def test_scratch_is_used_again_but_never_by_two_at_once():
    pool = ScratchPool()
    with pool.borrowed() as one, pool.borrowed() as other:
        first = one.array("a", (4, 5))
        first[:] = 7
        assert (other.array("a", (4, 5)) is not first) and one is not other
        other.array("a", (4, 5))[:] = 1
        one.array("b", (4, 5))[:] = 2
        assert (first == 7).all()
        smaller = one.array("a", (2, 3))
        assert smaller.shape == (2, 3) and (smaller == 7).all()  # the same memory
        assert one.array("a", (50, 50)).shape == (50, 50)
    with pool.borrowed() as again:
        assert again in (one, other)
