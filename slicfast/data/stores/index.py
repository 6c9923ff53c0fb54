"""A store's records as arrays: one table a shard, and the index over all of them in order of id."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.data.store import ClipStore
from slicfast.data.stores.files import load_sidecar
from slicfast.data.stores.format import (
    BLOCK,
    AnyArray,
    VideoRecord,
    pack_strings,
    sync_folder,
    unpack_strings,
    write_atomically,
)
from slicfast.data.stores.original_writer import OriginalTable, save_originals
from slicfast.data.stores.sealing import sealed
from slicfast.data.stores.shards import Kind

PER_VIDEO = {
    "data_offset": np.uint64,
    "num_frames": np.uint32,
    "width": np.uint32,
    "height": np.uint32,
    "fps": np.float32,
}
SOURCE = {"source_size": np.int64, "source_mtime_ns": np.int64, "source_fingerprint": np.uint32}
PER_FRAME = {"frame_ends": np.uint32, "frame_crcs": np.uint32}


@dataclass
class ShardTable:
    """The videos of one shard: strings as lists, everything else as arrays (PER_VIDEO, SOURCE).

    The frames' arrays are read from the sidecar only when the index is built.
    """

    shard: Path
    ids: list[str]
    labels: list[str | None]
    columns: dict[str, AnyArray]

    @property
    def sidecar(self) -> Path:
        return self.shard.with_suffix(".npz")

    @classmethod
    def save(
        cls, shard: Path, records: Sequence[VideoRecord], data_offsets: Sequence[int], end: int
    ) -> ShardTable:
        """Write a closed shard's sidecar, whole or not at all, and return its table.

        `end` is the byte behind the last video's padding.
        """
        columns: dict[str, AnyArray] = {
            "data_offset": np.array(data_offsets, dtype=np.uint64),
            "num_frames": np.array([len(record.sizes) for record in records], dtype=np.uint32),
            "source_size": np.array([record.source.size for record in records], dtype=np.int64),
            "source_mtime_ns": np.array([record.source.mtime_ns for record in records], dtype=np.int64),
            "source_fingerprint": np.array(
                [record.source.fingerprint for record in records], dtype=np.uint32
            ),
        }
        for name in ("width", "height", "fps"):
            columns[name] = np.array([getattr(record, name) for record in records], dtype=PER_VIDEO[name])
        frames: dict[str, AnyArray] = {
            "frame_ends": np.concatenate([np.cumsum(record.sizes) for record in records]).astype(np.uint32),
            "frame_crcs": np.concatenate([record.crcs for record in records]).astype(np.uint32),
        }
        ids = [record.id for record in records]
        labels = [record.label for record in records]
        id_blob, id_offsets = pack_strings(ids)
        label_blob, label_offsets = pack_strings([label or "" for label in labels])
        table = cls(shard, ids, labels, columns)
        strings: dict[str, AnyArray] = {
            "end": np.array(end, dtype=np.int64),
            "id_blob": id_blob,
            "id_offsets": id_offsets,
            "label_blob": label_blob,
            "label_offsets": label_offsets,
            "has_label": np.array([label is not None for label in labels]),
        }
        arrays: dict[str, Any] = {**columns, **frames, **strings}
        write_atomically(table.sidecar, lambda file: np.savez(file, **arrays))
        return table

    @classmethod
    def load(cls, shard: Path) -> ShardTable | None:
        """The table of a closed shard; None where the sidecar is absent, unreadable or wrong."""
        saved = load_sidecar(shard.with_suffix(".npz"))
        try:
            if saved is None or any(len(saved[name]) != saved["num_frames"].sum() for name in PER_FRAME):
                return None
            columns = {name: saved[name] for name in (*PER_VIDEO, *SOURCE)}
            ids = unpack_strings(saved["id_blob"], saved["id_offsets"])
            texts = unpack_strings(saved["label_blob"], saved["label_offsets"])
            known = saved["has_label"].tolist()
            end = int(saved["end"])
        except KeyError:
            return None
        if end + 2 * BLOCK > shard.stat().st_size:
            return None
        labels = [text if has else None for text, has in zip(texts, known, strict=True)]
        return cls(shard, ids, labels, columns)


VIDEOS = Kind(VideoRecord.from_json, ShardTable.save, ShardTable.load)


def write_index(
    store: Path,
    tables: Sequence[ShardTable],
    previous: ClipStore | None,
    labels: Mapping[str, str | None],
    splits: Mapping[str, Iterable[str]],
    exclude: Collection[str] = (),
    originals: Sequence[OriginalTable] = (),
) -> str:
    """Write a new index folder and return its name; store.json does not point to it yet.

    Of several videos with one id the last stored counts. A video that `labels` does not name keeps the label
    it had; a split that `splits` does not name keeps its videos.
    """
    number = 1 + max((int(path.name[6:12]) for path in store.glob("index-??????*")), default=0)
    name = f"index-{number:06d}"
    folder = store / f"{name}.partial"
    folder.mkdir()
    try:
        _fill(folder, tables, previous, labels, splits, set(exclude), originals)
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(folder)
        folder.rename(store / name)
        sync_folder(store)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return name


def _fill(
    folder: Path,
    tables: Sequence[ShardTable],
    previous: ClipStore | None,
    labels: Mapping[str, str | None],
    splits: Mapping[str, Iterable[str]],
    exclude: set[str],
    originals: Sequence[OriginalTable],
) -> None:
    every_id = [video_id for table in tables for video_id in table.ids]
    latest = {video_id: position for position, video_id in enumerate(every_id) if video_id not in exclude}
    ids = sorted(latest)
    order = np.array(
        [latest[video_id] for video_id in ids], dtype=np.int64
    )  # row -> position over all shards

    def save(name: str, array: AnyArray) -> None:
        np.save(folder / f"{name}.npy", array)

    def column(name: str) -> AnyArray:
        joined: AnyArray = np.concatenate([table.columns[name] for table in tables])[order]
        return joined

    for name in PER_VIDEO:
        save(name, column(name))
    shard_of = np.repeat(np.arange(len(tables), dtype=np.uint32), [len(table.ids) for table in tables])
    save("shard", shard_of[order])
    blob, offsets = pack_strings(ids)
    save("id_blob", blob)
    save("id_offsets", offsets)

    first_frame = np.zeros(len(ids) + 1, dtype=np.uint64)
    np.cumsum(column("num_frames"), out=first_frame[1:])
    save("first_frame", first_frame)
    row_of_position = np.full(len(every_id), -1, dtype=np.int64)
    row_of_position[order] = np.arange(len(ids))
    _scatter_frames(folder, tables, row_of_position, first_frame)

    known = {
        video_id: label for table in tables for video_id, label in zip(table.ids, table.labels, strict=True)
    }
    if previous is not None:
        for video_id, label_id in zip(previous.ids(), previous.label_ids.tolist(), strict=True):
            known[video_id] = previous.label_names[label_id] if label_id >= 0 else None
    row_labels = [labels[video_id] if video_id in labels else known[video_id] for video_id in ids]
    label_names = sorted({label for label in row_labels if label is not None})
    label_of = {label: number for number, label in enumerate(label_names)}
    save("label_ids", np.array([-1 if x is None else label_of[x] for x in row_labels], dtype=np.int32))

    members: dict[str, Iterable[str]] = dict(splits)
    for name in previous.splits if previous is not None else ():
        if name not in members and previous is not None:
            members[name] = previous.ids(previous.split(name))
    kept = save_originals(save, ids, column("source_size"), column("source_fingerprint"), originals)
    row_of = {video_id: row for row, video_id in enumerate(ids)}
    split_files = {}
    for number, (name, split_ids) in enumerate(sorted(members.items())):
        rows = {row_of[video_id] for video_id in split_ids if video_id in row_of}
        split_files[name] = f"split_{number:03d}.npy"
        save(f"split_{number:03d}", np.array(sorted(rows), dtype=np.int32))
    summary = {
        "num_videos": len(ids),
        "label_names": label_names,
        "splits": split_files,
        "shards": [table.shard.name for table in tables],
        **kept,
        "crcs": {
            path.name: zlib.crc32(path.read_bytes())
            for path in sorted(folder.glob("*.npy"))
            if path.stem not in PER_FRAME  # large, and every picture is checked by itself
        },
    }
    (folder / "index.json").write_bytes(sealed(summary, indent=1))


def _scatter_frames(
    folder: Path, tables: Sequence[ShardTable], row_of_position: AnyArray, first_frame: AnyArray
) -> None:
    """Copy each shard's frame arrays to their rows on disk, one shard in memory at a time."""
    total = int(first_frame[-1])
    maps = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(total,))
        for name, dtype in PER_FRAME.items()
    }
    position = 0
    for table in tables:
        frames = load_sidecar(table.sidecar)
        if frames is None:  # it was whole when this run began
            raise OSError(errno.EIO, f"{table.sidecar} can no longer be read")
        start = 0
        for length in table.columns["num_frames"].tolist():
            row = int(row_of_position[position])
            position += 1
            if row >= 0:
                first = int(first_frame[row])
                for name, target in maps.items():
                    target[first : first + length] = frames[name][start : start + length]
            start += length
    for target in maps.values():
        target.flush()
