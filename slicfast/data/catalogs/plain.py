"""A plain list of videos: one a line, optionally with a label and the seconds of a segment.

# path [label [start_s end_s]]      a whole-line comment
jump/clip 7.mp4 jump
"odd name.mp4 3" "long jump"        quotes where a name or label could be misread
matches/final.mkv serve 12.5 15     a segment; "-" stands for no label
https://host/videos/7.mp4 jump      anything that fsspec opens
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from slicfast.data.catalogs.base import Selection, Video, read_lines
from slicfast.data.catalogs.folders import SPLIT_NAMES
from slicfast.data.catalogs.scan import VIDEO_EXTENSIONS, check_name
from slicfast.data.preparing.remote import Remote, RemoteFolder, Root, is_url
from slicfast.errors import ConfigError, DataError

LIST_SUFFIXES = (".txt", ".list", ".lst", ".csv", ".tsv")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s|$)|\'([^\']*)\'(?=\s|$)')
_EXTENSIONS = "|".join(extension[1:] for extension in sorted(VIDEO_EXTENSIONS))
_UP_TO_EXTENSION = re.compile(rf".+?\.(?:{_EXTENSIONS})(?=\s|$)", re.IGNORECASE)
_WORD = re.compile(r"\S+")

Lists = list[tuple[str, Path | str]]  # split and list; a list elsewhere is a URL


def find_lists(root: Root, lists: Path | str | None) -> Lists:
    """(split, file) of the lists: a file is "train"; a folder is searched for train.txt, val.txt, test.txt.

    Raises:
        ConfigError: no list is there.
    """
    if isinstance(lists, str) or (lists is not None and not lists.is_dir()):
        return [("train", lists)]
    folder = lists or root
    if isinstance(folder, RemoteFolder):
        raise ConfigError(f"kind list needs the list itself; name it, as in {folder}/train.txt")
    found: dict[str, Path] = {}
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read folder {folder}: {error.strerror or error}") from None
    for name in names:
        stem, suffix = os.path.splitext(name.lower())
        if suffix in LIST_SUFFIXES and stem in SPLIT_NAMES:
            found.setdefault(SPLIT_NAMES[stem], folder / name)
    if not found:
        raise ConfigError(
            f"no list in {folder}: expected train.txt (and val.txt, test.txt); give the list file itself"
        )
    return list(found.items())


def select_listed(root: Root, lists: Lists) -> Selection:
    """The videos of plain lists. Paths are relative to the root or else to the list's folder, or absolute.

    An id is the path under the root; a video outside the root has its absolute path or URL for an id. A line
    that says the same twice counts once. Whether remote videos are there is not asked: there may be millions.

    Raises:
        DataError: an unreadable list, or a bad line, with its number.
    """
    selection = Selection(root)
    folders = _Folders()
    prefix = f"{str(root).rstrip('/')}/"
    for split, path in lists:
        for number, line in enumerate(read_lines(path), start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            source = f"{path}, line {number}"
            listed, label, start_s, end_s = _parse(line, source)
            check_name(listed, source)
            segment = "" if start_s is None or end_s is None else f"#{_seconds(start_s)}-{_seconds(end_s)}"
            place = _place(listed, root, path, folders)
            if place is None:
                selection.missing.add(listed + segment)
                continue
            where = str(place) if isinstance(place, Path) else listed if is_url(listed) else prefix + listed
            video_id = where.removeprefix(prefix).replace(os.sep, "/")
            selection.add(Video(video_id + segment, place, label, start_s, end_s), split, source)
    return selection


def _place(listed: str, root: Root, list_file: Path | str, folders: _Folders) -> Path | Remote | None:
    """Where a listed video is; None for one that should be here and is not."""
    if is_url(listed):
        return Remote(listed, PurePosixPath(urlsplit(listed).path).name)
    if isinstance(root, RemoteFolder):
        return root / listed
    bases = [root, *([list_file.parent] if isinstance(list_file, Path) else [])]
    for base in bases:
        file = os.path.normpath(os.path.join(base, listed))  # an absolute path stays as it is
        if folders.has(file):
            return Path(file)
    return None


def _parse(line: str, source: str) -> tuple[str, str | None, float | None, float | None]:
    """Path, label, start and end of a line. Unquoted, the path ends behind the first video extension."""
    path, rest = _take(line, _UP_TO_EXTENSION, source)
    if not rest:
        return path, None, None, None
    label, rest = _take(rest, _WORD, source)
    times = rest.split()
    if not times:
        return path, None if label == "-" else label, None, None
    try:
        start_s, end_s = (float(time) for time in times)
    except ValueError:
        raise DataError(
            f"{source}: expected 'path [label [start_s end_s]]'; behind path '{path}' and label '{label}' got"
            f" '{rest}'; put quotes around a name or label with spaces"
        ) from None
    if not (0 <= start_s < end_s and math.isfinite(end_s)):
        raise DataError(f"{source}: a segment must start at 0 or later and end after it; got {rest}")
    return path, None if label == "-" else label, start_s, end_s


def _take(text: str, unquoted: re.Pattern[str], source: str) -> tuple[str, str]:
    """The first field of a line and what follows it."""
    match = _QUOTED.match(text)
    if match is not None:
        field = re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]
        if not field:
            raise DataError(f"{source}: empty name in quotes; expected 'path [label [start_s end_s]]'")
    else:
        match = unquoted.match(text) or _WORD.match(text)
        assert match is not None  # the text is stripped and not empty
        field = match[0]
    return field, text[match.end() :].strip()


def _seconds(value: float) -> str:
    return str(value).removesuffix(".0")


class _Folders:
    """Answers whether files are there by reading each folder once, not by asking for each file."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def has(self, file: str) -> bool:
        folder, name = os.path.split(file)
        names = self._names.get(folder)
        if names is None:
            try:
                with os.scandir(folder) as entries:
                    names = frozenset(entry.name for entry in entries if entry.is_file())
            except OSError:
                names = frozenset()
            self._names[folder] = names
        return name in names
