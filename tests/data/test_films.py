"""Clips straight from original files: the pictures that FFmpeg shows, from three places, damage replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import gliding_video, write_video

from slicfast.cli import run
from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import draw
from slicfast.data.backend import CpuBackend, GpuBackend
from slicfast.data.catalog import read_catalog
from slicfast.data.decoding.ffmpeg import Decoded, decode
from slicfast.data.decoding.film import decode_film
from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.decoding.pictures import FrameScaler
from slicfast.data.loader import ClipLoader
from slicfast.data.prepare import prepare
from slicfast.data.requests import Requests, Role, frame_indices, make_requests
from slicfast.data.sources.film_cuts import cut_film, map_film
from slicfast.data.sources.films import FilmClips
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.parts import FilmCut
from slicfast.errors import ConfigError

pytest.importorskip("nvidia.dali")

LENGTH, CROP = 4, 24
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP, max_bad_share=1.0, source="files")
SMALL = StoreSettings(short_side=32)
CPU = torch.device("cpu")
# Suffix, encoder and options; each with key frames inside, some with pictures shown before their key frame.
FORMS = {
    "h264": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:log-level=none"}),
    "hevc": (
        "mkv",
        "libx265",
        {"x265-params": "keyint=12:min-keyint=12:bframes=3:open-gop=1:log-level=none"},
    ),
    "mpeg4": ("avi", "mpeg4", {"g": "12"}),
    "b-frames": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "vp9": ("webm", "libvpx-vp9", {"g": "12", "deadline": "realtime"}),
    "vp8": ("webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}),
    "mjpeg": ("avi", "mjpeg", {}),
    "stream": ("ts", "libx264", {"g": "12", "bf": "2", "x264-params": "log-level=none"}),
}


def write_form(path: Path, name: str, number: int, num_frames: int = 40) -> Path:
    suffix, codec, options = FORMS[name]
    video_THWC = gliding_video(np.random.default_rng(number), num_frames, 64, 48, (1.5, 0.5))
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return write_video(
        path.with_suffix(f".{suffix}"), video_THWC, codec=codec, options=options, pix_fmt=pix_fmt
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of each form and one that is only pictures of another one, split as training and test."""
    root = tmp_path_factory.mktemp("films") / "videos"
    for number, name in enumerate(FORMS):
        write_form(root / ("train", "test")[number % 4 == 3] / name / str(number), name, number)
    return root


@pytest.fixture(scope="module")
def store(videos: Path) -> ClipStore:
    """Their clip store, the files kept in it."""
    prepare(read_catalog(videos), videos.parent / "store", SMALL, workers=1, keep_original=True)
    return ClipStore(videos.parent / "store")


@pytest.fixture(scope="module")
def scanned(videos: Path) -> ClipStore:
    path = videos.parent / "scanned"
    arguments = [
        "prepare",
        str(videos),
        str(path),
        "--codec",
        "files",
        "--short-side",
        "32",
        "--workers",
        "1",
    ]
    assert run(arguments) == 0
    return ClipStore(path)


def some_requests(store: ClipStore, num: int, seed: int) -> Requests:
    rng = np.random.default_rng(seed)
    requests = make_requests(
        np.arange(num) % len(store),
        rng.integers(0, 38, num),
        role=Role.ANCHOR,
        seed_N=rng.integers(0, 2**64, num, dtype=np.uint64),
    )
    requests["stride"] = rng.integers(1, 4, num)
    return requests


def loader_of(store: ClipStore, config: DataConfig = CONFIG) -> ClipLoader:
    return ClipLoader(store, config, augment=AugmentConfig(), num_threads=2, max_batch=32)


