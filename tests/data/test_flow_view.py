"""Clips of flow: sign and size of known motion after crop, flip and resize, from the file to the batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slicfast.config import AugmentConfig, Config, DataConfig
from slicfast.data.augment import draw
from slicfast.data.backend import CpuBackend, GpuBackend
from slicfast.data.flow import FlowEncoder, flow_folder, to_levels
from slicfast.data.flow_view import flow_factors, show_flow
from slicfast.data.loader import ClipBatch, ClipLoader
from slicfast.data.reading import ClipReader
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.flow import FlowStore, open_flow
from slicfast.errors import DataError

pytest.importorskip("nvidia.dali")

LENGTH, CROP = 4, 40
STEP = np.array([1.5, -0.75])  # of gliding_store, stored pixels
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP)
PLAIN = AugmentConfig(jitter_prob=0, grey_prob=0, blur_prob=0)  # geometry alone
MARGIN = 6  # pixels of the crop along the border, where flow has less to see


def requests(num: int, view: View = View.FLOW, role: Role = Role.ANCHOR) -> Requests:
    rng = np.random.default_rng(5)
    seed_N = rng.integers(0, 2**64, num, dtype=np.uint64)
    return make_requests(np.arange(num) % 6, rng.integers(0, 30, num), view_N=view, role=role, seed_N=seed_N)


def load(store: ClipStore, requests_N: Requests, flow: FlowStore | None, **options) -> ClipBatch:
    settings = {"augment": PLAIN, "num_threads": 1, "max_batch": 32}
    (batch,) = ClipLoader(store, CONFIG, flow=flow, **{**settings, **options}).load([requests_N])
    return batch


def levels(batch: ClipBatch) -> np.ndarray:
    """(N, T, H, W, 3) the values of a batch in 0-255."""
    std, mean = torch.tensor(CONFIG.std), torch.tensor(CONFIG.mean)
    return (255 * (batch.clips.permute(0, 2, 3, 4, 1) * std + mean)).numpy()


def middle(clips_NTHWC: np.ndarray) -> np.ndarray:
    """(N, 3) medians away from the border."""
    return np.median(clips_NTHWC[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], axis=(1, 2, 3))


def zooms(store: ClipStore, requests_N: Requests) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) output pixels per stored pixel, across and down, and (N,) which clips are mirrored."""
    params = draw(requests_N["seed"], 64, 48, PLAIN)
    size_N2 = (params.bottom_right - params.top_left) * [48, 64]
    return CROP / size_N2[:, ::-1], params.flip


def test_known_motion_is_right_after_crop_flip_and_resize(gliding_store: ClipStore) -> None:
    requests_N = requests(16)
    zoom_N2, flip_N = zooms(gliding_store, requests_N)
    moved_N2 = STEP * zoom_N2 * np.where(flip_N[:, None], [-1, 1], 1)  # pixels of the crop
    expected_N2 = 128 + 6.375 * 240 / CROP * moved_N2
    assert flip_N.any() and not flip_N.all() and zoom_N2.max() > 1.5 * zoom_N2.min()
    horizontal = middle(levels(load(gliding_store, requests_N, FlowStore(gliding_store))))
    np.testing.assert_allclose(horizontal, np.repeat(expected_N2[:, :1], 3, axis=1), atol=6)
    both = middle(levels(load(gliding_store, requests_N, FlowStore(gliding_store, "both"))))
    np.testing.assert_allclose(both[:, :2], expected_N2, atol=6)
    np.testing.assert_allclose(both[:, 2], 128, atol=1e-3)


