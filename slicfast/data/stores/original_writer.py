"""Keeping originals: files copied into shards, their tables, and what the index says of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.data.stores.files import load_sidecar
from slicfast.data.stores.format import (
    BLOCK,
    ORIGINALS,
    AnyArray,
    Source,
    pack_strings,
    unpack_strings,
    write_atomically,
)
from slicfast.data.stores.original import NUMBERS, STRINGS, OriginalFacts, OriginalRecord, segment_of
from slicfast.data.stores.shards import Kind, ShardSeries
from slicfast.errors import DataError

MAX_BYTES = (8 << 30) - 1  # what a tar header can tell
COPY_BYTES = 1 << 20

_SOURCE = {"source_mtime_ns": np.int64, "source_fingerprint": np.uint32}


@dataclass
class OriginalTable:
    """The files of one shard: strings as lists, all else as arrays (`key_frames` joined, with `key_ends`)."""

    shard: Path
    ids: list[str]
    strings: dict[str, list[str]]
    columns: dict[str, AnyArray]

    @classmethod
    def save(
        cls, shard: Path, records: Sequence[OriginalRecord], data_offsets: Sequence[int], end: int
    ) -> OriginalTable:
        """Write a closed shard's sidecar, whole or not at all, and return its table."""
        columns: dict[str, AnyArray] = {
            name: np.array([record.number(name) for record in records], dtype=dtype)
            for name, dtype in NUMBERS.items()
        }
        for name, kind in _SOURCE.items():
            values = [getattr(record.source, name.removeprefix("source_")) for record in records]
            columns[name] = np.array(values, dtype=kind)
        columns["data_offset"] = np.array(data_offsets, dtype=np.uint64)
        key_frames = [np.array(record.facts.key_frames, dtype=np.uint32) for record in records]
        columns["key_frames"] = np.concatenate(key_frames)
        columns["key_ends"] = np.cumsum([len(frames) for frames in key_frames], dtype=np.uint64)
        ids = [record.id for record in records]
        strings = {
            "suffix": [record.suffix for record in records],
            **{name: [getattr(record.facts, name) for record in records] for name in STRINGS[1:]},
        }
        arrays: dict[str, Any] = {**columns, "end": np.array(end, dtype=np.int64)}
        for name, texts in {"id": ids, **strings}.items():
            arrays[f"{name}_blob"], arrays[f"{name}_offsets"] = pack_strings(texts)
        write_atomically(shard.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
        return cls(shard, ids, strings, columns)

    @classmethod
    def load(cls, shard: Path) -> OriginalTable | None:
        """The table of a closed shard; None where the sidecar is absent, unreadable or wrong."""
        names = (*NUMBERS, *_SOURCE, "data_offset", "key_frames", "key_ends")
        saved = load_sidecar(shard.with_suffix(".npz"))
        if saved is None:
            return None
        try:
            columns = {name: saved[name] for name in names}
            ids, *strings = (
                unpack_strings(saved[f"{name}_blob"], saved[f"{name}_offsets"]) for name in ("id", *STRINGS)
            )
            end = int(saved["end"])
        except KeyError:
            return None
        if end + 2 * BLOCK > shard.stat().st_size:
            return None
        return cls(shard, ids, dict(zip(STRINGS, strings, strict=True)), columns)

    def sources(self) -> list[Source]:
        """What each file was when it was copied."""
        names = ("size", *_SOURCE)
        columns = (self.columns[name].tolist() for name in names)
        return [Source(*values) for values in zip(*columns, strict=True)]


ORIGINAL_FILES: Kind[OriginalRecord, OriginalTable] = Kind(
    OriginalRecord.from_json, OriginalTable.save, OriginalTable.load
)


class OriginalsWriter:
    """Copies files into originals/; part of StoreWriter, which turns OSError into its own errors."""

    def __init__(self, store: Path, shard_bytes: int) -> None:
        self.series = ShardSeries(store / ORIGINALS, ORIGINAL_FILES, shard_bytes)
        self._sources: dict[str, Source] = {}
        for table in self.series.tables:
            self._sources.update(zip(table.ids, table.sources(), strict=True))
        self._sources.update((record.id, record.source) for record in self.series.records)

    def source(self, file_id: str) -> Source | None:
        """What a kept file was when it was copied; None for one that is not kept."""
        return self._sources.get(file_id)

    def copy(self, record: OriginalRecord, data: memoryview) -> None:
        """Append a file that another store kept. Raises OSError: no room."""
        self.series.append(record.suffix, len(data), (data,), lambda: record)
        self._sources[record.id] = record.source

    def add(self, file_id: str, path: Path, source: Source, facts: OriginalFacts) -> None:
        """Append a copy of a file. Raises DataError where it cannot be read whole; OSError: no room."""
        if source.size > MAX_BYTES:
            raise DataError(f"too large to be kept ({source.size >> 30} GiB, at most 8)")
        crc = 0

        def blocks() -> Iterator[bytes]:
            nonlocal crc
            try:
                with path.open("rb", buffering=0) as file:
                    while block := file.read(COPY_BYTES):
                        crc = zlib.crc32(block, crc)
                        yield block
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}") from None

        suffix = path.suffix.lstrip(".").lower()
        suffix = suffix if suffix.isascii() and suffix.isalnum() and len(suffix) <= 8 else "video"
        try:
            self.series.append(
                suffix, source.size, blocks(), lambda: OriginalRecord(file_id, suffix, source, crc, facts)
            )
        except ValueError:
            raise DataError("the file changed while it was copied") from None
        self._sources[file_id] = source


