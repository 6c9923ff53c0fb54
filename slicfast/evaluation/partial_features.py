"""Features under way: what `slicfast embed` has done so far, beside its output, so that a kill costs little.

<output>.partial/settings.json  what makes the vectors; another command's parts are not mixed in
<output>.partial/features.bin   vectors, appended
<output>.partial/videos.jsonl   a line a video, appended after its vectors: only now it counts as done
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.errors import ConfigError, RunError
from slicfast.evaluation.features_file import VIDEO_COLUMNS, FeaturesFile, FeatureTable, write_features
from slicfast.records import machine_error, write_text

SYNC_S = 10.0  # a crash of the machine loses so many seconds of work, one of the program nothing
NO_SETTINGS = ("checkpoint", "slicfast")  # of the metadata: may differ without any other vectors coming out


@dataclass(frozen=True)
class Entry:
    """What became of a video: its rows in features.bin, or the reason why there are none."""

    id: str
    first: int = 0
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    fps: float = 0.0
    num_frames: int = 0
    source_size: int = 0
    source_mtime_ns: int = 0
    reason: str = ""


def partial_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def require_same_settings(known: dict[str, Any], wanted: dict[str, Any], where: Path, advice: str) -> None:
    """Raise ConfigError naming the first setting in which vectors there were made otherwise."""
    for key in sorted((wanted.keys() | known.keys()) - set(NO_SETTINGS)):
        if wanted.get(key) != known.get(key):
            raise ConfigError(
                f"{where} holds features with {key} {known.get(key)}, not {wanted.get(key)}; {advice}"
            )


def entries_of(table: FeatureTable) -> Iterator[Entry]:
    """The entries of a finished file. What was left out has no source, so that it is tried again."""
    first_V = np.searchsorted(table.video_N, np.arange(len(table.ids) + 1))
    for number, video_id in enumerate(table.ids):
        rows = slice(int(first_V[number]), int(first_V[number + 1]))
        facts = {name: table.videos[name][number].item() for name in VIDEO_COLUMNS}
        start_s, end_s = table.start_s_N[rows].tolist(), table.end_s_N[rows].tolist()
        yield Entry(video_id, rows.start, start_s, end_s, **facts)
    for video_id, reason in table.left_out.items():
        yield Entry(video_id, reason=reason)


class PartialFeatures:
    """Opens or makes the folder beside ``output``, alone; use it as a context manager.

    Attributes:
        entries: by id, of this run and of earlier ones, the finished output included.

    Raises:
        ConfigError: the output or what is under way was made with other settings.
        RunError: another process is at it.
    """

    def __init__(self, output: Path, meta: dict[str, Any], dim: int) -> None:
        self.output, self.meta, self.dim = output, meta, dim
        self.folder = partial_folder(output)
        self.entries: dict[str, Entry] = {}
        self._num_rows = 0
        self._synced = time.monotonic()
        finished = FeaturesFile(output) if output.exists() else None
        if finished is not None:
            require_same_settings(finished.table.meta, meta, output, "choose another file or remove it")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise machine_error(error, self.folder) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunError(f"another `slicfast embed` is writing {output}; wait for it to end") from None
        settings = self.folder / "settings.json"
        if settings.exists():
            known = json.loads(settings.read_text(encoding="utf-8"))
            require_same_settings(known, meta, self.folder, "go on with those, or remove that folder")
        else:
            write_text(settings, json.dumps(meta, indent=2) + "\n")
        self._open()
        if finished is not None and not self.entries:
            self._take_over(finished)

    def _open(self) -> None:
        """Read what is whole, cut off what a kill left behind it."""
        lines = self.folder / "videos.jsonl"
        whole = 0
        self._bin = (self.folder / "features.bin").open("ab")
        bytes_there = self._bin.tell()
        if lines.exists():
            with lines.open("rb") as stream:
                for line in stream:
                    try:
                        entry = Entry(**json.loads(line)) if line.endswith(b"\n") else None
                    except (ValueError, TypeError):
                        entry = None
                    if entry is None or 4 * self.dim * (entry.first + len(entry.start_s)) > bytes_there:
                        break
                    whole += len(line)
                    self.entries[entry.id] = entry
                    self._num_rows = max(self._num_rows, entry.first + len(entry.start_s))
        self._lines = lines.open("ab")
        self._lines.truncate(whole)
        self._bin.truncate(4 * self.dim * self._num_rows)

    def _take_over(self, finished: FeaturesFile) -> None:
        """Begin with what the output already holds; its vectors are copied a block at a time."""
        for _, block in finished.blocks():
            self._bin.write(block.tobytes())
        for entry in entries_of(finished.table):
            self._append(entry)
        self._num_rows = finished.num_rows

    def add(self, entry: Entry, features_RD: npt.NDArray[np.float32]) -> None:
        """Take a video's vectors; ``entry.first`` is set here. Raises MachineError on a full disk."""
        entry = Entry(**{**asdict(entry), "first": self._num_rows})
        try:
            if len(features_RD):
                self._bin.write(np.ascontiguousarray(features_RD, dtype="<f4").data)
                self._bin.flush()
            self._append(entry)
            self._lines.flush()
            if time.monotonic() - self._synced > SYNC_S:
                self._sync()
        except OSError as error:
            raise machine_error(error, self.folder) from error
        self._num_rows += len(features_RD)

    def _append(self, entry: Entry) -> None:
        self._lines.write((json.dumps(asdict(entry)) + "\n").encode())
        self.entries[entry.id] = entry

    def _sync(self) -> None:
        for stream in (self._bin, self._lines):  # vectors first: a line must not outlive them
            stream.flush()
            os.fsync(stream.fileno())
        self._synced = time.monotonic()

    def join(self, ids: Sequence[str]) -> None:
        """Write the output, its videos in the order of ``ids``, then remove the folder."""
        self._sync()
        kept = [self.entries[video_id] for video_id in ids if not self.entries[video_id].reason]
        counts = np.array([len(entry.start_s) for entry in kept], dtype=np.int64)
        place_N = np.concatenate(
            [np.arange(entry.first, entry.first + len(entry.start_s)) for entry in kept]
        ).astype(np.int64)
        floats, whole = np.float64, np.int64
        table = FeatureTable(
            meta=self.meta,
            ids=[entry.id for entry in kept],
            video_N=np.repeat(np.arange(len(kept), dtype=np.int32), counts),
            start_s_N=np.concatenate([np.array(entry.start_s, dtype=floats) for entry in kept]),
            end_s_N=np.concatenate([np.array(entry.end_s, dtype=floats) for entry in kept]),
            videos={
                name: np.array(
                    [getattr(e, name) for e in kept], dtype=floats if name in ("duration_s", "fps") else whole
                )
                for name in VIDEO_COLUMNS
            },
            left_out={i: self.entries[i].reason for i in ids if self.entries[i].reason},
        )
        bank = np.memmap(self.folder / "features.bin", dtype="<f4", mode="r").reshape(-1, self.dim)

        def rows(first: int, last: int) -> npt.NDArray[np.float32]:
            return np.asarray(bank[place_N[first:last]])

        write_features(self.output, table, self.dim, rows)
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        for stream in (self._bin, self._lines, self._lock):
            stream.close()

    def __enter__(self) -> PartialFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
