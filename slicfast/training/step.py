"""One optimizer step: forward, loss and backward of each of its parts, then clipping and the optimizer.

Nothing here waits for the device, and nothing that changes from step to step is a Python number: rates lie in
tensors where the step is recorded, random numbers come from a generator that is seeded before each part. So
the step can be recorded as CUDA graphs, one of a part and one of what follows the last.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from slicfast.config import Config
from slicfast.device import autocast_dtype
from slicfast.engine.graph import Recorded, RecorderMaker, recorder_maker
from slicfast.engine.optimization import build_optimizer, can_be_recorded, hold_rates_in_tensors
from slicfast.profiling import span
from slicfast.training.objective import Objective, StepLoss, StepPart

logger = logging.getLogger("slicfast")


class PartResult(NamedTuple):
    """What a part leaves: embeddings (N, D) of its encoded clips, without gradient; detached scalars to log.

    Of a recorded step the embeddings are overwritten by the next part.
    """

    embeddings_ND: Tensor
    logged: dict[str, Tensor]


class TrainingStep:
    """The steps of one network.

    Args:
        model: may be wrapped by DDP or compiled; its parameters are the optimizer's.
        encoder: `model` without wrapping.
        scaler: of the loss; does nothing where it is not enabled.
        num_parts: whose gradients make one step.
        autocast: what the forward pass computes in; None: as the weights are.
        clip_grad_norm: None: gradients are not clipped.
        has_ranks: whether `model` exchanges gradients with other ranks.
        make_recorder: None: the step is not recorded.
        record_optimizer: whether the optimizer can be recorded too; else it is called step by step.

    Attributes:
        generator: of the objective's random numbers; to be seeded before each part.
        objective: what the steps are taken for.
    """

    def __init__(
        self,
        model: nn.Module,
        encoder: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        *,
        num_parts: int = 1,
        autocast: torch.dtype | None = None,
        clip_grad_norm: float | None = None,
        has_ranks: bool = False,
        make_recorder: RecorderMaker | None = None,
        record_optimizer: bool = False,
    ) -> None:
        self.generator = torch.Generator(device)
        self.objective = objective
        self._model = model
        self._encoder = encoder
        self._optimizer = optimizer
        self._scaler = scaler
        self._device = device
        self._num_parts = num_parts
        self._autocast = autocast
        self._clip_grad_norm = clip_grad_norm
        self._has_ranks = has_ranks
        self._was_taken = True
        if scaler.is_enabled():  # which calls the optimizer only where no gradient is infinite
            optimizer.register_step_post_hook(lambda *_: self._note_that_it_was_taken())
        self._recorded_part: Recorded[PartResult] | None = None
        self._recorded_finish: Recorded[None] | None = None
        if make_recorder is not None:
            self._recorded_part = Recorded(self._compute, make_recorder([self.generator]), device)
            if record_optimizer:
                hold_rates_in_tensors(optimizer, device)
                self._recorded_finish = Recorded(self._update, make_recorder([]), device)

    def part(
        self, clips_NCTHW: Tensor, labels_N: Tensor, videos_N: Tensor, *, last: bool = True
    ) -> PartResult:
        """Add the gradients of a part of the batch; all its encoded clips share BatchNorm statistics.

        Args:
            clips_NCTHW, labels_N, videos_N: as `StepPart` has them, on any device; only what is recorded
                needs the same shapes always.
            last: whether `finish` comes next.
        """
        if self._recorded_part is not None:
            with span("replay") if self._recorded_part.is_recorded else nullcontext():
                result = self._recorded_part(clips_NCTHW, labels_N, videos_N)
            return PartResult(
                result.embeddings_ND, {name: value.clone() for name, value in result.logged.items()}
            )
        clips_NCTHW = clips_NCTHW.to(self._device, non_blocking=True)
        labels_N = labels_N.to(self._device, non_blocking=True)
        videos_N = videos_N.to(self._device, non_blocking=True)
        with self._exchange(last):
            return self._compute(clips_NCTHW, labels_N, videos_N)

    def finish(self) -> bool:
        """Clip, update the weights, and forget the gradients; False where loss scaling skipped the step.

        A fused Adam under fp16 decides that on the device, unseen: then it says True, and nothing waits.
        """
        self._was_taken = not self._scaler.is_enabled()
        with span("optimizer"):
            if self._recorded_finish is not None:
                self._recorded_finish()
            else:
                self._update()
        return self._was_taken

    def _note_that_it_was_taken(self) -> None:
        self._was_taken = True

    def _compute(self, clips_NCTHW: Tensor, labels_N: Tensor, videos_N: Tensor) -> PartResult:
        num_encoded = len(clips_NCTHW) // self.objective.num_roles * self.objective.num_encoded
        enabled = self._autocast is not None
        with span("forward"), torch.autocast(self._device.type, dtype=self._autocast, enabled=enabled):
            embeddings_ND = self._model(clips_NCTHW[:num_encoded])
        with span("loss"):
            part = StepPart(embeddings_ND, clips_NCTHW, labels_N, videos_N, self.generator)
            loss: StepLoss = self.objective(part)
            scaled = self._scaler.scale(loss.total / self._num_parts)
        with span("backward"):
            scaled.backward()  # type: ignore[no-untyped-call]
        return PartResult(embeddings_ND.detach(), loss.logged)

    def _update(self) -> None:
        if self._clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self._clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.objective.after_step(self._encoder)
        # A graph knows gradients by their place in memory.
        self._optimizer.zero_grad(set_to_none=self._recorded_part is None)

    def _exchange(self, last: bool) -> AbstractContextManager[object]:
        """Ranks exchange gradients with a step's last part alone; DDP must know in its forward pass."""
        if last or not self._has_ranks:
            return nullcontext()
        waiting: AbstractContextManager[object] = self._model.no_sync()  # type: ignore[operator]
        return waiting


