"""UCF101 and HMDB51 by their official train/test lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from slicfast.data.catalogs.base import Index, Selection, Video, read_lines
from slicfast.data.preparing.remote import Root
from slicfast.errors import DataError

_UCF_LIST = re.compile(r"(train|test)list0*(\d+)\.txt", re.IGNORECASE)
_HMDB_LIST = re.compile(r"(.+)_test_split(\d+)\.txt", re.IGNORECASE)
_HMDB_SPLITS = {"0": None, "1": "train", "2": "test"}  # 0: in neither


def is_ucf101_list(path: Path) -> bool:
    return _UCF_LIST.fullmatch(path.name) is not None


def is_hmdb51_list(path: Path) -> bool:
    return _HMDB_LIST.fullmatch(path.name) is not None


def select_ucf101(root: Root, ids: Iterable[str], lists: Sequence[Path]) -> Selection:
    """trainlist01.txt ... testlist03.txt: splits train1, test1, ... test3.

    Lines are `Class/v_Class_gNN_cNN.avi [number]`; numbers are 1-based and named in classInd.txt beside the
    lists, which may be absent. A video's label is the folder it is listed in. Files are found by name,
    whatever folder, case or container they have (HandstandPushups/v_HandStandPushups_* is spelt two ways).

    Raises:
        DataError: an unreadable list or a bad line, with its number.
    """
    index = Index(ids, ignore_case=True)
    class_names = _read_class_names(lists[0].parent / "classInd.txt") if lists else {}
    by_folded_name = {name.lower(): name for name in class_names.values()}
    selection = Selection(root)
    for path in lists:
        match = _UCF_LIST.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path} is not named like trainlist01.txt or testlist01.txt")
        split = f"{match[1].lower()}{int(match[2])}"
        for number, line in _numbered(path):
            listed, *rest = line.rsplit(None, 1) if re.search(r"\s\d+$", line) else [line]
            folder, _, name = listed.replace("\\", "/").rpartition("/")
            label: str | None = folder.rpartition("/")[2] or None
            if label is not None:
                label = by_folded_name.get(label.lower(), label)
            if rest and class_names:
                if int(rest[0]) not in class_names:
                    raise DataError(
                        f"{path}, line {number}: class {rest[0]} is not in classInd.txt,"
                        f" which numbers {min(class_names)} to {max(class_names)}"
                    )
                named = class_names[int(rest[0])]
                if label is not None and label != named:
                    raise DataError(
                        f"{path}, line {number}: '{listed}' is numbered {rest[0]}, which classInd.txt calls"
                        f" '{named}'; expected the folder's class"
                    )
                label = named
            stem, dot, _ = name.rpartition(".")
            if not dot or not stem:
                raise DataError(
                    f"{path}, line {number}: expected 'Class/v_Class_g01_c01.avi [number]'; got '{line}'"
                )
            video_id = index.find(stem, prefer=(folder.rpartition("/")[2], name))
            if video_id is None:
                selection.missing.add(listed)
            else:
                selection.add(Video(video_id, root / video_id, label), split, f"{path}, line {number}")
    return selection


def select_hmdb51(root: Root, ids: Iterable[str], lists: Sequence[Path]) -> Selection:
    """<class>_test_split<n>.txt with lines `name.avi {0,1,2}`: splits train1 (1), test1 (2), ... test3.

    A video that is 0 in every list is in no split. The label is the class in the list's name.

    Raises:
        DataError: an unreadable list or a bad line, with its number.
    """
    index = Index(ids, ignore_case=True)
    selection = Selection(root)
    for path in lists:
        match = _HMDB_LIST.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path} is not named like brush_hair_test_split1.txt")
        label, split_number = match[1], int(match[2])
        for number, line in _numbered(path):
            name, _, use = line.rpartition(" ")
            name = name.strip()
            stem, dot, _ = name.rpartition(".")
            if use not in _HMDB_SPLITS or not dot or not stem:
                raise DataError(f"{path}, line {number}: expected 'name.avi 0', 1 or 2; got '{line}'")
            video_id = index.find(stem, prefer=(label, name))
            if video_id is None:
                selection.missing.add(f"{label}/{name}")
                continue
            role = _HMDB_SPLITS[use]
            split = f"{role}{split_number}" if role else None
            selection.add(Video(video_id, root / video_id, label), split, f"{path}, line {number}")
    return selection


def _read_class_names(path: Path) -> dict[int, str]:
    if not path.exists():
        return {}
    names: dict[int, str] = {}
    for number, line in _numbered(path):
        index, _, name = line.partition(" ")
        if not index.isdecimal() or not name.strip():
            raise DataError(f"{path}, line {number}: expected 'number Class'; got '{line}'")
        names[int(index)] = name.strip()
    return names


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, stripped, with their numbers from 1."""
    lines = enumerate((line.strip() for line in read_lines(path)), start=1)
    return [(number, line) for number, line in lines if line]
