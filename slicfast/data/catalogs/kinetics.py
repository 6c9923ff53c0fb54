"""Kinetics-400, -600 and -700 by their CSV annotations."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slicfast.data.catalogs.base import Index, Selection, Video, read_lines
from slicfast.data.catalogs.folders import SPLIT_NAMES
from slicfast.data.preparing.remote import Root
from slicfast.errors import ConfigError, DataError

_COLUMNS = ("youtube_id", "time_start", "time_end")  # label, split and is_cc are in some files only


@dataclass(frozen=True)
class _Row:
    youtube_id: str
    start_s: int
    end_s: int
    label: str | None
    split: str
    source: str

    @property
    def name(self) -> str:
        """The usual name of the clip's file, without extension."""
        return f"{self.youtube_id}_{self.start_s:06d}_{self.end_s:06d}"


def is_kinetics_list(path: Path) -> bool:
    """Whether the file is a CSV whose first line names Kinetics' columns."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "youtube_id" in file.readline(1000)
    except OSError:
        return False


def one_version(lists: Sequence[Path], root: Root) -> list[Path]:
    """The lists of one Kinetics, where a folder holds several: the one that the root's path names.

    Raises:
        ConfigError: several versions and no hint which.
    """
    by_version: dict[str, list[Path]] = defaultdict(list)
    for path in lists:
        found = re.search(r"[4567]00", path.name)
        by_version[found[0] if found else ""].append(path)
    if len(by_version) <= 1:
        return list(lists)
    hinted = [version for version in by_version if version and version in str(root)]
    if len(hinted) == 1:
        return by_version[hinted[0]]
    versions = ", ".join(sorted(version for version in by_version if version))
    raise ConfigError(
        f"{lists[0].parent} holds lists of several data sets (Kinetics {versions}); give one of the files"
        " as the list, or put each version's in a folder of its own"
    )


def select_kinetics(root: Root, ids: Iterable[str], lists: Sequence[Path]) -> Selection:
    """Splits train, val, test from CSVs in any of the published layouts, told apart by their header.

    A clip's file is `<id>_000010_000020.*`, `<id>_10_20.*` or `<id>.*`, in any folder; the last is taken for
    the cut clip, except where several rows name it: then it is the whole video and its rows are segments.
    Clips that are not there are counted as missing: nobody has all of Kinetics.

    Raises:
        DataError: an unreadable list, missing columns, or a bad line, with its number.
    """
    index = Index(ids, ignore_case=False)  # YouTube's ids differ by case
    selection = Selection(root)
    rows_by_whole_video: dict[str, list[_Row]] = defaultdict(list)
    for path in lists:
        for row in _read_rows(path):
            prefer = [row.split, *([row.label, row.label.replace(" ", "_")] if row.label else [])]
            prefer += [name for name, split in SPLIT_NAMES.items() if split == row.split]
            video_id = index.find(row.name, prefer)
            video_id = video_id or index.find(f"{row.youtube_id}_{row.start_s}_{row.end_s}", prefer)
            if video_id is not None:
                selection.add(Video(video_id, root / video_id, row.label), row.split, row.source)
                continue
            video_id = index.find(row.youtube_id, prefer)
            if video_id is None:
                selection.missing.add(f"{row.name}.mp4")
            else:
                rows_by_whole_video[video_id].append(row)
    for video_id, rows in rows_by_whole_video.items():
        is_cut_clip = len({(row.start_s, row.end_s) for row in rows}) == 1
        for row in rows:
            video = Video(video_id, root / video_id, row.label)
            if not is_cut_clip:
                segment_id = f"{video_id}#{row.start_s}-{row.end_s}"
                video = Video(segment_id, video.path, row.label, float(row.start_s), float(row.end_s))
            selection.add(video, row.split, row.source)
    return selection


def _read_rows(path: Path) -> Iterable[_Row]:
    reader = csv.DictReader(read_lines(path))
    columns = reader.fieldnames or []
    absent = [column for column in _COLUMNS if column not in columns]
    if absent:
        raise DataError(
            f"{path}: no column {', '.join(absent)}; expected {', '.join(_COLUMNS)} and optionally label and"
            f" split; found {', '.join(columns) or 'an empty file'}"
        )
    fallback = _split_in_name(path)
    for values in reader:
        source = f"{path}, line {reader.line_num}"
        youtube_id = (values["youtube_id"] or "").strip()
        split = SPLIT_NAMES.get((values.get("split") or "").strip().lower(), fallback)
        if not youtube_id:
            raise DataError(f"{source}: no youtube_id")
        if split is None:
            raise DataError(
                f"{source}: split must be train, val or test, here or in the file's name;"
                f" got '{values.get('split') or ''}'"
            )
        try:
            start_s, end_s = int(float(values["time_start"])), int(float(values["time_end"]))
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{source}: time_start and time_end must be seconds;"
                f" got '{values['time_start']}' and '{values['time_end']}'"
            ) from None
        yield _Row(youtube_id, start_s, end_s, (values.get("label") or "").strip() or None, split, source)


def _split_in_name(path: Path) -> str | None:
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
