"""Clips of the original files (`data.source=files`), from a folder or from where the store keeps them.

Files whose packets bear no sound times (AVI with B-frames, damaged ones) are handed on whole.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slicfast.data.sources.film_cuts import FilmMap, Uncuttable, cut_film, map_film
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import Uint8Array
from slicfast.data.stores.original import segment_of
from slicfast.data.stores.parts import DamagedClip, FilmCut, StoredPictures
from slicfast.errors import ConfigError, DataError

MAX_MAPS = 20_000  # files whose packets are remembered, the latest ones; some kilobytes each

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where a file lies: in a folder, or inside a shard of the store.

    Attributes:
        path: of the file or the shard.
        offset, size: bytes of the shard; size -1: all of the file.
    """

    path: Path
    offset: int = 0
    size: int = -1

    @property
    def url(self) -> str:
        """What FFmpeg opens."""
        path = self.path.absolute()
        return (
            str(path)
            if self.size < 0
            else f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{path}"
        )

    def read(self) -> Uint8Array:
        """All of it. Raises OSError."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            return np.fromfile(file, dtype=np.uint8, count=self.size)


class FilmClips:
    """A source of clips of the original files of a store.

    Args:
        store: whose rows, sizes and numbers of pictures count.
        folder: where the files lie, each under its video's id; None: in the store, kept by `prepare`.
        upright: whether the decoder cannot turn pictures.

    Attributes:
        takes_long: reading a clip costs so much that several are read side by side.

    Raises:
        ConfigError: the store's pictures are not the files' (resampled), or it keeps no files.
    """

    takes_long = True
    mend = "the original files cannot be read; see data.files, or use data.source=store"

    def __init__(self, store: ClipStore, folder: Path | None = None, *, upright: bool = False) -> None:
        if store.settings.fps is not None:
            raise ConfigError(
                f"data.source=files: the clip store at {store.path} was resampled to {store.settings.fps:g}"
                " pictures a second, and its files were not; use data.source=store, or prepare without --fps"
            )
        if folder is None and store.originals is None and store.settings.codec != "files":
            raise ConfigError(
                f"data.source=files: the clip store at {store.path} keeps no original files; set data.files"
                " to the folder that they lie in, or prepare with --keep-original or --codec files"
            )
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"data.files: no folder at {folder}")
        root = store.settings.root
        if folder is None and store.originals is None and root is not None and not Path(root).is_dir():
            raise ConfigError(
                f"data.source=files: the files of {store.path} lay in {root}, which is not there; set"
                " data.files to the folder that they lie in now"
            )
        self._store, self._folder, self._upright = store, folder, upright
        self._maps: OrderedDict[int, FilmMap] = OrderedDict()
        self._lock = threading.Lock()  # clips are read side by side

    def stored(self, video: int, indices_T: Int64) -> list[StoredPictures]:
        store = self._store
        try:
            place = self._place(video)
            film = self._map(video, place)
            if self._upright and film.turned:
                raise DataError("its pictures are shown turned, which a GPU's decoder does not do")
            data, frames_T, first_ms = self._cut(place, film, indices_T)
        except DamagedClip:
            raise
        except (DataError, OSError) as error:
            raise DamagedClip(store.id(video), -1, f"its original file: {error}") from None
        size = int(store.width[video]), int(store.height[video])
        return [FilmCut(data, frames_T, film.width, film.height, size, store.settings.short_side, first_ms)]

    def _cut(
        self, place: Place, film: FilmMap, indices_T: Int64
    ) -> tuple[Uint8Array, npt.NDArray[np.int32], int]:
        if len(film.pts_P):
            with contextlib.suppress(Uncuttable):
                return cut_film(place.url, film, indices_T)
        if film.is_segment:
            raise DataError("a segment of it cannot be cut out; prepare it, and use data.source=store")
        return place.read(), indices_T.astype(np.int32), -1

    def _place(self, video: int) -> Place:
        if self._store.settings.codec == "files" and (self._folder or self._store.originals is None):
            return Place(self._store.film(video, self._folder))
        if self._folder is not None:
            return Place(self._folder / segment_of(self._store.id(video))[0])
        row = -1 if self._store.originals is None else int(self._store.originals.row_N[video])
        if self._store.originals is None or row < 0:
            raise DataError("it was not kept")
        return Place(*self._store.originals.place(row))

    def _map(self, video: int, place: Place) -> FilmMap:
        with self._lock:
            if video in self._maps:
                self._maps.move_to_end(video)
                return self._maps[video]
        if place.size >= 0:
            self._store.original(video)  # its checksum, once
        _, start_s, end_s = segment_of(self._store.id(video))
        film = map_film(place.url, int(self._store.num_frames[video]), start_s, end_s)
        with self._lock:
            self._maps[video] = film
            if len(self._maps) > MAX_MAPS:
                self._maps.popitem(last=False)
        return film
