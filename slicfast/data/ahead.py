"""Work done ahead by threads, a bounded amount of it: videos are read while others are computed on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Part = TypeVar("Part")
Summary = TypeVar("Summary")

POLL_S = 0.2
MAX_END_S = 3.0


class Stopped(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True)
class Done(Generic[Summary]):
    """An item's work has come to its end: what the generator returned, or what it raised."""

    summary: Summary | None
    error: Exception | None = None


# Called with an item and a function that raises Stopped once the work is not wanted any more.
Work = Callable[[Item, Callable[[], None]], Generator[Part, None, Summary]]


def work_ahead(
    items: Iterable[Item], work: Work[Item, Part, Summary], *, num_threads: int, max_ready: int
) -> Generator[tuple[Item, Part | Done[Summary]]]:
    """Yield (item, part) as parts come and (item, Done) after an item's last; an item's parts are in order.

    At most ``max_ready`` parts wait, beside one in the hands of each thread. Close the generator to stop.
    """
    waiting, lock = iter(items), threading.Lock()
    ready: queue.Queue[tuple[Item, Part | Done[Summary]] | BaseException | None] = queue.Queue(max_ready)
    stop = threading.Event()

    def beat() -> None:
        if stop.is_set():
            raise Stopped

    def put(thing: tuple[Item, Part | Done[Summary]] | BaseException | None) -> None:
        while True:
            beat()
            try:
                return ready.put(thing, timeout=POLL_S)
            except queue.Full:
                continue

    def run() -> None:
        try:
            while True:
                with lock:
                    item = next(waiting, None)
                if item is None:
                    return put(None)
                end: Done[Summary]
                try:
                    parts = work(item, beat)
                    while True:
                        try:
                            part = next(parts)
                        except StopIteration as finished:
                            end = Done(finished.value)
                            break
                        put((item, part))
                except Stopped:
                    raise
                except Exception as error:
                    end = Done(None, error)
                put((item, end))
        except Stopped:
            return
        except BaseException as error:  # of `items`
            put(error)

    threads = [threading.Thread(target=run, name="slicfast-ahead", daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    left = num_threads
    try:
        while left:
            thing = ready.get()
            if isinstance(thing, BaseException):
                raise thing
            if thing is None:
                left -= 1
            else:
                yield thing
    finally:
        stop.set()
        deadline = time.monotonic() + MAX_END_S
        for thread in threads:  # one that waits for a disk is left behind
            thread.join(max(0.0, deadline - time.monotonic()))
