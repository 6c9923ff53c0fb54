"""A clip's colour as the factors that image libraries ask for, be it drawn as operators or as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slicfast.data.augment import ClipParams

_NONE = 1e-4  # a factor no further from 1 was not drawn


@dataclass(frozen=True)
class Factors:
    """One clip's colour, as torchvision's functions take it.

    Attributes:
        brightness, contrast, saturation: factors, 1 without change.
        hue: turns, -0.5 to 0.5.
        grey: no colour is left, whatever the saturation and hue.
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
        grey = float(np.ptp(params.colour[n], axis=0).max()) < _NONE  # all rows alike: no chroma is left
        brightness, contrast, saturation, hue = map(float, params.factors[n])
        return cls(brightness, contrast, saturation, hue, grey)
