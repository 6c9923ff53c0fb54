"""What a clip costs each contender, in turn, and how many times that is of what it costs slicfast."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.peers.contenders import OURS, PEERS
from benchmarks.peers.peer import Clips, Peer
from slicfast.bench.harness import Repeated, quartiles, repeat_in_turn

STAGES = ("decode", "load")


def measure_contenders(
    contenders: Mapping[str, Peer],
    batches: Sequence[Clips],
    *,
    num_runs: int,
    stages: Sequence[str] = STAGES,
) -> tuple[list[dict[str, Any]], list[str]]:
    """For each contender its `name`, what it `reads`, and for each stage the cost a clip.

    A stage has medians and quartiles in milliseconds a clip (`cpu_ms`, `wall_ms`) and `ratio`: the median
    and quartiles of this contender's CPU time by slicfast's in the same repetition. Besides, a line for each
    peer that cannot read these videos.
    """
    runs: dict[str, Callable[[], object]] = {}
    able, failed = [], []
    for name, contender in contenders.items():
        own = {f"{stage} {name}": _run(contender, stage, batches) for stage in stages}
        try:
            for run in own.values():
                run()  # warms up, too
        except Exception as error:  # whatever a library raises
            if name not in PEERS:
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            failed.append(f"{name} cannot read these videos ({reason.strip()})")
            continue
        able.append(contender)
        runs |= own
    num_clips = sum(len(clips) for clips in batches)
    repeated = repeat_in_turn(runs, num_runs=num_runs, num_warmup=0)
    rows = [
        {
            "name": contender.name,
            "reads": contender.reads,
            **{
                stage: _cost(repeated[f"{stage} {contender.name}"], repeated[f"{stage} {OURS}"], num_clips)
                for stage in stages
            },
        }
        for contender in able
    ]
    return rows, failed


def _run(contender: Peer, stage: str, batches: Sequence[Clips]) -> Callable[[], object]:
    """A function that takes all batches through a stage."""

    def run() -> None:
        for _ in getattr(contender, stage)(batches):
            pass

    return run


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
