"""What a clip store's reader hands out, and how it tells of damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slicfast.data.stores.format import AnyArray, Int32Array, Uint8Array
from slicfast.errors import DataError

if TYPE_CHECKING:
    import torch

    from slicfast.data.flow import Components


FILM_TICK_MS = 40  # between two pictures of a film's cut, whatever they were apart; any number will do


class DamagedClip(DataError):
    """A stored picture that cannot be trusted.

    Attributes:
        video_id: the video's id.
        frame: which of its pictures, -1 where it is not one picture's fault.
        reason: what is wrong.
    """

    def __init__(self, video_id: str, frame: int, reason: str) -> None:
        where = f"frame {frame} of '{video_id}'" if frame >= 0 else f"'{video_id}'"
        super().__init__(f"{where}: {reason}")
        self.video_id = video_id
        self.frame = frame
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedClip], tuple[str, int, str]]:
        return DamagedClip, (self.video_id, self.frame, self.reason)


@dataclass(frozen=True)
class Cut:
    """What of a VP9 video decodes to some of its pictures.

    Attributes:
        data: an IVF file that begins with a key frame.
        frames: (T,) int32, which of the file's pictures are the ones asked for, in the order asked.
    """

    data: Uint8Array
    frames: Int32Array


@dataclass(frozen=True)
class FilmCut(Cut):
    """The same of an original film: its packets in a small Matroska file, or all of the film.

    Attributes:
        width, height: pixels of its pictures.
        stored: width and height that a clip store has, or would have, of them.
        short_side: the store's, of which that follows.
        first_ms: time of its first picture, the next ones FILM_TICK_MS apart; -1: it is all of the film.
    """

    width: int
    height: int
    stored: tuple[int, int]
    short_side: int
    first_ms: int = -1


@dataclass(frozen=True)
class Held:
    """A clip whose pictures lie decoded in memory.

    Attributes:
        pictures_FHWC: uint8 RGB, of this video and of others of its size, on a processor or a GPU.
        index_T: (T,) int64, which of them.
    """

    pictures_FHWC: torch.Tensor
    index_T: AnyArray


@dataclass(frozen=True)
class HeldPlanes:
    """The same as luma and chroma at half the size, 4:2:0 as JPEG has it (BT.601, full range).

    Attributes:
        luma_FHW: uint8.
        chroma_F2HW: uint8, Cb and Cr; a sample in the middle of four of luma.
    """

    luma_FHW: torch.Tensor
    chroma_F2HW: torch.Tensor
    index_T: AnyArray


# Of a clip of pictures: each of its T JPEGs, or the one thing that holds them all.
StoredPictures = Uint8Array | Cut | Held | HeldPlanes


@dataclass(frozen=True)
class FlowPictures:
    """A clip of flow to be computed: the K pictures that it leads between, each once, in order of time.

    Attributes:
        stored: of these pictures.
        place_T: (T,) int64, which of the K - 1 steps between them each of the clip's fields is.
        components: what is shown of a field, "horizontal" or "both".
    """

    stored: list[StoredPictures]
    place_T: AnyArray
    components: Components


Stored = StoredPictures | FlowPictures


@dataclass(frozen=True)
class Layout:
    """Where a video's bytes lie.

    Attributes:
        shard: the file.
        offset: of the first byte in it.
        bounds: where each picture begins, counted from there, and last the end of all.
        crcs: CRC-32 of each picture.
    """

    shard: Path
    offset: int
    bounds: list[int]
    crcs: list[int]
