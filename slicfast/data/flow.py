"""Optical flow as stored pictures: the scale, the form, and how it is computed (DIS; Kroeger, ECCV 2016).

A field belongs to a picture and tells, for each of its pixels, where that goes in the next picture: u to the
right, v downwards. It is stored in grey levels, of a picture's own size:

    level = round(128 + 6.375 * displacement * 240 / shorter side), clipped to 0-255

which is +-20 pixels in a picture of 240 rows, +-10.7 in one of 128; the same motion gives the same level at
whatever size the video is stored. n pictures have n - 1 fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from slicfast.data.preparing.encoding import PictureEncoder
from slicfast.data.stores.format import StoreSettings, Uint8Array

Components = Literal["horizontal", "both"]

ZERO = 128.0  # the level of no motion
LEVELS_PER_PIXEL = 255 / 40  # in a picture whose shorter side is REFERENCE_SIDE
REFERENCE_SIDE = 240  # pixels
MIN_SIDE = 16  # pixels; in smaller pictures DIS has no room for its patches
# What the stores inside a clip store hold, and their names: u as a grey picture; u, v and mid-grey as the
# channels of a colour picture, so that a field is one picture to read and decode whatever it holds.
CONTENT: dict[Components, str] = {"horizontal": "flow-u", "both": "flow-uv"}


def flow_folder(store: Path, components: Components) -> Path:
    """Where the flow of a clip store's videos is: a clip store of its own inside it."""
    return store / CONTENT[components]


def components_of(content: str) -> Components | None:
    """Which components a store of this content holds; None for one of pictures."""
    return next((components for components, name in CONTENT.items() if name == content), None)


def levels_per_pixel(width: int, height: int) -> float:
    """Grey levels of one pixel's displacement in a stored picture of this size."""
    return LEVELS_PER_PIXEL * REFERENCE_SIDE / min(width, height)


def to_levels(field_HW2: npt.NDArray[np.float32]) -> Uint8Array:
    """(H, W, 2) displacements in pixels as (H, W, 2) uint8 levels."""
    scale = levels_per_pixel(field_HW2.shape[1], field_HW2.shape[0])
    levels_HW2: Uint8Array = np.clip(np.rint(ZERO + scale * field_HW2), 0, 255).astype(np.uint8)
    return levels_HW2


def make_dis() -> Any:
    """OpenCV's DIS: preset `fast`, but down to half the stored size, with 2 refinements in place of 5.

    On drawn motion half as wrong as `fast`, and nearly as exact as `medium` at half its cost. Pictures of
    film's own size are no better for their cost, which would depend on the film (benchmarks/flow.py).
    """
    import cv2

    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(1)
    dis.setVariationalRefinementIterations(2)
    return dis


class FlowEncoder(PictureEncoder):
    """Pictures of a video in turn, each giving the JPEG of the field that leads to it from the one before."""

    def __init__(self, settings: StoreSettings) -> None:
        import cv2

        self._components = components_of(settings.content)
        self._dis = make_dis()
        self._options = [
            *(cv2.IMWRITE_JPEG_QUALITY, settings.quality),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        ]
        self._latest: tuple[Uint8Array, Uint8Array] | None = None  # BGR, grey
        self._still = b""

    def encode(self, picture_HWC: Uint8Array) -> bytes:
        import cv2

        before = self._latest
        if before is not None and picture_HWC is before[0]:
            self._still = self._still or self._jpeg(np.zeros((*before[1].shape, 2), dtype=np.float32))
            return self._still
        grey_HW = np.asarray(cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
        self._latest = picture_HWC, grey_HW
        return b"" if before is None else self._jpeg(self.field(before[1], grey_HW))

    def field(self, before_HW: Uint8Array, after_HW: Uint8Array) -> npt.NDArray[np.float32]:
        """(H, W, 2) float32 displacements (u, v) in pixels between two grey pictures."""
        height, width = before_HW.shape
        if min(height, width) < MIN_SIDE:
            margin = ((0, max(0, MIN_SIDE - height)), (0, max(0, MIN_SIDE - width)))
            before_HW, after_HW = np.pad(before_HW, margin, "edge"), np.pad(after_HW, margin, "edge")
        return np.asarray(self._dis.calc(before_HW, after_HW, None))[:height, :width]

    def _jpeg(self, field_HW2: npt.NDArray[np.float32]) -> bytes:
        import cv2

        u_HW, v_HW = np.moveaxis(to_levels(field_HW2), -1, 0)
        if self._components == "both":
            picture = np.stack([np.full_like(u_HW, ZERO), v_HW, u_HW], axis=-1)  # BGR
        else:
            picture = np.ascontiguousarray(u_HW)
        _, jpeg = cv2.imencode(".jpg", picture, self._options)
        return bytes(jpeg.tobytes())
