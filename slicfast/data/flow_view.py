"""What a clip of flow is multiplied by, so that it is the flow of its crop and not of the stored pictures.

A crop moves as it is shown: u times output pixels per stored pixel across, v likewise down, u negated where
the clip is mirrored. Levels (`flow.py`) go with a picture's shorter side, also the crop's; so the factor is
the stored shorter side over the region's width or height, the same for any size of store and crop.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from slicfast.data.augment import ClipParams
from slicfast.data.flow import ZERO, Components


def flow_factors(
    params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """(N, 2) what the levels of u and v, less those of no motion, are multiplied by."""
    height_N, width_N = np.asarray(height_N, dtype=np.float64), np.asarray(width_N, dtype=np.float64)
    side_N = np.minimum(width_N, height_N)
    size_N2 = params.bottom_right.astype(np.float64) - params.top_left  # shares of height and width
    u_N = np.where(params.flip, -1.0, 1.0) * side_N / (size_N2[:, 1] * width_N)
    v_N = side_N / (size_N2[:, 0] * height_N)
    return np.stack([u_N, v_N], axis=-1)


def show_flow(
    params: ClipParams,
    is_flow_N: npt.NDArray[np.bool_],
    width_N: npt.ArrayLike,
    height_N: npt.ArrayLike,
    components: Components,
) -> ClipParams:
    """The parameters with the affine map of flow clips, which were drawn as motion clips: without photometry.

    Args:
        is_flow_N: which clips show flow.
        width_N, height_N: stored pixels of each clip's pictures.
        components: "horizontal": u on all three channels; "both": u, v and the level of no motion.
    """
    factor_N2 = flow_factors(params, width_N, height_N)[is_flow_N]
    colour, offset = params.colour.copy(), params.offset.copy()
    shown_M33 = np.zeros((len(factor_N2), 3, 3))
    if components == "horizontal":
        shown_M33[:, :, 0] = factor_N2[:, :1]  # the red channel: u in grey and in colour pictures
    else:
        shown_M33[:, 0, 0], shown_M33[:, 1, 1] = factor_N2[:, 0], factor_N2[:, 1]
    colour[is_flow_N] = shown_M33
    offset[is_flow_N] = ZERO * (1.0 - shown_M33.sum(axis=2))
    return replace(params, colour=colour, offset=offset)
