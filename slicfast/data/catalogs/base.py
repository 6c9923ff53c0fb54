"""What every kind of catalog is made of: videos by id, named splits, and what was listed but not found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from slicfast.data.preparing.remote import Remote, Root, read_whole
from slicfast.errors import DataError


@dataclass(frozen=True, slots=True)
class Video:
    """One video, or a segment of a longer one.

    Attributes:
        id: path under the catalog's root, POSIX, with extension; a segment adds "#start-end".
        path: the file, or where it is to be fetched from.
        label: its class, where one is known.
        start_s: first second of the segment; None: from the first frame.
        end_s: end of the segment in seconds, exclusive; None: to the last frame.
    """

    id: str
    path: Path | Remote
    label: str | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Catalog:
    """The videos of a data set and the splits they are in.

    Attributes:
        root: absolute folder, here or elsewhere, that the ids start from.
        videos: sorted by id, every id once.
        splits: name -> sorted ids; no empty ones. A video may be in several splits or in none.
        missing: sorted names that a list gives (or a broken link points to) and that are not there.
        kind: the layout that was read: folder, flat, list, shards, ucf101, hmdb51 or kinetics.
    """

    root: Root
    videos: tuple[Video, ...]
    splits: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes there are, sorted."""
        return tuple(sorted({video.label for video in self.videos if video.label is not None}))


@dataclass
class Selection:
    """A catalog in the making: collects videos in any order, refuses contradictions."""

    root: Root
    videos: dict[str, Video] = field(default_factory=dict)
    splits: dict[str, set[str]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def add(self, video: Video, split: str | None, source: str) -> None:
        """Take a video into a split. A label outlives lists without labels; two labels contradict each other.

        Raises DataError naming `source` (file and line) if they do.
        """
        known = self.videos.get(video.id)
        if known is None or (known.label is None and video.label is not None):
            self.videos[video.id] = video
        elif video.label is not None and video.label != known.label:
            raise DataError(
                f"{source}: '{video.id}' has label '{video.label}' here and '{known.label}' before;"
                " expected one label a video"
            )
        if split is not None:
            self.splits.setdefault(split, set()).add(video.id)

    def finish(self, kind: str) -> Catalog:
        return Catalog(
            root=self.root,
            videos=tuple(self.videos[video_id] for video_id in sorted(self.videos)),
            splits={name: tuple(sorted(self.splits[name])) for name in sorted(self.splits)},
            missing=tuple(sorted(self.missing)),
            kind=kind,
        )


class Index:
    """Finds a listed video among the files of a tree by its name without extension.

    Files may lie in other folders than the list says, or have been converted to another container.
    """

    def __init__(self, ids: Iterable[str], *, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._ids_by_stem: dict[str, list[str]] = {}
        for video_id in ids:
            stem = video_id.rpartition("/")[2].rpartition(".")[0]
            self._ids_by_stem.setdefault(self._fold(stem), []).append(video_id)

    def find(self, stem: str, prefer: Iterable[str] = ()) -> str | None:
        """The id of the file with this stem; among several, the one whose path has most of `prefer` in it."""
        found = self._ids_by_stem.get(self._fold(stem))
        if not found:
            return None
        if len(found) == 1:
            return found[0]
        wanted = {part.lower() for part in prefer}
        return min(found, key=lambda video_id: (-len(wanted & set(video_id.lower().split("/"))), video_id))

    def _fold(self, stem: str) -> str:
        return stem.lower() if self._ignore_case else stem


def read_lines(path: Path | str) -> list[str]:
    """The lines of a UTF-8 text file or URL, whatever its line ends. Raises DataError if it is none."""
    try:
        content = path.read_bytes() if isinstance(path, Path) else read_whole(path)
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"list {path} is not UTF-8 text (byte {error.start}); expected one video a line"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read list {path}: {error.strerror or error}") from None
    return text.split("\n")
