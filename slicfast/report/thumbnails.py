"""Moving thumbnails: a video's pictures side by side in one WebP, played by sliding it."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from slicfast.data.decoding.film import decode_film
from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.sources.films import FilmClips
from slicfast.data.store import ClipStore
from slicfast.data.stores.parts import FilmCut, Stored
from slicfast.errors import DataError

NUM_PICTURES = 8
WIDTH, HEIGHT = 96, 72  # pixels of a picture, also in the style sheet
SECONDS_APART = 0.2  # between two pictures; they are played at that pace
QUALITY = 55
MAX_BYTES = 2_500_000  # of all strips of a page


class Strips:
    """The strips of a page by video id, made in the order asked for until the page holds enough.

    Args:
        store: where the pictures are; None: no strips at all.
    """

    def __init__(self, store: ClipStore | None) -> None:
        self._store = store
        self._left = MAX_BYTES
        self._number: dict[str, int] = {}
        self._images: list[bytes] = []

    def add(self, video_ids: Iterable[str]) -> None:
        """Make the strips of these videos; damaged and unknown ones are passed over."""
        for video_id in video_ids:
            if self._store is None or video_id in self._number or self._left <= 0:
                continue
            try:
                image = strip(self._store, self._store.row(video_id))
            except DataError:
                continue
            self._left -= len(image)
            self._number[video_id] = len(self._images)
            self._images.append(image)

    def number(self, video_id: str) -> int | None:
        """Which strip is this video's; None: it has none."""
        return self._number.get(video_id)

    def css(self) -> str:
        """A rule a strip: ``.v12`` shows the twelfth."""
        return "\n".join(
            f".v{place}{{background-image:url(data:image/webp;base64,{base64.b64encode(image).decode()})}}"
            for place, image in enumerate(self._images)
        )


def strip(store: ClipStore, video: int) -> bytes:
    """A WebP of NUM_PICTURES pictures side by side, from the middle of a video; the last one is repeated.

    Raises DataError where a picture is damaged.
    """
    import cv2

    num_frames = int(store.num_frames[video])
    stride = max(1, round(float(store.fps[video]) * SECONDS_APART))
    stride = max(1, min(stride, num_frames // NUM_PICTURES))
    first = max(0, (num_frames - stride * (NUM_PICTURES - 1) - 1) // 2)
    indices_T = np.minimum(first + stride * np.arange(NUM_PICTURES), num_frames - 1)
    pictures = [_fitted(picture_HWC) for picture_HWC in _pictures(store, video, indices_T)]
    _, encoded = cv2.imencode(".webp", np.concatenate(pictures, axis=1), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return encoded.tobytes()


def _pictures(store: ClipStore, video: int, indices_T: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
    """(H, W, 3) uint8 BGR each, whatever the store keeps."""
    import cv2

    found = []
    if store.settings.codec == "jpeg":
        for data in store.frames(video, indices_T):
            picture_HWC = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if picture_HWC is None:
                raise DataError(f"a picture of '{store.id(video)}' does not decode")
            found.append(picture_HWC.astype(np.uint8, copy=False))
        return found
    if store.settings.codec == "vp9":
        cut = store.cut(video, indices_T)
        size = int(store.width[video]), int(store.height[video])
        film: Stored = FilmCut(cut.data, cut.frames, *size, size, min(size))
    else:
        (film,) = FilmClips(store).stored(video, indices_T)
    assert isinstance(film, FilmCut)
    try:
        return [picture_HWC[:, :, ::-1] for picture_HWC in decode_film(film)]
    except DecodeError as error:
        raise DataError(f"'{store.id(video)}': {error}") from None


def _fitted(picture_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Scaled and cut about its middle to WIDTH x HEIGHT."""
    import cv2

    height, width = picture_HWC.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    size = max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale))
    scaled_HWC = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA)
    top, left = (scaled_HWC.shape[0] - HEIGHT) // 2, (scaled_HWC.shape[1] - WIDTH) // 2
    return scaled_HWC[top : top + HEIGHT, left : left + WIDTH].astype(np.uint8, copy=False)
