"""The clip store's reader: any picture of any video as checked bytes, no Python object a video.

Nothing is written and nothing locked: a store may lie on a read-only or network file system, and be prepared
further while it is read.
"""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.stores import ivf
from slicfast.data.stores.files import PlacedArray, PlacedFile, damaged, load_array
from slicfast.data.stores.format import (
    ORIGINALS,
    SHARDS,
    Int32Array,
    StoreHeader,
    StoreSettings,
    Uint8Array,
    Uint32Array,
    unpack_strings,
)
from slicfast.data.stores.original import Original, Originals
from slicfast.data.stores.parts import Cut, DamagedClip, Layout
from slicfast.data.stores.sealing import unseal
from slicfast.errors import ConfigError, DataError, one_of

__all__ = ["ClipStore", "Cut", "DamagedClip", "Layout", "StoreSettings"]


class ClipStore:
    """A finished clip store, opened for reading; its N rows are in order of video id.

    Opening reads and checks what the index says of each video, about 100 bytes; what it says of each picture
    stays on the disk until it is asked for. Copies in other processes are made from the path (pickle).

    Attributes:
        path: the store's folder.
        settings: how its videos were made.
        num_frames: (N,) uint32, pictures of each video.
        width, height: (N,) uint32, stored pixels.
        fps: (N,) float32, pictures a second.
        label_ids: (N,) int32 into `label_names`, -1 without a label.
        label_names: the classes, sorted.
        splits: names of the splits.
        originals: the files that videos were made from; None where none is kept.

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
    originals: Originals | None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for attempt in (1, 2):
            try:
                self._open()
                return
            except OSError as error:
                if attempt == 1:  # a prepare may have swapped the index between two of our reads
                    continue
                what = "lacks" if isinstance(error, FileNotFoundError) else f"cannot read ({error.strerror})"
                raise DataError(
                    f"the clip store at {self.path} {what} {error.filename or self._index};"
                    " run 'slicfast prepare' again"
                ) from None

    def _open(self) -> None:
        header = StoreHeader.read(self.path)
        if header.index is None:
            raise DataError(
                f"the clip store at {self.path} is not finished; run the same 'slicfast prepare' again"
            )
        self.settings = header.settings
        self._index = self.path / header.index
        try:
            summary = unseal((self._index / "index.json").read_bytes())
            self.label_names = tuple(summary["label_names"])
            files: dict[str, str] = summary["splits"]
            crcs: dict[str, int] = summary.get("crcs", {})  # absent from early stores
            self._shard_names: list[str] = summary["shards"]
            self._len = int(summary["num_videos"])
        except (ValueError, KeyError, TypeError):
            raise damaged(self._index / "index.json") from None

        def load(file: str) -> Any:
            return load_array(self._index / file, crcs.get(file))

        # Loaded now: a later prepare replaces the index under a run that has it open.
        self.splits = tuple(files)
        self._split_rows = {name: load(file) for name, file in files.items()}
        for name in ("num_frames", "width", "height", "fps", "label_ids"):
            setattr(self, name, self._of_every_video(name, load(f"{name}.npy")))
        self._shard = self._of_every_video("shard", load("shard.npy"))
        self._data_offset = self._of_every_video("data_offset", load("data_offset.npy"))
        self._first_frame = load("first_frame.npy")
        self._id_blob = load("id_blob.npy")
        self._id_offsets = load("id_offsets.npy")
        if not len(self._first_frame) == len(self._id_offsets) == self._len + 1:
            raise damaged(self._index)
        total = int(self._first_frame[-1])
        self._frame_ends = PlacedArray(self._index / "frame_ends.npy", total, np.uint32)
        self._frame_crcs = PlacedArray(self._index / "frame_crcs.npy", total, np.uint32)
        self._shards: dict[int, PlacedFile] = {}
        self.originals = None
        if "original_shards" in summary:
            self.originals = Originals(self.path / ORIGINALS, lambda name: load(f"{name}.npy"), summary)

    def _of_every_video(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if array.shape != (self._len,):
            raise damaged(self._index / f"{name}.npy")
        return array

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
        blob: bytes = self._id_blob[int(self._id_offsets[video]) : int(self._id_offsets[video + 1])].tobytes()
        return blob

    def ids(self, videos: npt.ArrayLike | None = None) -> list[str]:
        """The ids of some rows, of all without an argument."""
        if videos is None:
            return unpack_strings(self._id_blob, self._id_offsets)
        rows = np.asarray(videos)
        if len(rows) <= self._len // 16:
            return [self.id(row) for row in rows.tolist()]
        if rows.min() < 0 or rows.max() >= self._len:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store of {self._len} videos")
        whole = self._id_blob.tobytes()  # many: joined offsets are far quicker than one look-up each
        starts, ends = self._id_offsets[rows].tolist(), self._id_offsets[rows + 1].tolist()
        return [whole[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]

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
        """JPEG bytes of some pictures of a video, read-only uint8 arrays.

        Raises:
            DamagedClip: a picture's checksum is wrong, or it cannot be read.
            IndexError: a row or picture that the store never had.
            ValueError: the store holds VP9, whose pictures do not stand alone; see `cut`.
        """
        if self.settings.codec != "jpeg":
            raise ValueError(
                f"the clip store at {self.path} holds {self.settings.codec}, no single pictures;"
                f" use '{'cut' if self.settings.codec == 'vp9' else 'film'}'"
            )
        return self._pictures(int(video), np.asarray(indices, dtype=np.int64).reshape(-1).tolist())

    def cut(self, video: int, indices: npt.ArrayLike) -> Cut:
        """The packets of a VP9 video that some of its pictures need: from the key frame before each, no more.

        Raises: as `frames`; ValueError for a JPEG store.
        """
        if self.settings.codec != "vp9":
            raise ValueError(
                f"the clip store at {self.path} holds {self.settings.codec}, no VP9;"
                f" use '{'frames' if self.settings.codec == 'jpeg' else 'film'}'"
            )
        video, interval = int(video), self.settings.key_interval
        indices_T = np.asarray(indices, dtype=np.int64)
        last: dict[int, int] = {}  # of each run of pictures between key frames, the last that is needed
        for index in indices_T.tolist():
            last[index // interval] = max(index, last.get(index // interval, 0))
        needed = [n for run, end in sorted(last.items()) for n in range(run * interval, end + 1)]
        pictures = self._pictures(video, needed)
        pieces = [
            picture[ivf.HEADER_BYTES if n == 0 else 0 :] for n, picture in zip(needed, pictures, strict=True)
        ]
        header = ivf.file_header(
            int(self.width[video]), int(self.height[video]), len(needed), float(self.fps[video])
        )
        data = np.concatenate([np.frombuffer(header, dtype=np.uint8), *pieces])
        return Cut(data, np.searchsorted(needed, indices_T).astype(np.int32))

    def film(self, video: int, root: Path | None = None) -> Path:
        """The file that a scanned video is, in the folder that was scanned or another copy of it.

        Raises: as `frames`; ValueError for a store that holds pictures.
        """
        if self.settings.codec != "files":
            raise ValueError(f"the clip store at {self.path} holds {self.settings.codec}, no files' places")
        (head,) = self._pictures(int(video), [0])
        return Path(root or self.settings.root or "/") / os.fsdecode(head[:-2].tobytes())

    def original(self, video: int) -> Original:
        """The file that a video was made from, where it was kept ('slicfast prepare --keep-original').

        Raises:
            DamagedClip: it cannot be read, or its checksum is wrong.
            DataError: it was not kept.
        """
        video = int(video)
        row = -1 if self.originals is None else int(self.originals.row_N[video])
        if self.originals is None or row < 0:
            raise DataError(
                f"the clip store at {self.path} does not keep the original of '{self.id(video)}';"
                " run the same 'slicfast prepare' with --keep-original"
            )
        try:
            return self.originals.read(row, self.id(video))
        except ValueError as error:
            raise DamagedClip(self.id(video), -1, str(error)) from None

    def layout(self, video: int) -> Layout:
        """Where a video's bytes lie. Raises DamagedClip where the index cannot tell."""
        video = int(video)
        bounds, crcs = self._bounds(video, 0, int(self.num_frames[video]))
        shard = self.path / SHARDS / self._shard_names[int(self._shard[video])]
        return Layout(shard, int(self._data_offset[video]), bounds, crcs)

    def size(self, video: int) -> int:
        """Stored bytes of a video. Raises DamagedClip where the index cannot tell."""
        last = int(self.num_frames[video]) - 1
        return self._bounds(int(video), last, last + 1)[0][-1]

    def stored_order(self) -> npt.NDArray[np.int64]:
        """(N,) rows in the order in which their bytes lie in the shards."""
        return np.lexsort((self._data_offset, self._shard))

    def _pictures(self, video: int, wanted: list[int]) -> list[Uint8Array]:
        """The stored bytes of some pictures, each checked against its checksum."""
        if not wanted:
            return []
        first, last, num_frames = min(wanted), max(wanted), int(self.num_frames[video])
        if first < 0 or last >= num_frames:
            raise IndexError(
                f"frame {first if first < 0 else last} of '{self.id(video)}', which has {num_frames}"
            )
        bounds, crcs = self._bounds(video, first, last + 1)
        start, size = bounds[0], bounds[-1] - bounds[0]
        # One read for the whole stretch where most of it is wanted.
        is_dense = last - first < 2 * len(wanted)
        stretch = self._bytes(video, start, size) if is_dense else None
        frames = []
        for index in wanted:
            low, high = bounds[index - first], bounds[index - first + 1]
            if stretch is not None:
                frame = stretch[low - start : high - start]
            else:
                frame = self._bytes(video, low, high - low)
            if zlib.crc32(frame.data) != crcs[index - first]:
                raise DamagedClip(self.id(video), index, "the stored bytes do not match their checksum")
            frames.append(frame)
        return frames

    def _bounds(self, video: int, first: int, stop: int) -> tuple[list[int], list[int]]:
        """Where pictures first to stop begin and end within their video, and the checksum of each."""
        row = int(self._first_frame[video])
        try:
            ends = self._frame_ends.read(row + first - (first > 0), row + stop).tolist()
            crcs = self._frame_crcs.read(row + first, row + stop).tolist()
        except OSError as error:
            raise DamagedClip(self.id(video), -1, f"cannot read its index: {error.strerror}") from None
        bounds = ends if first else [0, *ends]
        if any(high <= low for low, high in itertools.pairwise(bounds)):
            raise DamagedClip(self.id(video), -1, "its index is damaged")
        return bounds, crcs

    def _bytes(self, video: int, start: int, size: int) -> Uint8Array:
        """Some of the stored bytes of a video, or fewer where the shard ends early."""
        number = int(self._shard[video])
        try:
            shard = self._shards.get(number)
            if shard is None:
                path = self.path / SHARDS / self._shard_names[number]
                shard = self._shards[number] = PlacedFile(path)
            data = shard.read(int(self._data_offset[video]) + start, size)
        except OSError as error:
            name = self._shard_names[number]
            raise DamagedClip(self.id(video), -1, f"cannot read {name}: {error.strerror}") from None
        if len(data) < size:
            raise DamagedClip(self.id(video), -1, f"{shard.path.name} ends before its pictures do")
        return data
