"""Pictures into the bytes that a clip store keeps: each a JPEG, or VP9 packets in an IVF file.

VP9 is written so that a clip can be cut out anywhere: a key frame every so many pictures, one packet a
picture and none that is not shown (no alternate references, no look-ahead).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any

import numpy as np

from slicfast.data.decoding.ffmpeg import one_line
from slicfast.data.stores import ivf
from slicfast.data.stores.format import StoreSettings, Uint8Array
from slicfast.errors import DataError

VP9_SPEED = "4"  # libvpx's cpu-used at deadline good: 2 gains 2 % of the bytes for half as much time again
VP9_MAX_SIDE = 65535


class PictureEncoder(ABC):
    """One video's pictures, which come in order and have one size."""

    @abstractmethod
    def encode(self, picture_HWC: Uint8Array) -> bytes:
        """The bytes that a BGR picture adds to the video's. Raises DataError where it cannot be stored.

        Given the same array again, it is the same picture shown longer.
        """

    def head(self, fps: float) -> bytes:
        """What takes the place of the first bytes once all pictures are encoded; as many as were there."""
        return b""


def make_encoder(settings: StoreSettings) -> PictureEncoder:
    """The encoder of a store's codec."""
    return _Vp9(settings) if settings.codec == "vp9" else _Jpeg(settings)


class _Jpeg(PictureEncoder):
    """Every picture by itself, chroma at half the size."""

    def __init__(self, settings: StoreSettings) -> None:
        import cv2

        self._options = [
            *(cv2.IMWRITE_JPEG_QUALITY, settings.quality),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
        ]
        self._latest: tuple[Uint8Array | None, bytes] = None, b""

    def encode(self, picture_HWC: Uint8Array) -> bytes:
        import cv2

        if picture_HWC is self._latest[0]:  # shown for longer than one tick of the clock
            return self._latest[1]
        try:
            done, jpeg = cv2.imencode(".jpg", picture_HWC, self._options)
        except cv2.error as error:
            raise DataError(f"cannot be written as JPEG: {one_line(str(error))}") from None
        if not done:
            height, width = picture_HWC.shape[:2]
            raise DataError(f"cannot be written as JPEG at {width} x {height}")
        self._latest = picture_HWC, jpeg.tobytes()
        return self._latest[1]


class _Vp9(PictureEncoder):
    """libvpx at good speed; ITU-R BT.601 in limited range, as the stream says itself."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._context: Any = None
        self._num_frames = 0

    def encode(self, picture_HWC: Uint8Array) -> bytes:
        import av
        from av.video.frame import PictureType
        from av.video.reformatter import ColorRange, Colorspace

        height, width = picture_HWC.shape[:2]
        if self._context is None:
            self._open(width, height)
        number = self._num_frames
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="bgr24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
        )
        frame.pts = number
        is_key = number % self._settings.key_interval == 0
        frame.pict_type = PictureType.I if is_key else PictureType.NONE
        try:
            packets = self._context.encode(frame)
        except av.FFmpegError as error:
            raise DataError(f"cannot be written as VP9: {one_line(str(error))}") from None
        if len(packets) != 1 or packets[0].is_keyframe != is_key:
            raise DataError("cannot be written as VP9: the encoder does not give a packet a picture")
        self._num_frames += 1
        data = bytes(packets[0])
        head = ivf.file_header(width, height, 0) if number == 0 else b""
        return head + ivf.frame_header(len(data), number) + data

    def head(self, fps: float) -> bytes:
        return ivf.file_header(self._context.width, self._context.height, self._num_frames, fps)

    def _open(self, width: int, height: int) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        if max(width, height) > VP9_MAX_SIDE:
            raise DataError(f"cannot be written as VP9 at {width} x {height}")
        context: Any = av.CodecContext.create("libvpx-vp9", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 25)  # of no consequence: quality, not rate, is constant
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        context.thread_count = 1
        context.gop_size = self._settings.key_interval
        context.bit_rate = 0
        context.options = {
            "crf": str(self._settings.crf),
            "deadline": "good",
            "cpu-used": VP9_SPEED,
            "auto-alt-ref": "0",
            "lag-in-frames": "0",
        }
        self._context = context
