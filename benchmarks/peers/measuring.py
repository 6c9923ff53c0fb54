"""What a clip costs each contender, in turn, and how many times that is of what it costs slicfast."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.peers.contenders import OURS
from benchmarks.peers.peer import Clips, Peer
from slicfast.bench.harness import Repeated, quartiles, repeat_in_turn

STAGES = ("decode", "load")


def runs_of(
    contenders: Mapping[str, Peer], batches: Sequence[Clips], stages: Iterable[str] = STAGES
) -> dict[str, Callable[[], object]]:
    """Functions that take all batches through a stage, by "stage contender"."""

    def run_of(contender: Peer, stage: str) -> Callable[[], object]:
        def run() -> None:
            for _ in getattr(contender, stage)(batches):
                pass

        return run

    return {
        f"{stage} {name}": run_of(contender, stage)
        for stage in stages
        for name, contender in contenders.items()
    }


def measure_contenders(
    contenders: Mapping[str, Peer],
    batches: Sequence[Clips],
    *,
    num_runs: int,
    stages: Sequence[str] = STAGES,
) -> list[dict[str, Any]]:
    """For each contender its `name`, what it `reads`, and for each stage the cost a clip.

    A stage has medians and quartiles in milliseconds a clip (`cpu_ms`, `wall_ms`) and `ratio`: the median
    and quartiles of this contender's CPU time by slicfast's in the same repetition.
    """
    num_clips = sum(len(clips) for clips in batches)
    repeated = repeat_in_turn(runs_of(contenders, batches, stages), num_runs=num_runs, num_warmup=1)
    return [
        {
            "name": name,
            "reads": contender.reads,
            **{
                stage: _cost(repeated[f"{stage} {name}"], repeated[f"{stage} {OURS}"], num_clips)
                for stage in stages
            },
        }
        for name, contender in contenders.items()
    ]


def _cost(taken: Repeated, ours: Repeated, num_clips: int) -> dict[str, Any]:
    cost: dict[str, Any] = {}
    for key, values in (("cpu_ms", taken.cpu_ms), ("wall_ms", taken.wall_ms)):
        a_clip = [value / num_clips for value in values]
        cost[key] = statistics.median(a_clip)
        cost[f"{key}_quartiles"] = quartiles(a_clip)
    ratios = [own / our for own, our in zip(taken.cpu_ms, ours.cpu_ms, strict=True)]
    cost["ratio"] = statistics.median(ratios)
    cost["ratio_quartiles"] = quartiles(ratios)
    return cost
