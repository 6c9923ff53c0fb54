"""The clip store's writer: videos go into tar shards so that a kill loses at most the one in hand."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from slicfast.data.store import ClipStore
from slicfast.data.store_format import (
    BLOCK,
    HEADER,
    LOCK,
    SHARDS,
    TMP,
    Source,
    StoreHeader,
    StoreSettings,
    VideoRecord,
    padding,
    sync_folder,
    tar_header,
)
from slicfast.data.store_index import ShardTable, recover, write_index
from slicfast.errors import ConfigError, DataError, MachineError, RunError

__all__ = ["Source", "StoreSettings", "StoreWriter", "VideoRecord"]

SHARD_BYTES = 4 << 30  # a shard is closed once it is larger; few enough shards for one file handle each
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COPY_BYTES = 1 << 20

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
        self._file = -1  # descriptor of the open shard
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
        (self.path / SHARDS).mkdir(exist_ok=True)
        self._tables: list[ShardTable] = []
        self._new_shard()
        for shard in sorted((self.path / SHARDS).glob("shard-*.tar")):
            table = ShardTable.load(shard)
            if table is not None:
                self._tables.append(table)
                continue
            self._close_shard()
            shard.with_suffix(".npz").unlink(missing_ok=True)  # it would hide what is appended from now on
            found = recover(shard)
            if not found.records:
                shard.unlink()
                continue
            self._new_shard(shard, found.records, found.data_offsets, found.end)
            self._file = os.open(shard, os.O_RDWR)
            os.truncate(self._file, self._end)
            logger.info("recovered %d videos of %s", len(found.records), shard.name)
        self._sources: dict[str, Source] = {}
        for table in self._tables:
            columns = (
                table.columns[f"source_{name}"].tolist() for name in ("size", "mtime_ns", "fingerprint")
            )
            for video_id, size, mtime_ns, fingerprint in zip(table.ids, *columns, strict=True):
                self._sources[video_id] = Source(size, mtime_ns, fingerprint)
        self._sources.update((record.id, record.source) for record in self._records)
        self._num_members = sum(len(table.ids) for table in self._tables) + len(self._records)

    def _clear_leftovers(self) -> None:
        assert self._header is not None
        shutil.rmtree(self.tmp, ignore_errors=True)
        for folder in self.path.glob("index-*"):
            if folder.name != self._header.index:
                shutil.rmtree(folder, ignore_errors=True)
        for partial in (*self.path.glob("*.partial"), *(self.path / SHARDS).glob("*.partial")):
            partial.unlink(missing_ok=True)

    def _new_shard(
        self,
        shard: Path | None = None,  # None: made by the first video
        records: Iterable[VideoRecord] = (),
        data_offsets: Iterable[int] = (),
        end: int = 0,
    ) -> None:
        self._shard = shard
        self._records = list(records)
        self._offsets = list(data_offsets)
        self._end = end  # byte behind the last whole video

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

    def add(self, record: VideoRecord, pictures: Path | bytes) -> None:
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
        try:
            self._append(record, pictures, size)
            if self._end >= self._shard_bytes:
                self._close_shard()
        except OSError as error:
            raise self.machine_error(error) from None

    def _append(self, record: VideoRecord, pictures: Path | bytes, size: int) -> None:
        if self._shard is None:
            taken = [int(path.stem[6:]) for path in (self.path / SHARDS).glob("shard-*.tar")]
            self._shard = self.path / SHARDS / f"shard-{max(taken, default=-1) + 1:05d}.tar"
            self._file = os.open(self._shard, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        stem = f"{self._num_members:08d}"
        text = record.to_json()
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            _write(self._file, tar_header(f"{stem}.{self.settings.suffix}", size))
            if isinstance(pictures, Path):
                with pictures.open("rb", buffering=0) as source:
                    while block := source.read(COPY_BYTES):
                        _write(self._file, block)
            else:
                _write(self._file, pictures)
            tail = tar_header(f"{stem}.json", len(text)) + text + bytes(padding(len(text)))
            _write(self._file, bytes(padding(size)) + tail)
        except BaseException:
            with suppress(OSError):
                os.truncate(self._file, self._end)
            raise
        self._offsets.append(self._end + BLOCK)
        self._end += BLOCK + size + padding(size) + len(tail)
        self._records.append(record)
        self._sources[record.id] = record.source
        self._num_members += 1

    def _close_shard(self) -> None:
        """End the open shard's tar file and write its sidecar; an empty one is removed."""
        if self._shard is None:
            return
        if self._records:
            os.lseek(self._file, self._end, os.SEEK_SET)
            try:
                _write(self._file, bytes(2 * BLOCK))
                os.fsync(self._file)
                sync_folder(self._shard.parent)
                self._tables.append(ShardTable.save(self._shard, self._records, self._offsets, self._end))
            except BaseException:
                with suppress(OSError):
                    os.truncate(self._file, self._end)
                raise
        else:
            self._shard.unlink()
        os.close(self._file)
        self._file = -1
        self._new_shard()

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
            self._close_shard()
            name = write_index(self.path, self._tables, self.previous(), labels, splits, exclude)
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
                with suppress(OSError):  # an open shard is recovered by the next writer
                    self._close_shard()
                shutil.rmtree(self.tmp, ignore_errors=True)
        finally:
            self._release()

    def _release(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

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


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
