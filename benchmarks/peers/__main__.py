"""Peers side by side, and how their costs grow: measured, written as JSON, drawn.

python -m benchmarks.peers                       everything: about a quarter of an hour on two quiet cores
python -m benchmarks.peers --only side-by-side   the comparison alone: about five minutes
python -m benchmarks.peers --only curves         how costs grow, alone
python -m benchmarks.peers --only charts         draw the newest results again
python -m benchmarks.peers --quick               fewer repetitions, at most 1,000 videos

Results go to benchmarks/results as <stem>-peers.json and .svg and <stem>-peers-curves.json and .svg; the
README's table is drawn from them by `python benchmarks/tables.py`. See docs/peers.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PARTS = {"side-by-side": "peers", "curves": "peers-curves"}  # and the end of each result's name


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=[*PARTS, "charts"], help="one part instead of all")
    parser.add_argument("--quick", action="store_true", help="a third of the time, coarser figures")
    parser.add_argument("--videos", type=Path, help="side by side: a folder of videos in place of drawn ones")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and charts")
    parser.add_argument("--stem", help="start of their names; cpu-<cores>core-<date> unless said")
    options = parser.parse_args(arguments)

    from slicfast.errors import SlicfastError

    try:
        _run(options)
    except SlicfastError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; nothing of the part in hand is written")


def _run(options: argparse.Namespace) -> None:
    from slicfast.errors import DataError

    if options.videos is not None and not options.videos.is_dir():
        raise DataError(f"no folder of videos at {options.videos}; name one, or leave out --videos")
    if options.only == "charts":
        for part, kind in PARTS.items():
            found = sorted(options.output.glob(f"*-{kind}.json"))
            if not found:
                raise DataError(f"no result *-{kind}.json in {options.output}; measure it first")
            draw(part, found[-1])
        return

    import torch

    from benchmarks.peers.contenders import find_peers
    from benchmarks.peers.curves import NUMBERS, all_points, measure_curves
    from benchmarks.peers.side_by_side import side_by_side
    from slicfast.bench.harness import write_result
    from slicfast.config import Config
    from slicfast.device import num_cores

    torch.set_num_threads(1)
    config = Config.load(None, ["data.crop_size=112", "motion.view=none"])
    peers, missing = find_peers(config)
    for line in missing.values():
        print(line, file=sys.stderr)
    stem = options.stem or f"cpu-{num_cores()}core-{datetime.now(UTC):%Y-%m-%d}"
    measures: dict[str, Any] = {
        "side-by-side": lambda folder: side_by_side(
            config, peers, folder, videos=options.videos, num_runs=3 if options.quick else 9, say=_say
        ),
        "curves": lambda folder: measure_curves(
            all_points(config, folder, 1000 if options.quick else NUMBERS[-1]),
            peers,
            say=_say,
            **({"num_runs": 1, "num_clips": 8} if options.quick else {}),
        ),
    }
    for part, measure in measures.items():
        if options.only in (None, part):
            with TemporaryDirectory(prefix="slicfast-peers-") as folder:
                result = {**measure(Path(folder)), "missing": list(missing.values())}
            path = options.output / f"{stem}-{PARTS[part]}.json"
            write_result(path, PARTS[part], result)
            draw(part, path)
    if options.only in (None, "side-by-side") and options.output == RESULTS:
        _say("now: python benchmarks/tables.py")


def draw(part: str, path: Path) -> None:
    """Draw a result's chart beside it."""
    from benchmarks.peers.charts import draw_curves, draw_side_by_side

    result = json.loads(path.read_text(encoding="utf-8"))["results"]
    {"side-by-side": draw_side_by_side, "curves": draw_curves}[part](result, path.with_suffix(".svg"))
    _say(f"{path.with_suffix('.svg')} drawn from {path.name}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":  # prepare's workers are started afresh and import this file
    main()
