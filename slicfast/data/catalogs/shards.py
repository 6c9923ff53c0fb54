"""WebDataset tar shards, here or elsewhere: a sample is the members of one key, its video one of them.

shards-{000000..000012}.tar, {train,val}-{00..07}.tar, s3://bucket/*.tar      several shards at once
walk/0001.mp4  walk/0001.cls  walk/0001.json                                  key walk/0001, id walk/0001.mp4
"""

from __future__ import annotations

import glob
import json
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from slicfast.data.catalogs.base import Selection, Video
from slicfast.data.catalogs.folders import SPLIT_NAMES
from slicfast.data.catalogs.scan import VIDEO_EXTENSIONS, check_name
from slicfast.data.preparing.remote import (
    FetchError,
    Remote,
    RemoteFolder,
    Root,
    file_system,
    is_url,
    local_path,
    persistently,
    told,
)
from slicfast.data.stores.format import Source
from slicfast.errors import DataError

NUM_AT_ONCE = 16  # remote shards whose headers are read at the same time
HEADER_BYTES = 64 << 10  # read ahead behind a header: the small members after it
MAX_LABEL_BYTES = 1 << 20
MAX_LABEL = 100  # letters; a longer .txt is a caption
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_LABEL_KEYS = ("label", "class", "cls", "label_name", "class_name")

_log = logging.getLogger("slicfast")


def is_shards(location: str) -> bool:
    """Whether a location names tar shards."""
    return location.lower().endswith((".tar", ".tar.gz", ".tgz"))


def expand(pattern: str) -> list[str]:
    """The locations that a pattern names, in order; a number keeps the zeros in front of its first.

    Raises DataError for a range that runs backwards.
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, alternatives = match.groups()
    if alternatives is None:
        if int(last) < int(first):
            raise DataError(f"{pattern}: the range {match[0]} runs backwards")
        items = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        items = alternatives.split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [location for item in items for location in expand(f"{head}{item}{tail}")]


def find_shards(pattern: str) -> list[str]:
    """Every shard that a pattern with braces, stars or neither names. Raises DataError for none."""
    found: list[str] = []
    for location in expand(pattern):
        if not is_url(location):
            location = str(local_path(location))
        if "*" not in location:
            found.append(location)
        elif is_url(location):
            system, path = file_system(location)
            found += sorted(map(system.unstrip_protocol, persistently(lambda s=system, p=path: s.glob(p))))  # type: ignore[misc]
        else:
            found += sorted(glob.glob(location))
    if not found:
        raise DataError(f"no tar shards match {pattern}")
    return found


def select_shards(root: Root, shards: Sequence[str]) -> Selection:
    """The videos of WebDataset shards; only headers and labels are read.

    A sample's label is its .cls, else "label" or "class" in its .json, else its .txt where that is a short
    line, else the first folder of its key. Shards named train-*, val-* or test-* are of that split, others
    train.

    Raises:
        DataError: a shard that cannot be read, compressed shards, a key twice.
    """
    selection = Selection(root)
    seen: dict[str, str] = {}
    for shard, samples in zip(shards, _read_all(shards), strict=True):
        split = _split_of(shard)
        for sample in samples:
            video_id = sample.video.name
            check_name(video_id, shard)
            if video_id in seen:
                raise DataError(
                    f"'{video_id}' is in {seen[video_id]} and in {shard}; expected a key in one shard only"
                )
            seen[video_id] = shard
            remote = Remote(
                shard, PurePosixPath(video_id).name, sample.start, sample.video.size, sample.source
            )
            selection.add(Video(video_id, remote, sample.label), split, shard)
    return selection


@dataclass(frozen=True)
class _Member:
    name: str
    start: int
    size: int


@dataclass(frozen=True)
class _Sample:
    video: _Member
    label: str | None
    source: Source

    @property
    def start(self) -> int:
        return self.video.start


def _split_of(shard: str) -> str:
    words = re.split(r"[^a-z]+", PurePosixPath(shard).name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "train")


def _read_all(shards: Sequence[str]) -> Iterator[list[_Sample]]:
    if len(shards) > 1:
        _log.info("reading the headers of %d shards", len(shards))
    if not is_url(shards[0]):
        yield from map(_read_shard, shards)
        return
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        yield from pool.map(_read_shard, shards)


def _read_shard(shard: str) -> list[_Sample]:
    if not shard.lower().endswith(".tar"):
        raise DataError(
            f"{shard} is compressed; expected a plain .tar, of which parts can be read: unpack it"
        )
    try:
        system, path = file_system(shard)
        return persistently(lambda: _samples(system, path, shard))
    except FetchError as error:
        raise DataError(f"cannot read the shard {shard}: {error}") from None


def _samples(system: Any, path: str, shard: str) -> list[_Sample]:
    info = system.info(path)
    source = told(info)
    if not is_url(shard):
        source = Source(source.size, local_path(shard).stat().st_mtime_ns)
    web = shard.startswith(("http://", "https://"))
    options = {"block_size": HEADER_BYTES, "cache_type": "readahead"} if is_url(shard) else {}
    members: dict[str, dict[str, tuple[_Member, bytes]]] = {}
    try:
        with system.open(path, "rb", **options) as file:
            for member, content in _members(file, shard, source.size):
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                members.setdefault(key, {})[extension.lower()] = member, content
    except ValueError as error:
        if web:
            raise FetchError(
                "its server gives no parts of files; download the shards, or serve them with one that does",
                for_now=False,
            ) from None
        raise DataError(f"{shard}: {error}") from None
    samples = []
    for key, parts in members.items():
        label = _label(key, parts)
        for extension, (member, _) in parts.items():
            if f".{extension.rpartition('.')[2]}" in VIDEO_EXTENSIONS:
                samples.append(_Sample(member, label, Source(member.size, source.mtime_ns)))
    return samples


def _members(file: IO[bytes], shard: str, size: int) -> Iterator[tuple[_Member, bytes]]:
    """The regular files of a tar, with the contents of labels; up to where it is damaged."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                name = info.name.removeprefix("./")
                extension = name.rpartition(".")[2].lower()
                if not info.isreg() or name.rpartition("/")[2].startswith("."):
                    continue
                content = b""
                if extension in ("cls", "txt", "json") and info.size <= MAX_LABEL_BYTES:
                    opened = archive.extractfile(info)
                    content = opened.read() if opened is not None else b""
                yield _Member(name, info.offset_data, info.size), content
            end = archive.offset
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no header at byte {end}")
    except tarfile.TarError as error:
        if size:
            _log.warning("%s is damaged, the videos before that are used: %s", shard, error)


def _label(key: str, parts: dict[str, tuple[_Member, bytes]]) -> str | None:
    def text(extension: str) -> str:
        content = parts[extension][1] if extension in parts else b""
        try:
            return content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return ""

    if text("cls"):
        return text("cls")
    if text("json"):
        try:
            values = json.loads(text("json"))
        except ValueError:
            values = None
        if isinstance(values, dict):
            for name in _LABEL_KEYS:
                if isinstance(values.get(name), str | int) and str(values[name]).strip():
                    return str(values[name]).strip()
    line = text("txt")
    if line and "\n" not in line and len(line) <= MAX_LABEL:
        return line
    folders = key.split("/")[:-1]
    return folders[0] if folders else None


def shards_root(shards: Sequence[str]) -> Root:
    """What the shards' catalog is said to be of: the folder of the first."""
    if is_url(shards[0]):
        return RemoteFolder(shards[0].rpartition("/")[0])
    return local_path(shards[0]).parent
