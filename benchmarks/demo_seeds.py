"""The demo over several seeds of data and training: what `make demo` prints, with mean and deviation.

python benchmarks/demo_seeds.py --output benchmarks/results/cpu-2core-2026-11-25-demo-seeds.json

Each seed draws its own videos (other bodies, clothes, backgrounds and cameras) and trains its own network;
queries are the test split, the gallery is the training split. Nothing is chosen by looking at these figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slicfast.bench.harness import write_result
from slicfast.config import Config
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.synthetic import SyntheticConfig, write_dataset
from slicfast.evaluation.run import evaluate_run
from slicfast.training.loop import train


def run_seed(config_path: Path, seed: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The whole chain for one seed: R@k a row of the table, the epoch kept, and seconds a stage."""
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def lap(stage: str) -> None:
        seconds[stage] = round(time.perf_counter() - start - sum(seconds.values()), 1)

    write_dataset(folder / "videos", SyntheticConfig(seed=seed))
    lap("write")
    prepare(read_catalog(folder / "videos"), folder / "store")
    lap("prepare")
    given = [*overrides, f"seed={seed}", f"data.store={folder / 'store'}"]
    train(Config.load(config_path, given), folder / "run")
    lap("train")
    report = evaluate_run(folder / "run", query="test")
    lap("evaluate")
    return {"seed": seed, "epoch": report.epoch, "seconds": seconds, "table": report.table}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """R@1 a row of the table over the seeds, and how often the trained network's is that of the others."""
    recall_at_1 = {}
    for name in runs[0]["table"]:
        values = [run["table"][name][1] for run in runs]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        recall_at_1[name] = {"mean": statistics.mean(values), "deviation": deviation, "values": values}
    trained = recall_at_1["trained_pooled"]["mean"]
    ratios = {
        name: trained / figure["mean"]
        for name, figure in recall_at_1.items()
        if not name.startswith("trained") and figure["mean"] > 0
    }
    seeds = [run["seed"] for run in runs]
    return {"seeds": seeds, "recall_at_1": recall_at_1, "ratios": ratios, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        with TemporaryDirectory(prefix="demo-") as folder:
            runs.append(run_seed(options.config, seed, Path(folder), options.overrides))
    write_result(options.output, "demo_seeds", summarise(runs))


if __name__ == "__main__":  # workers are started afresh and import this file
    main()
