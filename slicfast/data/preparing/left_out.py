"""left_out.tsv: the videos that could not be stored, why, and what their files were at the time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slicfast.data.stores.format import LEFT_OUT, Source, write_atomically

COLUMNS = "id\treason\tsize\tmtime_ns\tfingerprint\n"


@dataclass(frozen=True)
class LeftOut:
    """Why a video is not in the store, and the file this was true of."""

    reason: str
    source: Source = field(default_factory=Source)


def read_left_out(store: Path) -> dict[str, LeftOut]:
    """What earlier runs left out, by id; empty where there is no list. A cut line is passed over."""
    try:
        lines = (store / LEFT_OUT).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines[1:-1]:
        try:
            video_id, reason, size, mtime_ns, fingerprint = line.decode("utf-8", "surrogatepass").split("\t")
            source = Source(int(size), int(mtime_ns), int(fingerprint))
            found[_unescape(video_id)] = LeftOut(_unescape(reason), source)
        except ValueError:
            continue
    return found


def write_left_out(store: Path, entries: Mapping[str, LeftOut]) -> None:
    """Replace the list. Raises OSError."""
    text = COLUMNS.encode() + b"".join(_line(video_id, entries[video_id]) for video_id in sorted(entries))
    write_atomically(store / LEFT_OUT, lambda file: file.write(text))


def append_left_out(store: Path, video_id: str, entry: LeftOut) -> None:
    """Add a line to the list that write_left_out made. Raises OSError."""
    with (store / LEFT_OUT).open("ab") as file:
        file.write(_line(video_id, entry))


def _line(video_id: str, entry: LeftOut) -> bytes:
    source = entry.source
    numbers = f"{source.size}\t{source.mtime_ns}\t{source.fingerprint}"
    return f"{_escape(video_id)}\t{_escape(entry.reason)}\t{numbers}\n".encode("utf-8", "surrogatepass")


def _escape(text: str) -> str:
    """Tabs, line breaks and backslashes as in JSON; ordinary names stay as they are."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _unescape(text: str) -> str:
    return str(json.loads(f'"{text}"'))
