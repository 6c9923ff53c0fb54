"""The finding that docs/profiling.md walks through: many small operators in the optimizer, or one.

python benchmarks/profile_finding.py benchmarks/results/<machine>-<date>-profile.json
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from slicfast import Config
from slicfast.bench.harness import write_result
from slicfast.bench.profile import profile
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.synthetic import SyntheticConfig, write_dataset

NUM_ROUNDS, NUM_STEPS = 5, 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "videos", SyntheticConfig(train_groups=2, val_groups=0, test_groups=0))
        prepare(read_catalog(folder / "videos"), folder / "store")
        spans: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
        calls: dict[bool, float] = {}
        for _ in range(NUM_ROUNDS):
            for fused, found in spans.items():
                config = Config.load(
                    "configs/demo.yaml", [f"data.store={folder / 'store'}", f"optim.fused={fused}"]
                )
                seen = profile(config, folder / "out", tool="torch", num_steps=NUM_STEPS, num_warmup=2)
                assert seen.summary is not None
                for span, ms in (seen.summary.spans | {"step": seen.summary.window_ms}).items():
                    found.setdefault(span, []).append(ms / NUM_STEPS)
                calls[fused] = _calls_in_optimizer(seen.file)
    results: dict[str, Any] = {
        "num_rounds": NUM_ROUNDS,
        "num_steps": NUM_STEPS,
        "variants": [
            {
                "fused": fused,
                "operators_in_optimizer": calls[fused],
                "ms_a_step": {span: statistics.median(values) for span, values in found.items()},
            }
            for fused, found in spans.items()
        ],
    }
    print(results)
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "profile", results)


def _calls_in_optimizer(trace: Path) -> float:
    """Operators a step that start within the optimizer's span."""
    from slicfast.bench.trace import read_trace

    events = read_trace(trace)
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "optimizer"]
    inside = [e for e in events if e.get("cat") == "cpu_op" and any(a <= e["ts"] < b for a, b in spans)]
    return len(inside) / NUM_STEPS


if __name__ == "__main__":
    main()
