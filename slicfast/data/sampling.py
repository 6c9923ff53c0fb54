"""Which clips make a batch: pure NumPy, a function of (seed, epoch, step) and the current labels.

Method: SLIC (CVPR 2022), section "one training step". A sample is an anchor, a positive and whatever further
clips the terms of the loss need. Nothing here reads a video or keeps a state that resuming needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slicfast.config import Config
from slicfast.data.requests import REQUEST, Requests, Role, View, make_requests
from slicfast.data.roles import sample_roles
from slicfast.errors import ConfigError, DataError

Rows = npt.NDArray[np.integer]
FAST = 2  # times the speed of a clip of the role FAST
_ORDER, _BATCH = 0, 1  # purposes, so that two draws of one epoch never share a stream


class SampleSampler:
    """Makes the request list of any step of a run.

    Args:
        rows: (N,) store rows of the training videos.
        num_frames: (N,) their frames; each at least ``config.data.min_training_frames``.
        config: the run's configuration.
        has_flow: (N,) which of them have stored flow; the others are never shown by it. None: all have.
        roles: the clips of a sample, beginning with the anchor; None: those that the losses need.

    Raises:
        DataError: fewer than two videos.
        ConfigError: a batch larger than the training set.
    """

    def __init__(
        self,
        rows: Rows,
        num_frames: npt.ArrayLike,
        config: Config,
        has_flow: npt.ArrayLike | None = None,
        roles: Sequence[Role] | None = None,
    ) -> None:
        self.rows_N = np.asarray(rows, dtype=np.int32)
        self.num_frames_N = np.asarray(num_frames, dtype=np.int64)
        self.config = config
        self.has_flow_N = np.broadcast_to(
            np.asarray(True if has_flow is None else has_flow), self.rows_N.shape
        )
        self.roles = list(sample_roles(config.loss).loaded if roles is None else roles)
        self.batch_size = config.train.batch_size
        if len(self.rows_N) < 2:
            raise DataError(f"training needs at least 2 videos long enough; found {len(self.rows_N)}")
        if self.batch_size > len(self.rows_N):
            raise ConfigError(
                f"train.batch_size is {self.batch_size} but only {len(self.rows_N)} videos can be trained on;"
                f" set train.batch_size to {len(self.rows_N)} or less"
            )
        self.set_labels(np.arange(len(self.rows_N), dtype=np.int64))
        self._order: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the videos of a last, smaller one come in other epochs."""
        return len(self.rows_N) // self.batch_size

    def set_labels(self, labels_N: npt.NDArray[np.int64], same_video_prob: float | None = None) -> None:
        """Cluster labels of the training videos, in the order of ``rows``, from which positives are drawn.

        Args:
            same_video_prob: of a positive from the anchor's own video; None: the configured one.
        """
        if labels_N.shape != self.rows_N.shape:
            raise ValueError(f"expected {len(self.rows_N)} labels, got {labels_N.shape}")
        configured = self.config.sampling.same_video_prob
        self.same_video_prob = configured if same_video_prob is None else same_video_prob
        self._members_N = np.argsort(labels_N, kind="stable")
        _, cluster_N, size_K = np.unique(labels_N, return_inverse=True, return_counts=True)
        first_K = np.concatenate([[0], np.cumsum(size_K)[:-1]])
        self._first_N, self._size_N = first_K[cluster_N], size_K[cluster_N]
        self._place_N = np.empty_like(self._members_N)  # of a video among the members of all clusters
        self._place_N[self._members_N] = np.arange(len(labels_N))

    def batch(self, epoch: int, step: int) -> Requests:
        """(roles * batch_size,) requests: all anchors, then the clips of the next role, and so on."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of an epoch of {self.steps_per_epoch}")
        config, size = self.config, self.batch_size
        anchor_B = self._epoch_order(epoch)[step * size : (step + 1) * size]
        rng = np.random.default_rng([config.seed, _BATCH, epoch, step])
        # Always the same number of draws, so that an option changes only what it is about.
        same_B, other_B, start_B, begin_B, motion_B, motion_again_B = rng.random((6, size))
        seed_RB = rng.integers(0, 2**64, size=(3, size), dtype=np.uint64)
        fast_B, shuffled_B = rng.random((2, size))
        more_seeds_RB = rng.integers(0, 2**64, size=(3, size), dtype=np.uint64)

        positive_B = np.where(same_B < self.same_video_prob, anchor_B, self._mate(anchor_B, other_B))
        anchor_start_B = self._anchor_start(anchor_B, begin_B)
        positive_start_B = self._positive_start(positive_B, anchor_B, anchor_start_B, start_B)
        stride, still = config.data.clip_stride, np.full(size, View.RGB)
        fast_start_B = self._fast_start(positive_B, fast_B)
        shuffled_start_B = (shuffled_B * (self._last_start(anchor_B) + 1)).astype(np.int64)
        again = self._shown(anchor_B, anchor_start_B, motion_again_B)
        clips = {  # video, start, view, stride, seed
            Role.ANCHOR: (anchor_B, anchor_start_B, still, stride, seed_RB[0]),
            Role.POSITIVE: (*self._shown(positive_B, positive_start_B, motion_B), stride, seed_RB[1]),
            Role.ANCHOR_AGAIN: (*again, stride, seed_RB[2]),
            Role.FAST: (positive_B, fast_start_B, still, FAST * stride, more_seeds_RB[0]),
            Role.SHUFFLED: (anchor_B, shuffled_start_B, still, stride, more_seeds_RB[1]),
            Role.DIFFERENCE: (
                anchor_B,
                anchor_start_B,
                np.full(size, View.DIFFERENCE),
                stride,
                more_seeds_RB[2],
            ),
        }
        batch = np.empty((len(self.roles), size), dtype=REQUEST)
        for place, role in enumerate(self.roles):
            video_B, first_B, view_B, stride_B, seed_B = clips[role]
            batch[place] = make_requests(
                self.rows_N[video_B], first_B, stride=stride_B, view_N=view_B, role=role, seed_N=seed_B
            )
        return batch.reshape(-1)

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.config.seed, _ORDER, epoch])
            self._order = (epoch, rng.permutation(len(self.rows_N)))
        return self._order[1]

    def _mate(self, video_B: npt.NDArray[np.int64], uniform_B: npt.NDArray[np.float64]) -> Rows:
        """Another video of the same cluster, uniformly; the video itself where it is alone."""
        size_B, first_B = self._size_N[video_B], self._first_N[video_B]
        pick_B = first_B + (uniform_B * np.maximum(size_B - 1, 1)).astype(np.int64)
        pick_B += (pick_B >= self._place_N[video_B]) & (size_B > 1)  # step over the video itself
        mate_B: Rows = self._members_N[pick_B]
        return mate_B

    def _last_start(self, video_B: Rows, speed: int = 1) -> npt.NDArray[np.int64]:
        span = (self.config.data.clip_span - 1) * speed + 1
        last_B: npt.NDArray[np.int64] = np.maximum(self.num_frames_N[video_B] - span, 0)
        return last_B

    def _anchor_start(self, video_B: Rows, uniform_B: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        if self.config.sampling.anchor_start == "first":
            return np.zeros(len(video_B), dtype=np.int64)
        return (uniform_B * (self._last_start(video_B) + 1)).astype(np.int64)

    def _positive_start(
        self,
        video_B: Rows,
        anchor_B: Rows,
        anchor_start_B: npt.NDArray[np.int64],
        uniform_B: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int64]:
        """A window apart from the anchor's: after the first one, or, with random anchors, anywhere else."""
        data = self.config.data
        gap = data.clip_length * data.clip_stride
        last_B = self._last_start(video_B)
        if self.config.sampling.anchor_start == "first":
            low_B = np.minimum(gap, last_B)
            return low_B + (uniform_B * (last_B - low_B + 1)).astype(np.int64)
        same_B = video_B == anchor_B
        before_B = np.where(same_B, np.clip(anchor_start_B - gap + 1, 0, None), last_B + 1)
        after_B = np.where(same_B, np.clip(last_B - anchor_start_B - gap + 1, 0, None), 0)
        # A video too short for two windows apart: any window of it.
        before_B = np.where(before_B + after_B == 0, last_B + 1, before_B)
        pick_B = (uniform_B * (before_B + after_B)).astype(np.int64)
        start_B: npt.NDArray[np.int64] = np.where(
            pick_B < before_B, pick_B, pick_B - before_B + anchor_start_B + gap
        )
        return start_B

    def _fast_start(self, video_B: Rows, uniform_B: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """After the first window where twice the speed leaves room for it; anywhere with random anchors."""
        data, last_B = self.config.data, self._last_start(video_B, FAST)
        after_first = self.config.sampling.anchor_start == "first"
        low_B = np.minimum(data.clip_length * data.clip_stride if after_first else 0, last_B)
        start_B: npt.NDArray[np.int64] = low_B + (uniform_B * (last_B - low_B + 1)).astype(np.int64)
        return start_B

    def _shown(
        self, video_B: Rows, start_B: npt.NDArray[np.int64], uniform_B: npt.NDArray[np.float64]
    ) -> tuple[Rows, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Video, start and view of each clip; a window of flow ends with the last field, of n - 1."""
        motion = self.config.motion
        drawn_B = uniform_B < motion.prob
        if motion.view == "difference":
            return video_B, start_B, np.where(drawn_B, View.DIFFERENCE, View.RGB)
        if motion.view == "none":
            return video_B, start_B, np.full(len(start_B), View.RGB)
        flow_B = drawn_B & self.has_flow_N[video_B]
        last_B = np.maximum(self._last_start(video_B) - 1, 0)
        start_B = np.where(flow_B, np.minimum(start_B, last_B), start_B)
        return video_B, start_B, np.where(flow_B, View.FLOW, View.RGB)


def take_part(requests: Requests, num_roles: int, part: int, num_parts: int) -> Requests:
    """The share of a batch that one rank, or one accumulation step, computes.

    Args:
        requests: (num_roles * B,) a whole batch.
        part: which of ``num_parts`` equal runs of samples; B must be a multiple of ``num_parts``.

    Returns:
        (num_roles * B / num_parts,) requests in the same order of roles.
    """
    batch = requests.reshape(num_roles, -1)
    size = batch.shape[1] // num_parts
    return np.ascontiguousarray(batch[:, part * size : (part + 1) * size]).reshape(-1)


def evenly_spaced(
    rows: Rows, num_frames: npt.ArrayLike, num_clips: int, *, clip_span: int, stride: int
) -> Requests:
    """Evaluation clips without randomness: ``num_clips`` a video, video by video.

    Centres run evenly from half a clip after the first frame to half a clip before the last
    (IIC's protocol); one clip a video is the centre clip.

    Returns:
        (len(rows) * num_clips,) requests.
    """
    rows_N = np.asarray(rows, dtype=np.int32)
    last_N = np.maximum(np.asarray(num_frames, dtype=np.int64) - clip_span, 0)
    share_C = np.linspace(0.0, 1.0, num_clips) if num_clips > 1 else np.array([0.5])
    start_NC = np.floor(last_N[:, None] * share_C + 0.5).astype(np.int64)
    return make_requests(
        np.repeat(rows_N, num_clips), start_NC.reshape(-1), stride=stride, view_N=View.RGB, role=Role.EVAL
    )
