"""What reader and writer of a clip store agree on: names, settings, one video's record, strings, tar members.

store.json              format, version, settings, name of the current index folder (null: not finished)
shards/shard-00000.tar  for each video NNNNNNNN.mjpg (JPEG pictures joined end to end) or NNNNNNNN.ivf (VP9),
                        or NNNNNNNN.film (a scanned file: where it lies, its key frames), then NNNNNNNN.json
shards/shard-00000.npz  the same records as arrays; written when the shard is closed
originals/shard-00000.* the same of the files that the videos were made from, where they are kept
index-000001/*.npy      the records of all shards in order of id
left_out.tsv            videos that could not be stored, with the reason

docs/store.md has the whole of it on a page.
"""

from __future__ import annotations

import itertools
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from slicfast.data.stores.sealing import sealed, unseal
from slicfast.errors import ConfigError, DataError, one_of

FORMAT = "slicfast-store"
VERSIONS = {"jpeg": 1, "vp9": 2, "files": 3}  # by codec: older readers know the earlier ones
HEADER = "store.json"
SHARDS = "shards"
ORIGINALS = "originals"
TMP = "tmp"
LOCK = ".lock"
LEFT_OUT = "left_out.tsv"
BLOCK = 512  # bytes; tar's unit

Uint8Array = npt.NDArray[np.uint8]
Uint32Array = npt.NDArray[np.uint32]
Int32Array = npt.NDArray[np.int32]
AnyArray = npt.NDArray[Any]


SUFFIXES = {
    "jpeg": "mjpg",
    "vp9": "ivf",
    "files": "film",
}  # codecs, and what the names of their members end in
_OF_CODEC = {
    "jpeg": ("quality",),
    "vp9": ("crf", "key_interval"),
    "files": ("root",),
}  # settings that only one codec has


