"""The packets of a film that some of its pictures need, as a small file of their own.

A decoder that were given the whole film would spend most of its time on reading it through. So each file is
looked through once for the times of its packets; a clip is then the packets from the key frame before it to
its last picture, as Matroska, which FFmpeg decodes on a processor and DALI through NVDEC on a GPU.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from slicfast.data.decoding.ffmpeg import open_url
from slicfast.data.decoding.pictures import display_turn
from slicfast.data.stores.format import Uint8Array
from slicfast.data.stores.original_facts import HIDDEN_PACKETS
from slicfast.data.stores.parts import FILM_TICK_MS
from slicfast.errors import DataError

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FilmMap:
    """A file's packets, in the order in which they lie there.

    Attributes:
        pts_P: time of presentation, in the stream's ticks; empty where the times are not sound.
        place_F: of each picture's packet; pictures are numbered from the video's first.
        key_K: places of the packets that decode without earlier ones.
        key_picture_K: the number of each one's picture.
        width, height: pixels of the pictures, before any rotation.
        turned: by a display matrix.
        is_segment: the video is a part of the file.
    """

    pts_P: Int64
    place_F: Int64
    key_K: Int64
    key_picture_K: Int64
    width: int
    height: int
    turned: bool
    is_segment: bool = False

    def needed(self, pictures_T: Int64) -> Int64:
        """Places of the packets that decode to some pictures, ascending."""
        number = int(np.searchsorted(self.key_picture_K, pictures_T.min(), side="right")) - 1
        key = int(self.key_K[max(number, 0)])
        # Without gaps: some decoders make up pictures where the next packet is not the one they expect.
        run = np.arange(key, int(self.place_F[pictures_T].max()) + 1)
        # Pictures that are shown before their key frame lean on the packets before that.
        needed: Int64 = run[self.pts_P[run] >= self.pts_P[key]]
        return needed


def map_film(url: str, num_frames: int, start_s: float | None = None, end_s: float | None = None) -> FilmMap:
    """Look through a file once, decoding its first picture.

    Args:
        num_frames: pictures that the video is known to have; where the packets tell another number their
            times are not trusted.
        start_s, end_s: the video's segment of the file.

    Raises:
        DataError: FFmpeg cannot read it, or there is no picture.
    """
    packets = _packets(url)
    with open_url(url) as (container, stream):
        codec, ticks = stream.codec_context.name, float(stream.time_base)
        origin_s = (container.start_time or 0) / 1e6
        frame = next(container.decode(stream), None)
    if frame is None:
        raise DataError("no picture could be decoded")
    none = np.zeros(0, dtype=np.int64)
    size = frame.width, frame.height, display_turn(frame), start_s is not None
    if packets is None or codec in HIDDEN_PACKETS:
        return FilmMap(none, none, none, none, *size)
    pts_P, is_key_P, is_shown_P = packets
    seconds_P = pts_P * ticks - origin_s
    is_shown_P &= (seconds_P >= (start_s or -np.inf)) & (seconds_P < (np.inf if end_s is None else end_s))
    order = np.argsort(pts_P)
    place_F = order[is_shown_P[order]]
    key_K = np.flatnonzero(is_key_P)
    if len(place_F) != num_frames or not len(key_K) or (np.diff(pts_P[order]) == 0).any():
        return FilmMap(none, none, none, none, *size)
    key_picture_K = np.searchsorted(pts_P[place_F], pts_P[key_K])  # the first picture at it or after
    return FilmMap(pts_P, place_F, key_K, key_picture_K, *size)


def _packets(url: str) -> tuple[Int64, npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """Time, whether it is a key frame, and whether it is shown, of each packet; None: times are missing."""
    import av

    found: list[tuple[int, bool, bool]] = []
    latest = None
    with open_url(url) as (container, stream):
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                backwards = latest is not None and packet.dts is not None and packet.dts < latest
                if packet.pts is None or backwards:
                    return None
                latest = packet.dts
                found.append((packet.pts, bool(packet.is_keyframe), not packet.is_discard))
        except (av.FFmpegError, OSError):
            pass  # up to where it can be read
    if not found:
        return None
    pts, is_key, is_shown = zip(*found, strict=True)
    return np.array(pts, dtype=np.int64), np.array(is_key), np.array(is_shown)


class Uncuttable(Exception):
    """Matroska does not hold such packets; nor would NVDEC decode them."""


def cut_film(url: str, film: FilmMap, pictures_T: Int64) -> tuple[Uint8Array, npt.NDArray[np.int32], int]:
    """A Matroska file of the packets that some pictures need, and which of its pictures they are.

    Returns:
        The file's bytes, (T,) int32 numbers of its pictures, and the time of picture 0 in milliseconds.

    Raises:
        DataError: the packets are not there any more.
        Uncuttable: of this codec.
    """
    places = film.needed(pictures_T)
    pts_Q = film.pts_P[places]
    rank_Q = np.argsort(np.argsort(pts_Q))
    delay = int((np.arange(len(places)) - rank_Q).max())  # by how much decoding runs ahead of showing
    data = _remuxed(url, pts_Q, rank_Q + delay, seek=True) or _remuxed(url, pts_Q, rank_Q + delay, seek=False)
    if data is None:
        raise DataError("its packets are not where they were")
    frames_T = rank_Q[np.searchsorted(places, film.place_F[pictures_T])]
    return np.frombuffer(data, dtype=np.uint8), frames_T.astype(np.int32), delay * FILM_TICK_MS


def _remuxed(url: str, pts_Q: Int64, tick_Q: Int64, *, seek: bool) -> bytes | None:
    """Packets of a file, at new times, as Matroska; None where they do not come in this order.

    Args:
        pts_Q: times of the packets in the file, in the order of decoding.
        tick_Q: the same in the result, in pictures.
        seek: go to the first of them; some containers cannot, or land behind it.
    """
    import av

    wanted, number, out = pts_Q.tolist(), 0, io.BytesIO()
    with open_url(url) as (container, stream), av.open(out, "w", format="matroska") as cut:
        try:
            copy = cut.add_stream_from_template(stream, opaque=True)
        except (ValueError, av.FFmpegError):
            raise Uncuttable from None
        try:
            if seek:
                container.seek(wanted[0], stream=stream)
            for packet in container.demux(stream):
                if not packet.size or packet.pts != wanted[number]:
                    continue
                packet.stream, packet.time_base = copy, Fraction(1, 1000)
                packet.pts, packet.dts = FILM_TICK_MS * int(tick_Q[number]), FILM_TICK_MS * number
                packet.duration = FILM_TICK_MS
                try:
                    cut.mux(packet)
                except av.FFmpegError:
                    raise Uncuttable from None
                number += 1
                if number == len(wanted):
                    break
        except (av.FFmpegError, OSError):
            return None
    return out.getvalue() if number == len(wanted) else None
