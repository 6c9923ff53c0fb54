"""Does a training run's resident memory grow? A small run of some hundred steps tells, by its own metrics.

python benchmarks/memory.py benchmarks/results/<machine>-<date>-memory.json
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from slicfast import Config, train
from slicfast.bench.harness import write_result
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.synthetic import SyntheticConfig, write_dataset
from slicfast.records import read_metrics

STEPS = 750
WARMUP = 250  # steps until caches and allocators have what they want


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(
            folder / "videos", SyntheticConfig(train_groups=1, val_groups=0, test_groups=0, num_frames=40)
        )
        prepare(read_catalog(folder / "videos"), folder / "store")
        config = Config.load(
            None,
            [
                f"data.store={folder / 'store'}",
                "data.clip_length=8",
                "data.crop_size=32",
                "model.name=slic_r3d_10",
                "model.width=0.125",
                "cluster.interval=10",
                "train.batch_size=8",
                "train.log_interval=10",
                "train.checkpoint_interval=50",
                "train.epochs=1000000",
            ],
        )
        steps = _steps_per_epoch(config)
        config = Config.from_dict(
            {**config.to_dict(), "train": {**config.to_dict()["train"], "epochs": -(-STEPS // steps)}}
        )
        train(config, folder / "run")
        entries = [e for e in read_metrics(folder / "run" / "metrics.jsonl") if e["kind"] == "train"]
    step_N = np.array([entry["step"] for entry in entries])
    memory_N = np.array([entry["memory_mb"] for entry in entries])
    late = step_N >= WARMUP
    slope = float(np.polyfit(step_N[late], memory_N[late], 1)[0])
    results = {
        "steps": int(step_N[-1]),
        "memory_mb": dict(zip(step_N.tolist(), memory_N.tolist(), strict=True)),
        "mb_per_500_steps": round(500 * slope, 2),
        "mb_after_warmup": float(np.median(memory_N[late][:10])),
        "mb_at_the_end": float(np.median(memory_N[-10:])),
    }
    print({key: value for key, value in results.items() if key != "memory_mb"})
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "memory", results)


def _steps_per_epoch(config: Config) -> int:
    from slicfast.data.store import ClipStore

    return len(ClipStore(config.data.store).split("train")) // config.train.batch_size


if __name__ == "__main__":
    main()
