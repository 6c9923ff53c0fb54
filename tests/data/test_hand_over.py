"""The hand-over of a GPU's batches, on streams that only keep book: who waits for what, and how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.hand_over import HostHandOver, StreamHandOver
from slicfast.data.loader import ClipLoader
from slicfast.data.requests import Role, make_requests


class Stream:
    """Work in order, each piece a duration in milliseconds; events pass when what is before them is done."""

    def __init__(self, device: Any = None) -> None:
        self.now = 0.0
        self.waited: list[Event] = []

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)
        self.now = max(self.now, event.time)


class Event:
    passed = True

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing
        self.time = -1.0

    def record(self, stream: Stream) -> None:
        self.time = stream.now

    def query(self) -> bool:
        return self.passed

    def elapsed_time(self, end: Event) -> float:
        assert self.timed and end.timed
        return end.time - self.time


class Cuda:
    Stream, Event = Stream, Event

    def __init__(self) -> None:
        self.user = Stream()

    def current_stream(self, device: torch.device) -> Stream:
        return self.user


def test_the_users_stream_waits_for_its_batch_and_for_no_later_one() -> None:
    cuda = Cuda()
    hand_over: Any = StreamHandOver(cuda, torch.device("cuda", 0))
    loading = hand_over.stream
    loading.now = 10.0
    first = hand_over.ready()
    loading.now = 70.0  # two batches ahead
    second = hand_over.ready()
    cuda.user.now = 4.0
    hand_over.take(hand_over.ask(), first)
    assert cuda.user.now == 10.0 and hand_over.wait_seconds == pytest.approx(0.006)
    cuda.user.now += 100.0  # a step: the second batch is there meanwhile
    hand_over.done()
    assert loading.waited[-1].time == 110.0  # memory of the first batch is in use up to here
    hand_over.take(hand_over.ask(), second)
    assert cuda.user.now == 110.0 and hand_over.wait_seconds == pytest.approx(0.006)


def test_waits_count_once_they_have_passed_and_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    hand_over: Any = StreamHandOver(cuda, torch.device("cuda", 0))
    for number in range(3):
        hand_over.stream.now = 10.0 * (number + 1)
        hand_over.take(hand_over.ask(), hand_over.ready())
    monkeypatch.setattr(Event, "passed", False)
    assert hand_over.wait_seconds == 0.0
    monkeypatch.setattr(Event, "passed", True)
    assert hand_over.wait_seconds == hand_over.wait_seconds == pytest.approx(0.03)
    for _ in range(3000):  # where nobody asks, it does not grow without end
        hand_over.take(hand_over.ask(), hand_over.ready())
    assert len(hand_over._waits) <= 1001


def test_a_cpu_counts_the_time_that_its_thread_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 1.5, 2.0, 2.25])
    monkeypatch.setattr("slicfast.data.hand_over.time.perf_counter", lambda: next(times))
    hand_over = HostHandOver()
    for _ in range(2):
        hand_over.take(hand_over.ask(), hand_over.ready())
        hand_over.done()
    assert hand_over.wait_seconds == 0.75


@pytest.mark.needs_cuda
def test_a_gpus_waiting_is_told_without_synchronising(tiny_store) -> None:
    pytest.importorskip("nvidia.dali")
    config = DataConfig(clip_length=4, crop_size=24)
    loader = ClipLoader(tiny_store, config, augment=AugmentConfig(), device="cuda:0", max_batch=8)
    requests = make_requests(np.arange(8), np.zeros(8), role=Role.ANCHOR, seed_N=np.arange(8))
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.set_sync_debug_mode("error")
        try:
            sums = [batch.clips.sum() for batch in loader.load([requests] * 20)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    assert len({float(total) for total in sums}) == 1  # memory is not given back while it is read
    assert 0 < loader.wait_seconds < 60