def save_originals(
    save: Callable[[str, AnyArray], None],
    ids: Sequence[str],
    sizes_N: AnyArray,
    fingerprints_N: AnyArray,
    tables: Sequence[OriginalTable],
) -> dict[str, Any]:
    """Write what the index says of kept files, and return what index.json says of them; nothing if none are.

    A file counts for a video that was made from the same contents (size and fingerprint); of several copies
    with one id the last. Columns are of the M files that count, `original_row` (N,) int32 points to them.
    """
    place = {id: number for number, id in enumerate(id for table in tables for id in table.ids)}
    if not place:
        return {}

    def column(name: str) -> AnyArray:
        joined: AnyArray = np.concatenate([table.columns[name] for table in tables])
        return joined

    place_N = np.array([place.get(id, place.get(segment_of(id)[0], -1)) for id in ids], dtype=np.int64)
    same_N = column("size")[place_N] == sizes_N
    same_N &= column("source_fingerprint")[place_N] == fingerprints_N
    place_N[~same_N] = -1
    used_M, row_N = np.unique(place_N, return_inverse=True)
    num_absent = int(used_M[0] < 0)  # -1 sorts first
    used_M = used_M[num_absent:]
    if not len(used_M):
        return {}
    save("original_row", (row_N - num_absent).astype(np.int32))
    for name in (*NUMBERS, "data_offset"):
        save(f"original_{name}", column(name)[used_M])
    lengths = [len(table.ids) for table in tables]
    save("original_shard", np.repeat(np.arange(len(tables), dtype=np.uint32), lengths)[used_M])
    keys = [
        frames
        for table in tables
        for frames in np.split(table.columns["key_frames"], table.columns["key_ends"][:-1].astype(np.int64))
    ]
    kept_keys = [keys[number] for number in used_M.tolist()]
    save("original_key_frames", np.concatenate(kept_keys))
    save("original_key_ends", np.cumsum([len(frames) for frames in kept_keys], dtype=np.uint64))
    summary: dict[str, Any] = {"original_shards": [table.shard.name for table in tables]}
    for name in STRINGS:
        texts = [text for table in tables for text in table.strings[name]]
        kinds, kind_M = np.unique([texts[number] for number in used_M.tolist()], return_inverse=True)
        summary[f"original_{name}s"] = kinds.tolist()
        save(f"original_{name}", kind_M.astype(np.uint16))
    return summary
