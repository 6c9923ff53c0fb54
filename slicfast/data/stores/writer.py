"""The clip store's writer: videos go into tar shards so that a kill loses at most the one in hand."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from slicfast.data.store import ClipStore
from slicfast.data.stores.format import (
    HEADER,
    LOCK,
    ORIGINALS,
    SHARDS,
    TMP,
    Source,
    StoreHeader,
    StoreSettings,
    VideoRecord,
)
from slicfast.data.stores.index import VIDEOS, write_index
from slicfast.data.stores.original import OriginalFacts, OriginalRecord
from slicfast.data.stores.original_writer import COPY_BYTES, OriginalsWriter
from slicfast.data.stores.shards import ShardSeries
from slicfast.errors import ConfigError, DataError, MachineError, RunError

__all__ = ["Source", "StoreSettings", "StoreWriter", "VideoRecord"]

SHARD_BYTES = 4 << 30  # a shard is closed once it is larger; few enough shards for one file handle each
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger("slicfast")


class StoreWriter:
    """Makes a clip store, or goes on with one; use it as a context manager.

    Every `add` is safe against a kill once it returns. Readers see nothing of it before `finish`.

    Attributes:
        path: the store's folder.
        settings: of all its videos.
        tmp: a folder inside the store for files in the making, emptied at the start and removed at the end.

    Raises:
        ConfigError: the store there was made with other settings.
        DataError: the folder holds something else, or a store made by another version.
        MachineError: the folder cannot be written, or no space is left.
        RunError: another process is writing this store.
    """

    def __init__(
        self, path: str | Path, settings: StoreSettings | None = None, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.path = Path(path)
        self.settings = settings or StoreSettings()
        self.tmp = self.path / TMP
        self._shard_bytes = shard_bytes
        self._series: list[ShardSeries[Any, Any]] = []
        self._originals: OriginalsWriter | None = None
        self._lock = -1
        self._check_settings()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._check_settings()  # again, now that nobody else can be changing it
            self._start()
        except OSError as error:
            self._release()
            raise self.machine_error(error) from None
        except BaseException:
            self._release()
            raise

    def _check_settings(self) -> None:
        """Refuse what is not a store of these settings before touching anything."""
        self._header: StoreHeader | None = None
        if (self.path / HEADER).exists() or self.path.is_file():
            self._header = StoreHeader.read(self.path)
            empty = self._header.index is None and not any((self.path / SHARDS).glob("shard-*.tar"))
            if empty:
                self._header = None  # nothing stored yet: it may as well have other settings
            elif self._header.settings != self.settings:
                raise ConfigError(
                    f"the clip store at {self.path} was made with {self._header.settings},"
                    f" asked for {self.settings}; prepare with the same or into another folder"
                )
        elif self.path.is_dir():
            found = {entry.name for entry in self.path.iterdir()} - {LOCK, TMP, SHARDS, f"{HEADER}.partial"}
            if found:
                raise DataError(
                    f"{self.path} is not a clip store and not empty (holds '{min(found)}'); name a new folder"
                )

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another process is preparing the clip store at {self.path}; wait for it or stop it"
            ) from None
        except OSError as error:  # some network file systems have no locks
            logger.warning("cannot lock %s (%s): prepare it from one process only", self.path, error.strerror)

    def _start(self) -> None:
        if self._header is None:
            self._header = StoreHeader(self.settings)
            self._header.write(self.path)
        self._clear_leftovers()
        self.tmp.mkdir()
        self._videos = ShardSeries(self.path / SHARDS, VIDEOS, self._shard_bytes)
        self._series.append(self._videos)
        if (self.path / ORIGINALS).is_dir():
            self._open_originals()
        self._sources: dict[str, Source] = {}
        for table in self._videos.tables:
            columns = (
                table.columns[f"source_{name}"].tolist() for name in ("size", "mtime_ns", "fingerprint")
            )
            for video_id, size, mtime_ns, fingerprint in zip(table.ids, *columns, strict=True):
                self._sources[video_id] = Source(size, mtime_ns, fingerprint)
        self._sources.update((record.id, record.source) for record in self._videos.records)

    def _open_originals(self) -> OriginalsWriter:
        if self._originals is None:
            self._originals = OriginalsWriter(self.path, self._shard_bytes)
            self._series.append(self._originals.series)
        return self._originals

    def _clear_leftovers(self) -> None:
        assert self._header is not None
        shutil.rmtree(self.tmp, ignore_errors=True)
        for folder in self.path.glob("index-*"):
            if folder.name != self._header.index:
                shutil.rmtree(folder, ignore_errors=True)
        for partial in self.path.glob("*.partial"):
            partial.unlink(missing_ok=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._sources

    def ids(self) -> list[str]:
        """Ids of all stored videos, in the order they were stored."""
        return list(self._sources)

    def source(self, video_id: str) -> Source | None:
        """What a stored video was made from; None for one that is not stored."""
        return self._sources.get(video_id)

    def add(self, record: VideoRecord, pictures: Path | bytes | memoryview) -> None:
        """Append a video; one with the same id is replaced from the next `finish` on.

        Args:
            record: everything but the pictures; `sizes` must add up to their bytes.
            pictures: the JPEGs joined end to end, or an IVF file's bytes; or a file of them.

        Raises:
            DataError: more bytes than one video may have (4 GiB).
            MachineError: no space left; the store keeps what it had.
        """
        size = pictures.stat().st_size if isinstance(pictures, Path) else len(pictures)
        if size != sum(record.sizes) or len(record.sizes) != len(record.crcs) or not size:
            raise ValueError(f"'{record.id}': sizes, checksums and pictures do not belong together")
        if size >= 1 << 32:
            raise DataError(f"'{record.id}' takes {size >> 30} GiB; list it as several segments")
        blocks = _blocks(pictures) if isinstance(pictures, Path) else (pictures,)
        try:
            self._videos.append(self.settings.suffix, size, blocks, lambda: record)
        except OSError as error:
            raise self.machine_error(error) from None
        self._sources[record.id] = record.source

    def original(self, file_id: str) -> Source | None:
        """What a kept file was when it was copied; None for one that is not kept."""
        return None if self._originals is None else self._originals.source(file_id)

    def add_original(self, file_id: str, path: Path, source: Source, facts: OriginalFacts) -> None:
        """Keep a copy of a file; it replaces one with the same id. As safe against a kill as `add`.

        Raises:
            DataError: the file cannot be read, is too large, or has another size than `source` says.
            MachineError: no space left; the store keeps what it had.
        """
        try:
            self._open_originals().add(file_id, path, source, facts)
        except OSError as error:
            raise self.machine_error(error) from None

    def copy_original(self, record: OriginalRecord, data: memoryview) -> None:
        """Keep a file that another store kept. Raises MachineError: no space left."""
        try:
            self._open_originals().copy(record, data)
        except OSError as error:
            raise self.machine_error(error) from None

    def finish(
        self,
        labels: Mapping[str, str | None],
        splits: Mapping[str, Iterable[str]],
        exclude: Collection[str] = (),
    ) -> None:
        """Write the index of everything stored and show it to readers, all at once.

        Args:
            labels: class of each video; one that is not named keeps the label it had.
            splits: ids of each split (ids that are not stored are passed over); splits that earlier runs
                made and that are not named here stay.
            exclude: stored videos to hide.

        Raises:
            DataError: no video is stored.
            MachineError: no space left; readers keep the index there was.
        """
        assert self._header is not None
        if not set(self._sources).difference(exclude):
            raise DataError(f"no video could be stored in {self.path}; the reasons are in left_out.tsv there")
        try:
            for series in self._series:
                series.close_shard()
            originals = [] if self._originals is None else self._originals.series.tables
            name = write_index(
                self.path, self._videos.tables, self.previous(), labels, splits, exclude, originals
            )
            header = StoreHeader(self.settings, name)
            header.write(self.path)
        except OSError as error:
            raise self.machine_error(error) from None
        self._header = header
        self._clear_leftovers()

    def close(self) -> None:
        """Close the open shard; what is stored stays for the next writer."""
        try:
            if self._lock >= 0:
                for series in self._series:
                    with suppress(OSError):  # an open shard is recovered by the next writer
                        series.close_shard()
                shutil.rmtree(self.tmp, ignore_errors=True)
        finally:
            self._release()

    def _release(self) -> None:
        for series in self._series:
            series.release()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def previous(self) -> ClipStore | None:
        """The store as readers see it, None before the first `finish` and where the index is damaged."""
        if self._header is None or self._header.index is None:
            return None
        try:
            return ClipStore(self.path)
        except DataError as error:
            logger.warning("%s; labels and splits follow this run alone", error)
            return None

    def machine_error(self, error: OSError) -> MachineError:
        """What to raise when a file of the store cannot be written."""
        if error.errno in NO_SPACE:
            return MachineError(
                f"no space left for the clip store at {self.path}; what is stored is kept: make room and run"
                " the same command again"
            )
        return MachineError(f"cannot write the clip store at {self.path}: {error.strerror or error}")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as source:
        while block := source.read(COPY_BYTES):
            yield block
