"""The files that videos were made from, kept whole beside them: for decoding on a GPU, or for preparing anew.

originals/ is a series of shards like shards/: each file under its own suffix, then its json. It is keyed by
file, not by video, so that segments of one file keep it once; the index joins the two.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.stores.format import Source, Uint8Array

_SEGMENT = re.compile(r"#([0-9.]+)-([0-9.]+)$")
# What index and sidecars hold of each file, besides its strings, its key frames and where it lies.
NUMBERS = {
    "size": np.int64,
    "crc": np.uint32,
    "width": np.uint32,
    "height": np.uint32,
    "num_frames": np.uint32,
    "rate_num": np.uint32,
    "rate_den": np.uint32,
    "time_base_num": np.uint32,
    "time_base_den": np.uint32,
}
STRINGS = ("suffix", "container", "codec")


@dataclass(frozen=True)
class OriginalFacts:
    """What a reader of the file needs before it opens it.

    Attributes:
        container, codec: FFmpeg's names, such as "mov,mp4,m4a,3gp,3g2,mj2" and "h264".
        width, height: coded pixels, before any rotation on display.
        num_frames: pictures that FFmpeg presents.
        key_frames: which of them, in the order of presentation, decode without the ones before.
        rate: mean pictures a second, as a fraction; 0 / 1 where the file does not tell.
        time_base: seconds a tick of the file's clock, as a fraction.
    """

    container: str
    codec: str
    width: int
    height: int
    num_frames: int
    key_frames: tuple[int, ...]
    rate: tuple[int, int]
    time_base: tuple[int, int]


@dataclass(frozen=True)
class OriginalRecord:
    """One kept file apart from its bytes; `id` is its path under the catalog's root."""

    id: str
    suffix: str
    source: Source
    crc: int
    facts: OriginalFacts

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode("ascii")

    def fits(self, data: memoryview) -> bool:
        """Whether these are the file's bytes."""
        return len(data) == self.source.size and zlib.crc32(data) == self.crc

    @classmethod
    def from_json(cls, text: bytes) -> OriginalRecord:
        """Raises ValueError, KeyError or TypeError when `text` is no record."""
        values = json.loads(text)
        facts = values["facts"]
        for name in ("key_frames", "rate", "time_base"):
            facts[name] = tuple(facts[name])
        return cls(**{**values, "source": Source(**values["source"]), "facts": OriginalFacts(**facts)})

    def number(self, name: str) -> int:
        """The value of one of NUMBERS."""
        if name in ("size", "crc"):
            return self.source.size if name == "size" else self.crc
        fraction = name.removesuffix("_num").removesuffix("_den")
        if fraction in ("rate", "time_base"):
            pair: tuple[int, int] = getattr(self.facts, fraction)
            return pair[name.endswith("_den")]
        return int(getattr(self.facts, name))


@dataclass(frozen=True)
class Original:
    """A kept file.

    Attributes:
        data: its bytes, checked, uint8.
        facts: what is in them.
        suffix: of its name, without the dot.
        start_s, end_s: the video's segment of it; None: all of it.
        shard, offset: where the bytes lie, for readers that open files themselves.
    """

    data: Uint8Array
    facts: OriginalFacts
    suffix: str
    start_s: float | None
    end_s: float | None
    shard: Path
    offset: int


def segment_of(video_id: str) -> tuple[str, float | None, float | None]:
    """The id of the file that a video is from, and its segment of it in seconds."""
    found = _SEGMENT.search(video_id)
    if found is None:
        return video_id, None, None
    try:
        return video_id[: found.start()], float(found[1]), float(found[2])
    except ValueError:
        return video_id, None, None


class Originals:
    """The reading side: what an index says of kept files.

    Args:
        folder: where their shards are.
        load: an array of the index by name.
        summary: index.json.
    """

    def __init__(
        self, folder: Path, load: Callable[[str], npt.NDArray[Any]], summary: dict[str, Any]
    ) -> None:
        self.row_N = load("original_row")
        names = (*NUMBERS, *STRINGS, "data_offset", "shard", "key_frames", "key_ends")
        self._columns = {name: load(f"original_{name}") for name in names}
        self._kinds: dict[str, list[str]] = {name: summary[f"original_{name}s"] for name in STRINGS}
        self._shards = [folder / name for name in summary["original_shards"]]

    def __len__(self) -> int:
        return len(self._columns["size"])

    @property
    def num_bytes(self) -> int:
        """Of all kept files."""
        return int(self._columns["size"].sum())

    def place(self, row: int) -> tuple[Path, int, int]:
        """Where a kept file lies: its shard, its first byte there, and how many there are."""
        shard = self._shards[int(self._columns["shard"][row])]
        return shard, int(self._columns["data_offset"][row]), int(self._columns["size"][row])

    def facts(self, row: int) -> OriginalFacts:
        """Of a kept file."""
        value = {name: int(self._columns[name][row]) for name in (*NUMBERS, *STRINGS)}
        ends = self._columns["key_ends"]
        first = int(ends[row - 1]) if row else 0
        return OriginalFacts(
            self._kinds["container"][value["container"]],
            self._kinds["codec"][value["codec"]],
            value["width"],
            value["height"],
            value["num_frames"],
            tuple(self._columns["key_frames"][first : int(ends[row])].tolist()),
            (value["rate_num"], value["rate_den"]),
            (value["time_base_num"], value["time_base_den"]),
        )

    def read(self, row: int, video_id: str) -> Original:
        """A kept file, of which the video is all or a segment. Raises ValueError saying what is wrong."""
        shard, offset, size = self.place(row)
        try:
            with shard.open("rb", buffering=0) as file:
                file.seek(offset)
                data = np.fromfile(file, dtype=np.uint8, count=size)
        except OSError as error:
            raise ValueError(f"cannot read {shard}: {error.strerror}") from None
        if len(data) < size:
            raise ValueError(f"{shard.name} ends before its original file does")
        if zlib.crc32(data.data) != int(self._columns["crc"][row]):
            raise ValueError("its original file does not match its checksum")
        data.flags.writeable = False
        suffix = self._kinds["suffix"][int(self._columns["suffix"][row])]
        _, start_s, end_s = segment_of(video_id)
        return Original(data, self.facts(row), suffix, start_s, end_s, shard, offset)
