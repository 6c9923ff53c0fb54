"""What the loader owes on a GPU: the processor's clips, an operator at a time and all together; bad clips
replaced alike; memory that does not grow; no pixel through the host.

Where it says `place`, the GPU's way runs on the processor too, so that the tests themselves are tried without
a GPU.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import encode_pictures, gliding_video, record_of, smooth_video, write_video

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import BRIGHTNESS, CONTRAST, HUE, NO_OPERATOR, SATURATION, ClipParams, draw
from slicfast.data.backend import CpuBackend, GpuBackend
from slicfast.data.catalog import read_catalog
from slicfast.data.loader import ClipLoader
from slicfast.data.prepare import prepare
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import ComputedFlow
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.writer import StoreWriter

pytest.importorskip("nvidia.dali")

LENGTH, CROP, NUM = 4, 56, 8
WIDTH, HEIGHT = 171, 128
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP)
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PLACES = [CPU, pytest.param(GPU, marks=pytest.mark.needs_cuda)]
SOURCES = [("store", "auto"), ("resident", "decoded"), ("resident", "compressed")]
OPERATORS: dict[str, dict[str, Any]] = {
    "decode": {},
    "crop and resize": {"min_area": 0.25},
    "flip": {"flip_prob": 1.0},
    "brightness": {"jitter": BRIGHTNESS},
    "contrast": {"jitter": CONTRAST},
    "saturation": {"jitter": SATURATION},
    "hue": {"jitter": HUE},
    "grey": {"grey_prob": 1.0},
    "blur": {"blur_prob": 1.0},
    "fast colour": {"jitter_prob": 1.0, "colour": "fast"},
    "all": {"min_area": 0.25, "flip_prob": 0.5, "jitter_prob": 0.8, "grey_prob": 0.2, "blur_prob": 0.2},
}
# Levels of 255: mean, and what 99.9 % stay below.
BOUNDS = dict.fromkeys(OPERATORS, (1.0, 8.0)) | {"all": (1.0, 16.0)}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng()
    encoded = []
    for _ in range(NUM):
        noisy = smooth_video(rng, LENGTH, WIDTH, HEIGHT) + rng.normal(0, 6, (LENGTH, HEIGHT, WIDTH, 3))
        jpegs = encode_pictures(noisy.clip(0, 255).astype(np.uint8))
        encoded += [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    return encoded


def drawn(settings: dict[str, Any]) -> tuple[AugmentConfig, ClipParams]:
    still = {"min_area": 1.0, "flip_prob": 0.0, "jitter_prob": 0.0, "grey_prob": 0.0, "blur_prob": 0.0}
    jitter = settings.get("jitter")
    given = {key: value for key, value in settings.items() if key != "jitter"}
    augment = AugmentConfig(**{**still, **given, **({} if jitter is None else {"jitter_prob": 1.0})})
    seed_N = np.random.default_rng().integers(0, 2**64, NUM, dtype=np.uint64)
    params = draw(seed_N, WIDTH, HEIGHT, augment)
    if jitter is not None:
        params = replace(params, order=np.where(params.order == jitter, jitter, NO_OPERATOR).astype(np.int8))
    return augment, params


def shown(kind: Any, place: torch.device, stored: list, augment: AugmentConfig, params: ClipParams) -> Any:
    backend = kind(CONFIG, augment, place, 2, NUM)
    backend.feed(stored, params, WIDTH, HEIGHT)
    clips = backend.complete(backend.take(), params).cpu().numpy()
    return 255 * (clips * CONFIG.std + CONFIG.mean)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_gives_the_processors_clips(pictures, operator, place) -> None:
    augment, params = drawn(OPERATORS[operator])
    error = np.abs(
        shown(CpuBackend, CPU, pictures, augment, params)
        - shown(GpuBackend, place, pictures, augment, params)
    )
    mean, tail = BOUNDS[operator]
    assert error.mean() <= mean and np.quantile(error, 0.999) <= tail, (
        error.mean(),
        np.quantile(error, 0.999),
    )


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Eight videos; of 3 nothing decodes, of 5 not picture 10, though their checksums are right."""
    path = tmp_path_factory.mktemp("spoilt") / "store"
    rng = np.random.default_rng(3)
    names: dict[str, str | None] = {}
    with StoreWriter(path, StoreSettings(short_side=HEIGHT)) as writer:
        for number in range(8):
            jpegs = encode_pictures(smooth_video(rng, 30, WIDTH, HEIGHT))
            for k, jpeg in enumerate(jpegs):
                if number == 3 or (number == 5 and k == 10):
                    jpegs[k] = jpeg[: len(jpeg) // 2]
            name = f"video_{number}.avi"
            names[name] = None
            writer.add(record_of(name, None, jpegs, WIDTH, HEIGHT), b"".join(jpegs))
        writer.finish(names, {"train": list(names)})
    return ClipStore(path)


def requests_of(num: int, seed: int, num_videos: int = 8) -> Requests:
    rng = np.random.default_rng(seed)
    seed_N = rng.integers(0, 2**64, num, dtype=np.uint64)
    return make_requests(
        np.arange(num) % num_videos, rng.integers(0, 24, num), role=Role.ANCHOR, seed_N=seed_N
    )


def loader_of(store: ClipStore, place: torch.device, flow: Any = None, **changes: Any) -> ClipLoader:
    config = CONFIG.model_copy(update={"max_bad_share": 1.0, **changes})
    options: dict[str, Any] = {"device": place, "num_threads": 2, "max_batch": 16}
    return ClipLoader(store, config, augment=AugmentConfig(), flow=flow, **options)


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("source", "form"), SOURCES)
def test_batches_are_the_processors_and_bad_clips_are_replaced_alike(spoilt, source, form) -> None:
    batches = [requests_of(16, seed) for seed in range(4)]
    plain = loader_of(ClipStore(spoilt.path), CPU)
    there = loader_of(ClipStore(spoilt.path), GPU, source=source, resident_as=form)
    errors = []
    for a, b in zip(plain.load(batches), there.load(batches), strict=True):
        assert (a.requests == b.requests).all() and a.num_replaced == b.num_replaced
        assert b.clips.device == GPU and b.clips.is_contiguous(memory_format=torch.channels_last_3d)
        errors.append((a.clips - b.clips.cpu()).abs().permute(0, 2, 3, 4, 1).numpy() * CONFIG.std * 255)
    assert there.replaced == plain.replaced and sum(plain.replaced.values()) >= 8
    assert np.mean(errors) <= 1 and np.quantile(errors, 0.999) <= 16


@pytest.mark.needs_cuda
def test_films_that_nvdec_does_not_decode_are_replaced_and_named(tmp_path: Path) -> None:
    kinds = {"sound": ("libx264", "yuv420p"), "chroma": ("libx264", "yuv444p"), "codec": ("ffv1", "yuv420p")}
    for name, (codec, pix_fmt) in kinds.items():
        for number in range(2):
            video = gliding_video(np.random.default_rng(number), 30, 192, 160, (1.0, 0.5))
            path = tmp_path / "videos" / f"{name}_{number}.mkv"
            write_video(path, video, codec=codec, pix_fmt=pix_fmt)
    prepare(read_catalog(tmp_path / "videos", "flat"), tmp_path / "store", StoreSettings(), workers=1)
    loader = loader_of(ClipStore(tmp_path / "store"), GPU, source="files", files=tmp_path / "videos")
    batches = [requests_of(6, seed, 6) for seed in range(3)]
    for batch in loader.load(batches):  # goes on after each failure
        assert batch.num_replaced == 4
    assert set(loader.replaced) == {f"{name}_{k}.mkv" for name in ("chroma", "codec") for k in range(2)}


@pytest.mark.needs_cuda
@pytest.mark.parametrize("source", ["store", "files", "flow"])
def test_gpu_memory_does_not_grow_over_ten_thousand_clips(source, tmp_path: Path) -> None:
    for number in range(8):
        video = gliding_video(np.random.default_rng(number), 30, 192, 160, (1.0, 0.5))
        write_video(tmp_path / "videos" / f"{number}.mp4", video, codec="libx264")
    prepare(read_catalog(tmp_path / "videos", "flat"), tmp_path / "store", StoreSettings(), workers=1)
    store, is_flow = ClipStore(tmp_path / "store"), source == "flow"  # computed, from the store's pictures
    changes = {"source": "store" if is_flow else source, "files": tmp_path / "videos"}
    loader = loader_of(store, GPU, ComputedFlow(store) if is_flow else None, **changes)

    def requested(seed: int) -> Requests:
        requests_N = requests_of(16, seed)
        requests_N["view"] = View.FLOW if is_flow else View.RGB
        return requests_N

    def load(num_batches: int) -> int:
        for batch in loader.load(map(requested, range(num_batches))):
            del batch
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    before = load(60)  # until allocators and decoder sessions have what they want
    after = load(565)  # and 9,040 clips more
    assert before - after < 64 << 20


@pytest.mark.needs_cuda
@pytest.mark.parametrize(("source", "form"), SOURCES)
def test_no_pixel_passes_through_the_host(spoilt, source, form, tmp_path: Path) -> None:
    """Nothing comes back; what goes up is JPEG, or its coefficients, which weigh as much as pictures."""
    sound = [requests_of(16, seed, 3) for seed in range(6)]
    loader = loader_of(ClipStore(spoilt.path), GPU, source=source, resident_as=form)
    list(loader.load(sound))
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        list(loader.load(sound))
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    copied = {"DtoH": 0, "HtoD": 0}
    for event in events:
        for way in copied:
            if way in event.get("name", ""):
                copied[way] += int(event.get("args", {}).get("bytes", 0))
    picture_bytes = 6 * 16 * LENGTH * 3 * WIDTH * HEIGHT
    assert copied["DtoH"] < 100_000 and copied["HtoD"] < 1.2 * picture_bytes, copied


def test_half_precision_takes_the_clips_as_they_lie(spoilt) -> None:
    (batch,) = loader_of(spoilt, CPU).load([requests_of(4, 0, 3)])
    for dtype in (torch.bfloat16, torch.float16):
        half = batch.clips.to(dtype)
        assert half.stride() == batch.clips.stride()
        assert half.is_contiguous(memory_format=torch.channels_last_3d)
