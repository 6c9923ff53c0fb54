"""The video files below a folder, found without opening or stat-ing any of them."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slicfast.data.preparing.remote import Root
from slicfast.errors import DataError

# Containers and raw streams that FFmpeg reads; the case of an extension does not matter.
VIDEO_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("264", "265", "3g2", "3gp", "amv", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "h265"),
        *("hevc", "ivf", "m1v", "m2t", "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe"),
        *("mpeg", "mpg", "mpv", "mts", "mxf", "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "ts", "vob"),
        *("webm", "wmv", "wtv", "xvid", "y4m"),
    )
)


@dataclass
class Tree:
    """What a scan found.

    Attributes:
        ids: sorted POSIX paths of video files under the root.
        broken: sorted paths of links named like videos that point to nothing.
        other_extensions: how many files had which other extension.
    """

    ids: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    other_extensions: Counter[str] = field(default_factory=Counter)


def scan(root: Path) -> Tree:
    """Every file below `root` with a video extension; hidden names (".x", "._x.mp4") are passed over.

    Links to folders are followed after all real folders have been read, and no folder is read twice, so
    loops end and a linked folder does not double its videos.

    Raises:
        DataError: no such folder, an unreadable one, or a name that no list could hold (control character,
            not UTF-8).
    """
    tree = Tree()
    folders: list[tuple[str, str]] = [(str(root), "")]
    links: list[tuple[str, str]] = []  # a heap by path under the root: the order is the same on every machine
    seen: set[tuple[int, int]] = set()
    while folders or links:
        folder, prefix = folders.pop() if folders else heapq.heappop(links)[::-1]
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if _holds(entry.is_dir):
                        if entry.is_symlink():
                            heapq.heappush(links, (f"{prefix}{name}/", entry.path))
                        else:
                            folders.append((entry.path, f"{prefix}{name}/"))
                        continue
                    extension = os.path.splitext(name)[1].lower()
                    if extension not in VIDEO_EXTENSIONS:
                        tree.other_extensions[extension] += 1
                        continue
                    video_id = prefix + name
                    check_name(video_id, folder)
                    if _holds(entry.is_file):
                        tree.ids.append(video_id)
                    elif entry.is_symlink():
                        tree.broken.append(video_id)
        except OSError as error:
            raise DataError(f"cannot read folder {folder}: {error.strerror or error}") from None
    tree.ids.sort()
    tree.broken.sort()
    return tree


def _holds(question: Callable[[], bool]) -> bool:
    """The answer of DirEntry.is_dir or is_file, which costs a look at the file for links only."""
    try:
        return question()
    except OSError:  # a link to itself
        return False


def check_name(name: str, where: str | Path) -> None:
    """Raises DataError for a video name that breaks lists and tables of one line a video."""
    if name.isprintable():
        return
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise DataError(
            f"{where}: the name {name!r} has a line break, tab or other control character; rename the file"
        )
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{where}: the name {name!a} is not valid UTF-8; rename the file") from None


def explain_no_videos(root: Root, tree: Tree) -> DataError:
    """The error for a tree without videos: what was there, and what was looked for."""
    if tree.broken:
        return DataError(
            f"no videos under {root}: all {len(tree.broken)} of its links point to nothing,"
            f" '{tree.broken[0]}' for one; is the disk they point to mounted?"
        )
    if not tree.other_extensions:
        return DataError(f"no videos under {root}: it holds no files; give the folder that holds the videos")
    found = ", ".join(
        f"{count} {extension or 'without extension'}"
        for extension, count in tree.other_extensions.most_common(4)
    )
    return DataError(
        f"no videos under {root}: found only other files ({found});"
        f" looked for {' '.join(sorted(VIDEO_EXTENSIONS))}"
    )
