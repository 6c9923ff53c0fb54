"""Bytes flipped and files cut short at 1,500 random places of a store: nothing wrong is ever delivered."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.reading import ClipReader, DamageTally
from slicfast.data.requests import Requests, Role, frame_indices, make_requests
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreSettings, StoreWriter
from slicfast.errors import DataError, RunError

LENGTH = 4


class Sound:
    """The undamaged store, and one request after the other for clips that cover all its pictures."""

    def __init__(self, store: ClipStore) -> None:
        self.store = store
        self.pictures = [
            [picture.tobytes() for picture in store.frames(row, range(store.num_frames[row]))]
            for row in range(len(store))
        ]
        starts = [np.arange(0, length, LENGTH) for length in store.num_frames.tolist()]
        rows = np.repeat(np.arange(len(store)), [len(start) for start in starts])
        self.requests = make_requests(rows, np.concatenate(starts), role=Role.ANCHOR)
        (shard,) = (store.path / "shards").glob("*.tar")
        content = shard.read_bytes()
        bounds = []
        for request in self.requests:
            clip = self.clip(request)
            start = content.index(b"".join(dict.fromkeys(clip)))
            bounds.append((start, start + len(b"".join(dict.fromkeys(clip)))))
        self.start_N, self.stop_N = np.array(bounds).T

    def clip(self, request: Requests) -> list[bytes]:
        video = int(request["video"])
        indices = frame_indices(request.reshape(1), LENGTH, self.store.num_frames[video])[0]
        return [self.pictures[video][index] for index in indices]

    def check(self, store: ClipStore) -> Requests:
        """(N,) bool, which clips were replaced; every clip that came is checked byte by byte."""
        reading = ClipReader(store, LENGTH).read(self.requests)
        DamageTally(len(reading.damage) / len(self.requests)).add(reading)  # no more than there is
        clips = zip(*[iter(reading.pictures)] * LENGTH, strict=True)
        for request, pictures in zip(reading.requests, clips, strict=True):
            assert [picture.tobytes() for picture in pictures] == self.clip(request)
        replaced_N = reading.requests["video"] != reading.asked["video"]
        assert replaced_N.sum() == len(reading.damage)
        return replaced_N


@pytest.fixture(scope="module")
def sound(tiny_store: ClipStore) -> Sound:
    return Sound(tiny_store)


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings about damaged clips are not what is tested."""
    logging.getLogger("slicfast").setLevel(logging.ERROR)
    yield
    logging.getLogger("slicfast").setLevel(logging.NOTSET)


@pytest.fixture
def copy(tiny_store: ClipStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_store.path, tmp_path / "store"))


def test_flipped_bytes_never_reach_a_clip(sound: Sound, copy: Path) -> None:
    (shard,) = (copy / "shards").glob("*.tar")
    content = np.fromfile(shard, dtype=np.uint8)
    num_replaced = 0
    for trial in range(800):
        generator = np.random.default_rng(trial)
        places = np.unique(generator.integers(0, len(content), generator.integers(1, 9)))
        flipped = content.copy()
        flipped[places] ^= generator.integers(1, 256, len(places), dtype=np.uint8)
        shard.write_bytes(flipped)
        replaced_N = sound.check(ClipStore(copy))
        hit_N = ((places >= sound.start_N[:, None]) & (places < sound.stop_N[:, None])).any(1)
        np.testing.assert_array_equal(replaced_N, hit_N)
        num_replaced += int(replaced_N.sum())
    assert num_replaced > 2000


def test_shard_cut_anywhere_costs_only_what_lay_behind(sound: Sound, copy: Path) -> None:
    (shard,) = (copy / "shards").glob("*.tar")
    content = shard.read_bytes()
    num_stopped = 0
    for trial in range(200):
        cut = int(np.random.default_rng(trial).integers(0, len(content)))
        shard.write_bytes(content[:cut])
        cut_N = sound.stop_N > cut
        try:
            np.testing.assert_array_equal(sound.check(ClipStore(copy)), cut_N)
        except RunError as error:  # only where hardly anything is left that might stand in
            assert "prepare it again" in str(error) and cut_N.mean() > 0.7
            num_stopped += 1
    assert num_stopped < 80


def test_shard_cut_under_an_open_store_does_not_kill(sound: Sound, copy: Path) -> None:
    store = ClipStore(copy)
    assert not sound.check(store).any()
    (shard,) = (copy / "shards").glob("*.tar")
    cut = int(np.median(sound.start_N)) + 1
    os.truncate(shard, cut)  # a memory map would end the process with SIGBUS
    np.testing.assert_array_equal(sound.check(store), sound.stop_N > cut)
    for index in copy.glob("index-*/*.npy"):
        os.truncate(index, 0)
    with pytest.raises(RunError, match=r"cannot read its index: .*has become shorter"):
        sound.check(store)


