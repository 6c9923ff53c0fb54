"""Flow computed while loading: what a store means by flow, whatever the clips are stored as; clear refusals.

The engine itself only a GPU has. Elsewhere DIS stands in for it (`flow_stand_in.py`); everything around it is
what runs on a GPU.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_stand_in import StandIn
from small_data import encode_pictures, gliding_video, record_of, smooth_video, write_video

from slicfast.config import AugmentConfig, Config, DataConfig
from slicfast.data import producer
from slicfast.data.augment import draw
from slicfast.data.backend import GpuBackend
from slicfast.data.catalog import read_catalog
from slicfast.data.decoding.film import decode_film
from slicfast.data.flow import to_levels
from slicfast.data.loader import ClipBatch, ClipLoader
from slicfast.data.pipeline import ClipPipeline
from slicfast.data.pipelines import hardware_flow
from slicfast.data.pipelines.hardware_flow import HardwareFlowPipeline, flow_levels
from slicfast.data.pipelines.whole_pictures import WholePictures
from slicfast.data.prepare import prepare
from slicfast.data.preparing.flow import prepare_flow
from slicfast.data.reading import ClipReader
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.sources.choice import StoredClips
from slicfast.data.sources.films import FilmClips
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.flow import ComputedFlow, FlowStore, open_flow
from slicfast.data.stores.parts import FlowPictures, Held, HeldPlanes
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import MachineError
from slicfast.training.resuming import flow_facts

pytest.importorskip("nvidia.dali")

LENGTH, CROP, NUM_FRAMES = 4, 56, 24
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP)
PLAIN = AugmentConfig(jitter_prob=0, grey_prob=0, blur_prob=0)  # geometry alone
WIDTH, HEIGHT = 114, 96  # of the stores
STEP = np.array([2.0, -1.0])  # pixels a stored picture
MARGIN = 8  # pixels of the crop along the border, where flow has less to see
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@dataclass(frozen=True)
class Place:
    """Where flow is computed, and how many levels its medians may be off."""

    device: torch.device
    tolerance: float


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.needs_cuda)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "gpu":
        return Place(GPU, 12.0)  # the engine has quarters of a pixel, each 4 levels of a crop of 96 rows
    monkeypatch.setattr(producer, "require_hardware_flow", lambda device: None)
    monkeypatch.setattr(producer, "make_backend", GpuBackend)
    monkeypatch.setattr(hardware_flow, "DaliEngine", lambda device, max_films: StandIn())
    return Place(CPU, 6.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of twice the stores' size, VP9, that glide by twice STEP."""
    folder = tmp_path_factory.mktemp("glide") / "videos"
    for number in range(4):
        rng = np.random.default_rng(number)
        video_THWC = gliding_video(rng, NUM_FRAMES + number, 2 * WIDTH, 2 * HEIGHT, tuple(2 * STEP))
        write_video(
            folder / f"{number}.webm", video_THWC, codec="libvpx-vp9", options={"deadline": "realtime"}
        )
    return folder


@pytest.fixture(scope="module")
def stores(videos: Path) -> dict[str, ClipStore]:
    """The same films in stores of each codec, that of JPEG with stored flow of both kinds."""
    catalog = read_catalog(videos, "flat")
    for codec in ("jpeg", "vp9", "files"):
        prepare(catalog, videos.parent / codec, StoreSettings(short_side=HEIGHT, codec=codec), workers=1)
    prepare_flow(catalog, videos.parent / "jpeg", workers=1)
    prepare_flow(catalog, videos.parent / "jpeg", "both", workers=1)
    return {codec: ClipStore(videos.parent / codec) for codec in ("jpeg", "vp9", "files")}


def requests(num: int, view: View = View.FLOW, seed: int = 5, **options) -> Requests:
    rng = np.random.default_rng(seed)
    seed_N, start_N = rng.integers(0, 2**64, num, dtype=np.uint64), rng.integers(0, 10, num)
    settings = {"role": Role.ANCHOR, "seed_N": seed_N, **options}
    return make_requests(np.arange(num) % 4, start_N, view_N=view, **settings)


def load(store: ClipStore, requests_N: Requests, flow: object, device: torch.device, **options) -> ClipBatch:
    config = CONFIG.model_copy(update=options.pop("data", {}))
    settings = {"augment": PLAIN, "num_threads": 1, "max_batch": 32, "device": device, **options}
    (batch,) = ClipLoader(store, config, flow=flow, **settings).load([requests_N])
    return batch


