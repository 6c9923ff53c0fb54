"""A training run made ready: store, sampler, loaders, network, optimizer, and where to go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from slicfast.assignment import Assignment
from slicfast.config import Config
from slicfast.data.loader import ClipLoader
from slicfast.data.requests import Requests
from slicfast.data.sampling import SampleSampler
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import Flow, open_flow
from slicfast.device import autocast_dtype
from slicfast.distributed import Ranks, average_buffers
from slicfast.engine.checkpoint import Checkpoint, load_weights, new_encoder, save_checkpoint
from slicfast.engine.embedding import evaluation_loader
from slicfast.engine.encoder import VideoEncoder, build_encoder
from slicfast.engine.optimization import plain_state
from slicfast.engine.weight_average import WeightAverage
from slicfast.errors import ConfigError, DataError
from slicfast.records import MetricsWriter, RunFolder
from slicfast.training.foresight import require_clips_that_fit, require_clusters, require_splits
from slicfast.training.objective import Objective
from slicfast.training.resuming import OTHERWISE, flow_facts, require_same_run
from slicfast.training.running_bank import RunningBank
from slicfast.training.step import TrainingStep, optimizer_and_scaler, training_step
from slicfast.training.terms import SlicObjective
from slicfast.training.trackers import TrackerThread

logger = logging.getLogger("slicfast")


@dataclass
class Session:
    """Everything a run works with. ``state`` is what its next checkpoint will hold."""

    config: Config
    run: RunFolder
    ranks: Ranks
    device: torch.device
    autocast: torch.dtype | None
    store: ClipStore
    rows_N: npt.NDArray[np.integer]
    ids: tuple[str, ...]
    true_labels_N: npt.NDArray[np.int64] | None
    sampler: SampleSampler
    loader: ClipLoader
    eval_loader: ClipLoader
    encoder: VideoEncoder
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # does nothing but under fp16
    step: TrainingStep
    state: Checkpoint
    label_of_row: npt.NDArray[np.int64]
    place_of_row: npt.NDArray[np.int64]  # among the training videos
    is_stochastic: bool = False  # the network itself draws random numbers (dropout)
    metrics: MetricsWriter | None = None
    trackers: TrackerThread | None = None
    bank: RunningBank | None = None  # where cluster.bank is running
    average: WeightAverage | None = None  # where ema.decay is set

    def write_metrics(self, kind: str, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl; only rank 0 has one."""
        if self.metrics is not None:
            self.metrics.write(kind, self.state.global_step, values)
        if self.trackers is not None:
            self.trackers.write(kind, self.state.global_step, values)

    def use_assignment(self, assignment: Assignment) -> None:
        """Sample positives and choose negatives by these clusters, joined by video id."""
        self.state.assignment = assignment
        self._join(assignment)

    def start_from(self, assignment: Assignment | None) -> None:
        """The same for what a checkpoint holds; before the first clustering every video is alone."""
        self._join(assignment or Assignment.singletons(self.ids))

    def _join(self, assignment: Assignment) -> None:
        sampling = self.config.sampling
        same_video_prob = sampling.same_video_prob
        if sampling.adaptive and assignment.agreement is not None:
            same_video_prob = 1.0 - assignment.agreement
        self.sampler.set_labels(assignment.positives_for(self.ids), same_video_prob)
        labels_N = assignment.labels_for(self.ids)
        self.label_of_row[self.rows_N] = labels_N
        self.step.objective.set_labels(torch.from_numpy(labels_N))

    def labels_and_videos(self, requests_N: Requests) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) int64 labels of the clips' videos, and their places among the training videos; on the CPU."""
        row_N = requests_N["video"]
        return torch.from_numpy(self.label_of_row[row_N]), torch.from_numpy(self.place_of_row[row_N])

    def evaluated(self, *, use_ema: bool = True) -> VideoEncoder:
        """The network to embed with, in evaluation mode, the same on every rank; see to training mode after.

        Args:
            use_ema: with the averaged weights, where some are kept; the encoder itself is untouched then.
        """
        if use_ema and self.average is not None:
            return self.average.same_on_all_ranks()
        average_buffers(self.encoder)
        return self.encoder.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment; only rank 0 does."""
        if not self.ranks.is_main:
            return
        self.state.model = self.encoder.state_dict()
        self.state.ema = {} if self.average is None else self.average.state()
        self.state.optimizer = plain_state(self.optimizer)
        self.state.scaler = self.scaler.state_dict()
        self.state.bank = {} if self.bank is None else self.bank.state()
        self.state.objective = self.step.objective.state_dict()
        self.state.metrics_bytes = self.metrics.size if self.metrics is not None else None
        save_checkpoint(path, self.state)


def open_session(
    config: Config, run: RunFolder, ranks: Ranks, device: torch.device, resume: Checkpoint | None
) -> Session:
    """Build or restore. Raises ConfigError, DataError or RunError with one line for what does not fit."""
    store = ClipStore(config.data.store)
    rows_N = training_rows(store, config)
    require_splits(config, store)
    require_clusters(config, len(rows_N), device)
    flow = training_flow(store, rows_N, config)
    has_flow_N = None if flow is None else flow.has(rows_N)
    sampler = SampleSampler(rows_N, store.num_frames[rows_N], config, has_flow_N)
    torch.manual_seed(config.seed)
    encoder = build_encoder(config.model) if resume else new_encoder(config)
    require_clips_that_fit(config, encoder)
    session = assemble(
        config,
        run,
        ranks,
        device,
        resume,
        store=store,
        rows_N=rows_N,
        flow=flow,
        sampler=sampler,
        encoder=encoder,
        objective=SlicObjective(config, len(rows_N), encoder, autocast_dtype(device, config.train.precision)),
    )
    session.start_from(session.state.assignment)
    if config.cluster.bank == "running" and config.cluster.method != "none":
        session.bank = RunningBank(rows_N, device, ranks.size)
        session.bank.restore(session.state.bank)
    return session


def assemble(
    config: Config,
    run: RunFolder,
    ranks: Ranks,
    device: torch.device,
    resume: Checkpoint | None,
    *,
    store: ClipStore,
    rows_N: npt.NDArray[np.integer],
    sampler: SampleSampler,
    encoder: VideoEncoder,
    objective: Objective,
    flow: Flow | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    otherwise: str = OTHERWISE,
) -> Session:
    """What all training has in common: precision, optimizer, resuming, ranks, loaders; no labels are set yet.

    Args:
        encoder: with its first weights; a checkpoint to go on from replaces them.
        groups: the optimizer's parameter groups, with an ``lr_scale`` each; None: all parameters alike.
        otherwise: what to do where the checkpoint is of another configuration.
    """
    parts = ranks.size * config.train.accumulation_steps
    if config.train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} must be a multiple of ranks x"
            f" train.accumulation_steps = {ranks.size} x {config.train.accumulation_steps}"
        )
    encoder.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    objective.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    autocast = autocast_dtype(device, config.train.precision)
    optimizer, scaler = optimizer_and_scaler(config, groups or encoder, device)
    ids = tuple(store.ids(rows_N))
    state = Checkpoint(config=config.to_dict(), model={}, video_ids=ids, flow=flow_facts(flow, rows_N))
    if resume is not None:
        require_same_run(resume, state, config, otherwise)
        load_weights(encoder, resume.model, run.path)
        optimizer.load_state_dict(resume.optimizer)
        scaler.load_state_dict(resume.scaler)
        objective.load_state_dict(resume.objective)
        resume.config, resume.flow = state.config, state.flow
        state = resume
    average = None if config.ema.decay is None else WeightAverage(encoder, config.ema)
    if average is not None and resume is not None:
        load_weights(average.encoder, resume.ema, run.path)
    step = training_step(config, encoder, objective, optimizer, scaler, device, num_ranks=ranks.size)
    true_labels_N = store.label_ids[rows_N].astype(np.int64)
    place_of_row = np.full(len(store), -1, dtype=np.int64)
    place_of_row[rows_N] = np.arange(len(rows_N))
    return Session(
        config=config,
        run=run,
        ranks=ranks,
        device=device,
        autocast=autocast,
        store=store,
        rows_N=rows_N,
        ids=ids,
        true_labels_N=true_labels_N if (true_labels_N >= 0).all() else None,
        sampler=sampler,
        loader=ClipLoader(
            store,
            config.data,
            augment=config.augment,
            motion=config.motion,
            flow=flow,
            candidates=rows_N,
            device=str(device),
            num_threads=config.data.num_threads,
            max_batch=len(sampler.roles) * config.train.batch_size // parts,
        ),
        eval_loader=evaluation_loader(store, config, device),
        encoder=encoder,
        optimizer=optimizer,
        scaler=scaler,
        step=step,
        state=state,
        label_of_row=np.full(len(store), -1, dtype=np.int64),
        place_of_row=place_of_row,
        average=average,
        is_stochastic=any(isinstance(part, nn.Dropout) and part.p > 0 for part in encoder.modules()),
    )


# (configuration, run folder, ranks, device, checkpoint to go on from) -> session
Opener = Callable[[Config, RunFolder, Ranks, torch.device, Checkpoint | None], Session]


def training_rows(store: ClipStore, config: Config) -> npt.NDArray[np.integer]:
    """Rows of the training split long enough for two clips side by side; says how many are not."""
    rows: npt.NDArray[np.integer] = store.split(config.data.train_split)
    least = config.data.min_training_frames
    long_enough: npt.NDArray[np.integer] = rows[store.num_frames[rows] >= least]
    if len(long_enough) < len(rows):
        logger.info(
            "%d of %d training videos have fewer than %d frames and are left out",
            len(rows) - len(long_enough),
            len(rows),
            least,
        )
    if not len(long_enough):
        longest = int(store.num_frames[rows].max()) if len(rows) else 0
        raise DataError(
            f"no video of split '{config.data.train_split}' has the {least} frames training needs"
            f" (the longest has {longest}); lower data.clip_length, data.clip_stride or data.min_frames"
        )
    return long_enough


def training_flow(store: ClipStore, rows_N: npt.NDArray[np.integer], config: Config) -> Flow | None:
    """The flow that the motion view needs, if it does; says how many training videos have none."""
    flow = open_flow(store, config)
    if flow is not None and (num_without := int((~flow.has(rows_N)).sum())):
        if num_without == len(rows_N):
            raise DataError(f"none of the {len(rows_N)} training videos has flow; {flow.mend}")
        logger.warning(
            "%d of %d training videos have no flow and are shown as pictures alone; %s",
            num_without,
            len(rows_N),
            flow.mend,
        )
    return flow
