"""Hue turned by 8-bit arithmetic, against HSV in float64 and against the GPU's operators."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from slicfast.data import hue, photometric
from slicfast.data.recycling import Scratch


def turned(picture: np.ndarray, turns: float) -> np.ndarray:
    out = np.empty_like(picture)
    hue.turn_hue(picture, turns, out, Scratch())
    return out


def colours(height: int, width: int) -> np.ndarray:
    """All kinds: any colours, few levels (so that channels are equal), greys, black and white."""
    rng = np.random.default_rng()
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture[::4] = rng.choice(np.array([0, 1, 128, 254, 255], np.uint8), picture[::4].shape)
    picture[1::4] = picture[1::4, :, :1]
    return picture


@pytest.mark.parametrize("turns", [0.0, 0.5, -0.5, 1 / 3, -1 / 6, 0.13, -0.29, 0.4999, 2.2])
def test_hue_is_turned_as_in_hsv_but_for_rounding(turns):
    picture = colours(24, 25)
    before = picture.copy()
    got = turned(picture, turns)
    assert np.array_equal(picture, before)
    for pixel, new in zip(picture.reshape(-1, 3).tolist(), got.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + turns) % 1.0, s, v))
        assert np.abs(new - expected).max() < 0.5001


def test_hue_is_the_gpus(monkeypatch):
    monkeypatch.setattr(hue, "_PIXELS", 700)  # several pieces, the last one shorter
    for turns in np.random.default_rng().uniform(-0.5, 0.5, 5):
        picture = colours(60, 33)
        expected = photometric.turn_hue(torch.from_numpy(picture)[None, None].float(), torch.tensor([turns]))
        error = np.abs(turned(picture, float(turns)) - expected[0, 0].numpy())
        assert error.max() <= 1 and error.mean() < 0.01  # where a half is rounded
