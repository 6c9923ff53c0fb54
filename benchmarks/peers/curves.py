"""How the cost of a clip grows: with its length and stride, the pictures' size, the video's length, and the
number of videos; one thing changed at a time, H.264 files as Kinetics has them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.contenders import contenders, make_batches
from benchmarks.peers.corpus import H264, SIZE, Corpus, draw_corpus, lengthened, multiplied
from benchmarks.peers.measuring import measure_contenders
from benchmarks.peers.peer import Peer
from slicfast.config import Config
from slicfast.data.store import ClipStore
from slicfast.errors import DataError

LENGTHS, STRIDES = (8, 16, 32, 64), (1, 2, 4, 8)
SIZES = ((160, 120), (640, 480))  # and between them SIZE
SHORT_S, TIMES = 2, (1, 6, 30)  # seconds; then the 10-second videos, so many times over
NUMBERS = (10, 100, 1000, 10_000)
FEW_FRAMES = 32  # of each of many videos
NUM_VIDEOS, NUM_SOURCES = 2, 8  # drawn for the first curves; for the last one
BATCH_SIZE = 8


@dataclass(frozen=True)
class Point:
    """One place on one curve: what is loaded there, and how."""

    curve: str
    unit: str  # of x; empty for a number
    x: float
    config: Config
    corpus: Corpus


def all_points(config: Config, folder: Path, max_videos: int = NUMBERS[-1]) -> Iterator[Point]:
    """All points of all curves, curve after curve; a point's files may be gone once the next is asked for."""
    base = draw_corpus(folder / "base", num_videos=NUM_VIDEOS)
    for length in LENGTHS:
        yield Point("clip length", "frames", length, _with(config, clip_length=length), base)
    for stride in STRIDES:
        yield Point("stride", "frames", stride, _with(config, clip_stride=stride), base)
    for size in (SIZES[0], SIZE, SIZES[1]):
        with TemporaryDirectory(dir=folder) as name:
            corpus = base if size == SIZE else draw_corpus(Path(name) / "x", num_videos=NUM_VIDEOS, size=size)
            yield Point("size of the source", "rows", size[1], config, corpus)
    with TemporaryDirectory(dir=folder) as name:
        short = draw_corpus(Path(name) / "x", num_videos=NUM_VIDEOS, num_frames=SHORT_S * H264.fps)
        yield Point("video length", "s", SHORT_S, config, short)
    for times in TIMES:
        with TemporaryDirectory(dir=folder) as name:
            corpus = base if times == 1 else lengthened(base, Path(name) / "x", times)
            yield Point("video length", "s", times * H264.seconds, config, corpus)
    few = draw_corpus(folder / "few", num_videos=NUM_SOURCES, num_frames=FEW_FRAMES)
    for number in NUMBERS:
        if number <= max_videos:
            with TemporaryDirectory(dir=folder) as name:
                yield Point("number of videos", "", number, config, multiplied(few, Path(name) / "x", number))


def measure_curves(
    points: Iterable[Point],
    peers: Mapping[str, Peer],
    *,
    num_runs: int = 3,
    num_clips: int = 16,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Decode + augment of every contender at every point; `num_clips` a repetition, spread evenly."""
    curves: dict[str, dict[str, Any]] = {}
    for point in points:
        say(f"curves: {point.curve}, {point.x:g} {point.unit}".rstrip())
        curve = curves.setdefault(
            point.curve, {"what": point.curve, "unit": point.unit, "x": [], "store_open_ms": [], "series": {}}
        )
        curve["x"].append(point.x)
        curve["store_open_ms"].append(_open_ms(point.corpus.store.path))
        batches = make_batches(point.config, point.corpus, num_clips, BATCH_SIZE)
        found = contenders(point.config, point.corpus, BATCH_SIZE, peers)
        rows, failed = measure_contenders(found, batches, num_runs=num_runs, stages=("load",))
        if failed:
            raise DataError("; ".join(failed))
        for row in rows:
            series = curve["series"].setdefault(row["name"], {"cpu_ms": [], "cpu_ms_quartiles": []})
            for key in series:
                series[key].append(row["load"][key])
    return {
        "num_clips": num_clips,
        "num_runs": num_runs,
        "load_at_end": round(os.getloadavg()[0], 1),
        "curves": list(curves.values()),
    }


def _with(config: Config, **data: int) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def _open_ms(path: Path) -> float:
    """Milliseconds to open the store, the middle of five times."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        ClipStore(path)
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def columns(result: dict[str, Any]) -> list[str]:
    """The first row of the table."""
    return ["CPU ms a clip", *result["curves"][0]["series"]]


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row a curve: cost at its first and its last place, and how many times as much that is."""
    rows = []
    for curve in result["curves"]:
        first, last = curve["x"][0], curve["x"][-1]
        row = [f"{curve['what']}, {first:g} to {last:,g} {curve['unit']}".rstrip()]
        for series in curve["series"].values():
            low, high = series["cpu_ms"][0], series["cpu_ms"][-1]
            row.append(f"{low:.1f} to {high:.1f} ({high / low:.1f} x)")
        rows.append(row)
    return rows