def levels(batch: ClipBatch) -> np.ndarray:
    """(N, T, H, W, 3) the values of a batch in 0-255."""
    std, mean = torch.tensor(CONFIG.std), torch.tensor(CONFIG.mean)
    return (255 * (batch.clips.cpu().permute(0, 2, 3, 4, 1) * std + mean)).numpy()


def middle(clips_NTHWC: np.ndarray) -> np.ndarray:
    """(N, 3) medians away from the border."""
    return np.median(clips_NTHWC[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], axis=(1, 2, 3))


def test_known_motion_is_right_after_crop_flip_and_resize(stores, place: Place) -> None:
    requests_N = requests(12)
    params = draw(requests_N["seed"], WIDTH, HEIGHT, PLAIN)
    zoom_N2 = CROP / ((params.bottom_right - params.top_left) * [HEIGHT, WIDTH])[:, ::-1]
    moved_N2 = STEP * zoom_N2 * np.where(params.flip[:, None], [-1, 1], 1)  # pixels of the crop
    expected_N2 = 128 + 6.375 * 240 / CROP * moved_N2
    assert params.flip.any() and not params.flip.all() and zoom_N2.max() > 1.5 * zoom_N2.min()
    for components in ("horizontal", "both"):
        flow = ComputedFlow(stores["jpeg"], components)
        shown = middle(levels(load(stores["jpeg"], requests_N, flow, place.device)))
        if components == "horizontal":
            expected = np.repeat(expected_N2[:, :1], 3, axis=1)
        else:
            expected = np.column_stack([expected_N2, np.full(12, 128)])
        np.testing.assert_allclose(shown, expected, atol=place.tolerance)


