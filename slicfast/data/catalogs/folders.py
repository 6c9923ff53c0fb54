"""Videos without lists: a folder a class, split folders above them, or no classes at all."""

from __future__ import annotations

from collections.abc import Iterable

from slicfast.data.catalogs.base import Selection, Video
from slicfast.data.preparing.remote import Root
from slicfast.errors import DataError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def select_flat(root: Root, ids: Iterable[str]) -> Selection:
    """Every video below the root, without labels, in one split "train"."""
    selection = Selection(root)
    for video_id in ids:
        selection.add(Video(video_id, root / video_id), "train", str(root))
    return selection


def select_folder(root: Root, ids: list[str]) -> Selection:
    """root/[<split>/]<class>/.../x.mp4: the label is the first folder below the root (or the split folder).

    Top folders that are all named train, val (valid, validate, validation) or test are splits; otherwise
    there is one split, "train". Folders that hold nothing but one other folder of classes are passed through.

    Raises:
        DataError: split folders with other videos beside them.
    """
    depth, has_splits = _layout(root, ids)
    selection = Selection(root)
    for video_id in ids:
        parts = video_id.split("/")
        split = SPLIT_NAMES[parts[depth].lower()] if has_splits else "train"
        folders = parts[depth + has_splits : -1]
        label = folders[0] if folders else None
        selection.add(Video(video_id, root / video_id, label), split, str(root))
    return selection


def _layout(root: Root, ids: list[str]) -> tuple[int, bool]:
    """How many folders lie above the splits or classes, and whether there are split folders."""
    depth = 0
    while True:
        strays: dict[str, str] = {}  # head without a split's name -> one of its videos
        heads, split_heads, deep_splits = set(), set(), False
        is_only_passage = True
        for video_id in ids:
            parts = video_id.split("/", depth + 2)[depth:]
            if len(parts) > 1:
                heads.add(parts[0])
            if len(parts) > 1 and parts[0].lower() in SPLIT_NAMES:
                split_heads.add(parts[0])
                deep_splits |= len(parts) > 2
            else:
                strays.setdefault(parts[0], video_id)
            is_only_passage &= len(parts) > 2
        if split_heads and not strays:
            return depth, True
        if deep_splits and any(SPLIT_NAMES[head.lower()] == "train" for head in split_heads):
            raise DataError(
                f"{root}: '{next(iter(strays.values()))}' lies beside the split folders"
                f" {', '.join(sorted(split_heads))}; expected videos in split folders only:"
                " move it, or give a list"
            )
        if not (is_only_passage and len(heads) == 1):
            return depth, False
        depth += 1
