"""`slicfast bench step`: what one SLIC step costs without its data, and the triplet loss alone.

A step is the forward pass of all clips of a batch, the losses, backward and optimizer, on random clips that
are there already. Legend: N clips, R rows of the triplet loss, D embedding dimensions, B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from slicfast.bench.harness import Measurement, measure
from slicfast.config import Config, LossConfig
from slicfast.data.roles import sample_roles
from slicfast.device import autocast_dtype, resolve_device
from slicfast.engine.encoder import build_encoder
from slicfast.engine.optimization import build_optimizer
from slicfast.losses.negatives import NEGATIVES
from slicfast.losses.triplet import triplet_loss
from slicfast.training.objective import StepPart
from slicfast.training.terms import SlicObjective

TRIPLET_PAIRS = 256
COLUMNS = ("variant", "clips/s", "CPU ms a clip", "times the first")


@dataclass(frozen=True)
class Variant:
    """A way to compute the same step."""

    precision: Literal["fp32", "bf16"]
    channels_last: bool

    @property
    def name(self) -> str:
        return f"{self.precision} {'channels_last_3d' if self.channels_last else 'contiguous'}"


# The first is what a network gets where nobody has asked for more.
VARIANTS = (
    Variant("fp32", False),
    Variant("fp32", True),
    Variant("bf16", False),
    Variant("bf16", True),
)


def bench_step(
    config: Config,
    *,
    variants: Sequence[Variant] = VARIANTS,
    num_samples: int | None = None,
    num_runs: int = 5,
) -> dict[str, Any]:
    """Cost of a step of this configuration's model, clips, losses and optimizer, for each variant.

    Args:
        num_samples: samples a step in place of `train.batch_size`, where that many take too long.
        num_runs: measured steps a variant, after two that are not.

    Returns:
        The model and the sizes; `variants`, each with its `clips_per_second` of wall time, `cpu_ms_per_clip`
        (CPU only) and `step` measurement; and `triplet_loss`, the loss of 256 pairs on one core.

    Raises:
        ConfigError: a model, loss or optimizer that there is not.
        MachineError: a GPU is asked for and there is none.
    """
    device = resolve_device(config.train.device)
    batch_size = num_samples or config.train.batch_size
    num_roles = len(sample_roles(config.loss).loaded)
    num_clips = num_roles * batch_size
    with torch_threads(config.train.num_torch_threads):
        measured = []
        for variant in variants:
            step = make_step(config, variant, batch_size, device)
            cost = measure(step, num_runs=num_runs, synchronize=_synchronize(device))
            found = {"variant": variant.name, "clips_per_second": 1e3 * num_clips / cost.wall_ms}
            if device.type == "cpu":
                found["cpu_ms_per_clip"] = cost.cpu_ms / num_clips
            measured.append(found | {"step": cost.to_dict()})
        num_threads = torch.get_num_threads()
    return {
        "device": str(device),
        "num_threads": num_threads,
        "model": config.model.model_dump(mode="json"),
        "optimizer": config.optim.name,
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "num_clips": num_clips,
        "variants": measured,
        "triplet_loss": {
            "num_pairs": TRIPLET_PAIRS,
            "negatives": _triplet_negatives(config.loss),
            "cost": bench_triplet(config.loss, device=device).to_dict(),
        },
    }


def bench_triplet(
    config: LossConfig, num_pairs: int = TRIPLET_PAIRS, dim: int = 128, device: torch.device | None = None
) -> Measurement:
    """The triplet loss of so many samples, each of its own label, forward and backward, on one core."""
    device = device or torch.device("cpu")
    generator = torch.Generator(device).manual_seed(0)
    embeddings_RD = torch.randn(2 * num_pairs, dim, device=device, requires_grad=True)
    labels_R = torch.arange(num_pairs, device=device).repeat(2)

    negatives = _triplet_negatives(config)

    def run() -> None:
        embeddings_RD.grad = None
        output = triplet_loss(
            embeddings_RD, labels_R, margin=config.margin, negatives=negatives, generator=generator
        )
        output.loss.backward()  # type: ignore[no-untyped-call]

    with torch_threads(1):
        return measure(run, num_runs=50, num_warmup=5, synchronize=_synchronize(device))


def _triplet_negatives(config: LossConfig) -> str:
    """The configured choice, or the method's own where the configuration has another loss."""
    return config.negatives if config.negatives in NEGATIVES else LossConfig().negatives


def make_step(
    config: Config, variant: Variant, batch_size: int, device: torch.device
) -> Callable[[], Tensor]:
    """A function that takes one step, the same random batch again and again, and returns its loss."""
    torch.manual_seed(config.seed)
    layout = torch.channels_last_3d if variant.channels_last else torch.contiguous_format
    encoder = build_encoder(config.model).to(device).train()
    encoder = encoder.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = build_optimizer(encoder, config.optim)
    generator = torch.Generator(device).manual_seed(config.seed)
    length, size = config.data.clip_length, config.data.crop_size
    precision = autocast_dtype(device, variant.precision)
    objective = SlicObjective(config, batch_size, encoder, precision).to(device)
    num_roles = objective.num_roles
    clips_NCTHW = torch.randn(num_roles * batch_size, 3, length, size, size, device=device)
    clips_NCTHW = clips_NCTHW.contiguous(memory_format=layout)
    labels_N = torch.arange(batch_size, device=device).repeat(num_roles)  # every video is a cluster
    num_encoded = objective.num_encoded * batch_size

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            embeddings_ND = encoder(clips_NCTHW[:num_encoded])
        part = StepPart(embeddings_ND, clips_NCTHW, labels_N, labels_N, generator)
        loss: Tensor = objective(part).total
        loss.backward()  # type: ignore[no-untyped-call]
        if config.optim.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), config.optim.clip_grad_norm)
        optimizer.step()
        objective.after_step(encoder)
        return loss.detach()

    return step


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A result's rows under `COLUMNS`, compared by CPU time on a CPU, by wall time on a GPU."""
    time = "cpu_ms" if result["device"] == "cpu" else "wall_ms"
    first = result["variants"][0]["step"][time]
    return [
        (
            row["variant"],
            f"{row['clips_per_second']:.1f}",
            f"{row['cpu_ms_per_clip']:.1f}" if "cpu_ms_per_clip" in row else "-",
            f"{first / row['step'][time]:.2f}",
        )
        for row in result["variants"]
    ]


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """So many threads of torch for a while; 0 leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _synchronize(device: torch.device) -> Callable[[], object] | None:
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
