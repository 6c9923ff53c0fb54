"""Bytes flipped and files cut at 1,500 random places of VP9 stores, stored flow and kept original files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_data import gliding_video, write_video

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.catalog import read_catalog
from slicfast.data.flow import Components
from slicfast.data.prepare import prepare
from slicfast.data.preparing.flow import prepare_flow
from slicfast.data.reading import ClipReader, DamageTally
from slicfast.data.requests import Requests, Role, View, frame_indices, make_requests
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.flow import FlowStore
from slicfast.data.stores.format import StoreSettings
from slicfast.errors import DataError, RunError

LENGTH = 4
KINDS = ("vp9", "flow-u", "flow-uv")
COMPONENTS: dict[str, Components] = {"flow-u": "horizontal", "flow-uv": "both"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 18 to 32 pictures as VP9, with flow of both kinds and their files; read-only."""
    root = tmp_path_factory.mktemp("members")
    for number in range(8):
        video_THWC = gliding_video(np.random.default_rng(number), 18 + 2 * number, 48, 36, (1.5, 0.5))
        write_video(root / "videos" / f"{number}.avi", video_THWC)
    catalog = read_catalog(root / "videos")
    prepare(catalog, root / "store", StoreSettings(short_side=32, codec="vp9"), workers=1, keep_original=True)
    for components in COMPONENTS.values():
        prepare_flow(catalog, root / "store", components, workers=1)
    return root / "store"


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings about damaged clips are not what is tested."""
    logging.getLogger("slicfast").setLevel(logging.ERROR)
    yield
    logging.getLogger("slicfast").setLevel(logging.NOTSET)


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "store"))


def reader_of(path: Path, kind: str) -> tuple[ClipStore, FlowStore | None]:
    store = ClipStore(path)
    return store, None if kind == "vp9" else FlowStore(store, COMPONENTS[kind])


def members_of(path: Path, kind: str) -> Path:
    return path if kind == "vp9" else path / kind


@dataclass
class Clips:
    """Clips that cover all of an undamaged store, what is stored of each, and where."""

    kind: str
    path: Path

    def __post_init__(self) -> None:
        self.store, self.flow = reader_of(self.path, self.kind)
        self.members = self.store if self.flow is None else self.flow.fields
        starts = [np.arange(0, length, LENGTH) for length in self.members.num_frames.tolist()]
        rows = np.repeat(np.arange(len(self.members)), [len(start) for start in starts])
        view = View.RGB if self.flow is None else View.FLOW
        self.requests = make_requests(rows, np.concatenate(starts), view_N=view, role=Role.ANCHOR)
        bounds = []
        for request in self.requests:
            layout = self.members.layout(int(request["video"]))
            indices = self.indices(request)
            interval = self.members.settings.key_interval if self.kind == "vp9" else 1
            first = int(indices.min()) // interval * interval  # what is decoded on the way counts too
            bounds.append(layout.offset + np.array([layout.bounds[first], layout.bounds[indices.max() + 1]]))
        self.start_N, self.stop_N = np.array(bounds).T

    def indices(self, request: Requests) -> np.ndarray:
        num_frames = self.members.num_frames[int(request["video"])]
        return frame_indices(request.reshape(1), LENGTH, num_frames)[0]

    def stored(self, request: Requests) -> list[bytes]:
        video, indices = int(request["video"]), self.indices(request)
        if self.kind == "vp9":
            return [self.members.cut(video, indices).data.tobytes()]
        return [picture.tobytes() for picture in self.members.frames(video, indices)]

    def check(self, path: Path) -> Requests:
        """(N,) bool, which clips of a damaged copy were replaced; every clip that came is checked by byte."""
        store, flow = reader_of(path, self.kind)
        reading = ClipReader(store, LENGTH, flow=flow).read(self.requests)
        DamageTally(len(reading.damage) / len(self.requests)).add(reading)
        num = len(reading.pictures) // len(self.requests)
        clips = zip(*[iter(reading.pictures)] * num, strict=True)
        for request, pictures in zip(reading.requests, clips, strict=True):
            came = [getattr(picture, "data", picture) for picture in pictures]
            assert [bytes(data) for data in came] == self.stored(request)
        replaced_N = reading.requests["video"] != reading.asked["video"]
        assert replaced_N.sum() == len(reading.damage)
        return replaced_N


@pytest.fixture(scope="module", params=KINDS)
def clips(prepared: Path, request: pytest.FixtureRequest) -> Clips:
    return Clips(request.param, prepared)


def shard_of(path: Path, kind: str) -> Path:
    (shard,) = (members_of(path, kind) / "shards").glob("*.tar")
    return shard


def flipped(content: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy with one to eight bytes changed, and which."""
    generator = np.random.default_rng(seed)
    places = np.unique(generator.integers(0, len(content), generator.integers(1, 9)))
    damaged = content.copy()
    damaged[places] ^= generator.integers(1, 256, len(places), dtype=np.uint8)
    return damaged, places


