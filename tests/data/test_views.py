"""CoCLR's windows and crops against plain loops, and the pictures that come out of the loader."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from slicfast.config import DataConfig
from slicfast.data.loader import ClipLoader
from slicfast.data.requests import frame_indices, make_requests
from slicfast.data.views import in_all_crops, ten_crops, windows


def plain_windows(num_frames: int, length: int, every: int) -> list[list[int]]:
    frames = list(range(num_frames))
    if num_frames < length:
        return [[0] * (length - num_frames) + frames]
    return [frames[start : start + length] for start in range(0, num_frames - length + 1, every)]


def test_windows_of_16_start_every_7_and_short_videos_begin_with_their_first_frame():
    num_frames = np.random.default_rng().integers(1, 70, 30)
    rows = np.arange(30) + 4
    requests = windows(rows, num_frames, clip_span=16, stride=1)
    shown = frame_indices(requests, 16, num_frames[requests["video"] - 4])
    wanted = [(row, w) for row, num in zip(rows, num_frames, strict=True) for w in plain_windows(num, 16, 7)]
    assert requests["video"].tolist() == [row for row, _ in wanted]
    assert shown.tolist() == [frames for _, frames in wanted]


def test_windows_of_strided_clips_overlap_alike():
    requests = windows(np.array([0, 1]), [64, 20], clip_span=31, stride=2)
    assert requests["start"].tolist() == [0, 14, 28, -11]
    assert frame_indices(requests, 16, np.array([64, 64, 64, 20]))[3].tolist() == [
        *[0] * 6,
        *range(1, 20, 2),
    ]


def test_ten_crops_are_five_places_and_their_mirror_images():
    requests = in_all_crops(make_requests(np.array([3]), 5))
    assert requests["seed"].tolist() == list(range(10))
    params = ten_crops(requests, 320, 240)
    pixels = np.concatenate([params.top_left * [240, 320], params.bottom_right * [240, 320]], axis=1)
    wanted = [(8, 48, 232, 272), (0, 0, 224, 224), (0, 96, 224, 320), (16, 0, 240, 224), (16, 96, 240, 320)]
    np.testing.assert_allclose(pixels[0::2], wanted, atol=1e-3)
    np.testing.assert_allclose(pixels[1::2], wanted, atol=1e-3)
    assert params.flip.tolist() == [False, True] * 5
    tall = ten_crops(requests[:1], 120, 160)
    np.testing.assert_allclose(tall.top_left[0] * [160, 120], [24, 4], atol=1e-3)


@pytest.mark.parametrize("crop", range(10))
def test_the_loader_shows_the_crop_that_the_seed_names(tiny_store, crop):
    """Against OpenCV on the stored pictures: 40 x 32, so a region of 29.87, shown at 28 x 28."""
    data = DataConfig(
        store=tiny_store.path, clip_length=2, crop_size=28, mean=(0.0,) * 3, std=(1.0,) * 3, num_threads=1
    )
    loader = ClipLoader(tiny_store, data, augment=None, geometry=ten_crops, max_batch=2)
    requests = make_requests(np.array([0]), 0, seed_N=crop)
    (batch,) = loader.load([requests])
    picture = cv2.imdecode(tiny_store.frames(0, [1])[0], cv2.IMREAD_COLOR)[..., ::-1].astype(np.float64)
    side = 32 * 224 / 240
    place = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)][crop // 2]
    top, left = place[0] * (32 - side), place[1] * (40 - side)
    centres = (np.arange(28) + 0.5) * side / 28 - 0.5
    columns, rows = np.meshgrid(left + centres, top + centres)
    wanted = cv2.remap(
        picture,
        columns.astype(np.float32),
        rows.astype(np.float32),
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REPLICATE,
    )
    wanted = wanted[:, ::-1] if crop % 2 else wanted
    shown = 255 * batch.clips[0, :, 1].permute(1, 2, 0).numpy()
    assert np.abs(shown - wanted).mean() < 1.0  # DALI filters the little that it shrinks