def test_flow_is_that_of_the_pictures_as_the_same_seed_shows_them(gliding_store: ClipStore) -> None:
    requests_N = requests(8)
    shown = levels(load(gliding_store, requests(8, View.RGB), None)).clip(0, 255).astype(np.uint8)
    encoder = FlowEncoder(StoreSettings(content="flow-uv"))
    seen = []  # flow measured between the shown pictures themselves
    for clip_THWC in shown:
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in clip_THWC]
        fields = [encoder.field(grey[t], grey[t + 1]) for t in range(LENGTH - 1)]
        seen.append(np.stack([to_levels(field) for field in fields]))
    told = levels(load(gliding_store, requests_N, FlowStore(gliding_store, "both")))[:, : LENGTH - 1, ..., :2]
    np.testing.assert_allclose(middle(told), middle(np.stack(seen)), atol=8)


def test_an_evaluation_clip_of_flow_keeps_its_levels(gliding_store: ClipStore) -> None:
    batch = load(gliding_store, requests(6, role=Role.EVAL), FlowStore(gliding_store), augment=None)
    np.testing.assert_allclose(middle(levels(batch)), 128 + 6.375 * 240 / 48 * STEP[0], atol=3)


def test_faithful_flow_is_a_grey_picture_like_any_other(gliding_store: ClipStore) -> None:
    """The photometric draw of its seed, no sign, no scale: a store of flow taken for one of pictures."""
    requests_N = requests(12)
    fields = ClipStore(flow_folder(gliding_store.path, "horizontal"))
    as_pictures = load(fields, requests(12, View.RGB), None, augment=AugmentConfig())
    faithful = FlowStore(gliding_store, faithful=True)
    batch = load(gliding_store, requests_N, faithful, augment=AugmentConfig())
    assert torch.equal(batch.clips, as_pictures.clips)
    ours = load(gliding_store, requests_N, FlowStore(gliding_store), augment=AugmentConfig())
    geometry_alone = load(gliding_store, requests_N, FlowStore(gliding_store))
    assert torch.equal(ours.clips, geometry_alone.clips)  # no colour operators, no blur
    # Without photometry the two differ by sign and scale about the level of no motion, and by nothing else.
    published = levels(load(gliding_store, requests_N, faithful))
    factor_N = flow_factors(draw(requests_N["seed"], 64, 48, PLAIN), 64, 48)[:, 0]
    expected = 128 + factor_N[:, None, None, None, None] * (published - 128)
    np.testing.assert_allclose(levels(ours), expected.clip(0, 255), atol=0.6)  # a back end may round to 8 bit


@pytest.mark.parametrize("components", ["horizontal", "both"])
def test_the_gpus_graph_and_the_processors_way_agree_on_flow(gliding_store: ClipStore, components) -> None:
    flow, requests_N = FlowStore(gliding_store, components), requests(12)
    pictures = ClipReader(gliding_store, LENGTH, flow=flow).read(requests_N).pictures
    config = AugmentConfig()
    params = draw(requests_N["seed"], 64, 48, config, is_motion_N=True)
    params = show_flow(params, np.ones(12, dtype=bool), 64, 48, components)
    shown = []
    for kind in (CpuBackend, GpuBackend):
        backend = kind(CONFIG, config, torch.device("cpu"), 1, 12)
        backend.feed(pictures, params, 64, 48)
        clips = backend.complete(backend.take(), params)
        shown.append(clips.numpy() * np.array(CONFIG.std) * 255)
    error = np.abs(shown[0] - shown[1])
    assert error.mean() < 0.6 and np.quantile(error, 0.999) < 3  # a level of rounding, times the zoom
    assert np.ptp(shown[0]) > 50


def test_pictures_beside_flow_are_untouched(gliding_store: ClipStore) -> None:
    mixed = requests(12)
    mixed["view"][::2] = View.RGB
    options = {"augment": AugmentConfig()}
    batch = load(gliding_store, mixed, FlowStore(gliding_store), **options)
    pictures = load(gliding_store, requests(12, View.RGB), None, **options)
    flow = load(gliding_store, requests(12), FlowStore(gliding_store), **options)
    assert torch.equal(batch.clips[::2], pictures.clips[::2])
    assert torch.equal(batch.clips[1::2], flow.clips[1::2])


