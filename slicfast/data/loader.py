"""Requests in, torch batches out: reading, decoding and augmenting run ahead of whoever consumes them.

One thread reads bytes and has others decode and augment them: DALI's for a GPU, on a CPU a clip a thread, or
itself where there is to be only one. What is ready waits in a queue.
Batches come in order and depend only on their requests. Start processes (fork) before the first batch, not
after: DALI's threads do not survive it.
"""

from __future__ import annotations

import atexit
import functools
import queue
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig, DataConfig, MotionConfig
from slicfast.data.hand_over import HandOver, make_hand_over
from slicfast.data.producer import ClipProducer, Produced
from slicfast.data.reading import DamageTally
from slicfast.data.requests import Requests
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import Flow
from slicfast.data.views import Geometry
from slicfast.device import num_cores
from slicfast.profiling import span

NUM_UNDER_WAY = 2  # batches inside the backend: one being computed, one to go on with


@dataclass
class ClipBatch:
    """One batch.

    Attributes:
        clips: (N, 3, T, H, W) float32, normalised, in channels_last_3d memory, on the loader's device.
        requests: (N,) requests as they were loaded, after substitution.
        num_replaced: clips that stand in for damaged ones.
    """

    clips: torch.Tensor
    requests: Requests
    num_replaced: int


class ClipLoader:
    """Loads batches of clips from a store. Use one for training and one for evaluation.

    Args:
        store: where the clips are.
        config: clip length, crop, normalisation, how far to run ahead, how much damage to bear.
        augment: None: evaluation, a centre crop without randomness.
        motion: how requests with the view DIFFERENCE are shown; None: as MotionConfig has it.
        resize: rows and columns before the evaluation crop; None: 128 x 171 scaled with the crop.
        geometry: what is shown of an evaluation clip instead of that centre crop (`slicfast.data.views`).
        flow: where requests with the view FLOW are read or computed (`open_flow`); None: there will be none.
        candidates: rows of videos that may stand in for damaged ones; None: all of the store.
        device: "cpu", "cuda" or "cuda:1".
        num_threads: that decode, and on a CPU augment as well; 0: a core each.
        max_batch: the largest batch that will be asked for.

    Raises:
        ConfigError: `resize` is smaller than the crop.
        MachineError: DALI is missing; or flow is to be computed, and the device does not do that.
    """

    def __init__(
        self,
        store: ClipStore,
        config: DataConfig,
        *,
        augment: AugmentConfig | None,
        motion: MotionConfig | None = None,
        resize: tuple[int, int] | None = None,
        geometry: Geometry | None = None,
        flow: Flow | None = None,
        candidates: npt.ArrayLike | None = None,
        device: str | torch.device = "cpu",
        num_threads: int = 0,
        max_batch: int,
    ) -> None:
        self.store = store
        self.max_batch = max_batch
        self._config = config
        self._device = torch.device(device)
        self._producer = ClipProducer(
            store,
            config,
            augment=augment,
            difference_gain=(motion or MotionConfig()).gain,
            resize=resize,
            geometry=geometry,
            flow=flow,
            candidates=candidates,
            device=self._device,
            num_threads=num_threads or num_cores(),
            max_batch=max_batch,
        )
        self._hand_over = make_hand_over(self._device)
        self._tally = DamageTally(config.max_bad_share)
        self._current: weakref.ref[ClipIterator] | None = None

    @property
    def wait_seconds(self) -> float:
        """How long users waited for clips in all: their thread on a CPU, their stream on a GPU."""
        return self._hand_over.wait_seconds

    @property
    def num_clips(self) -> int:
        """Clips handed over so far."""
        return self._tally.num_clips

    @property
    def num_replaced(self) -> int:
        """Of these, clips that stand in for damaged ones."""
        return self._tally.num_replaced

    @property
    def replaced(self) -> Counter[str]:
        """How many clips of each video were replaced, by id."""
        return self._tally.replaced

    def load(self, batches: Iterable[Requests]) -> ClipIterator:
        """Iterate over batches of requests, each (N,) with 1 <= N <= max_batch.

        Work starts at once, in another thread, which is also where `batches` is iterated. Close the iterator,
        or drop it, to stop early. Errors of `batches` come out of the iterator in their turn.

        Raises:
            RunError: (from the iterator) more clips are damaged than the configuration bears.
        """
        if self._current is not None and (earlier := self._current()) is not None and not earlier.closed:
            raise ValueError("this loader is still loading; close its iterator first")
        iterator = ClipIterator(self, batches)
        self._current = weakref.ref(iterator)
        return iterator

    def _completed(self, produced: Produced) -> ClipBatch:
        """What is left for torch to do, in the consumer's thread and on its stream."""
        reading = produced.reading
        self._tally.add(reading)
        clips_NCTHW = self._producer.complete(produced).permute(0, 4, 1, 2, 3)
        return ClipBatch(clips_NCTHW, reading.requests, len(reading.damage))


