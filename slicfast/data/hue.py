"""Hue of 8-bit pictures turned in HSV without going there: exact but for rounding, and at half the cost.

With value M and chroma C kept, a channel is M less C times a trapezium of the hue, each ramp of which takes
a sixth of a turn. Turning by two sixths passes the channels on. Turning by r sixths, 0 <= r <= 1, moves a
channel x by q = r C less what the next channel y has to go to its own end, as only one of them is on a ramp
at a time. With z the remaining channel, and M the greatest of the three and m the least:

    y >= z: x falls:  max(m, x - max(0, q - (M - y)))
    y < z:  x rises:  min(M, x + max(0, q - (y - m)))

Turning backwards, y and z change places. All of it saturates as 8-bit arithmetic does.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.recycling import Scratch

UInt8 = npt.NDArray[np.uint8]

cv2: Any = importlib.import_module("cv2")  # its stubs know arrays of no type in particular

_NUM_PLANES = 13
_PIXELS = 100_000  # at a time: what is made of them stays in a core's cache


def turn_hue(picture_HWC: UInt8, turns: float, out_HWC: UInt8, scratch: Scratch) -> None:
    """torchvision's adjust_hue of an RGB picture, rounded to 8 bit, by any number of turns."""
    height, width = picture_HWC.shape[:2]
    num_rows = min(height, max(1, _PIXELS // width))
    planes = scratch.array("hue", (_NUM_PLANES, num_rows, width))
    for first in range(0, height, num_rows):
        rows = slice(first, min(first + num_rows, height))
        _turn(picture_HWC[rows], turns, out_HWC[rows], planes[:, : rows.stop - first])


def _turn(picture: UInt8, turns: float, out: UInt8, memory: UInt8) -> None:
    thirds = round(3.0 * turns)
    ramp = 6.0 * turns - 2.0 * thirds  # -1 to 1, of a sixth
    high, low, step, mask = memory[:4]
    planes, falls, rises = list(memory[4:7]), list(memory[7:10]), list(memory[10:13])
    cv2.split(picture, planes)
    cv2.max(cv2.max(planes[0], planes[1], dst=high), planes[2], dst=high)
    cv2.min(cv2.min(planes[0], planes[1], dst=low), planes[2], dst=low)
    cv2.convertScaleAbs(cv2.subtract(high, low, dst=mask), dst=step, alpha=abs(ramp))
    for plane, fall, rise in zip(planes, falls, rises, strict=True):
        cv2.subtract(step, cv2.subtract(high, plane, dst=fall), dst=fall)
        cv2.subtract(step, cv2.subtract(plane, low, dst=rise), dst=rise)
    towards = 1 if ramp >= 0.0 else 2
    turned: list[UInt8] = planes.copy()
    for channel, plane in enumerate(planes):
        y, z = (channel + towards) % 3, (channel - towards) % 3
        fallen = cv2.max(cv2.subtract(plane, falls[y], dst=falls[y]), low, dst=falls[y])
        risen = cv2.min(cv2.add(plane, rises[y], dst=rises[y]), high, dst=rises[y])
        cv2.compare(planes[y], planes[z], cv2.CMP_GE, dst=mask)
        turned[(channel + thirds) % 3] = cv2.copyTo(fallen, mask, dst=risen)
    cv2.merge(turned, dst=out)
