"""The training loop: cluster, train an epoch, validate, save; readable from top to bottom.

Method: SLIC (CVPR 2022). A run is a function of its configuration and its videos: everything random follows
from (seed, epoch, step), so a resumed run equals an unbroken one.
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from slicfast.config import Config
from slicfast.data.loader import ClipBatch
from slicfast.data.requests import Requests
from slicfast.device import resolve_device
from slicfast.distributed import any_rank, barrier, broadcast, process_group, read_environment
from slicfast.engine.checkpoint import Checkpoint, load_checkpoint
from slicfast.engine.optimization import learning_rate, set_learning_rate
from slicfast.errors import RunError
from slicfast.profiling import Capture, Window, mark_ranges
from slicfast.progress import track
from slicfast.records import MetricsWriter, RunFolder, write_atomically
from slicfast.training.ahead import BatchStream
from slicfast.training.meter import Meter
from slicfast.training.rounds import is_due, recluster
from slicfast.training.session import Opener, Session, open_session
from slicfast.training.signals import Signals, watch_signals
from slicfast.training.trackers import open_trackers, require_trackers
from slicfast.training.validation import validate

logger = logging.getLogger("slicfast")

SIGNAL_INTERVAL = 10  # steps between two agreements of several ranks on whether to stop


class Stream(Protocol):
    """Where steps take their batches from."""

    def here(self) -> Iterator[ClipBatch]:
        """This rank's batches from the session's next step on."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: where it is, the steps taken in all, and the signal that stopped it, if one did."""

    run: Path
    global_step: int
    stopped_by: signal.Signals | None = None
    best: float | None = None


def train(
    config: Config,
    run_dir: str | Path,
    *,
    resume: str | None = None,
    dry_run: bool = False,
    max_steps: int | None = None,
    window: Window | None = None,
    open_run: Opener = open_session,
) -> TrainResult:
    """Train an encoder, alone or as one rank under torchrun.

    Args:
        run_dir: the run folder to make.
        resume: ``auto`` goes on with the run in ``run_dir`` where there is one; a path names the checkpoint.
        dry_run: take one step, write nothing.
        max_steps: stop, and save, once the run has taken so many steps in all.
        window: steps for a profiler to look into.
        open_run: makes the run ready; fine-tuning has another than SLIC's training.

    Raises:
        SlicfastError: one line for whatever the configuration, the data or the machine lacks.
    """
    require_trackers(config.logging)
    run = RunFolder(run_dir)
    ranks = read_environment()
    device = resolve_device(config.train.device)
    if config.train.num_torch_threads:
        torch.set_num_threads(config.train.num_torch_threads)
    mark_ranges(device)
    with process_group(ranks, device):
        checkpoint = None if dry_run else _checkpoint_to_resume(run, resume)
        session = open_run(config, run, ranks, device, checkpoint)
        if dry_run:
            return _take_one_step(session)
        if ranks.is_main:
            run.create(config.to_yaml())
            session.trackers = open_trackers(config, run, session.state.global_step)
            session.metrics = MetricsWriter(run.metrics, session.state.metrics_bytes)
            if session.trackers is not None:
                session.trackers.replay(run.metrics, session.state.global_step)
        # Only now: until there is something to save, a signal ends the process at once.
        capture = None if window is None else Capture(window, device)
        with run.logging_to_file(ranks.is_main), watch_signals() as signals:
            try:
                return _run(session, signals, max_steps, capture)
            finally:
                if capture is not None:
                    capture.close()
                if session.metrics is not None:
                    session.metrics.close()
                if session.trackers is not None:
                    session.trackers.close()


def _run(session: Session, signals: Signals, max_steps: int | None, capture: Capture | None) -> TrainResult:
    config, run, state = session.config, session.run, session.state
    total = config.train.epochs * session.sampler.steps_per_epoch
    total = total if max_steps is None else min(total, max_steps)
    _announce(session)
    meter = Meter(session)
    with (
        closing(BatchStream(session)) as stream,
        track("Training", total, unit="steps", done=state.global_step) as bar,
    ):
        while state.epoch < config.train.epochs:
            if state.step == 0 and is_due(session, state.epoch):
                session.write_metrics("cluster", recluster(session, state.epoch))
            with closing(epoch_steps(session, meter, stream, capture)) as steps:
                for _ in steps:
                    if state.global_step % config.train.log_interval == 0:
                        values = meter.summary()
                        session.write_metrics("train", values)
                        bar.update(state.global_step, f"loss {values['loss']:.4f}")
                    else:
                        bar.update(state.global_step)
                    if state.global_step % config.train.checkpoint_interval == 0 or signals.take_save():
                        session.save(run.last)
                    if _stop_asked(session, signals):
                        session.save(run.last)
                        return TrainResult(run.path, state.global_step, signals.stop or signal.SIGTERM)
                    if state.global_step == max_steps:
                        session.save(run.last)
                        return TrainResult(run.path, state.global_step, best=state.best)
            state.epoch, state.step = state.epoch + 1, 0
            _end_epoch(session)
    session.save(run.last)
    barrier()
    return TrainResult(run.path, state.global_step, best=state.best)


