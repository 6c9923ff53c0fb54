"""What exact search costs among a million rows: CPU seconds, wall seconds and memory, by number of queries.

python benchmarks/search.py benchmarks/results/<machine>-<date>-search.json
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slicfast.bench.harness import measure, write_result
from slicfast.evaluation.features_file import (
    FORMAT,
    VERSION,
    VIDEO_COLUMNS,
    FeaturesFile,
    FeatureTable,
    write_features,
)
from slicfast.evaluation.search import search

NUM_ROWS, DIM, ROWS_A_VIDEO = 1_000_000, 512, 10  # windows of 4 s every 2 s
QUERIES = (1, 16, 64)
K = 10


def write_index(path: Path) -> None:
    """Random directions: search costs the same whatever they are."""
    num_videos = NUM_ROWS // ROWS_A_VIDEO
    start_s_N = np.tile(2.0 * np.arange(ROWS_A_VIDEO), num_videos)
    table = FeatureTable(
        {"format": FORMAT, "version": VERSION},
        [f"videos/{number:06d}.mp4" for number in range(num_videos)],
        np.repeat(np.arange(num_videos, dtype=np.int32), ROWS_A_VIDEO),
        start_s_N,
        start_s_N + 4.0,
        {name: np.zeros(num_videos, dtype=np.int64) for name in VIDEO_COLUMNS},
        {},
    )
    generator = np.random.default_rng(0)

    def rows(first: int, last: int) -> npt.NDArray[np.float32]:
        return generator.standard_normal((last - first, DIM), dtype=np.float32)

    write_features(path, table, DIM, rows)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.npz"
        write_index(path)
        before_mb = peak_mb()
        index = FeaturesFile(path)
        results = {
            "rows": NUM_ROWS,
            "dim": DIM,
            "k": K,
            "file_mb": round(path.stat().st_size / 2**20),
            "memory_mb_of_index": round(peak_mb() - before_mb),
            "searches": [],
        }
        generator = np.random.default_rng(1)
        for num in QUERIES:
            queries_QD = generator.standard_normal((num, DIM), dtype=np.float32)
            taken = measure(lambda q=queries_QD: search(index, q, K), num_runs=5, num_warmup=1)
            results["searches"].append(
                {"queries": num, "memory_mb": round(peak_mb() - before_mb), **taken.to_dict()}
            )
            print(
                num,
                f"{taken.cpu_ms / 1e3:.2f} CPU s, {taken.wall_ms / 1e3:.2f} s",
                round(peak_mb() - before_mb),
            )
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "search", results)


if __name__ == "__main__":
    main()