@pytest.mark.parametrize("name", FORMS)
def test_a_cut_holds_the_pictures_that_the_whole_film_shows(name: str, tmp_path: Path) -> None:
    film = write_form(tmp_path / "film", name, int(np.random.default_rng().integers(1000)))
    scaler = FrameScaler(32, "rgb24")
    shown = [scaler.picture(frame) for frame, _ in decode(film, Decoded())]
    found = map_film(str(film), len(shown))
    assert len(shown) == 40 and (found.width, found.height) == (64, 48)
    is_cuttable = name != "vp8"
    assert bool(len(found.pts_P)) == is_cuttable
    rng = np.random.default_rng()
    for wanted in [np.arange(4), np.arange(36, 40), *rng.integers(0, 40, (8, 4))]:
        if is_cuttable:
            data, frames, first_ms = cut_film(str(film), found, wanted)
        else:
            data, frames, first_ms = np.fromfile(film, np.uint8), wanted.astype(np.int32), -1
        cut = FilmCut(data, frames, 64, 48, (scaler.width, scaler.height), 32, first_ms)
        np.testing.assert_array_equal(decode_film(cut), [shown[number] for number in wanted])
    if is_cuttable:
        few = len(found.needed(np.arange(14, 18)))
        assert few < 20 if len(found.key_K) > 1 else few <= 40
        assert len(found.key_K) >= 3


def test_clips_are_those_of_the_store_but_for_its_compression(store, videos, scanned) -> None:
    requests = some_requests(store, 32, 1)
    plain = CONFIG.model_copy(update={"source": "store"})
    (stored,) = loader_of(store, plain).load([requests])
    sources = [
        loader_of(store),
        loader_of(store, CONFIG.model_copy(update={"files": videos})),
        loader_of(scanned),
    ]
    sources.append(loader_of(scanned, CONFIG.model_copy(update={"source": "auto"})))
    first, second, third, fourth = (next(loader.load([requests])) for loader in sources)
    assert first.num_replaced == 0
    assert torch.equal(first.clips, second.clips) and torch.equal(first.clips, third.clips)
    assert torch.equal(first.clips, fourth.clips)
    error = 255 * (first.clips - stored.clips).abs() * torch.tensor(CONFIG.std).view(3, 1, 1, 1)
    assert 0 < error.mean() < 5  # of JPEG, stretched by colour; another picture of the film is far worse
    moved = requests.copy()
    moved["start"] = np.where(requests["start"] < 20, requests["start"] + 2, requests["start"] - 2)
    (other,) = loader_of(store).load([moved])
    assert (first.clips - other.clips).abs().mean() > 3 * (first.clips - stored.clips).abs().mean()


def test_batches_depend_on_requests_alone(store) -> None:
    requests = some_requests(store, 16, 2)
    (together,) = loader_of(store).load([requests])
    single = ClipLoader(store, CONFIG, augment=AugmentConfig(), num_threads=1, max_batch=1)
    for n, alone in enumerate(single.load([requests[n : n + 1] for n in range(16)])):
        assert torch.equal(alone.clips[0], together.clips[n])


def test_a_scan_tells_what_prepare_tells(store, scanned, videos) -> None:
    assert scanned.ids() == store.ids() and scanned.splits == store.splits
    for name in ("num_frames", "width", "height", "label_ids"):
        np.testing.assert_array_equal(getattr(scanned, name), getattr(store, name))
    np.testing.assert_allclose(scanned.fps, store.fps, rtol=0.05)
    assert all(scanned.film(row) == videos / scanned.id(row) for row in range(len(scanned)))
    assert run(["store", "verify", str(scanned.path)]) == 0
    again = prepare(read_catalog(videos), scanned.path, scanned.settings, workers=1)
    assert again.num_done == 0 and again.num_kept == len(scanned)


