"""Tasks of one batch: at once on the threads of a pool, or, without one, by whoever waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

Task = Callable[[], object]


class Tasks:
    """Tasks that may run in any order, and in pairs.

    Args:
        pool: None: no task begins before `finish`, and all run in the thread that calls it.
    """

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool
        self._waiting: list[Task] = []
        self._started: list[Future[object]] = []

    def add(self, task: Task) -> None:
        """One more task."""
        if self._pool is None:
            self._waiting.append(task)
        else:
            self._started.append(self._pool.submit(task))

    def finish(self) -> None:
        """Wait until all have run, or one has failed and none runs; then raise what that raised."""
        for task in self._waiting:
            task()
        wait(self._started)
        for future in self._started:
            future.result()

    def drop(self) -> None:
        """Forget those that have not begun, and wait for the others."""
        for future in self._started:
            future.cancel()
        wait(self._started)
