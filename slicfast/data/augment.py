"""A clip's random parameters, drawn from its seed: where to crop, whether to flip, which colours, what blur.

Method: SLIC (CVPR 2022), section "one training step"; ranges, the crop's ten attempts and its whole pixels as
torchvision has them. One draw a clip, the same for all its frames. Order: crop and resize, flip, colour
operators, one affine map, blur, frame differences where those are shown. What is computed is rounded to 8 bit
after each, as it is in pictures, the differences excepted.

Colour has two modes with the same draws:

- exact: brightness, contrast about each frame's own mean grey, saturation and hue (in HSV) one after another
  in a drawn order, each rounded down to 8 bit, as torchvision's ColorJitter does on 8-bit pictures. Then the
  affine map, which is grey or nothing.
- fast: the affine map c' = A c + o alone. Brightness scales by b, contrast by k about the frame's own mean
  luma m, saturation scales chroma by s, hue turns it in the YIQ plane, grey removes it. None of them but
  brightness moves the grey axis, none but brightness and contrast scales luma, and chroma is scaled and
  turned in one plane: without a clamp between them they commute, with

      A = b k (L + s (cos(h) C + sin(h) R)),   o = b (1 - k) m (1, 1, 1)

  (L: luma on all three channels, C = 1 - L: chroma, R: chroma a quarter turn on). So no order is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slicfast.config import AugmentConfig
from slicfast.errors import ConfigError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int8 = npt.NDArray[np.int8]

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as JPEG and torchvision have it
_CROP_ATTEMPTS = 10

# Columns of the table of uniform numbers. A new one goes to the end, so that old draws stay as they are;
# the geometric ones do not depend on the photometric ones, nor on whether those are used.
_AREA = slice(0, _CROP_ATTEMPTS)
_ASPECT = slice(_CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS)
_TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GREY, _BLUR = range(
    2 * _CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS + 10
)
_ORDER = slice(_BLUR + 1, _BLUR + 5)
_NUM_DRAWS = _BLUR + 5

# Colour operators as `ClipParams.order` numbers them.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NO_OPERATOR = -1
FLOOR = -0.5  # added before rounding, rounds down

_YIQ = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_YIQ[1:] -= _YIQ[1:].mean(axis=1, keepdims=True)  # the rounded coefficients do not quite vanish on grey
_QUARTER_TURN = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # red to yellow, as in HSV

LUMA_PART = np.broadcast_to(LUMA, (3, 3))  # L
CHROMA_PART = np.eye(3) - LUMA_PART  # C
CHROMA_TURNED = np.linalg.inv(_YIQ) @ _QUARTER_TURN @ _YIQ  # R


@dataclass(frozen=True)
class ClipParams:
    """What is done to N clips; a row a clip.

    Attributes:
        top_left: (N, 2) float32, the region's first row and column, as shares of height and width.
        bottom_right: (N, 2) float32, likewise where it ends. A side that falls on whole pixels is cut out
            before resizing; another one is resized with what lies around it.
        flip: (N,) bool, mirrored left to right.
        order: (N, 4) int8, the operators to apply one after another; NO_OPERATOR: none in that place.
        factors: (N, 4) float32 of BRIGHTNESS, CONTRAST, SATURATION and HUE (in turns), in this order.
        colour: (N, 3, 3) float32, A of the affine map that follows.
        contrast_offset: (N,) float32, the share of the frame's mean luma that it adds to each channel.
        offset: (N, 3) float32, what it adds besides, in 8-bit levels.
        blur: (N,) bool.
        difference_gain: (N,) float32, frame differences times this in place of pictures; 0: the pictures.
    """

    top_left: Float32
    bottom_right: Float32
    flip: Bool
    order: Int8
    factors: Float32
    colour: Float32
    contrast_offset: Float32
    offset: Float32
    blur: Bool
    difference_gain: Float32

    def __len__(self) -> int:
        return len(self.flip)


def uniforms(seed_N: npt.NDArray[np.uint64], num: int) -> Float64:
    """(N, num) numbers in [0, 1), row n a function of seed n alone.

    SplitMix64 (Steele, Lea, Flood, 2014) with the column as its counter: no generator is made for each clip,
    and no clip's draw depends on the batch it is in.
    """
    with np.errstate(over="ignore"):
        state = _mix(seed_N.astype(np.uint64))[:, None]  # neighbouring seeds part
        state = state + np.arange(1, num + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(state)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def draw(
    seed_N: npt.NDArray[np.uint64],
    width_N: npt.ArrayLike,
    height_N: npt.ArrayLike,
    config: AugmentConfig,
    is_motion_N: npt.ArrayLike = False,
) -> ClipParams:
    """The parameters of N clips.

    Args:
        seed_N: (N,) uint64, the requests' seeds.
        width_N, height_N: stored pixels of each clip's pictures.
        is_motion_N: clips for the motion view: grey, nothing else photometric; their geometric draw is that
            of the same seed without it.
    """
    u = uniforms(np.asarray(seed_N), _NUM_DRAWS)
    top_left, bottom_right = _region(u, np.asarray(width_N), np.asarray(height_N), config)
    photometric_N = np.broadcast_to(~np.asarray(is_motion_N, dtype=bool), len(u))
    jitter_N = photometric_N & (u[:, _JITTER] < config.jitter_prob)
    grey_N = photometric_N & (u[:, _GREY] < config.grey_prob)
    factors = _factors(u, jitter_N, config)
    order = np.full((len(u), 4), NO_OPERATOR, dtype=np.int8)
    offset = np.zeros((len(u), 3), dtype=np.float32)
    if config.colour == "exact":
        order[jitter_N] = np.argsort(u[jitter_N, _ORDER], axis=1)
        colour = np.where(grey_N[:, None, None], LUMA_PART, np.eye(3))
        contrast_offset = np.zeros(len(u))
        offset[grey_N] = FLOOR
    else:
        brightness_N, contrast_N, saturation_N, turns_N = factors.T
        colour, contrast_offset = colour_matrix(
            brightness_N, contrast_N, np.where(grey_N, 0.0, saturation_N), 2.0 * np.pi * turns_N
        )
    colour[~photometric_N] = LUMA_PART
    return ClipParams(
        top_left=top_left.astype(np.float32),
        bottom_right=bottom_right.astype(np.float32),
        flip=u[:, _FLIP] < config.flip_prob,
        order=order,
        factors=factors.astype(np.float32),
        colour=colour.astype(np.float32),
        contrast_offset=contrast_offset.astype(np.float32),
        offset=offset,
        blur=photometric_N & (u[:, _BLUR] < config.blur_prob),
        difference_gain=np.zeros(len(u), dtype=np.float32),
    )


def _region(
    u: Float64, width_N: npt.NDArray[np.integer], height_N: npt.NDArray[np.integer], config: AugmentConfig
) -> tuple[Float64, Float64]:
    """Random resized crop: the first of ten (area, aspect) pairs that fits, else the largest central one."""
    width_N1, height_N1 = (
        np.broadcast_to(side, len(u))[:, None].astype(np.float64) for side in (width_N, height_N)
    )
    area = width_N1 * height_N1 * (config.min_area + (config.max_area - config.min_area) * u[:, _AREA])
    low, high = math.log(config.min_aspect), math.log(config.max_aspect)
    aspect = np.exp(low + (high - low) * u[:, _ASPECT])
    wide, tall = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))  # (N, attempts), pixels
    fits = (wide > 0) & (wide <= width_N1) & (tall > 0) & (tall <= height_N1)
    first_N1 = np.argmax(fits, axis=1, keepdims=True)
    found_N1 = fits.any(axis=1, keepdims=True)
    whole_aspect = np.minimum(np.maximum(width_N1 / height_N1, config.min_aspect), config.max_aspect)
    whole_wide = np.rint(np.minimum(width_N1, height_N1 * whole_aspect))
    whole_tall = np.rint(np.minimum(height_N1, width_N1 / whole_aspect))
    picture_N2 = np.concatenate([height_N1, width_N1], axis=1)
    size_N2 = np.concatenate(
        [
            np.where(found_N1, np.take_along_axis(tall, first_N1, 1), np.maximum(whole_tall, 1.0)),
            np.where(found_N1, np.take_along_axis(wide, first_N1, 1), np.maximum(whole_wide, 1.0)),
        ],
        axis=1,
    )
    left_over_N2 = picture_N2 - size_N2
    top_left_N2 = np.floor(np.where(found_N1, u[:, [_TOP, _LEFT]] * (left_over_N2 + 1.0), left_over_N2 / 2.0))
    return top_left_N2 / picture_N2, (top_left_N2 + size_N2) / picture_N2


def _factors(u: Float64, jitter_N: Bool, config: AugmentConfig) -> Float64:
    """(N, 4) of the colour operators; those that change nothing where none is drawn."""

    def drawn(column: int, strength: float, still: float) -> Float64:
        return np.where(jitter_N, still + strength * (2.0 * u[:, column] - 1.0), still)

    return np.stack(
        [
            drawn(_BRIGHTNESS, config.brightness, 1.0),
            drawn(_CONTRAST, config.contrast, 1.0),
            drawn(_SATURATION, config.saturation, 1.0),
            drawn(_HUE, config.hue, 0.0),
        ],
        axis=1,
    )


def colour_matrix(
    brightness_N: Float64, contrast_N: Float64, saturation_N: Float64, angle_N: Float64
) -> tuple[Float64, Float64]:
    """(N, 3, 3) matrices A and (N,) offsets b (1 - k) of the module's formula; angles in radians."""
    cosine, sine = np.cos(angle_N)[:, None, None], np.sin(angle_N)[:, None, None]
    chroma = saturation_N[:, None, None] * (cosine * CHROMA_PART + sine * CHROMA_TURNED)
    matrix = (brightness_N * contrast_N)[:, None, None] * (LUMA_PART + chroma)
    return matrix, brightness_N * (1.0 - contrast_N)