def _announce(session: Session) -> None:
    config, state = session.config, session.state
    logger.info(
        "%s %s on %d videos: epoch %d of %d, %d steps each, on %s with %d rank(s)",
        "going on with" if state.global_step else "training",
        config.model.name,
        len(session.ids),
        state.epoch,
        config.train.epochs,
        session.sampler.steps_per_epoch,
        session.device,
        session.ranks.size,
    )


def epoch_steps(
    session: Session, meter: Meter, stream: Stream, capture: Capture | None = None
) -> Generator[None]:
    """Train the rest of an epoch, pausing after each optimizer step."""
    config, state, sampler = session.config, session.state, session.sampler
    num_parts = config.train.accumulation_steps
    kept: deque[Requests] = deque(maxlen=config.train.keep_requests)
    session.encoder.train()
    batches = stream.here()
    meter.start()
    for step in range(state.step, sampler.steps_per_epoch):
        if capture is not None:
            capture.at(state.global_step)
        rate = learning_rate(state.global_step, sampler.steps_per_epoch, config.optim, config.train)
        set_learning_rate(session.optimizer, rate)
        for part in range(num_parts):
            batch = next(batches)
            kept.append(batch.requests)
            _seed_negatives(session, step, part)
            labels_N, videos_N = session.labels_and_videos(batch.requests)
            result = session.step.part(batch.clips, labels_N, videos_N, last=part == num_parts - 1)
            if session.bank is not None:
                session.bank.update(batch.requests, result.embeddings_ND)
            meter.add(result.logged, batch)
        was_taken = session.step.finish()
        state.step, state.global_step = step + 1, state.global_step + 1
        if session.average is not None and was_taken:
            session.average.update(session.encoder, state.global_step)
        if state.global_step % config.train.nan_check_interval == 0:
            _require_finite(session, meter, kept)
        yield


def _seed_negatives(session: Session, step: int, part: int) -> None:
    """Negatives and dropout depend on (seed, epoch, step, part) alone; gathered negatives not on the rank."""
    if not session.config.loss.gather_negatives:
        part += session.ranks.rank * session.config.train.accumulation_steps
    words = np.random.SeedSequence([session.config.seed, session.state.epoch, step, part])
    generator = session.step.generator
    generator.manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
    if session.is_stochastic:
        torch.manual_seed(generator.initial_seed())


def _require_finite(session: Session, meter: Meter, kept: deque[Requests]) -> None:
    """Stop a run that has diverged, keeping the last request lists. sync: every nan_check_interval steps."""
    if not any_rank(not meter.is_finite(), session.device):
        return
    path = session.run.requests
    if session.ranks.is_main:
        arrays = {f"batch_{place:03d}": requests for place, requests in enumerate(kept)}
        write_atomically(path, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]
    raise RunError(
        f"the loss is no longer finite at step {session.state.global_step} (epoch {session.state.epoch});"
        f" lower optim.lr or set optim.clip_grad_norm; the last requests are in {path}"
    )


def _stop_asked(session: Session, signals: Signals) -> bool:
    """Whether to stop now; several ranks must agree, at the same step."""
    if session.ranks.size == 1:
        return signals.stop is not None
    if session.state.global_step % SIGNAL_INTERVAL:
        return False
    return any_rank(signals.stop is not None, session.device)


def _end_epoch(session: Session) -> None:
    """Validate and keep checkpoints where this epoch's number says so."""
    config, state = session.config, session.state
    if config.eval.query_split is not None and (
        state.epoch % config.eval.interval == 0 or state.epoch == config.train.epochs
    ):
        logged = validate(session)
        figure = float(logged[f"{config.eval.features}_r1"])
        session.write_metrics("retrieval", {"epoch": state.epoch, **logged})
        if state.best is None or figure > state.best:
            state.best = figure
            session.save(session.run.best)
    every = config.train.keep_every_epochs
    if every is not None and state.epoch % every == 0:
        session.save(session.run.checkpoint_of_epoch(state.epoch))


def _checkpoint_to_resume(run: RunFolder, resume: str | None) -> Checkpoint | None:
    if resume is None:
        if run.last.exists() or run.metrics.exists():
            raise RunError(
                f"{run.path} already holds a run; add --resume auto to go on with it, or choose another --run"
            )
        return None
    path = run.last if resume == "auto" else Path(resume)
    if resume == "auto" and not broadcast(path.exists()):
        return None
    return load_checkpoint(path)


def _take_one_step(session: Session) -> TrainResult:
    """The whole way of one batch, then stop; nothing is written."""
    meter = Meter(session)
    with closing(BatchStream(session)) as stream, closing(epoch_steps(session, meter, stream)) as steps:
        next(steps)
    if not meter.is_finite():
        raise RunError("the loss of the first step is not finite; lower optim.lr")
    logger.info("one step done: loss %.4f", meter.summary()["loss"])
    return TrainResult(session.run.path, 1)