# A batch with what tells that it is there; an error in its turn; None at the end.
Ready = queue.SimpleQueue[tuple[Produced, Any] | BaseException | None]


class ClipIterator(Iterator[ClipBatch]):
    """One pass over batches of requests; its thread ends with it."""

    def __init__(self, loader: ClipLoader, batches: Iterable[Requests]) -> None:
        self._loader = loader
        self._ready: Ready = queue.SimpleQueue()
        # Batches that may be ready or under way; the one that the consumer holds does not count.
        self._slots = threading.Semaphore(loader._config.prefetch)
        self._stop = threading.Event()
        # The thread must not hold this object, or dropping it would never end the thread.
        self._thread = threading.Thread(
            target=_work,
            args=(loader._producer, batches, self._ready, self._slots, self._stop, loader._hand_over),
            name="slicfast-loader",
            daemon=True,
        )
        self._thread.start()
        _close_at_exit()
        _live.add(self)

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._stop.is_set()

    def __iter__(self) -> ClipIterator:
        return self

    def __next__(self) -> ClipBatch:
        if self.closed:
            raise StopIteration
        hand_over = self._loader._hand_over
        asked = hand_over.ask()
        with span("wait"):
            item = self._ready.get()
        self._slots.release()
        if item is None or isinstance(item, BaseException):
            self.close()
            raise StopIteration if item is None else item
        produced, ready = item
        hand_over.take(asked, ready)
        try:
            with span("hand-over"):
                batch = self._loader._completed(produced)
                hand_over.done()
                return batch
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop, and wait until nothing is under way any more. Called again, it does nothing."""
        self._stop.set()
        self._slots.release()
        if threading.current_thread() is not self._thread:  # where the garbage collector happens to run
            self._thread.join()
        while not self._ready.empty():
            self._ready.get()

    def __enter__(self) -> ClipIterator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self.close()


def _work(
    producer: ClipProducer,
    batches: Iterable[Requests],
    ready: Ready,
    slots: threading.Semaphore,
    stop: threading.Event,
    hand_over: HandOver,
) -> None:
    """The loading thread: keeps the backend busy, hands results over in order, leaves nothing under way."""
    end: BaseException | None = None
    try:
        left: Iterator[Requests] | None = iter(batches)
        while not stop.is_set() and (left is not None or producer.num_under_way):
            may_start = left is not None and producer.num_under_way < NUM_UNDER_WAY
            # With a batch under way it is better to wait for that than for a slot.
            if not (may_start and slots.acquire(blocking=not producer.num_under_way)):
                for produced in producer.finish(hand_over.stream):
                    ready.put((produced, hand_over.ready()))
                continue
            if stop.is_set():
                break
            assert left is not None
            try:
                requests_N = next(left, None)
                if requests_N is not None:
                    producer.start(requests_N)
                    continue
            except BaseException as error:
                end = error  # comes after the batches before it
            left = None
    except BaseException as error:
        end = error
    finally:
        producer.abandon()
        ready.put(end)


_live: weakref.WeakSet[ClipIterator] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    """End the threads while DALI is whole: hooks run last in, first out, and DALI is imported by now."""

    def close_all() -> None:
        for iterator in list(_live):
            iterator.close()

    atexit.register(close_all)
