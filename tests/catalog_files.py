"""Placeholder files and lists for tests of catalogs, and short ways to look at one."""

from pathlib import Path

from slicfast.data.catalog import Catalog


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def ids(catalog: Catalog) -> list[str]:
    return [video.id for video in catalog.videos]


def labels(catalog: Catalog) -> dict[str, str | None]:
    return {video.id: video.label for video in catalog.videos}


def counts(catalog: Catalog) -> dict[str, int]:
    return {name: len(split) for name, split in catalog.splits.items()}


def make_ucf(root: Path, lists: Path) -> None:
    """Two classes, three splits, spelt and ended as the official lists are."""
    touch(
        root,
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandStandPushups_g02_c01.avi",
    )
    touch(root, "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g02_c01.avi")
    write(lists / "classInd.txt", "1 Archery\r\n2 HandstandPushups\r\n")
    for split, (train, test) in enumerate([("01", "02"), ("02", "01"), ("01", "02")], start=1):
        write(
            lists / f"trainlist0{split}.txt",
            f"Archery/v_Archery_g{train}_c01.avi 1\r\n"
            f"HandstandPushups/v_HandStandPushups_g{train}_c01.avi 2\r\n",
        )
        write(
            lists / f"testlist0{split}.txt",
            f"Archery/v_Archery_g{test}_c01.avi\r\nHandstandPushups/v_HandStandPushups_g{test}_c01.avi\r\n",
        )
