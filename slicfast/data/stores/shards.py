"""A series of tar shards that grows by one record at a time, so that a kill loses at most the one in hand.

Each record is a member of bytes and behind it a json member; it counts once both are whole. A closed shard
has a sidecar, its records as arrays; one without (the writer was killed) is read through again.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from slicfast.data.stores.format import BLOCK, padding, sync_folder, tar_header

logger = logging.getLogger("slicfast")


class Record(Protocol):
    """What the json member behind the bytes holds."""

    @property
    def id(self) -> str: ...

    def to_json(self) -> bytes: ...

    def fits(self, data: memoryview) -> bool:
        """Whether these are its bytes, checksums included."""


class Table(Protocol):
    """The records of one closed shard."""

    @property
    def ids(self) -> list[str]: ...


RecordT = TypeVar("RecordT", bound=Record)
TableT = TypeVar("TableT", bound=Table)


@dataclass(frozen=True)
class Kind(Generic[RecordT, TableT]):
    """How one series' records are read and their tables kept.

    Attributes:
        read: a record from its json; raises ValueError, KeyError or TypeError.
        save: writes a shard's sidecar from records, data offsets and the byte behind the last padding.
        load: a shard's table, None where its sidecar is absent, unreadable or does not fit.
    """

    read: Callable[[bytes], RecordT]
    save: Callable[[Path, Sequence[RecordT], Sequence[int], int], TableT]
    load: Callable[[Path], TableT | None]


class ShardSeries(Generic[RecordT, TableT]):
    """The shards in one folder, opened for writing by one process; unwritable files raise OSError.

    Attributes:
        tables: of the closed shards, in order.
        records: of the open shard.
        num_members: records in all, replaced ones included.
    """

    def __init__(self, folder: Path, kind: Kind[RecordT, TableT], shard_bytes: int) -> None:
        self.folder = folder
        self.tables: list[TableT] = []
        self._kind = kind
        self._shard_bytes = shard_bytes
        self._file = -1  # descriptor of the open shard
        self._new_shard()
        folder.mkdir(exist_ok=True)
        for partial in folder.glob("*.partial"):
            partial.unlink(missing_ok=True)
        for shard in sorted(folder.glob("shard-*.tar")):
            table = kind.load(shard)
            if table is not None:
                self.tables.append(table)
                continue
            self.close_shard()
            shard.with_suffix(".npz").unlink(missing_ok=True)  # it would hide what is appended from now on
            self._recover(shard)
        self.num_members = sum(len(table.ids) for table in self.tables) + len(self.records)

    def _recover(self, shard: Path) -> None:
        """Take the shard up to where it was cut, without what is damaged before, and go on writing there."""
        records: list[RecordT] = []
        data_offsets: list[int] = []
        end = 0
        with shard.open("rb") as file:
            while True:
                data = _read_member(file)
                text = _read_member(file) if data is not None else None
                if data is None or text is None:
                    break
                start, end = end, file.tell()
                try:
                    record = self._kind.read(text)
                    if not record.fits(memoryview(data)):
                        raise ValueError("other bytes than were stored")
                except (ValueError, KeyError, TypeError) as error:
                    logger.warning("%s: what begins at byte %d is damaged: %s", shard.name, start, error)
                    continue
                records.append(record)
                data_offsets.append(start + BLOCK)
        if not records:
            shard.unlink()
            return
        self._new_shard(shard, records, data_offsets, end)
        self._file = os.open(shard, os.O_RDWR)
        os.truncate(self._file, end)
        logger.info("recovered %d videos of %s", len(records), shard.name)

    def _new_shard(
        self,
        shard: Path | None = None,  # None: made by the first record
        records: Iterable[RecordT] = (),
        data_offsets: Iterable[int] = (),
        end: int = 0,
    ) -> None:
        self._shard = shard
        self.records = list(records)
        self._offsets = list(data_offsets)
        self._end = end  # byte behind the last whole record

    def append(
        self, suffix: str, size: int, blocks: Iterable[bytes | memoryview], make_record: Callable[[], RecordT]
    ) -> RecordT:
        """Append `size` bytes and the record that is made once they are written.

        Whatever goes wrong on the way leaves the shard as it was.

        Raises ValueError where `blocks` are not `size` bytes.
        """
        if self._shard is None:
            taken = [int(path.stem[6:]) for path in self.folder.glob("shard-*.tar")]
            self._shard = self.folder / f"shard-{max(taken, default=-1) + 1:05d}.tar"
            self._file = os.open(self._shard, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        stem = f"{self.num_members:08d}"
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            _write(self._file, tar_header(f"{stem}.{suffix}", size))
            left = size
            for block in blocks:
                left -= len(block)
                if left < 0:
                    break
                _write(self._file, block)
            if left:
                raise ValueError(f"{size} bytes were told, {'more' if left < 0 else 'fewer'} came")
            record = make_record()
            text = record.to_json()
            tail = tar_header(f"{stem}.json", len(text)) + text + bytes(padding(len(text)))
            _write(self._file, bytes(padding(size)) + tail)
        except BaseException:
            with suppress(OSError):
                os.truncate(self._file, self._end)
            raise
        self._offsets.append(self._end + BLOCK)
        self._end += BLOCK + size + padding(size) + len(tail)
        self.records.append(record)
        self.num_members += 1
        if self._end >= self._shard_bytes:
            self.close_shard()
        return record

    def close_shard(self) -> None:
        """End the open shard's tar file and write its sidecar; an empty one is removed."""
        if self._shard is None:
            return
        if self.records:
            os.lseek(self._file, self._end, os.SEEK_SET)
            try:
                _write(self._file, bytes(2 * BLOCK))
                os.fsync(self._file)
                sync_folder(self.folder)
                self.tables.append(self._kind.save(self._shard, self.records, self._offsets, self._end))
            except BaseException:
                with suppress(OSError):
                    os.truncate(self._file, self._end)
                raise
        else:
            self._shard.unlink()
        self.release()
        self._new_shard()

    def release(self) -> None:
        """Close the open file as it is; the next writer recovers the shard."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _read_member(file: io.BufferedReader) -> bytes | None:
    """One tar member's bytes with the file left behind its padding; None where it is not whole."""
    try:
        header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict")
    except tarfile.HeaderError:
        return None
    data = file.read(header.size)
    whole = len(data) == header.size and len(file.read(padding(header.size))) == padding(header.size)
    return data if whole else None


def _write(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
