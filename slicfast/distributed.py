"""Ranks under torchrun, gathers with and without gradients; a single process is one rank of one.

NCCL on GPUs, gloo on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from slicfast.errors import MachineError


@dataclass(frozen=True)
class Ranks:
    """This process among all: ``rank`` of ``size``, ``local`` on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def read_environment() -> Ranks:
    """What torchrun (or SLURM wrappers that set the same variables) says of this process."""
    try:
        return Ranks(
            rank=int(os.environ.get("RANK", "0")),
            size=int(os.environ.get("WORLD_SIZE", "1")),
            local=int(os.environ.get("LOCAL_RANK", "0")),
        )
    except ValueError:
        raise MachineError(
            "RANK, WORLD_SIZE and LOCAL_RANK must be integers, as torchrun sets them"
        ) from None


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Joined ranks for the time of a run; nothing to do for one rank."""
    if ranks.size == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The element-wise sum over ranks, in place."""
    if is_joined():
        dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The element-wise mean over ranks, in place."""
    return sum_over_ranks(tensor).div_(dist.get_world_size()) if is_joined() else tensor


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on any rank. sync."""
    if not is_joined():
        return flag
    return bool(sum_over_ranks(torch.tensor([float(flag)], device=device)).item())


def broadcast(value: Any) -> Any:
    """Rank 0's picklable value, on every rank."""
    if not is_joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    if is_joined():
        dist.barrier()


def average_buffers(module: torch.nn.Module) -> None:
    """BatchNorm's running statistics as the mean over ranks, so that every rank evaluates one network."""
    if not is_joined():
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            mean_over_ranks(buffer)


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Rank 0's buffers on every rank."""
    if is_joined():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


class _GatherRows(torch.autograd.Function):
    """All ranks' rows in rank order; the gradient of a rank's rows is the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.num_rows = rows.shape[0]
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.num_rows
        return gradient[start : start + ctx.num_rows]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """(R, ...) of each of W ranks -> (W * R, ...), differentiable; every rank has the same R.

    Each rank then computes the same loss over all rows; the sum in the backward pass and DDP's
    mean over ranks together give the gradient of that one loss.
    """
    if not is_joined():
        return rows
    gathered: torch.Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered
