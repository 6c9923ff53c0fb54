"""Which videos there are: a folder, a list, tar shards, UCF101, HMDB51 or Kinetics, read into one form."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slicfast.data.catalogs.base import Catalog, Selection, Video
from slicfast.data.catalogs.folders import select_flat, select_folder
from slicfast.data.catalogs.kinetics import is_kinetics_list, one_version, select_kinetics
from slicfast.data.catalogs.official import is_hmdb51_list, is_ucf101_list, select_hmdb51, select_ucf101
from slicfast.data.catalogs.plain import LIST_SUFFIXES, find_lists, select_listed
from slicfast.data.catalogs.remote import scan_remote
from slicfast.data.catalogs.scan import VIDEO_EXTENSIONS, Tree, explain_no_videos, scan
from slicfast.data.catalogs.shards import find_shards, is_shards, select_shards, shards_root
from slicfast.data.preparing.remote import RemoteFolder, Root, is_url, local_path
from slicfast.errors import ConfigError, DataError, one_of

__all__ = ["KINDS", "VIDEO_EXTENSIONS", "Catalog", "Video", "read_catalog"]

KINDS = ("auto", "folder", "flat", "list", "shards", "ucf101", "hmdb51", "kinetics")

# Where official lists usually lie, beside the videos or beside their folder.
_LIST_FOLDERS = ("", "ucfTrainTestlist", "testTrainMulti_7030_splits", "annotations", "splits", "lists")

_log = logging.getLogger("slicfast")


@dataclass(frozen=True)
class _Official:
    """A data set with lists of its own."""

    is_list: Callable[[Path], bool]
    select: Callable[[Root, Iterable[str], Sequence[Path]], Selection]
    lists_look_like: str


_OFFICIAL = {
    "ucf101": _Official(is_ucf101_list, select_ucf101, "trainlist01.txt, testlist01.txt ..."),
    "hmdb51": _Official(is_hmdb51_list, select_hmdb51, "brush_hair_test_split1.txt ..."),
    "kinetics": _Official(is_kinetics_list, select_kinetics, "train.csv, val.csv with a column youtube_id"),
}


def read_catalog(root: str | Path, kind: str = "auto", lists: str | Path | None = None) -> Catalog:
    """The videos under `root`, their labels and splits. No video is opened.

    Args:
        root: folder of the videos, a plain list, or tar shards (braces and stars name several); a path or
            anything that fsspec lists (s3://, gs://, https:// ...).
        kind: folder (a folder a class, optionally under train/val/test), flat (no labels), list (plain list),
            shards (WebDataset), ucf101, hmdb51, kinetics, or auto: official lists that name videos found
            here, else folder or flat, or shards where there are only those. `Catalog.kind` says which it was.
        lists: a list file or a folder of lists; None looks in the usual places in and beside the root.

    Splits are train1, test1, ... (UCF101, HMDB51), train, val, test (Kinetics, split folders, lists so
    named), or one "train".

    Raises:
        ConfigError: unknown kind; a kind that needs lists and none there.
        DataError: no such folder, no videos, a list that cannot be read or names nothing that is there.
        MachineError: the package that reads such URLs is not installed.
    """
    if kind not in KINDS:
        raise ConfigError(one_of("kind", kind, KINDS))
    if is_shards(str(root)):
        return _finish_shards(find_shards(str(root)), kind, lists)
    if lists is not None and not is_url(lists):
        lists = local_path(lists)
    if is_url(root):
        return _read_remote(str(root), kind, lists)
    root = local_path(root)
    if isinstance(lists, str):
        return _finish_list(root, lists, kind)
    if root.is_file() and lists is None and root.suffix.lower() not in VIDEO_EXTENSIONS:
        root, lists = root.parent, root
        kind = _kind_of_lists(lists) if kind == "auto" else kind
    if not root.is_dir():
        found = "a video" if root.suffix.lower() in VIDEO_EXTENSIONS else "a file"
        found = found if root.exists() else "nothing"
        raise DataError(f"expected a folder of videos or a list of them at {root}; found {found}")
    if lists is not None:
        if not lists.exists():
            raise DataError(f"no list file or folder of lists at {lists}")
        kind = _kind_of_lists(lists) if kind == "auto" else kind
    if kind == "list":
        return _finish_list(root, lists, kind)
    if kind in ("folder", "flat") and lists is not None:
        raise ConfigError(f"kind {kind} reads no lists; leave out {lists}, or choose kind list")
    tree = scan(root)
    return _finish_tree(root, tree, kind, lists, lambda: sorted(map(str, root.rglob("*.tar"))))


def _read_remote(url: str, kind: str, lists: Path | str | None) -> Catalog:
    """The catalog of a folder or a list that fsspec opens."""
    if url.lower().endswith(LIST_SUFFIXES) and lists is None:
        return _finish_list(RemoteFolder(url.rpartition("/")[0]), url, kind)
    if url.lower().endswith(tuple(VIDEO_EXTENSIONS)):
        raise DataError(f"expected a folder of videos or a list of them at {url}; found a video")
    if isinstance(lists, Path) and kind == "auto":
        kind = _kind_of_lists(lists)
    if isinstance(lists, str) or kind == "list":
        return _finish_list(RemoteFolder(url.rstrip("/")), lists, kind)
    if kind in _OFFICIAL and lists is None:
        raise ConfigError(f"kind {kind} needs its lists on this machine; name their folder as the lists")
    root, tree, shards = scan_remote(url)
    return _finish_tree(root, tree, kind, lists, lambda: shards)


def _finish_tree(
    root: Root, tree: Tree, kind: str, lists: Path | None, shards: Callable[[], list[str]]
) -> Catalog:
    wants_shards = kind == "shards" or (kind == "auto" and not tree.ids and ".tar" in tree.other_extensions)
    if wants_shards and (found := shards()):
        return _finish_shards(found, kind, lists, root)
    if not tree.ids or kind == "shards":
        raise explain_no_videos(root, tree)
    if kind in _OFFICIAL:
        return _finish_official(root, tree, kind, lists)
    return _auto(root, tree) if kind == "auto" else _finish_folder(root, tree, kind)


def _finish_shards(
    shards: list[str], kind: str, lists: str | Path | None, root: Root | None = None
) -> Catalog:
    if kind not in ("auto", "shards") or lists is not None:
        raise ConfigError("tar shards are read as kind shards, without lists; leave out kind and lists")
    root = root or shards_root(shards)
    selection = select_shards(root, shards)
    if not selection.videos:
        raise DataError(f"no videos in the {len(shards)} tar shards of {root}, {shards[0]} for one")
    return selection.finish("shards")


def _kind_of_lists(lists: Path) -> str:
    files = [lists] if not lists.is_dir() else _files_in(lists)
    for kind, official in _OFFICIAL.items():
        if any(official.is_list(file) for file in files):
            return kind
    return "list"


def _files_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:  # a flat folder may hold 650,000 videos beside its lists
            names = [entry.name for entry in entries if entry.name.lower().endswith((".txt", ".csv"))]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _usual_lists(root: Root, kind: str) -> list[Path]:
    """The lists of a kind in the first of the usual places that has any."""
    if isinstance(root, RemoteFolder):
        return []
    for base in (root, root.parent):
        for name in _LIST_FOLDERS:
            found = [file for file in _files_in(base / name) if _OFFICIAL[kind].is_list(file)]
            if found:
                return found
    return []


def _select_official(root: Root, tree: Tree, kind: str, files: list[Path]) -> Selection:
    if kind == "kinetics":
        files = one_version(files, root)
    return _OFFICIAL[kind].select(root, tree.ids, files)


def _finish_official(root: Root, tree: Tree, kind: str, lists: Path | None) -> Catalog:
    if lists is None:
        files = _usual_lists(root, kind)
    elif lists.is_file():
        files = [lists]
    else:
        files = [file for file in _files_in(lists) if _OFFICIAL[kind].is_list(file)]
    if not files:
        usual = f"in or beside {root} or in {', '.join(name for name in _LIST_FOLDERS if name)} there"
        raise ConfigError(
            f"kind {kind} needs its lists, {_OFFICIAL[kind].lists_look_like}; found none"
            f" {usual if lists is None else f'in {lists}'}; name the folder they are in"
        )
    selection = _select_official(root, tree, kind, files)
    if not selection.videos:
        raise _nothing_found(
            selection, files[0], root, f"found {len(tree.ids)} others, '{tree.ids[0]}' for one"
        )
    return _finish_listed(selection, kind, tree, files)


def _finish_listed(selection: Selection, kind: str, tree: Tree, files: list[Path]) -> Catalog:
    catalog = selection.finish(kind)
    num_unlisted = len(tree.ids) - len({video.path for video in catalog.videos})
    _log.info(
        "%s: read as %s with the lists in %s: %d videos, %d missing, %d files in no list",
        *(catalog.root, kind, files[0].parent, len(catalog), len(catalog.missing), num_unlisted),
    )
    return catalog


def _auto(root: Root, tree: Tree) -> Catalog:
    for kind in _OFFICIAL:
        files = _usual_lists(root, kind)
        selection = _select_official(root, tree, kind, files) if files else None
        if selection is not None and selection.videos:
            return _finish_listed(selection, kind, tree, files)
    catalog = _finish_folder(root, tree, "folder")
    if len(catalog.labels) < 2 and tuple(catalog.splits) == ("train",):  # a single class is no class
        catalog = _finish_folder(root, tree, "flat")
    _log.info("%s: read as %s: %d videos, %d classes", root, catalog.kind, len(catalog), len(catalog.labels))
    return catalog


def _finish_folder(root: Root, tree: Tree, kind: str) -> Catalog:
    selection = select_folder(root, tree.ids) if kind == "folder" else select_flat(root, tree.ids)
    selection.missing.update(tree.broken)
    return selection.finish(kind)


def _finish_list(root: Root, lists: Path | str | None, kind: str) -> Catalog:
    if kind not in ("auto", "list"):
        raise ConfigError(f"kind {kind} reads no list from elsewhere; leave out kind, or fetch the lists")
    files = find_lists(root, lists)
    selection = select_listed(root, files)
    if selection.videos:
        return selection.finish("list")
    if selection.missing:
        raise _nothing_found(selection, files[0][1], root, "found no such file")
    raise DataError(f"list {files[0][1]} names no videos; expected 'path [label [start_s end_s]]' a line")


def _nothing_found(selection: Selection, list_file: Path | str, root: Root, found: str) -> DataError:
    return DataError(
        f"none of the {len(selection.missing)} videos that the list {list_file} names is under {root}:"
        f" expected '{min(selection.missing)}' for one, {found}"
    )
