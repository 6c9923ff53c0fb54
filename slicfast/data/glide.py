"""A drawn film that glides by a known distance: what decoders and optical flow are tried on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Sides are multiples of 16 and above what any NVDEC asks for (144 x 144 for HEVC).
WIDTH, HEIGHT, NUM_FRAMES = 192, 160, 12
GLIDE = 3  # pixels that the film moves to the right, a picture


def drawn_film(num_frames: int = NUM_FRAMES) -> npt.NDArray[np.uint8]:
    """(F, HEIGHT, WIDTH, 3) uint8: a soft texture that glides by GLIDE pixels a picture."""
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8 + 8, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, (WIDTH + 64, HEIGHT), interpolation=cv2.INTER_CUBIC)
    places = [num_frames * GLIDE - GLIDE * number for number in range(num_frames)]
    return np.stack([np.asarray(ground[:, place : place + WIDTH]) for place in places]).astype(np.uint8)