@pytest.mark.parametrize("kind", ["jpeg", "resident", "vp9", "files"])
def test_computed_flow_is_what_a_store_holds_however_pictures_are_stored(stores, place, kind) -> None:
    requests_N = requests(8, seed=11)
    expected = levels(load(stores["jpeg"], requests_N, FlowStore(stores["jpeg"], "both"), CPU))
    source = {"resident": "resident", "files": "files"}.get(kind, "store")
    store = stores["jpeg" if kind == "resident" else kind]
    batch = load(store, requests_N, ComputedFlow(store, "both"), place.device, data={"source": source})
    assert batch.num_replaced == 0 and batch.clips.is_contiguous(memory_format=torch.channels_last_3d)
    inner = (slice(None), slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    assert np.abs(levels(batch) - expected)[inner].mean() < place.tolerance / 2
    np.testing.assert_allclose(middle(levels(batch)), middle(expected), atol=place.tolerance)
    assert np.abs(expected - 128).max() > 50


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_field_leads_to_the_very_next_picture_whatever_the_stride(stores, place, stride: int) -> None:
    """Also past the last field, which is repeated."""
    requests_N = requests(4, stride=stride)
    requests_N["start"] = NUM_FRAMES - LENGTH * stride + np.arange(4)
    store = stores["jpeg"]
    expected = levels(load(store, requests_N, FlowStore(store), CPU))
    shown = levels(load(store, requests_N, ComputedFlow(store), place.device))
    for t in range(LENGTH):
        np.testing.assert_allclose(
            middle(shown[:, t : t + 1]), middle(expected[:, t : t + 1]), atol=place.tolerance
        )


def test_faithful_flow_has_the_photometric_draw_and_no_sign(stores, place: Place) -> None:
    requests_N, store = requests(8), stores["jpeg"]
    stored = FlowStore(store, faithful=True)
    expected = levels(load(store, requests_N, stored, CPU, augment=AugmentConfig()))
    computed = ComputedFlow(store, faithful=True)
    shown = levels(load(store, requests_N, computed, place.device, augment=AugmentConfig()))
    plain = middle(levels(load(store, requests_N, computed, place.device)))
    np.testing.assert_allclose(middle(shown), middle(expected), atol=2 * place.tolerance)  # contrast: to 1.5
    np.testing.assert_allclose(plain, 128 + 6.375 * 240 / HEIGHT * STEP[0], atol=place.tolerance)


def test_a_clip_is_the_same_alone_and_beside_others(stores, place: Place) -> None:
    store, options = stores["jpeg"], {"augment": AugmentConfig()}
    mixed = requests(6)
    mixed["view"][::3] = View.RGB
    flow = ComputedFlow(store)
    batch = load(store, mixed, flow, place.device, **options)
    assert set(batch.requests["view"]) == {View.RGB, View.FLOW}
    for n in range(6):
        alone = load(store, mixed[n : n + 1], flow, place.device, **options)
        assert torch.equal(alone.clips[0], batch.clips[n])
    pictures = load(store, mixed[::3], None, place.device, **options)
    assert torch.equal(pictures.clips, batch.clips[::3])


def test_damage_is_found_named_and_replaced(stores, place: Place, tmp_path: Path, caplog) -> None:
    """A picture whose bytes changed, and one that is as stored but does not decode."""
    store = ClipStore(Path(shutil.copytree(stores["jpeg"].path, tmp_path / "store")))
    layout = store.layout(1)
    data = bytearray(layout.shard.read_bytes())
    data[layout.offset + layout.bounds[3] + 30] ^= 1
    layout.shard.write_bytes(data)
    requests_N = make_requests(np.arange(4), 0, view_N=View.FLOW, role=Role.ANCHOR, seed_N=9)
    batch = load(store, requests_N, ComputedFlow(store), place.device)
    assert np.flatnonzero(batch.requests["video"] != requests_N["video"]).tolist() == [1]
    assert "'1.webm': the stored bytes do not match" in caplog.text
    whole = load(stores["jpeg"], batch.requests, ComputedFlow(store), place.device)
    assert torch.equal(batch.clips, whole.clips)


def test_a_clip_that_does_not_decode_is_replaced(place: Place, tmp_path: Path, caplog) -> None:
    names: dict[str, str | None] = {f"{number}.avi": None for number in range(4)}
    with StoreWriter(tmp_path / "store", StoreSettings(short_side=64)) as writer:
        for number, name in enumerate(names):
            jpegs = encode_pictures(smooth_video(np.random.default_rng(number), 12, 80, 64))
            if number == 2:  # the last picture of the clip, which only its last field leads to
                jpegs[LENGTH] = jpegs[LENGTH][: len(jpegs[LENGTH]) // 2]
            writer.add(record_of(name, None, jpegs, 80, 64), b"".join(jpegs))
        writer.finish(names, {"train": list(names)})
    store = ClipStore(tmp_path / "store")
    requests_N = make_requests(np.arange(4), 0, view_N=View.FLOW, role=Role.ANCHOR, seed_N=9)
    batch = load(store, requests_N, ComputedFlow(store), place.device, data={"crop_size": 32})
    assert np.flatnonzero(batch.requests["video"] != requests_N["video"]).tolist() == [2]
    assert "'2.avi': its pictures are as they were stored but do not decode" in caplog.text


@pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=pytest.mark.needs_cuda)])
def test_pictures_come_at_the_stored_size_whatever_they_are_stored_as(stores, device) -> None:
    index_K, luma = np.array([2, 3, 7]), np.array([0.299, 0.587, 0.114])
    clips = [StoredClips(stores["jpeg"]).stored(0, index_K), StoredClips(stores["vp9"]).stored(1, index_K)]
    clips.append(FilmClips(stores["files"]).stored(2, index_K))
    expected = [decode_film(FilmClips(stores["files"]).stored(row, index_K)[0]) for row in range(3)]
    block_FHWC = torch.from_numpy(np.random.default_rng().integers(0, 256, (9, 10, 12, 3), dtype=np.uint8))
    clips.append([Held(block_FHWC.to(device), index_K)])
    luma_FHW, chroma_F2HW = block_FHWC[..., 0], block_FHWC[:, :5, :6, :2].permute(0, 3, 1, 2)
    clips.append([HeldPlanes(luma_FHW.to(device), chroma_F2HW.to(device), index_K)])
    whole = WholePictures(device=device, num_threads=1, max_clips=5, max_pictures=3)
    whole.feed(clips)
    whole.feed(clips[::-1])
    found = [pictures.cpu().numpy() for pictures in whole.take()]
    for a, b in zip(found, whole.take()[::-1], strict=True):
        np.testing.assert_array_equal(a, b.cpu().numpy())
    for a, b in zip(found[:3], expected, strict=True):
        assert a.shape == b.shape == (3, HEIGHT, WIDTH, 3)
        assert np.abs(a @ luma - b @ luma).mean() < 4  # what is stored is compressed
    np.testing.assert_array_equal(found[3], block_FHWC[index_K])
    np.testing.assert_array_equal(found[4], block_FHWC[index_K][..., :1].repeat(1, 1, 1, 3))


