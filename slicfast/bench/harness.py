"""How benchmarks measure: CPU milliseconds and wall time over repeated runs, the machine, results as JSON.

On a shared machine wall time says as much about the neighbours as about the code; CPU time is the figure to
compare there. On a GPU it is the other way round: what counts is wall time around a synchronisation.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slicfast.machine import machine as machine
from slicfast.records import write_text


@dataclass(frozen=True)
class Measurement:
    """Milliseconds of one run: the median and the range of the middle half, over ``num_runs`` runs.

    ``cpu_ms`` sums over the threads of this process and over processes that it started and that have ended.
    """

    cpu_ms: float
    cpu_ms_quartiles: list[float]
    wall_ms: float
    wall_ms_quartiles: list[float]
    num_runs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    run: Callable[[], object],
    *,
    num_runs: int = 10,
    num_warmup: int = 2,
    synchronize: Callable[[], object] | None = None,
) -> Measurement:
    """Time ``run``, called over and over.

    Args:
        num_runs: measured calls, at least 1.
        num_warmup: calls before these, not measured.
        synchronize: waits for the device; called before each look at the clock.
    """
    return measure_in_turn({"": run}, num_runs=num_runs, num_warmup=num_warmup, synchronize=synchronize)[""]


def measure_in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    num_runs: int = 10,
    num_warmup: int = 2,
    synchronize: Callable[[], object] | None = None,
) -> dict[str, Measurement]:
    """Time several things as `measure` does one, a run of each in turn: so that all meet the same moods."""
    repeated = repeat_in_turn(runs, num_runs=num_runs, num_warmup=num_warmup, synchronize=synchronize)
    return {name: taken.summary() for name, taken in repeated.items()}


@dataclass(frozen=True)
class Repeated:
    """Milliseconds of each run, in order; run k of one thing and run k of another were neighbours in time."""

    cpu_ms: list[float]
    wall_ms: list[float]

    def summary(self) -> Measurement:
        return Measurement(
            cpu_ms=statistics.median(self.cpu_ms),
            cpu_ms_quartiles=quartiles(self.cpu_ms),
            wall_ms=statistics.median(self.wall_ms),
            wall_ms_quartiles=quartiles(self.wall_ms),
            num_runs=len(self.cpu_ms),
        )


def repeat_in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    num_runs: int = 10,
    num_warmup: int = 2,
    synchronize: Callable[[], object] | None = None,
) -> dict[str, Repeated]:
    """What `measure_in_turn` summarises."""
    if num_runs < 1:
        raise ValueError(f"num_runs must be at least 1; got {num_runs}")
    wait = synchronize or (lambda: None)
    for run in runs.values():
        for _ in range(num_warmup):
            run()
    repeated = {name: Repeated([], []) for name in runs}
    for _ in range(num_runs):
        for name, run in runs.items():
            wait()
            cpu_start, wall_start = cpu_seconds(), time.perf_counter()
            run()
            wait()
            repeated[name].wall_ms.append(1e3 * (time.perf_counter() - wall_start))
            repeated[name].cpu_ms.append(1e3 * (cpu_seconds() - cpu_start))
    return repeated


def cpu_seconds() -> float:
    """CPU time of this process so far, of all its threads, and of processes it started that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def quartiles(values: list[float]) -> list[float]:
    """First and third quartile; the value itself twice where there is one."""
    if len(values) == 1:
        return values * 2
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def write_result(path: str | Path, benchmark: str, results: Any) -> None:
    """Write a benchmark's results with the machine they come from, as JSON, whole or not at all."""
    content: Mapping[str, Any] = {"benchmark": benchmark, "machine": machine(), "results": results}
    write_text(Path(path), json.dumps(content, indent=2) + "\n")