def evaluation_size(crop_size: int) -> tuple[int, int]:
    """Rows and columns to resize to before the centre crop: 128 x 171 for a crop of 128, scaled with it."""
    return crop_size, round(171 * crop_size / 128)


def centre_crop(
    num: int, resize: tuple[int, int], crop_size: int, is_motion_N: npt.ArrayLike = False
) -> ClipParams:
    """Evaluation: resize to (rows, columns), take the central square, change nothing else.

    Clips for the motion view are made grey, as `draw` does.

    Raises ConfigError where the crop is larger than what it is cut from.
    """
    size = np.array(resize, dtype=np.float64)
    if crop_size > size.min():
        raise ConfigError(
            f"eval.resize {resize[0]} x {resize[1]} is smaller than data.crop_size {crop_size};"
            f" set it to at least {crop_size} x {crop_size}"
        )
    top_left = np.round((size - crop_size) / 2.0) / size  # on whole pixels, as torchvision's CenterCrop
    bottom_right = top_left + crop_size / size
    colour = np.where(np.broadcast_to(is_motion_N, num)[:, None, None], LUMA_PART, np.eye(3))
    return ClipParams(
        top_left=np.tile(top_left, (num, 1)).astype(np.float32),
        bottom_right=np.tile(bottom_right, (num, 1)).astype(np.float32),
        flip=np.zeros(num, dtype=bool),
        order=np.full((num, 4), NO_OPERATOR, dtype=np.int8),
        factors=np.tile(np.array([1.0, 1.0, 1.0, 0.0], dtype=np.float32), (num, 1)),
        colour=colour.astype(np.float32),
        contrast_offset=np.zeros(num, dtype=np.float32),
        offset=np.zeros((num, 3), dtype=np.float32),
        blur=np.zeros(num, dtype=bool),
        difference_gain=np.zeros(num, dtype=np.float32),
    )
