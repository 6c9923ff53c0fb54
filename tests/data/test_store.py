"""The clip store gives back what was written, survives kills, and says what is wrong with a store."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_data import encode_pictures, record_of, smooth_video

from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.writer import StoreSettings, StoreWriter, VideoRecord
from slicfast.errors import ConfigError, DataError, RunError


def make_pictures(seed: int, num_frames: int = 5) -> list[bytes]:
    return encode_pictures(smooth_video(np.random.default_rng(seed), num_frames, 24, 16))


def write_store(path: Path, ids: list[str], *, finish: bool = True, **options: int) -> dict[str, list[bytes]]:
    written = {video_id: make_pictures(seed, 3 + seed % 4) for seed, video_id in enumerate(ids)}
    with StoreWriter(path, **options) as writer:
        for video_id, pictures in written.items():
            writer.add(record_of(video_id, video_id[0], pictures, 24, 16), b"".join(pictures))
        if finish:
            writer.finish({video_id: video_id[0] for video_id in ids}, {"train": ids})
    return written


def stored(store: ClipStore) -> dict[str, list[bytes]]:
    return {
        store.id(row): [frame.tobytes() for frame in store.frames(row, range(int(store.num_frames[row])))]
        for row in range(len(store))
    }


def test_store_gives_back_every_picture_in_order_of_id(tmp_path: Path) -> None:
    ids = [
        "b/2.avi",
        "a/x.avi",
        "é.avi",
        "b/10.avi",
        "\U0001f600.avi",
        "\uffee.avi",
        "bad\udcff.avi",
        "a/w, x.avi",
    ]
    written = write_store(tmp_path / "store", ids, shard_bytes=8000)
    store = ClipStore(tmp_path / "store")
    assert store.ids() == sorted(ids)
    assert stored(store) == written
    assert [store.row(video_id) for video_id in store.ids()] == list(range(len(ids)))
    assert len(list((tmp_path / "store/shards").glob("*.tar"))) > 1
    assert store.num_frames.tolist() == [len(written[video_id]) for video_id in store.ids()]
    assert set(store.width.tolist()) == {24} and set(store.height.tolist()) == {16}
    assert set(store.fps.tolist()) == {25.0}
    assert store.settings == StoreSettings()


def test_frames_are_views_that_decode_to_the_pictures(tiny_store: ClipStore) -> None:
    row = tiny_store.row("right/video_01.avi")
    frames = tiny_store.frames(row, np.array([59, 0, 0]))
    assert all(not frame.flags.owndata and not frame.flags.writeable for frame in frames)
    assert frames[1].tobytes() == frames[2].tobytes() != frames[0].tobytes()
    assert cv2.imdecode(frames[0], cv2.IMREAD_COLOR).shape == (32, 40, 3)


def test_tiny_store_has_its_splits_and_labels(tiny_store: ClipStore) -> None:
    assert len(tiny_store) == 12 and tiny_store.splits == ("test", "train")
    assert tiny_store.label_names == ("left", "right")
    train, test = tiny_store.split("train"), tiny_store.split("test")
    assert len(train) == 8 and len(test) == 4 and not set(train) & set(test)
    assert train.dtype == np.int32 and (np.diff(train) > 0).all()
    for row in range(12):
        assert tiny_store.label_names[tiny_store.label_ids[row]] == tiny_store.id(row).split("/")[0]
    with pytest.raises(ConfigError, match="test, train; got 'tset'; did you mean 'test'"):
        tiny_store.split("tset")
    with pytest.raises(DataError, match=r"no video 'nowhere\.avi'"):
        tiny_store.row("nowhere.avi")


def test_difference_of_two_splits(tmp_path: Path) -> None:
    ids = ["a.avi", "b.avi", "c.avi"]
    write_store(tmp_path / "store", ids)
    with StoreWriter(tmp_path / "store") as writer:
        writer.finish({}, {"train-1": ids, "test": ["b.avi", "not stored.avi"]})
    store = ClipStore(tmp_path / "store")
    assert store.ids(store.split("train-1-test")) == ["a.avi", "c.avi"]
    assert store.splits == ("test", "train", "train-1")


def test_store_pickles_as_its_path(tiny_store: ClipStore) -> None:
    copy = pickle.loads(pickle.dumps(tiny_store))
    assert len(pickle.dumps(tiny_store)) < 500
    assert copy.ids() == tiny_store.ids() and stored(copy) == stored(tiny_store)


def test_shards_open_with_tar(tiny_store: ClipStore) -> None:
    (shard,) = (tiny_store.path / "shards").glob("*.tar")
    with tarfile.open(shard) as archive:
        names = archive.getnames()
        assert names[:2] == ["00000000.mjpg", "00000000.json"] and len(names) == 24
        record = json.load(archive.extractfile("00000003.json"))  # type: ignore[arg-type]
        pictures = archive.extractfile("00000003.mjpg").read()  # type: ignore[union-attr]
    assert record["label"] == "right" and sum(record["sizes"]) == len(pictures)
    assert b"".join(stored(tiny_store)[record["id"]]) == pictures


def test_damaged_byte_is_found_and_named(tiny_store: ClipStore, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_store.path, tmp_path / "store"))
    (shard,) = (path / "shards").glob("*.tar")
    data = bytearray(shard.read_bytes())
    frame = tiny_store.frames(4, [7])[0].tobytes()
    data[data.index(frame) + len(frame) // 2] ^= 1
    shard.write_bytes(data)
    store = ClipStore(path)
    with pytest.raises(DamagedClip, match=f"frame 7 of '{tiny_store.id(4)}'") as caught:
        store.frames(4, [6, 7, 8])
    assert (caught.value.video_id, caught.value.frame) == (tiny_store.id(4), 7)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(store.frames(4, [6, 8])) == 2


def test_shard_cut_short_or_gone_damages_only_its_videos(tmp_path: Path) -> None:
    write_store(tmp_path / "store", ["a.avi", "b.avi", "c.avi"])
    (shard,) = (tmp_path / "store/shards").glob("*.tar")
    with shard.open("r+b") as file:
        file.truncate(ClipStore(tmp_path / "store")._data_offset[2] + 10)
    store = ClipStore(tmp_path / "store")
    assert len(store.frames(0, [0, 1])) == 2
    with pytest.raises(DamagedClip, match=r"'c\.avi'.*ends before"):
        store.frames(2, [0])
    shard.unlink()
    with pytest.raises(DamagedClip, match=r"'a\.avi'.*cannot read"):
        ClipStore(tmp_path / "store").frames(0, [0])


@pytest.mark.parametrize("cut", [1, 600, 1500, 2600])
@pytest.mark.parametrize("sidecar", [False, True])
def test_cut_shard_is_recovered_behind_its_last_whole_video(tmp_path: Path, cut: int, sidecar: bool) -> None:
    path, ids = tmp_path / "store", ["a.avi", "b.avi", "c.avi"]
    written = write_store(path, ids, finish=False)
    (shard,) = (path / "shards").glob("*.tar")
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1024 - cut)  # 1024: the end of the tar file
    if not sidecar:
        shard.with_suffix(".npz").unlink()
    with pytest.raises(DataError, match="not finished"):
        ClipStore(path)
    with StoreWriter(path) as writer:
        assert sorted(writer.ids()) == ["a.avi", "b.avi"]
        writer.add(record_of("c.avi", "c", written["c.avi"], 24, 16), b"".join(written["c.avi"]))
        writer.finish({video_id: video_id[0] for video_id in ids}, {"train": ids})
    assert stored(ClipStore(path)) == written
    with tarfile.open(shard) as archive:
        assert len(archive.getnames()) == 6


def test_killed_writer_loses_nothing_that_was_added(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path[:0] = ['tests', 'tests/data']\n"
        "from test_store import make_pictures, record_of, StoreWriter\n"
        "writer = StoreWriter(Path(sys.argv[1]), shard_bytes=20000)\n"
        "for seed in range(30):\n"
        "    pictures = make_pictures(seed)\n"
        "    writer.add(record_of(f'{seed:02d}.avi', None, pictures, 24, 16), b''.join(pictures))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "store"], cwd=root, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    with StoreWriter(tmp_path / "store") as writer:
        assert sorted(writer.ids()) == [f"{seed:02d}.avi" for seed in range(30)]
        writer.finish({}, {})
    store = ClipStore(tmp_path / "store")
    assert stored(store) == {f"{seed:02d}.avi": make_pictures(seed) for seed in range(30)}
    assert store.label_ids.tolist() == [-1] * 30 and store.label_names == ()


def test_second_writer_goes_on_and_replaces_by_id(tmp_path: Path) -> None:
    path = tmp_path / "store"
    written = write_store(path, ["a.avi", "c.avi"])
    reader = ClipStore(path)
    new = {"a.avi": make_pictures(50), "b.avi": make_pictures(51)}
    with StoreWriter(path) as writer:
        assert "a.avi" in writer and len(writer) == 2
        for video_id, pictures in new.items():
            writer.add(record_of(video_id, "n", pictures, 24, 16), b"".join(pictures))
        assert stored(ClipStore(path)) == written  # not shown before finish
        writer.finish({"b.avi": "n"}, {"test": ["b.avi"]})
    assert stored(reader) == written  # an open reader keeps what it opened
    store = ClipStore(path)
    assert stored(store) == {**written, **new}
    assert [store.label_names[label] for label in store.label_ids] == ["a", "n", "c"]
    assert store.ids(store.split("train")) == ["a.avi", "c.avi"]
    assert len(list(path.glob("index-*"))) == 1


def test_excluded_videos_are_hidden_until_they_are_wanted_again(tmp_path: Path) -> None:
    path = tmp_path / "store"
    write_store(path, ["a.avi", "b.avi"])
    with StoreWriter(path) as writer:
        writer.finish({}, {}, exclude={"a.avi"})
    assert ClipStore(path).ids() == ["b.avi"]
    with StoreWriter(path) as writer, pytest.raises(DataError, match="no video could be stored"):
        writer.finish({}, {}, exclude={"a.avi", "b.avi"})
    with StoreWriter(path) as writer:
        writer.finish({}, {})
    assert ClipStore(path).ids() == ["a.avi", "b.avi"]


def test_an_open_store_outlives_a_second_prepare(tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    written = write_store(tmp_path / "store", ids)
    store = ClipStore(tmp_path / "store")
    for _ in range(2):
        with StoreWriter(tmp_path / "store") as writer:
            writer.finish({video_id: video_id for video_id in ids}, {"train": ids, "test": []})
    assert stored(store) == written
    assert store.split("train").tolist() == [0, 1, 2]


def test_two_writers_refuse_each_other(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store"), pytest.raises(RunError, match="another process is preparing"):
        StoreWriter(tmp_path / "store")
    with StoreWriter(tmp_path / "store"):
        pass


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "store", ["a.avi"])
    with pytest.raises(ConfigError, match=r"made with short side 128.*asked for short side 96"):
        StoreWriter(tmp_path / "store", StoreSettings(short_side=96))


def test_what_is_no_store_is_said_in_one_line_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        ClipStore(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="found a file"):
        ClipStore(tmp_path / "file")
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "holiday.avi").write_text("x")
    with pytest.raises(DataError, match=r"without store\.json"):
        ClipStore(folder)
    with pytest.raises(DataError, match=r"not empty \(holds 'holiday\.avi'\)"):
        StoreWriter(folder)
    assert [path.name for path in folder.iterdir()] == ["holiday.avi"]


@pytest.mark.parametrize("make", [ClipStore, StoreWriter])
def test_store_of_another_version_or_damaged_header(tmp_path: Path, make: type) -> None:
    write_store(tmp_path / "store", ["a.avi"])
    header = tmp_path / "store/store.json"
    values = json.loads(header.read_text())
    header.write_text(json.dumps({**values, "version": 7}))
    with pytest.raises(DataError, match=r"has version 7, this slicfast reads versions 1 to 3"):
        make(tmp_path / "store")
    header.write_text("{")
    with pytest.raises(DataError, match="does not describe a clip store"):
        make(tmp_path / "store")


def test_lost_index_file_is_named(tmp_path: Path) -> None:
    write_store(tmp_path / "store", ["a.avi"])
    next((tmp_path / "store").glob("index-*/frame_crcs.npy")).unlink()
    with pytest.raises(DataError, match=r"lacks .*frame_crcs\.npy"):
        ClipStore(tmp_path / "store")


def test_interrupted_add_leaves_the_shard_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = make_pictures(1)
    good = record_of("a.avi", None, pictures, 24, 16)
    with StoreWriter(tmp_path / "store") as writer:
        writer.add(good, b"".join(pictures))

        class Unwritable(VideoRecord):
            def to_json(self) -> bytes:
                return "not bytes"  # type: ignore[return-value]

        bad = Unwritable("b.avi", None, 25.0, 24, 16, good.sizes, good.crcs)
        with pytest.raises(TypeError):
            writer.add(bad, b"".join(pictures))
        with pytest.raises(ValueError, match="do not belong together"):
            writer.add(good, b"short")
        writer.finish({}, {})
    assert stored(ClipStore(tmp_path / "store")) == {"a.avi": pictures}


def test_opening_takes_few_bytes_a_video(tmp_path: Path) -> None:
    def opening_bytes(num_videos: int) -> int:
        path = tmp_path / f"store{num_videos}"
        picture = make_pictures(0, 1)
        with StoreWriter(path) as writer:
            for number in range(num_videos):
                writer.add(record_of(f"{number:06d}.avi", None, picture, 24, 16), picture[0])
            writer.finish({}, {"train": [f"{number:06d}.avi" for number in range(num_videos)]})
        ClipStore(path)
        tracemalloc.start()
        store = ClipStore(path)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert store.row(f"{num_videos - 1:06d}.avi") == num_videos - 1
        return used

    assert opening_bytes(800) < opening_bytes(10) + 790 * 100  # no Python object a video
