"""A clip's colour matrix taken apart into the factors that image libraries ask for.

slicfast draws brightness b, contrast k, saturation s and hue h and keeps their product (data/augment.py):
A = b k (L + s (cos(h) C + sin(h) R)) and b (1 - k). Libraries apply one operator after another instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slicfast.data.augment import CHROMA_PART, CHROMA_TURNED, LUMA_PART, ClipParams

_PLANE = np.stack([CHROMA_PART.ravel(), CHROMA_TURNED.ravel()], axis=1)
_NONE = 1e-4  # a factor no further from 1 was not drawn


@dataclass(frozen=True)
class Factors:
    """One clip's colour, as torchvision's functions take it.

    Attributes:
        brightness, contrast, saturation: factors, 1 without change.
        hue: turns, -0.5 to 0.5.
        grey: no colour is left; saturation and hue are then 1 and 0.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grey: bool = False

    @property
    def jitter(self) -> bool:
        """Whether any of the four changes anything."""
        changes = (self.brightness - 1, self.contrast - 1, self.saturation - 1, self.hue)
        return any(abs(change) > _NONE for change in changes)

    @classmethod
    def of(cls, params: ClipParams, n: int) -> Factors:
        """The factors of row n."""
        matrix = params.colour[n].astype(np.float64)
        scale = float(matrix.sum(axis=1).mean())  # b k: chroma vanishes on grey
        brightness = scale + float(params.contrast_offset[n])
        chroma = matrix / scale - LUMA_PART
        cosine, sine = np.linalg.lstsq(_PLANE, chroma.ravel(), rcond=None)[0].tolist()
        saturation = math.hypot(cosine, sine)
        if saturation < _NONE:
            return cls(brightness, scale / brightness, grey=True)
        return cls(brightness, scale / brightness, saturation, math.atan2(sine, cosine) / (2 * math.pi))