def test_horizontal_flow_is_had_from_a_store_of_both(gliding_store: ClipStore, tmp_path: Path) -> None:
    shutil.copytree(gliding_store.path, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/flow-u")
    store = ClipStore(tmp_path / "store")
    expected = levels(load(gliding_store, requests(6), FlowStore(gliding_store)))
    found = levels(load(store, requests(6), FlowStore(store)))
    assert np.abs(found - expected).mean() < 2 and np.ptp(found, axis=-1).max() < 1e-3
    with pytest.raises(DataError, match="flow-u, which is not there"):
        FlowStore(store, faithful=True)


def test_a_store_without_flow_is_told_with_the_command(tiny_store: ClipStore) -> None:
    config = Config.load(None, ["motion.view=flow"])
    with pytest.raises(DataError, match=r"slicfast prepare ROOT .* --flow'$"):
        open_flow(tiny_store, config)
    with pytest.raises(DataError, match=r"--flow-both'$"):
        open_flow(tiny_store, Config.load(None, ["motion.view=flow", "motion.components=both"]))
    assert open_flow(tiny_store, Config.load(None, ["motion.view=flow", "motion.prob=0"])) is None
    assert open_flow(tiny_store, Config()) is None


def test_damaged_flow_is_replaced_and_counted(gliding_store: ClipStore, tmp_path: Path, caplog) -> None:
    shutil.copytree(gliding_store.path, tmp_path / "store")
    path = next((tmp_path / "store/flow-u/shards").glob("*.tar"))
    data = bytearray(path.read_bytes())
    data[600] ^= 1  # in the first field of the first video
    path.write_bytes(data)
    store = ClipStore(tmp_path / "store")
    requests_N = make_requests(np.arange(6), 0, role=Role.ANCHOR, view_N=View.FLOW, seed_N=9)
    batch = load(store, requests_N, FlowStore(store))
    (damaged,) = np.flatnonzero(batch.requests["video"] != requests_N["video"])
    assert batch.num_replaced == 1 and (batch.requests["view"] == View.FLOW).all()
    assert f"'{store.id(int(damaged))}': flow: the stored bytes do not match" in caplog.text
    whole = load(gliding_store, batch.requests, FlowStore(gliding_store))
    assert torch.equal(batch.clips, whole.clips)
    requests_N["view"] = View.RGB  # its pictures are sound
    assert load(store, requests_N, FlowStore(store)).num_replaced == 0


def test_windows_at_the_end_repeat_the_last_field(gliding_store: ClipStore) -> None:
    num_fields = gliding_store.num_frames.astype(np.int64) - 1
    last = make_requests(np.arange(6), num_fields - LENGTH, view_N=View.FLOW, role=Role.ANCHOR, seed_N=3)
    beyond = last.copy()
    beyond["start"] += 2
    fitting = levels(load(gliding_store, last, FlowStore(gliding_store)))
    repeated = levels(load(gliding_store, beyond, FlowStore(gliding_store)))
    np.testing.assert_array_equal(repeated[:, :2], fitting[:, 2:])
    np.testing.assert_array_equal(repeated[:, 2:], fitting[:, [3, 3]])


def test_videos_without_flow_or_with_that_of_another_file_have_none(
    gliding_store: ClipStore, tiny_store: ClipStore, tmp_path: Path
) -> None:
    flow = FlowStore(gliding_store)
    assert flow.has(np.arange(6)).all() and (flow.num_fields_N == gliding_store.num_frames - 1).all()
    shutil.copytree(gliding_store.path, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/flow-u")
    shutil.copytree(gliding_store.path, tmp_path / "store/flow-u")  # as many fields as pictures: not theirs
    wrong = FlowStore(ClipStore(tmp_path / "store"))
    assert not wrong.has(np.arange(6)).any() and not wrong.num_fields_N.any()
    shutil.rmtree(tmp_path / "store/flow-u")
    shutil.copytree(tiny_store.path, tmp_path / "store/flow-u")  # other videos
    assert not FlowStore(ClipStore(tmp_path / "store")).has(np.arange(6)).any()
