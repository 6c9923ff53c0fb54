import numpy as np
import torch

from slicfast.config import IMAGENET_MEAN, IMAGENET_STD
from slicfast.data.motion import difference_view

LUMA = np.array([0.299, 0.587, 0.114])


def grey_clips(num: int, length: int, size: int) -> torch.Tensor:
    """(N, 3, T, H, W) normalised grey clips in the loader's memory order."""
    grey = torch.rand(num, length, size, size, 1).expand(-1, -1, -1, -1, 3)
    clips_NTHWC = (grey - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return clips_NTHWC.contiguous().permute(0, 4, 1, 2, 3)


def reference(clip_CTHW: np.ndarray, gain: float) -> np.ndarray:
    """The definition, a pixel at a time, in float64."""
    channels, length, height, width = clip_CTHW.shape
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    view = np.empty(clip_CTHW.shape)
    for y in range(height):
        for x in range(width):
            pixels_TC = clip_CTHW[:, :, y, x].T.astype(np.float64) * std + mean
            grey = [float(LUMA @ pixel) for pixel in pixels_TC]
            steps = [grey[t + 1] - grey[t] for t in range(length - 1)]
            for t, step in enumerate([*steps, steps[-1]]):
                value = min(max(0.5 + gain * step, 0.0), 1.0)
                for channel in range(channels):
                    view[channel, t, y, x] = (value - mean[channel]) / std[channel]
    return view


def test_difference_view_agrees_with_a_plain_loop():
    clips = grey_clips(5, 4, 9)
    before = clips.clone()
    difference_view(clips, [1, 4], IMAGENET_MEAN, IMAGENET_STD, 1.5)
    for row in (1, 4):
        np.testing.assert_allclose(clips[row], reference(before[row].numpy(), 1.5), atol=1e-5)
    for row in (0, 2, 3):
        assert torch.equal(clips[row], before[row])


def test_a_still_clip_is_mid_grey():
    clips = grey_clips(1, 1, 6).expand(-1, -1, 5, -1, -1).contiguous(memory_format=torch.channels_last_3d)
    difference_view(clips, [0], IMAGENET_MEAN, IMAGENET_STD, 4.0)
    values = clips * torch.tensor(IMAGENET_STD).view(3, 1, 1, 1) + torch.tensor(IMAGENET_MEAN).view(
        3, 1, 1, 1
    )
    torch.testing.assert_close(values, torch.full_like(values, 0.5))


def test_two_frames_are_enough_and_no_rows_change_nothing():
    clips = grey_clips(2, 2, 4)
    before = clips.clone()
    difference_view(clips, [], IMAGENET_MEAN, IMAGENET_STD, 4.0)
    assert torch.equal(clips, before)
    difference_view(clips, [0], IMAGENET_MEAN, IMAGENET_STD, 0.1)
    assert torch.equal(clips[0, :, 0], clips[0, :, 1]) and not torch.equal(clips[0], before[0])
