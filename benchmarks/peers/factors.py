"""A clip's colours as image libraries take them: named operators, one after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slicfast.data.augment import NO_OPERATOR, ClipParams

NAMES = ("brightness", "contrast", "saturation", "hue")  # as ClipParams numbers them
_STILL = np.array([1.0, 1.0, 1.0, 0.0])


@dataclass(frozen=True)
class Factors:
    """One clip's colour.

    Attributes:
        operators: what is applied one after another: "brightness", "contrast" or "saturation" with a factor,
            1 without change, or "hue" with turns, -0.5 to 0.5. Empty where none was drawn.
        grey: all colour is taken away afterwards.
    """

    operators: tuple[tuple[str, float], ...] = ()
    grey: bool = False

    @classmethod
    def of(cls, params: ClipParams, n: int) -> Factors:
        """The factors of row n, in the drawn order; in order of number where slicfast needs none."""
        factors = params.factors[n].astype(np.float64)
        order = [int(number) for number in params.order[n] if number != NO_OPERATOR]
        if not order and not np.array_equal(factors, _STILL):
            order = list(range(len(NAMES)))
        operators = tuple((NAMES[number], float(factors[number])) for number in order)
        return cls(operators, grey=bool(np.ptp(params.colour[n], axis=0).max() < 1e-6))
