"""The clip store's reader: any picture of any video as bytes in a memory map, no Python object a video."""

from __future__ import annotations

import json
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data import ivf
from slicfast.data.store_format import (
    SHARDS,
    AnyArray,
    Int32Array,
    StoreHeader,
    StoreSettings,
    Uint8Array,
    Uint32Array,
)
from slicfast.errors import ConfigError, DataError, one_of

__all__ = ["ClipStore", "Cut", "DamagedClip", "StoreSettings"]


class DamagedClip(DataError):
    """A stored picture that cannot be trusted.

    Attributes:
        video_id: the video's id.
        frame: which of its pictures, -1 where it is not one picture's fault.
        reason: what is wrong.
    """

    def __init__(self, video_id: str, frame: int, reason: str) -> None:
        where = f"frame {frame} of '{video_id}'" if frame >= 0 else f"'{video_id}'"
        super().__init__(f"{where}: {reason}")
        self.video_id = video_id
        self.frame = frame
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedClip], tuple[str, int, str]]:
        return DamagedClip, (self.video_id, self.frame, self.reason)


@dataclass(frozen=True)
class Cut:
    """What of a VP9 video decodes to some of its pictures.

    Attributes:
        data: an IVF file that begins with a key frame.
        frames: (T,) int32, which of the file's pictures are the ones asked for, in the order asked.
    """

    data: Uint8Array
    frames: Int32Array


