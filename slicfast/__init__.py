"""slicfast: a high-throughput, data-loading-centric trainer for self-supervised video."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from slicfast.clustering import cluster
    from slicfast.config import Config
    from slicfast.data.store import ClipStore
    from slicfast.engine.checkpoint import load_model
    from slicfast.engine.encoder import VideoEncoder
    from slicfast.engine.video_embedding import Encoder
    from slicfast.training.loop import train

# Imported at first use: `import slicfast` and `slicfast --help` bring in neither torch nor DALI.
_HOMES = {
    "ClipStore": "slicfast.data.store",
    "Config": "slicfast.config",
    "Encoder": "slicfast.engine.video_embedding",
    "VideoEncoder": "slicfast.engine.encoder",
    "cluster": "slicfast.clustering",
    "load_model": "slicfast.engine.checkpoint",
    "train": "slicfast.training.loop",
}

__all__ = ["ClipStore", "Config", "Encoder", "VideoEncoder", "__version__", "cluster", "load_model", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slicfast' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
