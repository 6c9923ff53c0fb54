"""JPEG clips to pictures on the processor, one by one as they are asked for, on the thread that asks.

DALI's decoder is the same library, libjpeg-turbo, but decodes batches ahead on threads of its own: pictures
have left the cache before they are augmented, and what it does around each of them costs a fifth more.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.decoding.jpeg import DecodeError, Pictures
from slicfast.data.recycling import ScratchPool

simplejpeg: Any = importlib.import_module("simplejpeg")  # its stubs want bytes where any buffer will do


class JpegClip:
    """The pictures of a clip, decoded anew each time that they are iterated over.

    Args:
        jpegs: T pictures of one size.
        scratch: for one picture at a time.
    """

    def __init__(self, jpegs: Pictures, scratch: ScratchPool) -> None:
        self._jpegs = jpegs
        self._scratch = scratch

    def __len__(self) -> int:
        return len(self._jpegs)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """T pictures, (H, W, 3) RGB, each good until the next one is asked for.

        Raises:
            DecodeError: one is damaged, as far as that shows, or is of another size than the first.
        """
        memory: npt.NDArray[np.uint8] | None = None
        with self._scratch.borrowed() as scratch:
            for jpeg in self._jpegs:
                try:
                    if memory is None:
                        size = simplejpeg.decode_jpeg_header(jpeg)[:2]
                        memory = scratch.array("picture", (*size, 3))
                    picture: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
                        jpeg, "RGB", buffer=memory, strict=True
                    )
                except ValueError as error:
                    raise DecodeError(f"a picture cannot be decoded: {error}") from None
                if picture.shape != memory.shape:
                    raise DecodeError("pictures of a clip differ in size")
                yield picture


class JpegProbe:
    """Finds the clips that fail a batch; as DecodeProbe."""

    def __init__(self) -> None:
        self._scratch = ScratchPool()

    def undecodable(self, clips: Sequence[Pictures]) -> list[int]:
        """Which of some clips cannot be decoded."""
        return [number for number, jpegs in enumerate(clips) if not self._decodes(jpegs)]

    def _decodes(self, jpegs: Pictures) -> bool:
        try:
            for _ in JpegClip(jpegs, self._scratch):
                pass
        except DecodeError:
            return False
        return True