def test_a_file_that_is_gone_or_cut_short_is_replaced_and_named(scanned, videos, tmp_path, caplog) -> None:
    copy = Path(shutil.copytree(videos, tmp_path / "videos"))
    ids = [scanned.id(row) for row in range(len(scanned))]
    (copy / ids[0]).unlink()
    whole = (copy / ids[1]).read_bytes()
    (copy / ids[1]).write_bytes(whole[: len(whole) // 2])
    (copy / ids[2]).write_bytes(b"no film")
    requests = some_requests(scanned, 32, 3)
    requests["start"] = 34
    config = CONFIG.model_copy(update={"files": copy})
    (batch,) = loader_of(scanned, config).load([requests])
    changed = requests["video"] != batch.requests["video"]
    assert changed.sum() == batch.num_replaced == np.isin(requests["video"], [0, 1, 2]).sum()
    assert not np.isin(batch.requests["video"], [0, 1, 2]).any()
    assert all(f"'{ids[row]}'" in caplog.text for row in (0, 1, 2))
    (again,) = loader_of(scanned, config).load([requests])
    assert torch.equal(again.clips, batch.clips)


def test_a_cut_whose_packets_are_damaged_does_not_decode(tmp_path) -> None:
    film = write_form(tmp_path / "film", "h264", 3)
    found = map_film(str(film), 40)
    data, frames, first_ms = cut_film(str(film), found, np.arange(14, 18))
    spoilt = data.copy()
    spoilt[len(data) // 2 :] = 0
    for broken in (spoilt, data[: len(data) // 2], data[:0]):
        with pytest.raises(DecodeError):
            decode_film(FilmCut(broken, frames, 64, 48, (43, 32), 32, first_ms))
    with pytest.raises(DecodeError, match="pictures are 43 x 32, not 40 x 32"):
        decode_film(FilmCut(data, frames, 64, 48, (40, 32), 32, first_ms))


def test_segments_of_a_file_are_cut_at_their_seconds(videos, store, tmp_path) -> None:
    name = next(one for one in store.ids() if one.endswith(".mp4"))
    found = map_film(str(videos / name), 20, 0.4, 1.2)  # 25 pictures a second
    assert len(found.place_F) == 20
    whole = map_film(str(videos / name), 40)
    np.testing.assert_array_equal(found.place_F, whole.place_F[10:30])
    cuts = [
        cut_film(str(videos / name), *asked) for asked in ((found, np.arange(4)), (whole, np.arange(10, 14)))
    ]
    shown = [decode_film(FilmCut(cut[0], cut[1], 64, 48, (43, 32), 32, cut[2])) for cut in cuts]
    np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda", 0), marks=pytest.mark.needs_cuda)])
def test_the_graph_of_a_gpu_gives_the_same_clips(store, device) -> None:
    able = ("vp9", "vp8", "mjpeg") if device.type == "cpu" else tuple(FORMS)  # what DALI decodes there
    rows = [row for row in range(len(store)) if store.id(row).split("/")[1] in able]
    requests = some_requests(store, 2 * len(rows), 7)
    requests["video"] = np.repeat(rows, 2)
    indices = frame_indices(requests, LENGTH, store.num_frames[requests["video"]])
    source = FilmClips(store)
    stored = [source.stored(int(n), frames)[0] for n, frames in zip(requests["video"], indices, strict=True)]
    sizes = store.width[requests["video"]], store.height[requests["video"]]
    augment = AugmentConfig(blur_prob=0.0, jitter_prob=0.0)
    params = draw(requests["seed"], *sizes, augment)
    shown = []
    for kind, place in ((CpuBackend, CPU), (GpuBackend, device)):
        backend = kind(CONFIG, augment, place, 1, len(stored))
        backend.feed(stored, params, *sizes)
        shown.append(backend.complete(backend.take(), params).cpu())
        assert backend.undecodable(stored) == []
    error = 255 * (shown[0] - shown[1]).abs() * torch.tensor(CONFIG.std)
    assert error.mean() < 4, error.mean((1, 2, 3, 4))  # scaled in one step, and not over the stored size


def test_what_cannot_be_had_is_told(store, scanned, tiny_store, videos, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"keeps no original files; set data\.files"):
        loader_of(tiny_store)
    with pytest.raises(ConfigError, match="no folder at"):
        loader_of(store, CONFIG.model_copy(update={"files": tmp_path / "nothing"}))
    with pytest.raises(ConfigError, match=r"holds no pictures; set data\.source=files"):
        loader_of(scanned, CONFIG.model_copy(update={"source": "store"}))
    settings = StoreSettings(short_side=32, fps=10)
    prepare(read_catalog(videos), tmp_path / "resampled", settings, workers=1, limit=1)
    with pytest.raises(ConfigError, match="was resampled to 10 pictures a second"):
        loader_of(ClipStore(tmp_path / "resampled"), CONFIG.model_copy(update={"files": videos}))
    with pytest.raises(ConfigError, match="codec files keeps each video's own pictures"):
        StoreSettings(codec="files", fps=10)
