"""Regions at another size against torchvision's resized_crop and against plain float64 weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_reference import axis_weights, resample
from clip_reference import resize as reference_resize
from small_data import smooth_video

from slicfast.config import AugmentConfig
from slicfast.data import resampling
from slicfast.data.augment import centre_crop, draw, evaluation_size
from slicfast.device import ensure_torchvision_imports


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """(3, 128, 171, 3) smooth pictures with noise: edges would show a wrong filter, noise a missing one."""
    rng = np.random.default_rng()
    return (
        (smooth_video(rng, 3, 171, 128) + rng.normal(0, 20, (3, 128, 171, 3))).clip(0, 255).astype(np.uint8)
    )


def functional():
    ensure_torchvision_imports()
    from torchvision.transforms.v2 import functional

    return functional


@pytest.mark.parametrize("size", [32, 112, 160])  # shrinking, both, enlarging
def test_random_regions_are_bit_for_bit_torchvisions_resized_crop(frames, size):
    params = draw(np.random.default_rng().integers(0, 2**63, 40, dtype=np.uint64), 171, 128, AugmentConfig())
    pictures_TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for top_left, bottom_right in zip(params.top_left, params.bottom_right, strict=True):
        top, left = (round(float(v)) for v in top_left * [128, 171])
        bottom, right = (round(float(v)) for v in bottom_right * [128, 171])
        expected = functional().resized_crop(
            pictures_TCHW, top, left, bottom - top, right - left, [size, size], antialias=True
        )
        got = resampling.resample(frames, top_left, bottom_right, size)
        np.testing.assert_array_equal(got, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("crop", [112, 128, 64, 33])
def test_evaluation_is_bit_for_bit_a_centre_crop_of_the_resized_picture(frames, crop):
    size = evaluation_size(crop)
    params = centre_crop(1, size, crop)
    pictures_TCHW = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = functional().resize(pictures_TCHW, list(size), antialias=True)
    expected = functional().center_crop(resized, [crop, crop]).permute(0, 2, 3, 1)
    got = resampling.resample(frames, params.top_left[0], params.bottom_right[0], crop)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [24, 112, 200])
def test_any_region_is_within_one_level_of_the_weights_applied_in_float64(frames, size):
    rng = np.random.default_rng()
    for whole in (False, True):
        for _ in range(8):
            top_left = rng.uniform(0, 0.5, 2)
            bottom_right = top_left + rng.uniform(0.2, 0.5, 2)
            if whole:
                top_left, bottom_right = (
                    np.rint(share * [128, 171]) / [128, 171] for share in (top_left, bottom_right)
                )
            region = (top_left.astype(np.float32), bottom_right.astype(np.float32))
            got = resampling.resample(frames, *region, size)
            for shown, frame in zip(got, frames, strict=True):
                expected = reference_resize(frame, *region, size)
                # Rounded once here, twice (after each axis) in torch's kernel with its 16-bit weights.
                assert np.abs(shown - expected).max() < (1.5 if whole else 0.51)


def test_pixels_around_a_region_off_the_grid_are_used(frames):
    region = (np.float32([0.101, 0.101]), np.float32([0.801, 0.801]))
    got = resampling.resample(frames, *region, 160)
    rows, columns = (axis_weights(n, 0.101 * n, 0.801 * n, 160) for n in (128, 171))
    assert np.abs(got[1] - resample(frames[1], rows, columns)).max() < 0.51


def test_a_list_of_frames_gives_what_an_array_gives_and_neither_is_written_to(frames):
    before = frames.copy()
    region = (np.float32([0.125, 0.0]), np.float32([1.0, 1.0]))
    listed = resampling.resample(list(frames), *region, 56)
    np.testing.assert_array_equal(listed, resampling.resample(frames, *region, 56))
    np.testing.assert_array_equal(frames, before)


def test_a_region_of_the_right_size_is_only_cut_out(frames):
    top_left, bottom_right = np.float32([8 / 128, 20 / 171]), np.float32([120 / 128, 132 / 171])
    got = resampling.resample(frames, top_left, bottom_right, 112)
    np.testing.assert_array_equal(got, frames[:, 8:120, 20:132])
