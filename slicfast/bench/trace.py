"""What a Chrome trace of some training steps says: time by span, the dearest kernels, the idle share.

Times in a trace are microseconds; here they are milliseconds.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slicfast.errors import DataError
from slicfast.profiling import SPANS

ON_GPU = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
Interval = tuple[float, float]


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel (on a CPU: of one operator, without those that it calls)."""

    name: str
    ms: float
    num_calls: int
    share: float  # of the time of all kernels


@dataclass(frozen=True)
class TraceSummary:
    """Of the window from the first span to the end of the last kernel or span.

    Attributes:
        window_ms: its length.
        on_gpu: whether the kernels are a GPU's.
        idle_share: of the window, with nothing on the GPU; on a CPU, what the step waited for clips.
        spans: name -> milliseconds of the host, in the order of a step.
        kernels: the dearest first.
    """

    window_ms: float
    on_gpu: bool
    idle_share: float
    spans: dict[str, float]
    kernels: list[Kernel]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a Chrome trace, compressed or not. Raises DataError for anything else."""
    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        events = content["traceEvents"] if isinstance(content, dict) else content
        return [event for event in events if event.get("ph") == "X"]
    except FileNotFoundError:
        raise DataError(f"no trace at {path}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not a Chrome trace") from None


def summarize(events: Sequence[dict[str, Any]], num_kernels: int = 10) -> TraceSummary:
    """Raises DataError for a trace without a span of a training step."""
    spans = [event for event in events if event.get("cat") == "user_annotation" and event["name"] in SPANS]
    if not spans:
        raise DataError("the trace holds no training step")
    on_gpu = [event for event in events if event.get("cat") in ON_GPU]
    start = min(event["ts"] for event in spans)
    end = max(event["ts"] + event["dur"] for event in (*spans, *on_gpu))
    by_span = {name: sum(e["dur"] for e in spans if e["name"] == name) / 1e3 for name in SPANS}
    window = end - start
    if on_gpu:
        busy = covered((max(e["ts"], start), e["ts"] + e["dur"]) for e in on_gpu)
        idle = 1.0 - busy / window
        costs = [(event["name"], float(event["dur"])) for event in on_gpu]
    else:
        idle = 1e3 * by_span["wait"] / window
        costs = self_times([event for event in events if event.get("cat") == "cpu_op"])
    return TraceSummary(
        window_ms=window / 1e3,
        on_gpu=bool(on_gpu),
        idle_share=idle,
        spans={name: ms for name, ms in by_span.items() if ms},
        kernels=dearest(costs, num_kernels),
    )


def covered(intervals: Iterable[Interval]) -> float:
    """The length of a union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def self_times(events: Iterable[dict[str, Any]]) -> list[tuple[str, float]]:
    """(name, microseconds) of each event without the events inside it; events of a thread are nested."""
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    found: list[tuple[str, float]] = []
    for thread in threads.values():
        thread.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_events: list[tuple[float, int]] = []  # end, place in `found`
        for event in thread:
            while open_events and open_events[-1][0] <= event["ts"]:
                open_events.pop()
            if open_events:
                name, own = found[open_events[-1][1]]
                found[open_events[-1][1]] = (name, own - event["dur"])
            open_events.append((event["ts"] + event["dur"], len(found)))
            found.append((event["name"], float(event["dur"])))
    return found


def dearest(costs: Iterable[tuple[str, float]], num: int) -> list[Kernel]:
    """The `num` names of the largest sums of microseconds."""
    sums: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, microseconds in costs:
        sums[name] += microseconds
        calls[name] += 1
    total = sum(sums.values())
    names = sorted(sums, key=lambda name: (-sums[name], name))[:num]
    return [
        Kernel(name, sums[name] / 1e3, calls[name], sums[name] / total if total else 0.0) for name in names
    ]
