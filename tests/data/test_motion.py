"""Frame differences on either device against the definition, a pixel at a time."""

import numpy as np
import torch

from slicfast.data.motion import difference_frame, difference_levels


def grey_clips(num: int, length: int, size: int) -> np.ndarray:
    """(N, T, size, size, 3) uint8, three channels alike, with changes large enough to be clamped."""
    grey = np.random.default_rng().integers(0, 256, (num, length, size, size, 1), dtype=np.uint8)
    return np.ascontiguousarray(grey.repeat(3, axis=-1))


def reference(clip_THWC: np.ndarray, gain: float) -> np.ndarray:
    """The definition in float64."""
    view = np.empty(clip_THWC.shape)
    last = len(clip_THWC) - 1
    for t, y, x, channel in np.ndindex(clip_THWC.shape):
        now = min(t, last - 1)
        change = float(clip_THWC[now + 1, y, x, channel]) - float(clip_THWC[now, y, x, channel])
        view[t, y, x, channel] = min(max(127.5 + gain * change, 0.0), 255.0)
    return view


def test_differences_agree_with_a_plain_loop():
    clips = grey_clips(3, 4, 5)
    gain_N = np.array([0.3, 1.5, 4.0], dtype=np.float32)
    got = difference_levels(torch.from_numpy(clips).float(), torch.from_numpy(gain_N))
    for clip, gain, shown in zip(clips, gain_N, got, strict=True):
        expected = reference(clip, float(gain))
        np.testing.assert_allclose(shown, expected, atol=1e-3)
        frame = np.empty((5, 5, 3), dtype=np.float32)
        for t in range(3):
            difference_frame(clip[t], clip[t + 1], float(gain), frame)
            np.testing.assert_allclose(frame, expected[t], atol=1e-3)


def test_a_still_clip_is_mid_grey():
    still = torch.rand(1, 1, 6, 6, 3).mul(255).expand(-1, 5, -1, -1, -1)
    torch.testing.assert_close(difference_levels(still, torch.ones(1)), torch.full((1, 5, 6, 6, 3), 127.5))


def test_two_frames_are_enough():
    shown = difference_levels(torch.from_numpy(grey_clips(2, 2, 4)).float(), torch.full((2,), 0.1))
    assert torch.equal(shown[:, 0], shown[:, 1]) and shown.std() > 1
