"""Decode, crop, resize, flip and colour of one clip in plain float64 NumPy, for comparison with DALI."""

from __future__ import annotations

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])


def decode(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of JPEG bytes."""
    return cv2.imdecode(np.asarray(picture), cv2.IMREAD_COLOR)[..., ::-1]


def axis_weights(length: int, start: float, end: float, size: int) -> np.ndarray:
    """(size, length): linear interpolation, widened to a triangle of one output pixel when shrinking."""
    scale = (end - start) / size
    centres = start + (np.arange(size) + 0.5) * scale
    support = max(1.0, abs(scale))
    taps = np.arange(int(np.floor(-support)), length + int(np.ceil(support)) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - centres[:, None]) / support)
    weights /= weights.sum(axis=1, keepdims=True)
    folded = np.zeros((size, length))  # beyond the edge lies the edge's pixel
    np.add.at(folded.T, np.clip(taps, 0, length - 1), weights.T)
    return folded


def resample(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(R, C, 3) float64: the weights of `axis_weights` applied to both axes."""
    tall = np.tensordot(rows, picture.astype(np.float64), axes=(1, 0))
    return np.tensordot(columns, tall, axes=(1, 1)).transpose(1, 0, 2)


def resize(picture: np.ndarray, top_left: np.ndarray, bottom_right: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) float64 of a region given in shares of height and width."""
    height, width = picture.shape[:2]
    rows = axis_weights(height, top_left[0] * height, bottom_right[0] * height, size)
    columns = axis_weights(width, top_left[1] * width, bottom_right[1] * width, size)
    return resample(picture, rows, columns)


def clip(pictures: list[np.ndarray], params, row: int, size: int) -> np.ndarray:
    """(T, size, size, 3) float64 in 0-255 before clamping: clip `row` of some ClipParams, without blur."""
    frames = []
    for picture in pictures:
        frame = resize(decode(picture), params.top_left[row], params.bottom_right[row], size)
        if params.flip[row]:
            frame = frame[:, ::-1]
        mean_luma = (frame @ LUMA).mean()
        frames.append(
            frame @ params.colour[row].T.astype(np.float64)
            + params.contrast_offset[row] * mean_luma
            + params.offset[row]
        )
    return np.stack(frames)
