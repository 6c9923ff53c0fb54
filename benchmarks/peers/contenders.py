"""Who takes part: slicfast and the peers whose libraries are here; for the others what installs them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.peers.corpus import Corpus
from benchmarks.peers.peer import Clips, Peer
from slicfast.config import Config
from slicfast.data.augment import draw, uniforms
from slicfast.data.requests import Role, frame_indices, make_requests
from slicfast.errors import DataError

INSTALL = 'pip install -c requirements/constraints-cpu.txt -e ".[peers]"'

# Name -> (module, class, what installs its library).
PEERS = {
    "torchcodec": ("torchcodec_peer", "TorchcodecPeer", INSTALL),
    "PyAV": ("pyav_peer", "PyAVPeer", "pip install av"),
    "decord": ("decord_peer", "DecordPeer", INSTALL),
    "OpenCV": ("opencv_peer", "OpenCVPeer", "pip install opencv-python-headless"),
    "authors' way": ("authors", "AuthorsPeer", "pip install pillow torchvision"),
}
OURS, FAST = "slicfast", "slicfast, fast colour"


def find_peers(config: Config) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that can be had, and for each of the others why not, in a line."""
    peers: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name, (module, class_name, install) in PEERS.items():
        try:
            found: Any = getattr(importlib.import_module(f"benchmarks.peers.{module}"), class_name)
            peers[name] = found(config)
        except (ImportError, OSError, RuntimeError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            missing[name] = f"{name} is left out ({reason.strip()}); install it with: {install}"
    return peers, missing


def contenders(
    config: Config, corpus: Corpus, max_batch: int, peers: Mapping[str, Peer], with_fast: bool = False
) -> dict[str, Peer]:
    """slicfast over the corpus's store, as configured and perhaps with `augment.colour: fast`; the peers."""
    from benchmarks.peers.slicfast_peer import SlicfastPeer

    ours = {OURS: config}
    if with_fast:
        ours[FAST] = config.model_copy(
            update={"augment": config.augment.model_copy(update={"colour": "fast"})}
        )
    return {
        **{name: SlicfastPeer(own, corpus.store, max_batch, name) for name, own in ours.items()},
        **peers,
    }


def make_batches(config: Config, corpus: Corpus, num_clips: int, batch_size: int) -> list[Clips]:
    """Clips whose starts and videos are spread evenly, so that few stand for many.

    What a clip costs a decoder depends on how far before it a key frame lies; random starts would make that
    a matter of luck.
    """
    data, store = config.data, corpus.store
    video_N = (np.arange(num_clips) * len(store) // num_clips) % len(store)
    order = np.random.default_rng(0).permutation(num_clips)  # no video always at its start
    last_N = store.num_frames[video_N].astype(np.int64) - data.clip_span
    if last_N.min() < 0:
        shortest = int(store.num_frames[video_N].min())
        raise DataError(
            f"{corpus.name}: a video has {shortest} frames, a clip {data.clip_span}; leave out such videos"
        )
    place_N = (order + uniforms(np.arange(num_clips, dtype=np.uint64), 1)[:, 0]) / num_clips
    requests = make_requests(
        video_N,
        (place_N * (last_N + 1)).astype(np.int64),
        stride=data.clip_stride,
        role=Role.ANCHOR,
        seed_N=np.arange(num_clips, dtype=np.uint64),
    )
    batches = []
    for first in range(0, num_clips, batch_size):
        part = requests[first : first + batch_size]
        rows = part["video"]
        batches.append(
            Clips(
                part,
                frame_indices(part, data.clip_length, store.num_frames[rows]),
                draw(part["seed"], store.width[rows], store.height[rows], config.augment),
                [corpus.files[row] for row in rows],
                [corpus.folders[row] for row in rows],
            )
        )
    return batches
