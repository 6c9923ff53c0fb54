"""The pictures of clips at their stored size, decoded on the device that uses them, whatever is stored."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from slicfast.data.decoding.jpeg import DecodeError, as_tensors, build_pipeline, decode_pipeline, outputs
from slicfast.data.decoding.mixed import Kind, kind_of
from slicfast.data.decoding.vp9 import decoded_cut, feed_cuts
from slicfast.data.pipelines.held import gathered
from slicfast.data.stores.parts import FilmCut, Held, HeldPlanes, StoredPictures

Clip = Sequence[StoredPictures]  # its JPEGs, or the one thing that holds them all


class WholePictures:
    """Clips in, (K, H, W, 3) uint8 of each out, in the order they were fed; K may differ from clip to clip.

    Args:
        device: "cpu" or a CUDA device.
        num_threads: DALI's.
        max_clips: the largest batch.
        max_pictures: of a clip.
    """

    def __init__(self, *, device: torch.device, num_threads: int, max_clips: int, max_pictures: int) -> None:
        self._device = device
        self._num_threads = num_threads
        self._max_clips, self._max_pictures = max_clips, max_pictures
        self._pipes: dict[Kind, Any] = {}
        self._under_way: deque[tuple[Sequence[Clip], dict[Kind, list[int]]]] = deque()

    def feed(self, clips: Sequence[Clip]) -> None:
        """Start on a batch. Bytes may change afterwards, what is held in memory not."""
        rows: dict[Kind, list[int]] = {}
        for n, clip in enumerate(clips):
            rows.setdefault(kind_of(clip[0]), []).append(n)
        for kind, rows_n in rows.items():
            if kind is not Kind.HELD:
                pipe = self._pipe(kind)
                if kind is Kind.JPEG:
                    pipe.feed_input("jpeg", [jpeg for n in rows_n for jpeg in clips[n]])
                else:
                    feed_cuts(pipe, [clips[n][0] for n in rows_n])  # type: ignore[misc]
                pipe.schedule_run()
        self._under_way.append((clips, rows))

    def take(self, stream: torch.cuda.Stream | None = None) -> list[torch.Tensor]:
        """The next batch, waiting for it. Raises DecodeError: the batch is lost; the next one is not."""
        clips, rows = self._under_way.popleft()
        found: list[Any] = [None] * len(clips)
        failure: DecodeError | None = None
        for kind, rows_n in rows.items():
            try:  # all must be emptied, or the next batch would be this one's
                for n, pictures_KHWC in zip(rows_n, self._taken(kind, clips, rows_n, stream), strict=True):
                    found[n] = pictures_KHWC
            except DecodeError as error:
                failure = error
        if failure is not None:
            raise failure
        return found

    def _pipe(self, kind: Kind) -> Any:
        if kind not in self._pipes:
            fn: Any = importlib.import_module("nvidia.dali.fn")
            if kind is Kind.JPEG:
                pipe = decode_pipeline(self._device, self._num_threads, self._max_clips * self._max_pictures)
            else:
                pipe = build_pipeline(
                    lambda: decoded_cut(fn, self._device), self._device, self._num_threads, self._max_clips
                )
            self._pipes[kind] = pipe
        return self._pipes[kind]

    def _taken(
        self, kind: Kind, clips: Sequence[Clip], rows_n: list[int], stream: torch.cuda.Stream | None
    ) -> list[torch.Tensor]:
        with torch.cuda.stream(stream):
            if kind is Kind.HELD:
                return [_held_pictures(clips[n][0], self._device) for n in rows_n]
            (output,) = outputs(self._pipes[kind], stream)
            decoded = as_tensors(output, stream)
            if kind is Kind.JPEG:
                pictures = iter(decoded)
                return [torch.stack([next(pictures) for _ in clips[n]]) for n in rows_n]
            return [_at_stored_size(clips[n][0], film) for n, film in zip(rows_n, decoded, strict=True)]


def _held_pictures(clip: Any, device: torch.device) -> torch.Tensor:
    assert isinstance(clip, Held | HeldPlanes)
    pictures_1KHWC = gathered([clip], device)[0]
    if isinstance(clip, HeldPlanes):  # luma alone, as grey: what flow goes by
        return pictures_1KHWC[0].unsqueeze(-1).expand(-1, -1, -1, 3).contiguous()
    return pictures_1KHWC[0]


def _at_stored_size(cut: Any, pictures_KHWC: torch.Tensor) -> torch.Tensor:
    """Pictures of a film scaled as `prepare` scales them."""
    if not isinstance(cut, FilmCut) or (pictures_KHWC.shape[2], pictures_KHWC.shape[1]) == cut.stored:
        return pictures_KHWC
    width, height = cut.stored
    resized_KCHW = torch.nn.functional.interpolate(
        pictures_KHWC.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear", antialias=True
    )
    return resized_KCHW.round_().clamp_(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
