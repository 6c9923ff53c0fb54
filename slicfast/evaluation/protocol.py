"""Retrieval over a clip store: embed the query and the gallery split once, compare every kind of features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config
from slicfast.data.loader import ClipLoader
from slicfast.data.store import ClipStore
from slicfast.distributed import Ranks
from slicfast.engine.embedding import Extractor, embed_videos
from slicfast.errors import ConfigError
from slicfast.evaluation.retrieval import KS, recall_table
from slicfast.progress import track

Rows = npt.NDArray[np.integer]


def splits_to_compare(
    store: ClipStore, config: Config, query: str | None, gallery: str | None = None
) -> tuple[Rows, Rows]:
    """Store rows of the query split and of the gallery (by default the training split), all their videos.

    Raises ConfigError for a split that the store does not have, and for splits that overlap in part.
    """
    if query is None:
        raise ConfigError(f"name the split to query, one of {', '.join(store.splits)}")
    query_rows = store.split(query)
    gallery_rows = store.split(gallery or config.eval.gallery_split or config.data.train_split)
    shared = np.intersect1d(query_rows, gallery_rows)
    if len(shared) and not np.array_equal(query_rows, gallery_rows):
        raise ConfigError(
            f"query and gallery share {len(shared)} videos, which would find themselves; use splits that are"
            " apart (train1-test2 names a difference) or the same split twice"
        )
    return query_rows, gallery_rows


def retrieve(
    extractor: Extractor,
    loader: ClipLoader,
    store: ClipStore,
    query: Rows,
    gallery: Rows,
    config: Config,
    device: torch.device,
    *,
    ks: Sequence[int] = KS,
    ranks: Ranks = Ranks(),
) -> dict[str, dict[int, float]]:
    """R@k by kind of features, and of chance."""
    rows = np.union1d(query, gallery)
    clips = -(-len(rows) // ranks.size) * config.eval.num_clips
    with track("Embedding", clips, unit="clips") as bar:
        banks = embed_videos(
            extractor,
            loader,
            store,
            rows,
            config,
            device,
            num_clips=config.eval.num_clips,
            ranks=ranks,
            progress=bar.update,
        )
    query_place, gallery_place = np.searchsorted(rows, query), np.searchsorted(rows, gallery)
    labels = np.asarray(store.label_ids)
    return recall_table(
        {name: bank[torch.from_numpy(query_place)] for name, bank in banks.items()},
        labels[query],
        {name: bank[torch.from_numpy(gallery_place)] for name, bank in banks.items()},
        labels[gallery],
        ks=ks,
        same_videos=len(query) == len(gallery) and bool(np.array_equal(query, gallery)),
    )