@dataclass(frozen=True)
class StoreSettings:
    """How videos are stored; one store holds one setting.

    Attributes:
        short_side: pixels; smaller videos keep their size.
        quality: of JPEG, 1-100.
        fps: pictures a second, None to keep each video's own pictures.
        codec: "jpeg": every picture on its own, the cheapest to read; "vp9": several times smaller; "files":
            nothing but where the original files lie and which of their pictures are key frames.
        crf: of VP9, 0-63, smaller is better.
        key_interval: of VP9: pictures 0, key_interval, 2 key_interval ... decode without the ones before.
        root: of files: the folder in which they lie.
        content: "pictures", or "flow-u" or "flow-uv" for the optical flow between them (`flow.py`).
    """

    short_side: int = 128
    quality: int = 90
    fps: float | None = None
    codec: str = "jpeg"
    crf: int = 26
    key_interval: int = 8
    content: str = "pictures"
    root: str | None = None

    def __post_init__(self) -> None:
        if self.codec not in SUFFIXES:
            raise ConfigError(one_of("codec", self.codec, tuple(SUFFIXES)))
        if self.short_side < 8:
            raise ConfigError(f"short_side must be at least 8 pixels; got {self.short_side}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be between 1 and 100; got {self.quality}")
        if not 0 <= self.crf <= 63:
            raise ConfigError(f"crf must be between 0 and 63; got {self.crf}")
        if not 1 <= self.key_interval <= 1000:
            raise ConfigError(f"key_interval must be between 1 and 1000 pictures; got {self.key_interval}")
        if self.codec == "files" and self.fps is not None:
            raise ConfigError(
                "codec files keeps each video's own pictures; leave out fps, or choose another codec"
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must be above 0 and at most 1000; got {self.fps}")

    @classmethod
    def of(cls, given: dict[str, Any]) -> StoreSettings:
        """Settings from those that were given. Raises ConfigError for one that the codec does not have."""
        settings = cls(**given)
        for name in settings._foreign().intersection(given):
            raise ConfigError(f"{name} is no setting of codec {settings.codec}; leave it out")
        return settings

    def _foreign(self) -> set[str]:
        return {name for codec, names in _OF_CODEC.items() if codec != self.codec for name in names}

    @property
    def suffix(self) -> str:
        """What the name of a video's member ends in."""
        return SUFFIXES[self.codec]

    def to_dict(self) -> dict[str, Any]:
        """The settings that matter here; the usual codec and content are not named, as in older stores."""
        others = self._foreign() | ({"codec"} if self.codec == "jpeg" else set())
        others |= {"content"} if self.content == "pictures" else set()
        return {name: value for name, value in asdict(self).items() if name not in others}

    def __str__(self) -> str:
        fps = "the videos' own fps" if self.fps is None else f"{self.fps:g} fps"
        how = f"quality {self.quality}" if self.codec == "jpeg" else f"files in {self.root}"
        if self.codec == "vp9":
            how = f"VP9 of crf {self.crf}, a key frame every {self.key_interval}"
        what = "" if self.content == "pictures" else f"{self.content}, "
        return f"{what}short side {self.short_side}, {how}, {fps}"


@dataclass(frozen=True)
class Source:
    """What a video was made from, to notice when the file changes."""

    size: int = 0  # bytes
    mtime_ns: int = 0
    fingerprint: int = 0  # checksum of the file's contents
    width: int = 0  # pixels as displayed
    height: int = 0


@dataclass(frozen=True)
class VideoRecord:
    """One stored video apart from its pictures: what the json member beside them holds.

    Attributes:
        sizes: bytes of each picture as stored, in order: a JPEG, or a VP9 packet with its IVF frame header,
            the first one with the file header too.
        crcs: CRC-32 of each.
        damage: what was wrong with the source although pictures came out of it; empty when sound.
    """

    id: str
    label: str | None
    fps: float
    width: int
    height: int
    sizes: Sequence[int]
    crcs: Sequence[int]
    source: Source = field(default_factory=Source)
    damage: str = ""

    def to_json(self) -> bytes:
        values = asdict(self)
        values["sizes"] = [int(size) for size in self.sizes]
        values["crcs"] = [int(crc) for crc in self.crcs]
        return json.dumps(values).encode("ascii")

    def fits(self, data: memoryview) -> bool:
        """Whether these are its pictures, checksums included."""
        start = 0
        for size, crc in zip(self.sizes, self.crcs, strict=True):
            if zlib.crc32(data[start : start + size]) != crc:
                return False
            start += size
        return start == len(data)

    @classmethod
    def from_json(cls, text: bytes) -> VideoRecord:
        """Raises ValueError, KeyError or TypeError when `text` is no record."""
        values = json.loads(text)
        return cls(**{**values, "source": Source(**values["source"])})


def pack_strings(strings: Sequence[str]) -> tuple[Uint8Array, npt.NDArray[np.uint64]]:
    """UTF-8 bytes joined (uint8), and (len + 1,) uint64 offsets into them.

    Lone surrogates (file names that are not UTF-8) pass, and byte order is the order of Python's strings.
    """
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    offsets = np.zeros(len(encoded) + 1, dtype=np.uint64)
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def unpack_strings(blob: Uint8Array, offsets: npt.NDArray[np.uint64]) -> list[str]:
    """The strings that pack_strings joined."""
    whole = blob.tobytes()
    bounds = offsets.tolist()
    return [whole[start:end].decode("utf-8", "surrogatepass") for start, end in itertools.pairwise(bounds)]


def tar_header(name: str, size: int) -> bytes:
    """One ustar header; the time is fixed so that equal videos give equal shards."""
    info = tarfile.TarInfo(name=name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> int:
    """Bytes from `size` to the end of its last tar block."""
    return -size % BLOCK


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file whole: written beside it, synced, then renamed."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@dataclass(frozen=True)
class StoreHeader:
    """The contents of store.json."""

    settings: StoreSettings
    index: str | None = None  # name of the current index folder

    def write(self, store: Path) -> None:
        values = {
            "format": FORMAT,
            "version": VERSIONS[self.settings.codec],
            "settings": self.settings.to_dict(),
            "index": self.index,
        }
        write_atomically(store / HEADER, lambda file: file.write(sealed(values, indent=2)))

    @classmethod
    def read(cls, store: Path) -> StoreHeader:
        """Raises DataError where there is no store, no readable one, or one of another version."""
        try:
            text = (store / HEADER).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            found = "a folder without store.json" if store.is_dir() else "nothing"
            if store.is_file():
                found = "a file"
            raise DataError(
                f"no clip store at {store} (found {found}); make one with 'slicfast prepare'"
            ) from None
        except OSError as error:
            raise DataError(f"cannot read the clip store at {store}: {error.strerror}") from None
        try:
            values = json.loads(text)
            known = values["format"] == FORMAT
            version = values["version"]
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise DataError(f"{store / HEADER} does not describe a clip store; prepare into another folder")
        if version not in VERSIONS.values():
            raise DataError(
                f"the clip store at {store} has version {version}, this slicfast reads versions"
                f" {min(VERSIONS.values())} to {max(VERSIONS.values())}; prepare it again into a new folder"
            )
        try:
            values = unseal(text)
            return cls(StoreSettings(**values["settings"]), values["index"])
        except (ValueError, KeyError, TypeError, ConfigError):
            raise DataError(
                f"{store / HEADER} is damaged; prepare the store again into a new folder"
            ) from None
