"""A data set in memory gives the store's clips, damage included, and only where there is room for it."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import centre_crop, draw
from slicfast.data.backend import CpuBackend, GpuBackend
from slicfast.data.loader import ClipLoader
from slicfast.data.pipelines.held import resize_planes, resize_regions
from slicfast.data.requests import Requests, Role, frame_indices, make_requests
from slicfast.data.resampling import resample
from slicfast.data.sources import resident
from slicfast.data.sources.choice import StoredClips
from slicfast.data.sources.holding import Pictures, decode_into
from slicfast.data.sources.planes import to_pictures, to_planes
from slicfast.data.sources.resident import (
    Residents,
    decoded_bytes,
    halved_bytes,
    plan_residents,
    stored_bytes,
)
from slicfast.data.store import ClipStore
from slicfast.errors import MachineError

pytest.importorskip("nvidia.dali")

CONFIG = DataConfig(clip_length=4, crop_size=24, max_bad_share=1.0)
CPU = torch.device("cpu")


def some_requests(num: int, seed: int) -> Requests:
    rng = np.random.default_rng(seed)
    requests = make_requests(
        rng.integers(0, 12, num),
        rng.integers(0, 30, num),
        view_N=rng.integers(0, 2, num),
        role=Role.ANCHOR,
        seed_N=rng.integers(0, 2**64, num, dtype=np.uint64),
    )
    requests["stride"] = rng.integers(1, 4, num)
    return requests


def loader_of(store: ClipStore, **changes) -> ClipLoader:
    config = CONFIG.model_copy(update=changes)
    return ClipLoader(store, config, augment=AugmentConfig(), num_threads=2, max_batch=8)


@pytest.mark.parametrize("form", ["decoded", "compressed"])
def test_clips_from_memory_are_those_of_the_store_to_the_bit(tiny_store, form):
    store = ClipStore(tiny_store.path)  # what is held goes with it
    batches = [some_requests(8, seed) for seed in range(4)]
    held = loader_of(store, source="resident", resident_as=form)
    assert (Residents.of(store).pictures is None) == (form == "compressed")
    for a, b in zip(loader_of(store).load(batches), held.load(batches), strict=True):
        assert torch.equal(a.clips, b.clips) and (a.requests == b.requests).all()


@pytest.mark.parametrize("form", ["decoded", "compressed"])
def test_nothing_is_read_once_it_is_in_memory(tiny_store, tmp_path, form):
    store = ClipStore(shutil.copytree(tiny_store.path, tmp_path / "store"))
    loader = loader_of(store, source="resident", resident_as=form)
    (shard,) = (store.path / "shards").glob("*.tar")
    shard.write_bytes(bytes(shard.stat().st_size))
    batches = [some_requests(8, seed) for seed in range(2)]
    for a, b in zip(loader_of(tiny_store).load(batches), loader.load(batches), strict=True):
        assert b.num_replaced == 0 and torch.equal(a.clips, b.clips)


@pytest.mark.parametrize("form", ["decoded", "compressed"])
def test_damaged_clips_are_replaced_as_those_of_the_store(tiny_store, tmp_path, form):
    store = ClipStore(shutil.copytree(tiny_store.path, tmp_path / "store"))
    (shard,) = (store.path / "shards").glob("*.tar")
    content = np.fromfile(shard, dtype=np.uint8)
    content[np.random.default_rng(1).integers(0, len(content) // 2, 6)] ^= 0x81
    shard.write_bytes(content)
    plain, held = loader_of(ClipStore(store.path)), loader_of(store, source="resident", resident_as=form)
    batches = [some_requests(8, seed) for seed in range(6)]
    for a, b in zip(plain.load(batches), held.load(batches), strict=True):
        assert torch.equal(a.clips, b.clips) and (a.requests == b.requests).all()
    assert held.replaced == plain.replaced and sum(held.replaced.values()) > 0
    if form == "decoded":
        assert 0 < Residents.of(store).pictures.num_videos < len(store)


def test_a_picture_that_does_not_decode_costs_its_video_alone(tiny_store):
    store = ClipStore(tiny_store.path)

    class Spoilt:
        def __init__(self) -> None:
            self._sound = StoredClips(store)

        def stored(self, video, indices_T):
            pictures = self._sound.stored(video, indices_T)
            return [picture[:-60] for picture in pictures] if video == 4 else pictures

    pictures = Pictures(store, np.arange(12), CPU)
    decode_into(pictures, store, np.arange(12), Spoilt(), CPU, 1)
    whole = np.arange(4)
    assert [row for row in range(12) if pictures.clip(row, whole) is None] == [4]


def test_evaluation_shares_what_training_holds_and_holds_nothing_itself(tiny_store):
    store = ClipStore(tiny_store.path)
    config = CONFIG.model_copy(update={"source": "resident"})
    ClipLoader(store, config, augment=None, max_batch=4)
    assert Residents.of(store).nothing_held
    rows = store.split("train")
    training = ClipLoader(store, config, augment=AugmentConfig(), candidates=rows, max_batch=4)
    held = Residents.of(store).pictures
    assert held.num_videos == len(rows) and held.num_bytes == decoded_bytes(store, rows)
    evaluation = ClipLoader(store, config, augment=None, max_batch=12)
    assert Residents.of(store).pictures is held
    requests = make_requests(np.arange(12), np.arange(12))  # the test split too
    (batch,) = evaluation.load([requests])
    (plain,) = ClipLoader(store, CONFIG, augment=None, max_batch=12).load([requests])
    assert torch.equal(batch.clips, plain.clips)
    del training


def test_the_first_form_that_fits_is_taken(tiny_store, monkeypatch):
    rows = np.arange(12)
    pictures, stored = decoded_bytes(tiny_store, rows), stored_bytes(tiny_store, rows)
    assert stored == sum(tiny_store.layout(row).bounds[-1] for row in rows) < pictures
    halved = halved_bytes(tiny_store, rows)
    assert stored < halved == pictures // 2  # all sides are even
    gpu = torch.device("cuda", 0)

    def found(source: str, form: str, host: int, device: int, place=CPU):
        monkeypatch.setattr(resident, "free_memory_bytes", lambda: 2 * host)
        monkeypatch.setattr(resident, "free_gpu_bytes", lambda place: 2 * device)
        config = DataConfig(source=source, resident_as=form)  # memory_share is a half
        plan = plan_residents(tiny_store, rows, config, place)
        assert plan is None or plan.halved == (plan.num_bytes == halved)
        return None if plan is None else (plan.decoded, plan.on_device, plan.num_bytes)

    assert found("resident", "auto", pictures, 0) == (True, False, pictures)
    assert found("resident", "auto", pictures - 1, 0) == (False, False, stored)
    assert found("resident", "compressed", pictures, 0) == (False, False, stored)
    assert found("auto", "auto", pictures, 0) == (True, False, pictures)
    assert found("auto", "auto", pictures - 1, 0) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # ranks on this machine share its memory
    assert found("auto", "auto", 2 * pictures - 1, 0) is None
    assert found("auto", "auto", 2 * pictures, 0) == (True, False, pictures)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert found("resident", "auto", 0, pictures, gpu) == (True, True, pictures)
    assert found("auto", "auto", pictures, pictures - 1, gpu) == (True, True, halved)
    assert found("auto", "auto", pictures, halved - 1, gpu) == (True, False, pictures)
    with pytest.raises(
        MachineError, match=r"stored bytes in memory are more than .* data\.memory_share 0\.5"
    ):
        found("resident", "auto", stored - 1, 0)
    with pytest.raises(MachineError, match=r"set data\.resident_as=compressed"):
        found("resident", "decoded", pictures - 1, 0)


def test_what_is_held_goes_with_its_store(tiny_store):
    store = ClipStore(tiny_store.path)
    loader_of(store, source="resident")
    held = weakref.ref(Residents.of(store))
    gc.collect()
    assert held() is not None
    del store
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda", 0), marks=pytest.mark.needs_cuda)])
@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("on_device", [True, False])
def test_the_way_of_a_gpu_gives_the_same_clips(tiny_store, device, on_device, halved):
    requests = some_requests(8, 5)
    indices = frame_indices(requests, 4, tiny_store.num_frames[requests["video"]])
    rows = np.arange(12)
    where = device if on_device else CPU
    pinned = device.type == "cuda" and not on_device
    pictures = Pictures(tiny_store, rows, where, pinned=pinned, halved=halved)
    assert pictures.num_bytes == (halved_bytes if halved else decoded_bytes)(tiny_store, rows)
    base = StoredClips(tiny_store)
    decode_into(pictures, tiny_store, rows, base, CPU, 2)
    held = [pictures.clip(int(row), frames) for row, frames in zip(requests["video"], indices, strict=True)]
    jpegs = [
        jpeg
        for row, frames in zip(requests["video"], indices, strict=True)
        for jpeg in base.stored(row, frames)
    ]
    sizes = tiny_store.width[requests["video"]], tiny_store.height[requests["video"]]
    params = draw(requests["seed"], *sizes, AugmentConfig(jitter_prob=1.0, blur_prob=0.5, colour="fast"))
    params = replace(params, flip=np.arange(8) % 2 == 0)
    shown = []
    for kind, place, stored in ((CpuBackend, CPU, jpegs), (GpuBackend, device, held)):
        backend = kind(CONFIG, AugmentConfig(), place, 1, 8)
        backend.feed(stored, params, *sizes)
        clips = backend.complete(backend.take(), params).cpu().numpy()
        shown.append(255 * (clips * CONFIG.std + CONFIG.mean))
    error = np.abs(shown[0] - shown[1])
    assert error.mean() < (1.5 if halved else 1) and np.quantile(error, 0.999) <= (16 if halved else 8)


def test_halved_planes_are_those_of_jpeg():
    rng = np.random.default_rng()
    coarse = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    pictures = coarse.repeat(2, 1).repeat(2, 2)[:, :-1, :-1]  # flat in each square of four; sides are odd
    luma, chroma = to_planes(torch.from_numpy(np.ascontiguousarray(pictures)))
    for f in range(2):
        expected = cv2.cvtColor(pictures[f], cv2.COLOR_RGB2YCrCb).astype(int)
        assert np.abs(luma[f].numpy() - expected[..., 0]).max() <= 1
        assert np.abs(chroma[f].numpy() - expected[::2, ::2, [2, 1]].transpose(2, 0, 1)).max() <= 1
    whole = chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :-1, :-1]
    back = to_pictures(luma.float(), whole.float())
    assert back.shape == pictures.shape and np.abs(back.numpy().astype(int) - pictures).max() <= 3


@pytest.mark.parametrize("shape", [(128, 171), (61, 40), (33, 200)])
def test_a_region_resized_by_matrices_is_that_of_a_cpu(shape):
    rng = np.random.default_rng()
    clips = rng.integers(0, 256, (6, 3, *shape, 3), dtype=np.uint8)
    seed_N = rng.integers(0, 2**64, 6, dtype=np.uint64)
    params = draw(seed_N, shape[1], shape[0], AugmentConfig())
    got = resize_regions(torch.from_numpy(clips), params, range(6), 48).numpy()
    whole = centre_crop(6, (48, 64), 48)
    evaluated = resize_regions(torch.from_numpy(clips), whole, range(6), 48).numpy()
    for n in range(6):
        expected = resample(clips[n], params.top_left[n], params.bottom_right[n], 48)
        expected = expected[:, :, ::-1] if params.flip[n] else expected
        assert np.abs(got[n].astype(int) - expected).max() <= 1
        expected = resample(clips[n], whole.top_left[n], whole.bottom_right[n], 48)
        assert np.abs(evaluated[n].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(128, 171), (61, 40)])
def test_regions_of_halved_planes_lie_where_those_of_pictures_do(shape):
    rng = np.random.default_rng()
    coarse = rng.integers(0, 256, (4, 3, 3, 3), dtype=np.uint8)
    soft = np.stack([cv2.resize(each, shape[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse])
    clips = torch.from_numpy(soft)[:, None]
    params = draw(rng.integers(0, 2**64, 4, dtype=np.uint64), shape[1], shape[0], AugmentConfig())
    luma, chroma = to_planes(clips[:, 0])
    got = resize_planes(luma[:, None], chroma[:, None], params, range(4), 48).numpy().astype(int)
    expected = resize_regions(clips, params, range(4), 48).numpy()
    assert np.abs(got - expected).mean() < 1.5
    shifted = resize_planes(luma[:, None], chroma.roll(3, dims=3)[:, None], params, range(4), 48).numpy()
    assert np.abs(shifted.astype(int) - expected).mean() > 4  # so a plane out of place would be seen
