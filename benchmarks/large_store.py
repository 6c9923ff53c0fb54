"""How a store of Kinetics-700's size opens, and what a run over it costs before its first clip.

650,000 videos of 250 pictures: sidecars as prepare leaves them, shards without contents (sparse files, whose
zeros have right checksums), the index written by the writer itself.

python benchmarks/large_store.py benchmarks/results/<machine>-<date>-large-store.json [--videos N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.assignment import Assignment
from slicfast.bench.harness import write_result
from slicfast.config import Config
from slicfast.data.sampling import SampleSampler
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import BLOCK, Source, StoreHeader, StoreSettings, VideoRecord, padding
from slicfast.data.stores.index import ShardTable
from slicfast.data.stores.writer import StoreWriter
from slicfast.training.session import training_rows

NUM_VIDEOS = 650_000
NUM_FRAMES = 250  # a video: ten seconds
NUM_CLASSES = 700
VIDEOS_A_SHARD = 4000  # about 5 GB
MEAN_BYTES = 5000  # a picture
NUM_STEPS = 200  # of a sampler
OPENINGS = 5


def make_store(path: Path, num_videos: int, num_frames: int = NUM_FRAMES) -> float:
    """Make the store; returns seconds that the writer took for the index."""
    generator = np.random.default_rng(0)
    (path / "shards").mkdir(parents=True)
    StoreHeader(StoreSettings()).write(path)
    sizes = np.arange(MEAN_BYTES - 1000, MEAN_BYTES + 1000, 16)
    crcs = np.array([zlib.crc32(bytes(size)) for size in sizes.tolist()], dtype=np.uint32)
    labels: dict[str, str | None] = {}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, first in enumerate(range(0, num_videos, VIDEOS_A_SHARD)):
        records, offsets, end = [], [], 0
        for video in range(first, min(first + VIDEOS_A_SHARD, num_videos)):
            split = ("train", "val", "test")[np.searchsorted([0.84, 0.9], video / num_videos)]
            label = f"class {generator.integers(NUM_CLASSES):03d} of many"
            video_id = f"{split}/{label}/{video * 7919 % num_videos:011d}_000004_000014.mp4"
            pick = generator.integers(len(sizes), size=num_frames)
            records.append(
                VideoRecord(
                    video_id, label, 25.0, 171, 128, sizes[pick], crcs[pick], Source(1_000_000, video, video)
                )
            )
            num_bytes = int(sizes[pick].sum())
            offsets.append(end + BLOCK)
            end += BLOCK + num_bytes + padding(num_bytes) + 10 * BLOCK
            labels[video_id] = label
            splits[split].append(video_id)
        shard = path / "shards" / f"shard-{number:05d}.tar"
        with shard.open("wb") as file:
            file.truncate(end + 2 * BLOCK)
        ShardTable.save(shard, records, offsets, end)
    started = time.perf_counter()
    with StoreWriter(path) as writer:
        writer.finish(labels, splits)
    return time.perf_counter() - started


def measure_store(path: Path) -> dict[str, Any]:
    """What a fresh process pays, step by step: seconds, and megabytes that each added to its memory."""
    found: dict[str, Any] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        before, started, cpu = memory_mb(), time.perf_counter(), time.process_time()
        result = work()
        found[name] = {
            "seconds": round(time.perf_counter() - started, 4),
            "cpu_seconds": round(time.process_time() - cpu, 4),
            "added_mb": round(memory_mb() - before, 1),
        }
        return result

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of importing
    at_start = memory_mb()
    store = step("open", lambda: ClipStore(path))
    after_opening = memory_mb()
    again = [_seconds(lambda: ClipStore(path)) for _ in range(OPENINGS)]
    found["open_again_cpu_seconds"] = round(float(np.median(again)), 4)
    config = Config()
    rows_N = step("training rows of the split", lambda: training_rows(store, config))
    sampler = step("sampler", lambda: SampleSampler(rows_N, store.num_frames[rows_N], config))
    step("first batch", lambda: sampler.batch(0, 0))
    found["batch_cpu_ms"] = round(
        1000
        * _seconds(lambda: [sampler.batch(0, n % sampler.steps_per_epoch) for n in range(NUM_STEPS)])
        / NUM_STEPS,
        3,
    )
    ids = step("ids of the split", lambda: tuple(store.ids(rows_N)))
    assignment = step("assignment", lambda: Assignment.singletons(ids))
    step("labels joined by id", lambda: sampler.set_labels(assignment.labels_for(ids)))
    step("find 1000 videos by id", lambda: [store.row(video_id) for video_id in ids[:1000]])
    generator = np.random.default_rng(1)
    chosen = generator.choice(rows_N, 200).tolist()
    clip_s = _seconds(lambda: [store.frames(row, range(40, 56)) for row in chosen]) / len(chosen)
    found["read_clip_cpu_ms"] = round(1000 * clip_s, 3)
    found["memory_mb"] = {
        "before": round(at_start, 1),
        "opened": round(after_opening - at_start, 1),
        "all of it": round(memory_mb() - at_start, 1),
        "peak": round(peak_mb() - at_start, 1),
    }
    return found


def memory_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    """The most that it has been since the peak was forgotten."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _seconds(work: Callable[[], object]) -> float:
    """CPU seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("result", nargs="?")
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS)
    parser.add_argument("--measure", type=Path, help="measure the store there instead, and print JSON")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure_store(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "store"
        index_seconds = make_store(path, arguments.videos)
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results = {
            "num_videos": arguments.videos,
            "num_frames": arguments.videos * NUM_FRAMES,
            "index_mb": round(sum(f.stat().st_size for f in path.glob("index-*/*")) / 1e6, 1),
            "index_written_seconds": round(index_seconds, 1),
            **json.loads(done.stdout),
        }
    print(json.dumps(results, indent=2))
    if arguments.result:
        write_result(arguments.result, "large-store", results)


if __name__ == "__main__":
    main()
