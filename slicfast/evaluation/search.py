"""Search: the rows of a features file nearest to a query by cosine, exact, in bounded memory.

Rows are read and multiplied a block at a time; only one similarity a row is kept. Of windows of one video
that overlap, the most similar stands for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.engine.video_embedding import Encoder, FeatureKind, VideoInput
from slicfast.errors import ConfigError, DataError, RunError
from slicfast.evaluation.features_file import BLOCK_ROWS, FeaturesFile, FeatureTable

Float32 = npt.NDArray[np.float32]

MAX_SCORES = 1 << 26  # similarities kept at a time; more queries than that allows go through the rows again


@dataclass(frozen=True)
class Hit:
    """A row found: its video, the seconds it covers, its cosine similarity in -1 .. 1."""

    row: int
    id: str
    start_s: float
    end_s: float
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def search(index: FeaturesFile, queries_QD: Float32, k: int = 10) -> list[list[Hit]]:
    """The k best hits of each query, most similar first; among equals the earlier row.

    Raises:
        ConfigError: k below 1.
        DataError: queries of another width than the index, or not finite.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1; got {k}")
    if queries_QD.ndim != 2 or queries_QD.shape[1] != index.dim:
        raise DataError(f"{index.path} holds features of {index.dim}; got queries {queries_QD.shape}")
    if not np.isfinite(queries_QD).all():
        raise DataError("a query is not finite")
    num_at_once = max(1, MAX_SCORES // max(1, index.num_rows))
    found: list[list[Hit]] = []
    for first in range(0, len(queries_QD), num_at_once):
        scores_QN = similarities(index, queries_QD[first : first + num_at_once])
        found += [
            [_hit(index.table, row, scores_N[row]) for row in _best(index.table, scores_N, k)]
            for scores_N in scores_QN
        ]
    return found


def similarities(index: FeaturesFile, queries_QD: Float32, block_rows: int = BLOCK_ROWS) -> Float32:
    """(Q, N) cosines; 0 with a row or query of zeros."""
    queries_QD = _unit(queries_QD)
    scores_QN = np.empty((len(queries_QD), index.num_rows), dtype=np.float32)
    for first, block_BD in index.blocks(block_rows):
        norm_B = np.sqrt(np.einsum("bd,bd->b", block_BD, block_BD))
        product_QB = queries_QD @ block_BD.T
        scores_QN[:, first : first + len(block_BD)] = product_QB / np.where(norm_B > 0, norm_B, 1)
    return np.clip(scores_QN, -1, 1, out=scores_QN)


def _unit(rows_ND: Float32) -> Float32:
    norm_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return np.asarray(rows_ND / np.where(norm_N1 > 0, norm_N1, 1), dtype=np.float32)


def _best(table: FeatureTable, scores_N: Float32, k: int) -> list[int]:
    """Up to k rows in order of similarity, none overlapping a better one of the same video."""
    taken: dict[int, list[int]] = {}
    best: list[int] = []
    for row in _descending(scores_N, 4 * k):
        others = taken.setdefault(int(table.video_N[row]), [])
        if any(_overlap(table, row, other) for other in others):
            continue
        others.append(row)
        best.append(row)
        if len(best) == k:
            break
    return best


def _overlap(table: FeatureTable, a: int, b: int) -> bool:
    starts, ends = table.start_s_N, table.end_s_N
    return bool(starts[a] < ends[b] - 1e-3 and starts[b] < ends[a] - 1e-3)


def _descending(scores_N: Float32, first: int) -> Iterator[int]:
    """Rows by falling score, the earlier one first among equals; sorted only as far as it is read."""
    done, num = 0, min(first, len(scores_N))
    while done < len(scores_N):
        # Everything at or above the num-th score, so that equals are not cut apart.
        bound = np.partition(scores_N, len(scores_N) - num)[len(scores_N) - num]
        rows = np.flatnonzero(scores_N >= bound)
        rows = rows[np.argsort(-scores_N[rows], kind="stable")]
        yield from rows[done:].tolist()
        done = len(rows)
        num = min(4 * num, len(scores_N))


def _hit(table: FeatureTable, row: int, score: np.float32) -> Hit:
    video_id = table.ids[int(table.video_N[row])]
    return Hit(row, video_id, float(table.start_s_N[row]), float(table.end_s_N[row]), float(score))


def query_encoder(index: FeaturesFile, checkpoint: str | Path | None = None, device: str = "auto") -> Encoder:
    """The network that made an index, from where it remembers it or from ``checkpoint``.

    Raises:
        DataError: no checkpoint there.
        RunError: another network than the one that made the index.
    """
    meta = index.table.meta
    path = checkpoint or meta["checkpoint"]
    if path is None:
        raise ConfigError(f"{index.path} does not remember its checkpoint; give --checkpoint")
    if checkpoint is None and not Path(path).exists():
        raise DataError(f"{index.path} was made with {path}, which is gone; give --checkpoint")
    encoder = Encoder.from_checkpoint(path, device)
    found = encoder.fingerprint(meta["features"])
    if found != meta["fingerprint"]:
        raise RunError(
            f"{index.path} was made by another network than {encoder.source} (fingerprint"
            f" {meta['fingerprint']}, not {found}); give its --checkpoint, or embed the videos again"
        )
    return encoder


def embed_query(
    encoder: Encoder,
    index: FeaturesFile,
    query: str | Path,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Float32:
    """(1, D): a video, or its seconds from ``start_s`` to ``end_s``, as the index's rows were made.

    Raises DataError where it cannot be read.
    """
    meta = index.table.meta
    changes = {name: meta[name] for name in ("num_clips", "short_side", "fps")}
    features: FeatureKind = meta["features"]
    video = VideoInput(str(query), Path(query), start_s, end_s)
    (result,) = encoder.embed_each([video], features, encoder.plan_for(**changes), num_threads=1)
    if result.reason:
        raise DataError(f"{query}: {result.reason}")
    return result.features
