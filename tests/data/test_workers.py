"""The pool of transcoding processes: results, and videos that crash or hang."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_data import numbered_video, write_video

from slicfast.data.preparing.source import stat_source
from slicfast.data.preparing.workers import Result, Task, WorkerPool
from slicfast.data.stores.format import Source, StoreSettings
from slicfast.errors import MachineError


def make_tasks(folder: Path, num_videos: int) -> list[Task]:
    paths = [
        write_video(folder / f"{number}.avi", numbered_video(5 + number)) for number in range(num_videos)
    ]
    return [Task(p.name, p, "a", None, None, stat_source(p), StoreSettings()) for p in paths]


def hanging_task(folder: Path) -> Task:
    """A pipe that nobody writes: opening it never returns."""
    os.mkfifo(folder / "hang.avi")
    return Task("hang.avi", folder / "hang.avi", None, None, None, Source(size=1), StoreSettings())


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """The processes that this test has started; multiprocessing keeps one of its own from tests before."""

    def all_children() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]

    before = set(all_children())
    return lambda: [pid for pid in all_children() if pid not in before]


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def collect(results: Iterator[Result | None]) -> dict[str, Result]:
    return {result.task.id: result for result in results if result is not None}


def test_every_task_gets_its_result(tmp_path: Path, tmp: Path, children: Callable[[], list[int]]) -> None:
    tasks = make_tasks(tmp_path, 7)
    with WorkerPool(2, tmp) as pool:
        results = collect(pool.run(iter(tasks)))
        assert len(children()) == 2
    assert not children()
    assert sorted(results) == [task.id for task in tasks]
    for number, task in enumerate(tasks):
        record = results[task.id].record
        assert record is not None and record.id == task.id and record.label == "a"
        assert len(record.sizes) == 5 + number and (record.source.width, record.source.height) == (48, 32)
        assert results[task.id].pictures.stat().st_size == sum(record.sizes)
        assert record.source.fingerprint and record.source.size == task.path.stat().st_size


def test_hanging_video_is_given_up_and_the_others_go_on(tmp_path: Path, tmp: Path) -> None:
    tasks = make_tasks(tmp_path, 3)
    with WorkerPool(1, tmp, stall_s=0.7) as pool:
        results = collect(pool.run([tasks[0], hanging_task(tmp_path), *tasks[1:]]))
    assert results.pop("hang.avi").reason == "no progress for 0.7 s while decoding it"
    assert all(result.record is not None for result in results.values()) and len(results) == 3


def test_killed_worker_costs_its_video_only(
    tmp_path: Path, tmp: Path, children: Callable[[], list[int]]
) -> None:
    tasks = make_tasks(tmp_path, 2)
    results = []
    with WorkerPool(1, tmp) as pool:
        for result in pool.run([tasks[0], hanging_task(tmp_path), tasks[1]]):
            if result is None and len(results) == 1 and children():
                os.kill(children()[0], signal.SIGSEGV)
            elif result is not None:
                results.append(result)
    assert [result.record is not None for result in results] == [True, False, True]
    assert results[1].reason == "decoding it ended the worker process (SIGSEGV)"


def test_worker_that_cannot_start_is_said(tmp_path: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_tasks(tmp_path, 1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MachineError, match="a worker process cannot start"), WorkerPool(1, tmp) as pool:
        collect(pool.run(tasks))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(MachineError, match="No such file"), WorkerPool(1, tmp) as pool:
        collect(pool.run(tasks))


def test_a_video_has_a_limit_however_busily_it_is_read(tmp_path: Path, tmp: Path) -> None:
    slow = write_video(tmp_path / "slow.avi", numbered_video(3000))
    tasks = [Task(p.name, p, "a", None, None, stat_source(p), StoreSettings()) for p in (slow,)]
    with WorkerPool(1, tmp, limit_s=0.05) as pool:
        results = collect(pool.run([*tasks, *make_tasks(tmp_path, 1)]))
    assert results["slow.avi"].reason == "not done after 0.05 s, the time limit of a video"
    assert not list(tmp.glob("*.mjpg")) or results["0.avi"].record is not None


def test_worn_workers_make_room_for_fresh_ones(tmp_path: Path, tmp: Path) -> None:
    with WorkerPool(1, tmp, num_tasks=2) as pool:
        results = collect(pool.run(make_tasks(tmp_path, 5)))
        assert pool.num_started == 3
    assert len(results) == 5 and all(result.record is not None for result in results.values())
