"""One round of iterative clustering: embed every training video, cluster, and use the labels until next time.

Method: SLIC (CVPR 2022), "iterative clustering"; centre clips, evaluation mode, the projection's output. With
`cluster.bank=running` what the anchors left behind is clustered instead, and no video is read.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import torch

from slicfast.assignment import Assignment
from slicfast.clustering import cluster
from slicfast.clustering.matching import keep_labels
from slicfast.clustering.quality import mutual_information, quality
from slicfast.config import MAX_DISTANCE, MIN_SAMPLES, ClusterConfig
from slicfast.distributed import broadcast
from slicfast.engine.embedding import embed_videos, encoder_extractor
from slicfast.errors import RunError, SlicfastError
from slicfast.profiling import span
from slicfast.progress import track
from slicfast.training.foresight import one_cluster_warning
from slicfast.training.session import Session

logger = logging.getLogger("slicfast")


def is_due(session: Session, epoch: int) -> bool:
    """Whether clustering precedes this epoch."""
    config = session.config.cluster
    since = epoch - config.start_epoch
    return config.method != "none" and since >= 0 and since % config.interval == 0


def recluster(session: Session, epoch: int) -> dict[str, Any]:
    """Give the session a new assignment; returns what to log.

    Every rank embeds its share of the videos, unless the running bank has them all; rank 0 clusters and the
    labels are broadcast.

    Raises:
        RunError: the embeddings are not finite.
        ConfigError: more clusters asked for than there are videos.
    """
    config = session.config.cluster
    started = time.perf_counter()
    running_ND = None if session.bank is None else session.bank.complete()
    if running_ND is not None:
        bank_ND = running_ND
    else:
        with span("embed"):
            bank_ND = _embed(session)
        if session.bank is not None:
            session.bank.fill(bank_ND)
    embedded = time.perf_counter()
    assignment: Assignment | None = None
    logged: dict[str, Any] = {}
    problem: SlicfastError | None = None
    if session.ranks.is_main:
        try:
            with span("cluster"):
                assignment, logged = _cluster(session, bank_ND, epoch)
        except SlicfastError as error:  # the other ranks wait for an answer
            problem = error
    problem, assignment = broadcast((problem, assignment))
    if problem is not None or assignment is None:
        raise problem or RunError("clustering gave no labels")
    session.use_assignment(assignment)
    if session.ranks.is_main:
        session.run.write_assignment(assignment)
        if warning := one_cluster_warning(assignment.labels, config.method):
            logger.warning(warning)
    logged |= {
        "epoch": epoch,
        "method": config.method,
        "bank": "fresh" if running_ND is None else "running",
        "embed_seconds": round(embedded - started, 3),
        "cluster_seconds": round(time.perf_counter() - embedded, 3),
    }
    if session.config.sampling.adaptive:
        logged["same_video_prob"] = session.sampler.same_video_prob
    return logged


def _embed(session: Session) -> torch.Tensor:
    # The rows that steps leave in a running bank are of the weights themselves, and so are its first ones.
    encoder = session.evaluated(use_ema=session.config.cluster.use_ema and session.bank is None)
    extractor = encoder_extractor(encoder, session.device, session.autocast)
    num_clips = session.config.cluster.num_clips
    clips = num_clips * -(-len(session.rows_N) // session.ranks.size)
    with track("Embedding", clips, unit="clips") as bar:
        banks = embed_videos(
            extractor,
            session.eval_loader,
            session.store,
            session.rows_N,
            session.config,
            session.device,
            num_clips=num_clips,
            ranks=session.ranks,
            progress=bar.update,
        )
    session.encoder.train()
    return banks[session.config.cluster.features]


def _cluster(session: Session, bank_ND: torch.Tensor, epoch: int) -> tuple[Assignment, dict[str, Any]]:
    config, state = session.config.cluster, session.state
    result = cluster(
        bank_ND,
        config.method,
        num_clusters=_num_clusters(config),
        partition=config.partition,
        positive_partition=config.positive_partition,
        mutual=config.mutual,
        num_iterations=config.num_iterations,
        num_starts=config.num_starts,
        init_KD=state.centroids_KD if config.warm_start else None,
        balanced=config.balanced,
        seed=session.config.seed,
        max_distance=config.max_distance,
        min_samples=config.min_samples,
        backend=config.backend,
    )
    if result.centroids_KD is not None:
        state.centroids_KD = result.centroids_KD.detach().cpu()
    assignment = Assignment(session.ids, result.labels, epoch, result.positives)
    logged: dict[str, Any] = quality(result.labels, session.true_labels_N, bank_ND=bank_ND)
    if state.assignment is not None:
        assignment, since = _follow(assignment, state.assignment)
        logged |= since
    if result.positives is not None:
        logged |= _of_positives(quality(result.positives, session.true_labels_N))
    if config.method == "finch":
        logged["partition_sizes"] = [int(partition.max()) + 1 for partition in result.partitions]
    elif result.centroids_KD is not None:
        logged["num_refilled"] = result.num_refilled
    elif config.method in MIN_SAMPLES:
        logged["num_noise"] = result.num_noise
    return assignment, logged


def _follow(assignment: Assignment, previous: Assignment) -> tuple[Assignment, dict[str, float]]:
    """The assignment under the labels of the round before, and how far it went from there."""
    previous_N = previous.labels_for(assignment.ids)
    labels_N, next_label = keep_labels(assignment.labels, previous_N, previous.next_label)
    agreement = mutual_information(labels_N, previous_N)
    since = {"churn": float((labels_N != previous_N).mean()), "nmi_previous": agreement}
    return replace(assignment, labels=labels_N, next_label=next_label, agreement=agreement), since


def _of_positives(figures: dict[str, float]) -> dict[str, float]:
    """Of the finer partition: what says whether positives are worth drawing from it."""
    names = ("num_clusters", "share_singletons", "pair_purity")
    return {f"positive_{name}": figures[name] for name in names if name in figures}


def _num_clusters(config: ClusterConfig) -> int | None:
    """What is asked of the method; those that go by distance find their own."""
    if config.method == "finch":
        return config.finch_clusters
    return None if config.method in MAX_DISTANCE else config.num_clusters
