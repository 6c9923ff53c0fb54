"""A store's clips by reads at places and from a memory map: what not being killed by SIGBUS costs.

python benchmarks/store_reading.py [benchmarks/results/<machine>-<date>-store-reading.json]
"""

from __future__ import annotations

import mmap
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slicfast.bench.harness import quartiles, write_result
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreWriter, VideoRecord

PICTURE_BYTES = 5000
NUM_VIDEOS, NUM_PICTURES, CLIP = 20, 200, 16
REPETITIONS = 15

Read = Callable[[int, npt.NDArray[np.int64]], object]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        store = make_store(Path(name) / "store")
        by_map = mapped(store)
        clips = [
            (v, np.arange(k, k + CLIP)) for v in range(NUM_VIDEOS) for k in range(0, NUM_PICTURES - CLIP, 2)
        ]
        for video, indices in clips[:50]:
            assert all(map(np.array_equal, store.frames(video, indices), by_map(video, indices)))
        reads: dict[str, Read] = {"pread": store.frames, "mmap": by_map}
        times: dict[str, list[float]] = {way: [] for way in reads}
        for _ in range(REPETITIONS):
            for way, read in reads.items():
                started = time.process_time()
                for video, indices in clips:
                    read(video, indices)
                times[way].append((time.process_time() - started) / len(clips) * 1e6)
    results = {
        "clips": len(clips),
        "pictures_a_clip": CLIP,
        "bytes_a_picture": PICTURE_BYTES,
        "cpu_us_a_clip": {
            way: {"median": statistics.median(values), "quartiles": quartiles(values)}
            for way, values in times.items()
        },
    }
    print(results)
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "store_reading", results)


def make_store(path: Path) -> ClipStore:
    """Bytes instead of pictures: reading looks at checksums alone."""
    generator = np.random.default_rng(0)
    with StoreWriter(path) as writer:
        for number in range(NUM_VIDEOS):
            pictures = [generator.bytes(PICTURE_BYTES) for _ in range(NUM_PICTURES)]
            sizes, crcs = [PICTURE_BYTES] * NUM_PICTURES, [zlib.crc32(picture) for picture in pictures]
            record = VideoRecord(f"{number:02d}.avi", None, 25.0, 24, 16, sizes, crcs)
            writer.add(record, b"".join(pictures))
        writer.finish({}, {})
    return ClipStore(path)


def mapped(store: ClipStore) -> Read:
    """The same from memory maps of the shard and of the index, checksums included."""
    (shard,) = (store.path / "shards").glob("*.tar")
    (index,) = store.path.glob("index-*")
    with shard.open("rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    ends, crcs, offsets, firsts = (
        np.load(index / f"{name}.npy", mmap_mode="r").view(np.ndarray)
        for name in ("frame_ends", "frame_crcs", "data_offset", "first_frame")
    )

    def read(video: int, indices: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
        offset, first = int(offsets[video]), int(firsts[video])
        pictures = []
        for index in indices.tolist():
            start = offset + (int(ends[first + index - 1]) if index else 0)
            picture = data[start : offset + int(ends[first + index])]
            if zlib.crc32(picture.data) != int(crcs[first + index]):
                raise ValueError("damaged")
            pictures.append(picture)
        return pictures

    return read


if __name__ == "__main__":
    main()