def test_clips_before_their_affine_map_are_pictures_as_flow_is_stored(stores) -> None:
    store, requests_N = stores["jpeg"], requests(4)
    params = draw(requests_N["seed"], WIDTH, HEIGHT, PLAIN)
    settings = {"clip_length": LENGTH, "crop_size": CROP, "device": CPU, "num_threads": 1, "max_clips": 4}
    for components in ("horizontal", "both"):
        stored = ClipPipeline(**settings)
        stored.feed(
            ClipReader(store, LENGTH, flow=FlowStore(store, components)).read(requests_N).pictures,
            params,
            WIDTH,
            HEIGHT,
        )
        computed = HardwareFlowPipeline(**settings, engine=StandIn())
        clips = ClipReader(store, LENGTH, flow=ComputedFlow(store, components)).read(requests_N).pictures
        computed.feed(clips, params, WIDTH, HEIGHT)
        a, b = (pipeline.take().numpy().astype(int) for pipeline in (stored, computed))
        assert a.shape == b.shape == (4, LENGTH, CROP, CROP, 3)
        np.testing.assert_allclose(middle(b), middle(a), atol=6)


def test_each_picture_is_read_once(stores) -> None:
    store = stores["jpeg"]
    for stride, num_pictures in ((1, LENGTH + 1), (2, 2 * LENGTH), (5, 2 * LENGTH)):
        reader = ClipReader(store, LENGTH, flow=ComputedFlow(store, "both"))
        request = make_requests([0], [1], stride=stride, view_N=View.FLOW, role=Role.ANCHOR)
        (clip,) = reader.read(request).pictures
        assert isinstance(clip, FlowPictures) and clip.components == "both"
        before_T = 1 + stride * np.arange(LENGTH)
        wanted = sorted({*before_T, *(before_T + 1)})
        assert len(clip.stored) == num_pictures == len(wanted)
        for found, expected in zip(clip.stored, store.frames(0, wanted), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert [wanted[k] for k in clip.place_T] == before_T.tolist()


def test_levels_are_those_of_a_store() -> None:
    rng = np.random.default_rng()
    fields = rng.normal(0, 8, (3, 50, 70, 2)).astype(np.float32)
    expected = np.stack([to_levels(field) for field in fields])
    assert expected.min() == 0 and expected.max() == 255
    both = flow_levels(torch.from_numpy(fields), "both").numpy().astype(int)
    assert np.abs(both - expected).max() <= 1 and (both == expected).mean() > 0.999  # float32 near a half
    horizontal = flow_levels(torch.from_numpy(fields), "horizontal").numpy()
    np.testing.assert_array_equal(horizontal[..., 0], both[..., 0])


def test_a_configuration_of_hardware_flow_needs_no_stored_flow(stores) -> None:
    store = stores["vp9"]
    options = ["motion.view=flow", "flow.source=hardware"]
    flow = open_flow(store, Config.load(None, [*options, "motion.components=both"]))
    assert isinstance(flow, ComputedFlow) and flow.components == "both" and flow.has(np.arange(4)).all()
    np.testing.assert_array_equal(flow.num_fields_N, store.num_frames.astype(int) - 1)
    assert open_flow(store, Config.load(None, [*options, "motion.prob=0"])) is None
    facts = flow_facts(flow, np.arange(4))
    assert facts["members"] == "hardware" and facts["has_flow"].all()


def test_on_a_cpu_it_is_refused_in_one_line(stores) -> None:
    with pytest.raises(MachineError) as raised:
        ClipLoader(stores["jpeg"], CONFIG, augment=PLAIN, flow=ComputedFlow(stores["jpeg"]), max_batch=1)
    told = str(raised.value)
    assert told.startswith("flow.source=hardware needs an NVIDIA GPU, and this runs on the CPU")
    assert "flow.source=stored" in told and "slicfast prepare ROOT STORE --flow" in told
    assert "\n" not in told
