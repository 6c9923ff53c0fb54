"""Damaged copies of small videos through prepare's worker pool: no traceback, no hang, no growth of memory.

python benchmarks/fuzz_prepare.py [benchmarks/results/<machine>-<date>-fuzz-prepare.json] [--count 1000]
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.bench.harness import cpu_seconds, write_result
from slicfast.bench.mutations import MUTATIONS, mutate, write_videos
from slicfast.data.preparing.source import stat_source
from slicfast.data.preparing.workers import Result, Task, WorkerPool
from slicfast.data.stores.format import StoreSettings

WORKERS = 2
STALL_S, LIMIT_S = 20.0, 60.0
PER_SAMPLE = 100  # videos between two notes of the workers' memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="folder to leave the videos in that were given up")
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slicfast-fuzz-") as name:
        results = fuzz(Path(name), arguments.count, arguments.keep, arguments.first_seed)
    for key, value in results.items():
        print(f"{key}: {value}")
    if arguments.result is not None:
        write_result(arguments.result, "fuzz_prepare", results)


def fuzz(folder: Path, count: int, keep: Path | None = None, first_seed: int = 0) -> dict[str, Any]:
    """Outcomes by codec and mutation, the slowest videos, memory and CPU time of `count` damaged videos."""
    sources = {name: path.read_bytes() for name, path in write_videos(folder / "sound").items()}
    suffixes = {name: next((folder / "sound").glob(f"{name}.*")).suffix for name in sources}
    (folder / "tmp").mkdir()
    given: dict[str, float] = {}
    kinds: dict[str, tuple[str, str]] = {}

    def tasks() -> Iterator[Task]:
        pairs = [(codec, kind) for kind in MUTATIONS for codec in sources]
        for number in range(count):
            codec, kind = pairs[number % len(pairs)]
            path = folder / f"{number:05d}{suffixes[codec]}"
            path.write_bytes(mutate(sources[codec], kind, np.random.default_rng(first_seed + number)))
            if not path.stat().st_size:
                continue
            kinds[path.name], given[path.name] = (codec, kind), time.monotonic()
            yield Task(path.name, path, None, None, None, stat_source(path), StoreSettings())

    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    given_up: dict[str, str] = {}
    started = cpu_seconds(), time.monotonic()
    with _Memory(os.getpid()) as memory, WorkerPool(WORKERS, folder / "tmp", STALL_S, LIMIT_S) as pool:
        for result in pool.run(tasks()):
            if result is None:
                continue
            name = result.task.id
            seconds[name] = time.monotonic() - given[name]
            outcome = _outcome(result)
            for key in ("all", *kinds[name]):
                outcomes[key][outcome] += 1
            if result.record is None:
                reasons[re.sub(r"[0-9.]+", "N", result.reason.partition(" (")[0])[:80]] += 1
            if outcome == "given up":
                given_up[name] = f"{' '.join(kinds[name])}: {result.reason}"
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes((folder / name).read_bytes())
            result.pictures.unlink(missing_ok=True)
            (folder / name).unlink()
            if len(seconds) % PER_SAMPLE == 0:
                memory.note()
        logs = "".join(path.read_text(errors="replace") for path in (folder / "tmp").glob("*.log"))
        num_started = pool.num_started
    slowest = sorted(seconds, key=lambda name: -seconds[name])[:5]
    return {
        "videos": len(seconds),
        "outcomes": {key: dict(sorted(counts.items())) for key, counts in sorted(outcomes.items())},
        "reasons": dict(reasons.most_common(20)),
        "given_up": given_up,
        "tracebacks": logs.count("Traceback"),
        "wrong_pictures": outcomes["all"]["wrong"],
        "slowest_s": {f"{name} {' '.join(kinds[name])}": round(seconds[name], 2) for name in slowest},
        "workers_started": num_started,
        "worker_peak_mb": round(memory.peak_mb),
        "worker_peak_mb_by_hundred": [round(value) for value in memory.notes],
        "cpu_s": round(cpu_seconds() - started[0], 1),
        "wall_s": round(time.monotonic() - started[1], 1),
    }


def _outcome(result: Result) -> str:
    """stored, stored damaged, left out, given up (the process hung or died), or wrong (inconsistent)."""
    if result.record is None:
        gone = ("no progress", "not done", "decoding it ended")
        return "given up" if result.reason.startswith(gone) else "left out"
    data, start = result.pictures.read_bytes(), 0
    for size, crc in zip(result.record.sizes, result.record.crcs, strict=True):
        if zlib.crc32(data[start : start + size]) != crc:
            return "wrong"
        start += size
    return "wrong" if start != len(data) else "stored damaged" if result.record.damage else "stored"


class _Memory:
    """The largest resident size that any child of a process has had, ever and since the last note."""

    def __init__(self, parent: int) -> None:
        self._children = Path(f"/proc/{parent}/task/{parent}/children")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._recent = 0.0
        self.peak_mb = 0.0
        self.notes: list[float] = []

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def note(self) -> None:
        self.notes.append(self._recent)
        self._recent = 0.0

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.wait(0.05):
            for child in self._children.read_text().split():
                try:
                    resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * page / 1e6
                except (OSError, IndexError, ValueError):  # it has just ended
                    continue
                self._recent = max(self._recent, resident)
                self.peak_mb = max(self.peak_mb, resident)


if __name__ == "__main__":
    main()
