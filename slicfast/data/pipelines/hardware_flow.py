"""A GPU's way for clips of flow that is computed while loading (`flow.source=hardware`), from pictures.

    decode -> flow between pictures -> the levels that a store would hold -> cut out, resize, mirror

What comes out is what clips of stored flow are at that place: grey u, or u, v and mid-grey. So all that
follows, zoom and sign included (`flow_view.py`), is the same for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.flow import ZERO, Components, levels_per_pixel
from slicfast.data.pipelines.flow_engine import DaliEngine, Engine, forward_fields
from slicfast.data.pipelines.held import on_device, resize_regions
from slicfast.data.pipelines.whole_pictures import WholePictures
from slicfast.data.stores.parts import FlowPictures


class HardwareFlowPipeline:
    """Pictures and parameters in, (N, T, S, S, 3) 8-bit clips of flow out, in the order they were fed.

    Args:
        clip_length: T, fields.
        crop_size: S, pixels.
        device: a CUDA device; "cpu" with another engine.
        num_threads: DALI's.
        max_clips: largest N.
        engine: what computes flow; None: the GPU's.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(
        self,
        *,
        clip_length: int,
        crop_size: int,
        device: torch.device,
        num_threads: int,
        max_clips: int,
        engine: Engine | None = None,
    ) -> None:
        self._size, self._device = crop_size, device
        self._pictures = WholePictures(
            device=device, num_threads=num_threads, max_clips=max_clips, max_pictures=2 * clip_length
        )
        self._engine = engine or DaliEngine(device, max_films=max_clips)
        self._under_way: deque[tuple[Sequence[FlowPictures], ClipParams]] = deque()

    def feed(
        self,
        clips: Sequence[FlowPictures],
        params: ClipParams,
        width_N: npt.ArrayLike,
        height_N: npt.ArrayLike,
    ) -> None:
        """Start decoding a batch of N clips; the sizes are those of their pictures."""
        self._pictures.feed([clip.stored for clip in clips])
        self._under_way.append((clips, params))

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, as `ClipPipeline.take`. Raises DecodeError: the batch is lost."""
        clips, params = self._under_way.popleft()
        films = self._pictures.take(stream)
        with torch.cuda.stream(stream):
            levels = [
                flow_levels(fields.index_select(0, on_device(clip.place_T, self._device)), clip.components)
                for clip, fields in zip(clips, forward_fields(self._engine, films, stream), strict=True)
            ]
            return self._cropped(levels, params)

    def _cropped(self, levels: list[torch.Tensor], params: ClipParams) -> torch.Tensor:
        """(N, T, S, S, 3) of N clips (T, H, W, C), all of one number of channels."""
        length, _, _, channels = levels[0].shape
        size = self._size
        shown = torch.empty(
            (len(levels), length, size, size, channels), dtype=torch.uint8, device=self._device
        )
        of_size: dict[tuple[int, ...], list[int]] = {}
        for n, clip_THWC in enumerate(levels):
            of_size.setdefault(clip_THWC.shape[1:3], []).append(n)
        for rows in of_size.values():
            resized = resize_regions(torch.stack([levels[n] for n in rows]), params, rows, size)
            shown.index_copy_(0, on_device(np.array(rows), self._device), resized)
        if channels == 1:
            return shown.repeat(1, 1, 1, 1, 3)
        return torch.cat([shown, torch.full_like(shown[..., :1], ZERO)], dim=-1)


def flow_levels(fields_THW2: torch.Tensor, components: Components) -> torch.Tensor:
    """(T, H, W, 1 or 2) uint8 levels, as `flow.to_levels` has them, of u or of u and v in pixels."""
    scale = levels_per_pixel(fields_THW2.shape[2], fields_THW2.shape[1])
    shown = fields_THW2[..., :1] if components == "horizontal" else fields_THW2
    return (shown * scale).add_(ZERO).round_().clamp_(0.0, 255.0).to(torch.uint8)
