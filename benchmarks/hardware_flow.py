"""Flow computed while loading, by a GPU's engine: how exact beside DIS, how many pairs a second.

python benchmarks/hardware_flow.py [benchmarks/results/<gpu>-<date>-hardware-flow.json]

Exactness is on the drawn motion of flow.py, at the stored size. Rates are of clips of 16 fields. Without
a GPU there is DIS alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slicfast.bench.harness import measure_in_turn, write_result
from slicfast.data.flow import LEVELS_PER_PIXEL, make_dis
from slicfast.data.pipelines.flow_engine import DaliEngine, finest_grid, forward_fields
from slicfast.device import resolve_device

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where this file is run by its path

from benchmarks.flow import CHOSEN, NUM_PAIRS, SMALL, STORED, Pair, pairs, shrink

NUM_CLIPS, NUM_FIELDS, NUM_RUNS = 16, 16, 7
PRESETS = (0.0, 0.5, 1.0)


def bench_hardware_flow(
    device: torch.device, *, num_pairs: int = NUM_PAIRS, num_runs: int = NUM_RUNS
) -> list[dict[str, Any]]:
    """A row for DIS, as `prepare` has it, and where there is an engine for each of its grids and presets."""
    found = pairs()[:num_pairs]
    small = [(shrink(pair.before), shrink(pair.after)) for pair in found]
    dis = make_dis()

    def by_dis() -> list[np.ndarray]:
        return [dis.calc(*two, None) for two in small]

    cost = measure_in_turn({"dis": by_dis}, num_runs=num_runs, num_warmup=1)["dis"]
    rows = [{"what": f"DIS, {CHOSEN}", **errors(by_dis(), found), "ms_a_pair": cost.wall_ms / len(found)}]
    if device.type == "cuda":
        rows += engine_rows(device, small, found, num_runs)
    return rows


def engine_rows(
    device: torch.device, small: list[tuple[np.ndarray, np.ndarray]], found: list[Pair], num_runs: int
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    films = [torch.from_numpy(np.repeat(np.stack(two)[..., None], 3, axis=-1)).to(device) for two in small]
    clips = [films[n].repeat(9, 1, 1, 1)[: NUM_FIELDS + 1] for n in rng.integers(0, len(films), NUM_CLIPS)]
    engines: dict[str, DaliEngine] = {}
    for grid in (grid for grid in (1, 2, 4) if grid >= finest_grid(torch.cuda.get_device_capability(device))):
        for preset in PRESETS:
            largest = max(len(films), NUM_CLIPS)
            engine = DaliEngine(device, max_films=largest, grid=grid, preset=preset)
            engines[f"engine, grid {grid}, preset {preset:g}"] = engine
    runs: dict[str, Callable[[], object]] = {
        name: lambda engine=engine: forward_fields(engine, clips) for name, engine in engines.items()
    }
    costs = measure_in_turn(
        runs, num_runs=num_runs, num_warmup=2, synchronize=lambda: torch.cuda.synchronize(device)
    )
    return [
        {
            "what": name,
            **errors([field[0].cpu().numpy() for field in forward_fields(engine, films)], found),
            "ms_a_pair": costs[name].wall_ms / (NUM_CLIPS * NUM_FIELDS),
        }
        for name, engine in engines.items()
    ]


def errors(fields: list[np.ndarray], found: list[Pair]) -> dict[str, float]:
    """Of (H, W, 2) displacements at the stored size, in pixels at 240 rows, and in levels."""
    truths = np.stack([shrink(pair.truth) for pair in found])
    wrong = np.stack(fields) / SMALL - truths
    distance = np.linalg.norm(wrong, axis=-1)
    return {
        "endpoint_error_px": float(distance.mean()),
        "share_above_3_px": float((distance > 3).mean()),
        "error_of_u_levels": float(LEVELS_PER_PIXEL * np.abs(wrong[..., 0]).mean()),
    }


def main() -> None:
    results = {"num_pairs": NUM_PAIRS, "stored": STORED, "rows": bench_hardware_flow(resolve_device())}
    for row in results["rows"]:
        print(row)
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "hardware-flow", results)


if __name__ == "__main__":
    main()
