"""A stored video as it lies in its shard, for tools that go through a whole store."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from slicfast.data.store import ClipStore, DamagedClip, Layout
from slicfast.data.stores.format import BLOCK, HEADER, Uint8Array, VideoRecord, padding
from slicfast.data.stores.original import OriginalRecord


@dataclass
class Checked:
    """What checking a video came to.

    Attributes:
        id: the video's.
        num_frames, num_bytes: looked at.
        frames: the damaged pictures.
        faults: one line each, of all that is wrong.
    """

    id: str
    num_frames: int = 0
    num_bytes: int = 0
    frames: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def nested_stores(store: Path) -> list[Path]:
    """The clip stores inside a clip store, such as its optical flow; sorted."""
    return sorted(path.parent for path in store.glob(f"*/{HEADER}"))


def check_video(store: ClipStore, video: int) -> Checked:
    """Read all that is stored of a video and compare every checksum."""
    checked = Checked(store.id(video))
    try:
        layout = store.layout(video)
        data, record = _read(layout)
    except DamagedClip as damage:
        checked.faults.append(damage.reason)
        return checked
    except OSError as error:
        checked.faults.append(f"cannot read its shard: {error.strerror}")
        return checked
    checked.num_frames, checked.num_bytes = len(layout.crcs), len(data)
    view, start = data.data, 0
    for frame, (end, crc) in enumerate(zip(layout.bounds[1:], layout.crcs, strict=True)):
        if end > len(view) or zlib.crc32(view[start:end]) != crc:
            checked.frames.append(frame)
        start = end
    if len(data) < layout.bounds[-1]:
        checked.faults.append(f"{layout.shard.name} ends before its pictures do")
    if checked.frames:
        first = checked.frames[0]
        more = f" and {len(checked.frames) - 1} more" if len(checked.frames) > 1 else ""
        checked.faults.append(f"frame {first}{more}: the stored bytes do not match their checksum")
    if record is None or record.id != checked.id or list(record.crcs) != layout.crcs:
        checked.faults.append("its record in the shard is damaged")
    _check_original(store, video, checked)
    return checked


def _check_original(store: ClipStore, video: int, checked: Checked) -> None:
    if store.originals is None or store.originals.row_N[video] < 0:
        return
    try:
        checked.num_bytes += len(store.original(video).data)
    except DamagedClip as damage:
        checked.faults.append(damage.reason)


def read_video(store: ClipStore, video: int) -> tuple[VideoRecord, Uint8Array]:
    """A video's record and its bytes, every checksum compared. Raises DamagedClip."""
    checked_id = store.id(video)
    layout = store.layout(video)
    try:
        data, record = _read(layout)
    except OSError as error:
        raise DamagedClip(checked_id, -1, f"cannot read {layout.shard.name}: {error.strerror}") from None
    if record is None or record.id != checked_id or not record.fits(data.data):
        raise DamagedClip(checked_id, -1, "its bytes or its record are damaged")
    return record, data


def read_original(store: ClipStore, video: int) -> tuple[OriginalRecord, Uint8Array]:
    """The record of the file that a video was made from, and the file. Raises DamagedClip and DataError."""
    original = store.original(video)
    text = None
    with original.shard.open("rb", buffering=0) as file:
        text = _read_text(file, original.offset + len(original.data))
    try:
        if text is None:
            raise ValueError
        return OriginalRecord.from_json(text), original.data
    except (ValueError, KeyError, TypeError):
        raise DamagedClip(store.id(video), -1, "the record of its original file is damaged") from None


def _read(layout: Layout) -> tuple[Uint8Array, VideoRecord | None]:
    """Bytes, fewer where the shard ends early, and record, None where it is damaged. Raises OSError."""
    with layout.shard.open("rb", buffering=0) as file:
        file.seek(layout.offset)
        data = np.fromfile(file, dtype=np.uint8, count=layout.bounds[-1])
        text = _read_text(file, layout.offset + layout.bounds[-1])
    try:
        return data, None if text is None else VideoRecord.from_json(text)
    except (ValueError, KeyError, TypeError):
        return data, None


def _read_text(file: IO[bytes], end: int) -> bytes | None:
    """The json member behind data that ends at byte `end`."""
    file.seek(end + padding(end))
    try:
        header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict")
    except tarfile.HeaderError:
        return None
    return file.read(header.size)