def optimizer_and_scaler(
    config: Config, parameters: nn.Module | Sequence[dict[str, Any]], device: torch.device
) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """What updates the weights, and what scales the loss where fp16 asks for it.

    Raises ConfigError for an optimizer that there is not.
    """
    scaled = autocast_dtype(device, config.train.precision) == torch.float16
    optimizer = build_optimizer(parameters, config.optim, scaled=scaled, capturable=config.train.cuda_graph)
    return optimizer, torch.amp.GradScaler(device.type, enabled=scaled)


def training_step(
    config: Config,
    encoder: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    *,
    num_ranks: int = 1,
) -> TrainingStep:
    """The step as `config.train` wants it: exchanged among ranks, compiled, recorded.

    Args:
        encoder, objective, optimizer, scaler: on the device, and where a checkpoint left them.

    Raises:
        MachineError or ConfigError: it is to be recorded and cannot be.
    """
    graph = recorder_maker(device, num_ranks) if config.train.cuda_graph else None
    torch.backends.cudnn.benchmark = config.train.cudnn_benchmark  # of the whole process
    model = encoder
    if num_ranks > 1:
        model = DistributedDataParallel(encoder, device_ids=[device.index] if device.type == "cuda" else None)
    if config.train.compile:
        # Shares the encoder's parameters; evaluation stays as it is.
        model = cast(nn.Module, torch.compile(model))
    # Scaling asks on the host whether a step is to be skipped.
    record_optimizer = not scaler.is_enabled() and can_be_recorded(optimizer)
    if graph is not None and not record_optimizer:
        logger.info("the step is recorded without its optimizer, which is called step by step")
    return TrainingStep(
        model,
        encoder,
        objective,
        optimizer,
        scaler,
        device,
        num_parts=config.train.accumulation_steps,
        autocast=autocast_dtype(device, config.train.precision),
        clip_grad_norm=config.optim.clip_grad_norm,
        has_ranks=num_ranks > 1,
        make_recorder=graph,
        record_optimizer=record_optimizer,
    )