def facts(store: ClipStore) -> tuple[object, ...]:
    columns = [
        getattr(store, name).tolist() for name in ("num_frames", "width", "height", "fps", "label_ids")
    ]
    return (
        store.ids(),
        store.label_names,
        store.settings,
        columns,
        {name: store.split(name).tolist() for name in store.splits},
    )


def test_damaged_index_is_told_in_a_line_or_harmless(sound: Sound, copy: Path) -> None:
    files = [copy / "store.json", *sorted(copy.glob("index-*/*"))]
    num_told = 0
    for trial in range(500):
        generator = np.random.default_rng(trial)
        file = files[trial % len(files)]
        content = file.read_bytes()
        damaged = bytearray(content)
        if trial % 4 == 0:
            del damaged[generator.integers(0, len(content)) :]
        else:
            for place in generator.integers(0, len(content), generator.integers(1, 4)).tolist():
                damaged[place] ^= 1 << int(generator.integers(0, 8))
        file.write_bytes(damaged)
        try:
            store = ClipStore(copy)
        except DataError as error:
            assert str(copy) in str(error) and "\n" not in str(error)
            num_told += 1
        else:
            assert facts(store) == facts(sound.store)
            sound.check(store)  # a picture's checksum guards what the index says of it
        file.write_bytes(content)
    assert num_told > 350


def test_prepare_mends_a_damaged_index(copy: Path, sound: Sound) -> None:
    next(copy.glob("index-*/id_blob.npy")).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"id_blob\.npy is damaged; run the same 'slicfast prepare' again"):
        ClipStore(copy)
    with StoreWriter(copy, StoreSettings(short_side=32)) as writer:
        writer.finish({}, {})
    assert not sound.check(ClipStore(copy)).any()


def test_damaged_sidecar_costs_a_look_at_its_shard_and_no_video(sound: Sound, copy: Path) -> None:
    (sidecar,) = (copy / "shards").glob("*.npz")
    content = sidecar.read_bytes()
    for trial in range(60):
        generator = np.random.default_rng(trial)
        damaged = bytearray(content)
        if trial % 3 == 0:
            del damaged[generator.integers(0, len(content)) :]
        for place in generator.integers(0, len(damaged) or 1, generator.integers(1, 6)).tolist():
            damaged[place : place + 1] = generator.bytes(1)
        sidecar.write_bytes(damaged)
        with StoreWriter(copy, StoreSettings(short_side=32)) as writer:
            assert sorted(writer.ids()) == sound.store.ids()
            writer.finish({}, {})
        store = ClipStore(copy)
        assert facts(store) == facts(sound.store)
        assert not sound.check(store).any()


def test_damage_in_a_shard_without_its_sidecar_costs_one_video(sound: Sound, copy: Path) -> None:
    (shard,) = (copy / "shards").glob("*.tar")
    shard.with_suffix(".npz").unlink()
    content = bytearray(shard.read_bytes())
    row = 5
    place = sound.start_N[np.flatnonzero(sound.requests["video"] == row)[1]]
    content[place] ^= 1
    shard.write_bytes(content)
    with StoreWriter(copy, StoreSettings(short_side=32)) as writer:
        assert set(sound.store.ids()) - set(writer.ids()) == {sound.store.id(row)}
        writer.finish({}, {})
    store = ClipStore(copy)
    for there in range(len(store)):
        whole = sound.pictures[sound.store.row(store.id(there))]
        assert [frame.tobytes() for frame in store.frames(there, range(store.num_frames[there]))] == whole


def test_loader_delivers_sound_clips_from_a_damaged_store(sound: Sound, copy: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from slicfast.data.loader import ClipLoader

    (shard,) = (copy / "shards").glob("*.tar")
    content = np.fromfile(shard, dtype=np.uint8)
    content[np.random.default_rng(1).integers(0, len(content), 40)] ^= 0x81
    shard.write_bytes(content)
    config = DataConfig(clip_length=LENGTH, crop_size=24, max_bad_share=0.5)
    num = len(sound.requests)
    loader = ClipLoader(ClipStore(copy), config, augment=AugmentConfig(), max_batch=num)
    (batch,) = loader.load([sound.requests])
    assert batch.num_replaced == loader.num_replaced > 15
    reference = ClipLoader(sound.store, config, augment=AugmentConfig(), max_batch=num)
    (expected,) = reference.load([batch.requests])
    assert expected.num_replaced == 0 and (batch.clips == expected.clips).all()
