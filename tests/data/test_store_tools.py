"""Clip stores told in numbers, verified and merged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_data import encode_pictures, numbered_video, record_of, smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.preparing.left_out import LeftOut, read_left_out, write_left_out
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.info import store_info
from slicfast.data.stores.merge import MERGED_FROM, merge
from slicfast.data.stores.verify import verify
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import ConfigError, DataError

SMALL = StoreSettings(short_side=24)
FLOW = StoreSettings(short_side=24, content="flow-u")
ROOT = Path(__file__).parents[2]


def write_store(
    path: Path, ids: list[str], seed: int = 0, settings: StoreSettings = SMALL, label: str | None = "a"
) -> Path:
    """Videos of 3 to 6 pictures of 32 x 24 pixels; split train has all, test the first."""
    generator = np.random.default_rng(seed)
    with StoreWriter(path, settings) as writer:
        for number, video_id in enumerate(ids):
            pictures = encode_pictures(smooth_video(generator, 3 + number % 4, 32, 24))
            writer.add(record_of(video_id, label, pictures, 32, 24), b"".join(pictures))
        writer.finish(dict.fromkeys(ids, label), {"train": ids, "test": ids[:1]})
    return path


def contents(path: Path) -> dict[str, tuple[str | None, list[bytes]]]:
    store = ClipStore(path)
    names = (*store.label_names, None)
    return {
        store.id(row): (
            names[store.label_ids[row]],
            [frame.tobytes() for frame in store.frames(row, range(int(store.num_frames[row])))],
        )
        for row in range(len(store))
    }


def split_ids(path: Path) -> dict[str, list[str]]:
    store = ClipStore(path)
    return {name: store.ids(store.split(name)) for name in store.splits}


@pytest.fixture(scope="module")
def kept_videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores made of files, VP9 with originals kept; read-only."""
    root = tmp_path_factory.mktemp("kept")
    made = []
    for name, lengths in (("a", (9, 20)), ("b", (1, 17, 11))):
        for length in lengths:
            write_video(root / f"{name}/{length}.avi", numbered_video(length, 51, 33))
        settings = StoreSettings(short_side=24, codec="vp9")
        prepare(read_catalog(root / name), root / f"{name}-store", settings, workers=1, keep_original=True)
        made.append(root / f"{name}-store")
    return made[0], made[1]


