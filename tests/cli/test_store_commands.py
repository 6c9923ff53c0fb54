"""slicfast store info, verify and merge as a user meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.data.store import ClipStore


@pytest.fixture
def store(tiny_store: ClipStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_store.path, tmp_path / "store"))


def test_info_is_a_table_or_json(store: Path, slicfast: Callable) -> None:
    shown = slicfast("store", "info", store)
    assert shown.code == 0 and "short side 32, quality 90" in shown.out and "split train" in shown.out
    values = json.loads(slicfast("store", "info", store, "--json").out)
    assert values["num_videos"] == 12 and values["splits"] == {"test": 4, "train": 8}


def test_verify_says_sound_or_names_what_is_damaged(store: Path, slicfast: Callable) -> None:
    sound = slicfast("store", "verify", store)
    assert sound.code == 0 and "12 videos" in sound.out and sound.out.rstrip().endswith("all sound")
    layout = ClipStore(store).layout(3)
    with layout.shard.open("r+b") as file:
        file.seek(layout.offset + 50)
        file.write(b"\x00\x01\x02")
    damaged = slicfast("store", "verify", store)
    assert damaged.code == 1
    assert f"damaged: {ClipStore(store).id(3)}: frame 0: the stored bytes" in damaged.out
    assert damaged.error_line.startswith("slicfast: error: 1 damaged video in")
    told = slicfast("store", "verify", store, "--json")
    assert told.code == 1 and json.loads(told.out)["damaged"][0]["frames"] == [0]


def test_merge_and_what_it_refuses(store: Path, tmp_path: Path, slicfast: Callable) -> None:
    done = slicfast("store", "merge", tmp_path / "out", store)
    assert done.code == 0 and "out holds 12 videos; copied now: 12" in done.out
    assert "nothing was left to do" in slicfast("store", "merge", tmp_path / "out", store).out
    twice = slicfast("store", "merge", tmp_path / "two", store, tmp_path / "out")
    assert twice.code == 2 and "--duplicates first" in twice.error_line
    nothing = slicfast("store", "info", tmp_path / "nowhere")
    assert nothing.code == 1 and "no clip store at" in nothing.error_line
