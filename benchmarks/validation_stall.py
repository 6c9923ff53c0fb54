"""How long training waits for its first batch after a validation, with the loader run ahead and without.

python benchmarks/validation_stall.py --output benchmarks/results/<machine>-<date>-validation-stall.json

One run of configs/demo.yaml validates after every epoch. In turn, the loader's stream is left alone, as in
training, or closed before validation, which is what loading an epoch at a time amounts to.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slicfast.bench.harness import write_result
from slicfast.config import Config
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.synthetic import SyntheticConfig, write_dataset
from slicfast.device import resolve_device
from slicfast.distributed import Ranks
from slicfast.records import RunFolder
from slicfast.training.ahead import BatchStream
from slicfast.training.loop import epoch_steps
from slicfast.training.meter import Meter
from slicfast.training.session import open_session
from slicfast.training.validation import validate

WAYS = ("loader runs ahead", "loader stops")


def run(config: Config, folder: Path, num_rounds: int) -> dict[str, Any]:
    """Milliseconds waited for the first batch after each validation, by way."""
    session = open_session(config, RunFolder(folder), Ranks(), resolve_device(config.train.device), None)
    meter, validations = Meter(session), []
    waits: dict[str, list[float]] = {way: [] for way in WAYS}
    way = WAYS[0]
    with closing(BatchStream(session)) as stream:
        for number in range(2 * num_rounds + 1):
            before = session.loader.wait_seconds
            for step, _ in enumerate(epoch_steps(session, meter, stream)):
                if step == 0 and number:
                    waits[way].append(1e3 * (session.loader.wait_seconds - before))
            session.state.epoch, session.state.step = session.state.epoch + 1, 0
            way = WAYS[number % 2]
            if way == "loader stops":
                stream.close()
            started = time.perf_counter()
            validate(session)
            validations.append(time.perf_counter() - started)
    return {
        "ways": {
            way: {
                "median_ms": round(statistics.median(values), 2),
                "quartiles_ms": [round(q, 2) for q in statistics.quantiles(values, n=4)[::2]],
                "num": len(values),
            }
            for way, values in waits.items()
        },
        "validation_seconds": round(statistics.median(validations), 2),
        "clips_a_batch": len(session.sampler.roles) * session.sampler.batch_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="stall-") as name:
        folder = Path(name)
        groups = {"train_groups": 2, "val_groups": 1, "test_groups": 0}
        write_dataset(folder / "videos", SyntheticConfig(**groups))
        prepare(read_catalog(folder / "videos"), folder / "store")
        epochs = f"train.epochs={2 * options.rounds + 2}"
        values = [f"data.store={folder / 'store'}", "cluster.method=none", "eval.num_clips=2", epochs]
        config = Config.load(options.config, [*values, *options.overrides])
        results = run(config, folder / "run", options.rounds)
    write_result(options.output, "validation_stall", results)


if __name__ == "__main__":  # workers are started afresh and import this file
    main()