def test_info_tells_what_is_there(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store", ["a", "b", "c", "d", "e"])
    write_store(path / "flow-u", ["a", "b"], settings=FLOW, label=None)
    write_left_out(path, {"bad": LeftOut("no video")})
    info = store_info(path)
    assert (info.num_videos, info.num_frames, info.frames) == (5, 3 + 4 + 5 + 6 + 3, (3, 4, 6))
    assert info.hours == pytest.approx(21 / 25 / 3600)
    assert info.splits == {"test": 1, "train": 5} and info.sizes == ((32, 24, 5),)
    assert (info.num_classes, info.num_unlabelled, info.num_left_out, info.num_shards) == (1, 0, 1, 1)
    assert info.shard_bytes == sum(file.stat().st_size for file in (path / "shards").iterdir())
    assert list(info.nested) == ["flow-u"] and info.nested["flow-u"].num_unlabelled == 2
    values = json.loads(json.dumps(info.to_dict()))
    assert values["settings"]["quality"] == 90 and values["nested"]["flow-u"]["num_videos"] == 2


def test_info_of_originals(kept_videos: tuple[Path, Path]) -> None:
    info = store_info(kept_videos[0])
    assert (info.num_originals, info.original_files) == (2, 2)
    assert info.original_bytes > sum(file.stat().st_size for file in kept_videos[0].glob("../a/*.avi"))
    assert info.settings.codec == "vp9"


def test_sound_stores_verify(kept_videos: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_store(tmp_path / "store", ["a", "b", "c"])
    write_store(path / "flow-u", ["a", "b"], settings=FLOW)
    calls: list[tuple[int, int, str]] = []
    report = verify(path, progress=lambda *state: calls.append(state))
    assert report.num_damaged == 0 and (report.num_videos, report.num_frames) == (3, 12)
    assert report.num_bytes == sum(len(b"".join(frames)) for _, frames in contents(path).values())
    assert calls == [(n, 3, "store") for n in (1, 2, 3)] + [(n, 2, "flow-u") for n in (1, 2)]
    assert report.nested[0].num_videos == 2
    kept = verify(kept_videos[0])
    assert kept.num_damaged == 0
    originals = ClipStore(kept_videos[0]).originals
    assert originals is not None and kept.num_bytes > originals.num_bytes > 0


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_damage_is_named_wherever_it_is(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slicfast.data.stores.verify.SMALL", 0)
    path = write_store(tmp_path / "store", ["a", "b", "c", "d"])
    write_store(path / "flow-u", ["a", "b"], settings=FLOW)
    layouts = [ClipStore(path).layout(row) for row in range(4)]
    shard, flow = layouts[0].shard, ClipStore(path / "flow-u").layout(1)
    flip(shard, layouts[1].offset + layouts[1].bounds[2] + 5)
    flip(shard, layouts[1].offset + layouts[1].bounds[3] + 5)
    flip(flow.shard, flow.offset)
    text_start = layouts[2].offset + layouts[2].bounds[-1]
    flip(shard, shard.read_bytes().index(b'"crcs"', text_start) + 12)
    with shard.open("r+b") as file:
        file.truncate(layouts[3].offset + layouts[3].bounds[1] + 1)
    report = verify(path, workers=workers)
    assert report.num_damaged == 4
    assert [(video.id, video.frames) for video in report.damaged] == [
        ("b", [2, 3]),
        ("c", []),
        ("d", [1, 2, 3, 4, 5]),
    ]
    assert report.damaged[0].faults == ["frame 2 and 1 more: the stored bytes do not match their checksum"]
    assert report.damaged[1].faults == ["its record in the shard is damaged"]
    assert report.damaged[2].faults[0] == "shard-00000.tar ends before its pictures do"
    assert [video.id for video in report.nested[0].damaged] == ["b"]
    values = json.loads(json.dumps(report.to_dict()))
    assert values["damaged"][0]["frames"] == [2, 3] and values["videos_per_second"] > 0


def test_damaged_original_and_lost_shard_are_named(kept_videos: tuple[Path, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(kept_videos[0], tmp_path / "store"))
    original = ClipStore(path).original(0)
    flip(original.shard, original.offset + 40)
    (damaged,) = verify(path).damaged
    assert damaged.id == "20.avi" and damaged.faults == ["its original file does not match its checksum"]
    next((path / "shards").glob("*.tar")).unlink()
    assert [video.id for video in verify(path).damaged] == ["20.avi", "9.avi"]


def test_merge_joins_videos_labels_and_splits(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a", ["x/2", "x/1"], 1, label="x")
    second = write_store(tmp_path / "b", ["y/1", "x/3"], 2, label="y")
    third = write_store(tmp_path / "c", ["z"], 3, label=None)
    write_left_out(first, {"bad": LeftOut("no video"), "z": LeftOut("no video")})
    calls: list[tuple[int, int, str]] = []
    report = merge(tmp_path / "out", [first, second, third], progress=lambda *state: calls.append(state))
    assert (report.num_videos, report.num_copied, report.damaged) == (5, 5, {})
    assert contents(tmp_path / "out") == {**contents(first), **contents(second), **contents(third)}
    assert split_ids(tmp_path / "out") == {
        "test": ["x/2", "y/1", "z"],
        "train": ["x/1", "x/2", "x/3", "y/1", "z"],
    }
    assert list(read_left_out(tmp_path / "out")) == ["bad"]  # z is there after all
    assert calls[0][:2] == (1, 5) and calls[-1][:2] == (5, 5)
    assert verify(tmp_path / "out").num_damaged == 0
    again = merge(tmp_path / "out", [first, second, third])
    assert (again.num_copied, again.num_videos) == (0, 5)


def test_merge_of_vp9_stores_with_originals(kept_videos: tuple[Path, Path], tmp_path: Path) -> None:
    report = merge(tmp_path / "out", kept_videos)
    assert report.num_videos == 5
    merged = ClipStore(tmp_path / "out")
    for path in kept_videos:
        store = ClipStore(path)
        for row, video_id in enumerate(store.ids()):
            there = merged.row(video_id)
            assert merged.original(there).data.tobytes() == store.original(row).data.tobytes()
            assert merged.original(there).facts == store.original(row).facts
            assert np.array_equal(merged.cut(there, [0]).data, store.cut(row, [0]).data)
    assert verify(tmp_path / "out").num_damaged == 0
    assert merge(tmp_path / "out", kept_videos).num_bytes == 0
    bare = merge(tmp_path / "bare", kept_videos, pictures_only=True)
    assert bare.num_videos == 5 and ClipStore(tmp_path / "bare").originals is None


def test_duplicates_are_refused_or_resolved(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a", ["1", "2"], 1, label="old")
    second = write_store(tmp_path / "b", ["2", "3"], 2, label="new")
    with pytest.raises(ConfigError, match=r"'2' is in .*/a and in .*/b; say whose counts"):
        merge(tmp_path / "out", [first, second])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="duplicates must be one of refuse, first, last; got 'newest'"):
        merge(tmp_path / "out", [first, second], duplicates="newest")
    report = merge(tmp_path / "first", [first, second], duplicates="first")
    assert (report.num_videos, report.num_duplicates) == (3, 1)
    assert contents(tmp_path / "first") == {**contents(second), **contents(first)}
    assert split_ids(tmp_path / "first")["test"] == ["1"]  # 2 is as it is in a: not in test
    merge(tmp_path / "last", [first, second], duplicates="last")
    assert contents(tmp_path / "last") == {**contents(first), **contents(second)}
    assert split_ids(tmp_path / "last")["test"] == ["1", "2"]


def test_flow_is_merged_with_its_videos_and_must_be_in_all(tmp_path: Path) -> None:
    first, second = (write_store(tmp_path / name, [name], n) for n, name in enumerate("ab"))
    write_store(first / "flow-u", ["a"], 7, FLOW)
    with pytest.raises(ConfigError, match=r"/a holds flow-u and .*/b does not; .*--pictures-only"):
        merge(tmp_path / "out", [first, second])
    assert merge(tmp_path / "bare", [first, second], pictures_only=True).num_videos == 2
    write_store(second / "flow-u", ["b"], 8, FLOW)
    report = merge(tmp_path / "out", [first, second])
    assert report.nested["flow-u"].num_videos == 2
    flows = {**contents(first / "flow-u"), **contents(second / "flow-u")}
    assert contents(tmp_path / "out/flow-u") == flows


def test_wrong_mixtures_are_refused_in_one_line(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a", ["a"])
    other = write_store(tmp_path / "b", ["b"], settings=StoreSettings(short_side=24, quality=50))
    with pytest.raises(ConfigError, match=r"quality 90.*quality 50.*same settings"):
        merge(tmp_path / "out", [first, other])
    with pytest.raises(ConfigError, match="is one of the stores to merge"):
        merge(first, [first])
    with pytest.raises(DataError, match="found nothing"):
        merge(tmp_path / "out", [first, tmp_path / "none"])
    with pytest.raises(DataError, match="not made by this merge"):
        merge(other, [first])
    merge(tmp_path / "out", [first])
    with pytest.raises(DataError, match="not made by this merge"):
        merge(tmp_path / "out", [first, write_store(tmp_path / "c", ["c"])])
    assert ClipStore(tmp_path / "out").ids() == ["a"] and ClipStore(other).ids() == ["b"]


def test_damaged_videos_are_left_out_of_a_merge_and_named(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a", ["a", "b", "c"])
    layout = ClipStore(first).layout(1)
    flip(layout.shard, layout.offset + 30)
    report = merge(tmp_path / "out", [first])
    assert list(report.damaged) == ["b"] and ClipStore(tmp_path / "out").ids() == ["a", "c"]
    assert "damaged in" in read_left_out(tmp_path / "out")["b"].reason


KILLED = (
    "import os, signal, sys\n"
    "from slicfast.data.stores.merge import merge\n"
    "def stop(done, total, name):\n"
    "    if done == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
    "merge(sys.argv[1], sys.argv[2:], progress=stop)\n"
)


def test_killed_merge_goes_on_where_it_was(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / name, [f"{name}{n}" for n in range(6)], ord(name)) for name in "ab"]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out"), *map(str, stores)]
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    with pytest.raises(DataError, match="not finished"):
        ClipStore(tmp_path / "out")
    report = merge(tmp_path / "out", stores)
    assert (report.num_copied, report.num_videos) == (5, 12)
    assert contents(tmp_path / "out") == {**contents(stores[0]), **contents(stores[1])}
    assert json.loads((tmp_path / "out" / MERGED_FROM).read_text())["duplicates"] == "refuse"