def test_flipped_bytes_never_reach_a_clip(clips: Clips, copy: Path) -> None:
    shard = shard_of(copy, clips.kind)
    content = np.fromfile(shard, dtype=np.uint8)
    num_replaced = 0
    for trial in range(200):
        damaged, places = flipped(content, trial)
        shard.write_bytes(damaged)
        hit_N = ((places >= clips.start_N[:, None]) & (places < clips.stop_N[:, None])).any(1)
        np.testing.assert_array_equal(clips.check(copy), hit_N)
        num_replaced += int(hit_N.sum())
    assert num_replaced > 200


def test_shard_cut_anywhere_costs_only_what_lay_behind(clips: Clips, copy: Path) -> None:
    shard = shard_of(copy, clips.kind)
    content = shard.read_bytes()
    num_stopped = 0
    for trial in range(60):
        cut = int(np.random.default_rng(trial).integers(0, len(content)))
        shard.write_bytes(content[:cut])
        cut_N = clips.stop_N > cut
        try:
            np.testing.assert_array_equal(clips.check(copy), cut_N)
        except RunError as error:  # only where hardly anything is left that might stand in
            assert "prepare it again" in str(error) and cut_N.mean() > 0.7
            num_stopped += 1
    assert num_stopped < 30


def test_damaged_index_is_told_in_a_line_or_harmless(clips: Clips, copy: Path) -> None:
    members = members_of(copy, clips.kind)
    files = [members / "store.json", *sorted(members.glob("index-*/*"))]
    num_told = 0
    for trial in range(120):
        generator = np.random.default_rng(trial)
        file = files[trial % len(files)]
        content = file.read_bytes()
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 4)).tolist():
            damaged[place] ^= 1 << int(generator.integers(0, 8))
        file.write_bytes(damaged)
        try:
            clips.check(copy)  # a picture's checksum guards what the index says of it
        except DataError as error:
            assert str(members) in str(error) and "\n" not in str(error)
            num_told += 1
        file.write_bytes(content)
    assert num_told > 60


def test_loader_delivers_sound_clips_from_a_damaged_store(clips: Clips, copy: Path) -> None:
    pytest.importorskip("nvidia.dali")
    from slicfast.data.loader import ClipLoader

    shard = shard_of(copy, clips.kind)
    content = np.fromfile(shard, dtype=np.uint8)
    content[np.random.default_rng(1).integers(0, len(content), 12)] ^= 0x81
    shard.write_bytes(content)
    config = DataConfig(clip_length=LENGTH, crop_size=24, max_bad_share=0.5)
    num = len(clips.requests)

    def load(path: Path, requests: Requests, max_bad_share: float = 0.5) -> object:
        store, flow = reader_of(path, clips.kind)
        settings = config.model_copy(update={"max_bad_share": max_bad_share})
        loader = ClipLoader(store, settings, augment=AugmentConfig(), max_batch=num, flow=flow)
        (batch,) = loader.load([requests])
        return batch

    batch = load(copy, clips.requests)
    assert 3 < batch.num_replaced < num
    expected = load(clips.path, batch.requests)
    assert expected.num_replaced == 0 and (batch.clips == expected.clips).all()
    with pytest.raises(RunError, match=r"more than data\.max_bad_share 0\.001 allows"):
        load(copy, clips.requests, 0.001)


def test_no_damaged_original_is_handed_out(prepared: Path, copy: Path) -> None:
    sound = ClipStore(prepared)
    files = [sound.original(row).data.tobytes() for row in range(len(sound))]
    offset_N = np.array([sound.original(row).offset for row in range(len(sound))])
    stop_N = offset_N + [len(data) for data in files]
    (shard,) = (copy / "originals").glob("*.tar")
    content = np.fromfile(shard, dtype=np.uint8)
    num_found = 0
    for trial in range(400):
        if trial % 4 == 0:
            cut = int(np.random.default_rng(trial).integers(0, len(content)))
            shard.write_bytes(content[:cut])
            hit_N = stop_N > cut
        else:
            damaged, places = flipped(content, trial)
            shard.write_bytes(damaged)
            hit_N = ((places >= offset_N[:, None]) & (places < stop_N[:, None])).any(1)
        store = ClipStore(copy)
        for row, hit in enumerate(hit_N.tolist()):
            try:
                assert store.original(row).data.tobytes() == files[row] and not hit
            except DamagedClip as error:
                assert hit and error.video_id == sound.id(row) and "\n" not in str(error)
        num_found += int(hit_N.sum())
    assert num_found > 400