class ClipStore:
    """A finished clip store, opened for reading; its N rows are in order of video id.

    Opening maps files and reads none of them; copies in other processes are made from the path (pickle).

    Attributes:
        path: the store's folder.
        settings: how its videos were made.
        num_frames: (N,) uint32, pictures of each video.
        width, height: (N,) uint32, stored pixels.
        fps: (N,) float32, pictures a second.
        label_ids: (N,) int32 into `label_names`, -1 without a label.
        label_names: the classes, sorted.
        splits: names of the splits.

    Raises:
        DataError: no store there, one that was never finished, or one made by another version.
    """

    path: Path
    settings: StoreSettings
    num_frames: Uint32Array
    width: Uint32Array
    height: Uint32Array
    fps: npt.NDArray[np.float32]
    label_ids: Int32Array
    label_names: tuple[str, ...]
    splits: tuple[str, ...]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._open()
        except FileNotFoundError:
            try:  # a prepare may have swapped the index between two of our reads
                self._open()
            except FileNotFoundError as error:
                raise DataError(
                    f"the clip store at {self.path} lacks {error.filename}; run 'slicfast prepare' again"
                ) from None

    def _open(self) -> None:
        header = StoreHeader.read(self.path)
        if header.index is None:
            raise DataError(
                f"the clip store at {self.path} is not finished; run the same 'slicfast prepare' again"
            )
        self.settings = header.settings
        self._index = self.path / header.index
        summary = json.loads((self._index / "index.json").read_text(encoding="utf-8"))
        self.label_names = tuple(summary["label_names"])
        files: dict[str, str] = summary["splits"]
        self.splits = tuple(files)
        # Mapped now: a later prepare replaces the index under a run that has it open.
        self._split_rows = {name: self._load(file.removesuffix(".npy")) for name, file in files.items()}
        self._shard_names: list[str] = summary["shards"]
        self._shards: dict[int, Uint8Array] = {}
        self._len = int(summary["num_videos"])
        for name in ("num_frames", "width", "height", "fps", "label_ids"):
            setattr(self, name, self._load(name))
        self._shard = self._load("shard")
        self._data_offset = self._load("data_offset")
        self._first_frame = self._load("first_frame")
        self._frame_ends = self._load("frame_ends")
        self._frame_crcs = self._load("frame_crcs")
        self._id_blob = self._load("id_blob")
        self._id_offsets = self._load("id_offsets")

    def _load(self, name: str) -> AnyArray:
        path = self._index / f"{name}.npy"
        try:
            array: AnyArray = np.load(path, mmap_mode="r", allow_pickle=False)
            return array.view(np.ndarray)  # a memmap's slices cost several times a plain array's
        except ValueError:
            raise DataError(f"{path} is damaged; run the same 'slicfast prepare' again") from None

    def __len__(self) -> int:
        return self._len

    def __repr__(self) -> str:
        return f"ClipStore('{self.path}', {len(self)} videos)"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def id(self, video: int) -> str:
        """The id of a row."""
        return self._id_bytes(int(video)).decode("utf-8", "surrogatepass")

    def _id_bytes(self, video: int) -> bytes:
        if not 0 <= video < self._len:
            raise IndexError(f"row {video} of a store of {self._len} videos")
        return self._id_blob[int(self._id_offsets[video]) : int(self._id_offsets[video + 1])].tobytes()

    def ids(self, videos: npt.ArrayLike | None = None) -> list[str]:
        """The ids of some rows, of all without an argument."""
        rows = range(self._len) if videos is None else np.asarray(videos).tolist()
        return [self.id(row) for row in rows]

    def row(self, id: str) -> int:
        """The row of a video id. Raises DataError where the store does not hold it."""
        wanted = id.encode("utf-8", "surrogatepass")
        low, high = 0, self._len
        while low < high:
            middle = (low + high) // 2
            if self._id_bytes(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == self._len or self._id_bytes(low) != wanted:
            raise DataError(f"the clip store at {self.path} has no video '{id}'")
        return low

    def split(self, name: str) -> Int32Array:
        """(M,) int32 rows of a split, ascending; "a-b" is split a without the videos of split b.

        Raises ConfigError for a name that the store does not have.
        """
        if name in self._split_rows:
            return np.array(self._split_rows[name], dtype=np.int32)
        for dash in (position for position, letter in enumerate(name) if letter == "-"):
            kept, removed = name[:dash], name[dash + 1 :]
            if kept in self._split_rows and removed in self._split_rows:
                return np.setdiff1d(self.split(kept), self.split(removed), assume_unique=True)
        raise ConfigError(f"{one_of('split', name, self.splits)} (or a difference of two, 'a-b')")

    def frames(self, video: int, indices: npt.ArrayLike) -> list[Uint8Array]:
        """JPEG bytes of some pictures of a video: read-only uint8 views into the memory map, no copy.

        Raises:
            DamagedClip: a picture's checksum is wrong, or it lies beyond the end of its shard.
            IndexError: a row or picture that the store never had.
            ValueError: the store holds VP9, whose pictures do not stand alone; see `cut`.
        """
        if self.settings.codec != "jpeg":
            raise ValueError(f"the clip store at {self.path} holds {self.settings.codec}; use 'cut'")
        frames = self._frames(int(video))
        return [frames[index] for index in np.asarray(indices, dtype=np.int64).tolist()]

    def cut(self, video: int, indices: npt.ArrayLike) -> Cut:
        """The packets of a VP9 video that some of its pictures need: from the key frame before each, no more.

        Raises: as `frames`; ValueError for a JPEG store.
        """
        if self.settings.codec != "vp9":
            raise ValueError(f"the clip store at {self.path} holds {self.settings.codec}; use 'frames'")
        video, interval = int(video), self.settings.key_interval
        indices_T = np.asarray(indices, dtype=np.int64)
        frames = self._frames(video)
        last: dict[int, int] = {}  # of each run of pictures between key frames, the last that is needed
        for index in indices_T.tolist():
            last[index // interval] = max(index, last.get(index // interval, 0))
        needed = [n for run, end in sorted(last.items()) for n in range(run * interval, end + 1)]
        pieces = [frames[n][ivf.HEADER_BYTES if n == 0 else 0 :] for n in needed]
        header = ivf.file_header(
            int(self.width[video]), int(self.height[video]), len(needed), float(self.fps[video])
        )
        data = np.concatenate([np.frombuffer(header, dtype=np.uint8), *pieces])
        return Cut(data, np.searchsorted(needed, indices_T).astype(np.int32))

    def _frames(self, video: int) -> _Frames:
        first, num_frames = int(self._first_frame[video]), int(self.num_frames[video])
        ends = self._frame_ends[first : first + num_frames]
        crcs = self._frame_crcs[first : first + num_frames]
        return _Frames(self, video, ends, crcs, self._member(video, int(ends[-1])))

    def _member(self, video: int, size: int) -> Uint8Array:
        """All stored bytes of a video, or fewer where the shard ends early."""
        number = int(self._shard[video])
        shard = self._shards.get(number)
        if shard is None:
            path = self.path / SHARDS / self._shard_names[number]
            try:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
                raise DamagedClip(self.id(video), -1, f"cannot read {path}: {error}") from None
            shard = self._shards[number] = np.frombuffer(mapped, dtype=np.uint8)
        start = int(self._data_offset[video])
        if start + size > len(shard):
            raise DamagedClip(self.id(video), -1, f"{self._shard_names[number]} ends before its pictures do")
        return shard[start : start + size]


@dataclass(frozen=True)
class _Frames:
    """One video's stored pictures; each is checked when it is taken."""

    store: ClipStore
    video: int
    ends: Uint32Array
    crcs: Uint32Array
    data: Uint8Array

    def __getitem__(self, index: int) -> Uint8Array:
        if not 0 <= index < len(self.ends):
            raise IndexError(f"frame {index} of '{self.store.id(self.video)}', which has {len(self.ends)}")
        start = int(self.ends[index - 1]) if index else 0
        frame = self.data[start : int(self.ends[index])]
        if zlib.crc32(frame.data) != int(self.crcs[index]):
            reason = "the stored bytes do not match their checksum"
            raise DamagedClip(self.store.id(self.video), index, reason)
        return frame
