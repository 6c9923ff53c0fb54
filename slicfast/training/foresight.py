"""What would stop a run only later, tried when it opens: small clips, too many clusters, unknown splits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from slicfast.clustering.backends import require_backend
from slicfast.clustering.scikit import require_memory
from slicfast.config import MAX_DISTANCE, Config
from slicfast.data.store import ClipStore
from slicfast.engine.encoder import VideoEncoder
from slicfast.errors import ConfigError
from slicfast.evaluation.protocol import splits_to_compare


def require_clusters(config: Config, num_videos: int, device: torch.device) -> None:
    """Raises ConfigError or MachineError where so many videos cannot be clustered as configured."""
    cluster = config.cluster
    if cluster.method == "none":
        return
    require_backend(cluster.backend, cluster.method, device)
    if cluster.method == "agglomerative":
        require_memory(num_videos)
    elif cluster.method not in MAX_DISTANCE:
        key = "finch_clusters" if cluster.method == "finch" else "num_clusters"
        asked = getattr(cluster, key)
        if asked is not None and asked > num_videos:
            raise ConfigError(f"cluster.{key} must be at most the {num_videos} training videos; got {asked}")


def require_splits(config: Config, store: ClipStore) -> None:
    """Raises ConfigError where validation names splits that the store lacks or that overlap in part."""
    if config.eval.query_split is not None:
        splits_to_compare(store, config, config.eval.query_split)


def require_clips_that_fit(config: Config, encoder: VideoEncoder) -> None:
    """Raises ConfigError where the network cannot take the configured clips; timm's own cannot be asked."""
    check_shape = getattr(encoder.backbone, "check_shape", None)
    if check_shape is not None:
        data = config.data
        check_shape(torch.Size((1, 3, data.clip_length, data.crop_size, data.crop_size)))


def one_cluster_warning(labels_N: npt.NDArray[np.int64], method: str) -> str | None:
    """What to say where all videos have one label, so that no clip has a negative; None otherwise."""
    if len(labels_N) < 2 or (labels_N != labels_N[0]).any():
        return None
    remedy = (
        "lower cluster.max_distance" if method in MAX_DISTANCE else "take a finer partition or more clusters"
    )
    return (
        f"all {len(labels_N)} videos are in one cluster, so that no clip has a negative; {remedy}, or cluster"
        " later (cluster.start_epoch)"
    )
