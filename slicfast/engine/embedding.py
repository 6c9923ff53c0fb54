"""Videos to vectors: one pass over evaluation clips, averaged by video, every video exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config
from slicfast.data.loader import ClipLoader
from slicfast.data.requests import Requests
from slicfast.data.sampling import evenly_spaced
from slicfast.data.store import ClipStore
from slicfast.data.views import Geometry
from slicfast.distributed import Ranks, sum_over_ranks
from slicfast.engine.encoder import NoProjection, VideoEncoder

# clips (N, C, T, H, W) -> named features, (N, D) each
Extractor = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]


def evaluation_loader(
    store: ClipStore, config: Config, device: torch.device, geometry: Geometry | None = None
) -> ClipLoader:
    """A loader without randomness, of centre crops or of what ``geometry`` shows."""
    return ClipLoader(
        store,
        config.data,
        augment=None,
        resize=config.eval.resize,
        geometry=geometry,
        candidates=None,
        device=str(device),
        num_threads=config.data.num_threads,
        max_batch=config.eval.batch_size,
    )


def embed_videos(
    extractor: Extractor,
    loader: ClipLoader,
    store: ClipStore,
    rows: npt.NDArray[np.integer],
    config: Config,
    device: torch.device,
    *,
    num_clips: int,
    ranks: Ranks = Ranks(),
    progress: Callable[[int], object] | None = None,
) -> dict[str, torch.Tensor]:
    """Mean features of evenly spaced clips (``num_clips`` 1: the centre clip).

    Each rank computes a slice of the videos; every rank gets all of them. Short videos repeat their last
    frame. Averages are accumulated in float32.

    Args:
        extractor: called with (N, C, T, H, W) clips in inference mode.
        rows: (V,) store rows.
        progress: called with the number of clips done so far on this rank.

    Returns:
        name -> (V, D) float32 on ``device``, in the order of ``rows``.
    """
    data = config.data
    requests = evenly_spaced(
        rows, store.num_frames[rows], num_clips, clip_span=data.clip_span, stride=data.clip_stride
    )
    place = np.repeat(np.arange(len(rows)), num_clips)  # of each clip's video among the rows
    return average_by_video(
        extractor, loader, requests, place, config, device, ranks=ranks, progress=progress
    )


def average_by_video(
    extractor: Extractor,
    loader: ClipLoader,
    requests: Requests,
    place: npt.NDArray[np.integer],
    config: Config,
    device: torch.device,
    *,
    ranks: Ranks = Ranks(),
    progress: Callable[[int], object] | None = None,
) -> dict[str, torch.Tensor]:
    """The same for any list of clips; each rank computes those of its share of the videos.

    Args:
        requests: (M,) clips.
        place: (M,) each clip's video, numbered 0 to V - 1; every video has a clip.

    Returns:
        name -> (V, D) float32 on ``device``.
    """
    counts_V = np.bincount(place)
    mine = place % ranks.size == ranks.rank
    requests, place = requests[mine], place[mine]
    size = config.eval.batch_size
    banks: dict[str, torch.Tensor] = {}
    done = 0
    with torch.no_grad():
        for batch in loader.load(requests[i : i + size] for i in range(0, len(requests), size)):
            num = len(batch.requests)
            place_B = torch.from_numpy(place[done : done + num]).to(device, non_blocking=True)
            with torch.inference_mode():
                found = extractor(batch.clips.to(device, non_blocking=True))
            for name, features in found.items():
                if name not in banks:
                    banks[name] = torch.zeros(len(counts_V), features.shape[1], device=device)
                banks[name].index_add_(0, place_B, features.float())
            done += num
            if progress is not None:
                progress(done)
    if ranks.size > 1:
        banks = _share(banks, extractor, len(counts_V), config, device)
    counts_V1 = torch.from_numpy(counts_V).to(device)[:, None]
    return {name: bank.div_(counts_V1) for name, bank in banks.items()}


def _share(
    banks: dict[str, torch.Tensor],
    extractor: Extractor,
    num_videos: int,
    config: Config,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """The sum of all ranks' banks; a rank without a video of its own first learns the shapes."""
    if not banks:
        data = config.data
        clip = torch.zeros(1, 3, data.clip_length, data.crop_size, data.crop_size, device=device)
        with torch.no_grad():
            shapes = {name: features.shape[1] for name, features in extractor(clip).items()}
        banks = {name: torch.zeros(num_videos, width, device=device) for name, width in shapes.items()}
    return {name: sum_over_ranks(banks[name]) for name in sorted(banks)}


def encoder_extractor(
    encoder: VideoEncoder, device: torch.device, autocast: torch.dtype | None, prefix: str = ""
) -> Extractor:
    """Pooled features and projection, if it has one, of an encoder that the caller has set to evaluate."""
    has_projection = not isinstance(encoder.projection, NoProjection)

    def extract(clips_NCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            if not has_projection:
                return {f"{prefix}pooled": encoder.forward_features(clips_NCTHW)}
            features = encoder.forward_both(clips_NCTHW)
        return {f"{prefix}pooled": features.pooled, f"{prefix}projection": features.projection}

    return extract
