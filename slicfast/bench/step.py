"""`slicfast bench step`: what one SLIC step costs without its data, each switch alone and all together.

A step is the run's own: the forward pass of all clips of a batch, the losses, backward and optimizer, on
random clips that are there already. Legend: N clips, R rows of the triplet loss, D embedding dimensions,
B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from slicfast.bench.ceilings import Ceilings, measure_ceilings
from slicfast.bench.harness import Measurement, measure
from slicfast.bench.train import step_flops
from slicfast.config import Config, EmaConfig, LossConfig
from slicfast.data.roles import sample_roles
from slicfast.device import autocast_dtype, native_bf16, resolve_device
from slicfast.engine.encoder import build_encoder
from slicfast.engine.graph import NUM_REHEARSALS
from slicfast.engine.weight_average import WeightAverage
from slicfast.errors import ConfigError, RunError
from slicfast.losses.negatives import NEGATIVES
from slicfast.losses.triplet import triplet_loss
from slicfast.models.stem import StemForm
from slicfast.training.meter import memory_bytes
from slicfast.training.step import optimizer_and_scaler, training_step
from slicfast.training.terms import SlicObjective

TRIPLET_PAIRS = 256
EMA_DECAY = 0.999  # costs what any other does
COLUMNS = (
    *("switched on", "clips/s", "CPU ms a clip", "times the first", "TFLOP/s"),
    *("of ceiling", "memory, MB"),
)

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Variant:
    """A way to compute the same step: what is switched on in the configuration, and the memory layout."""

    name: str
    precision: Precision = "fp32"
    channels_last: bool = False
    stem: StemForm = "direct"
    fused: bool = False
    compile: bool = False
    cuda_graph: bool = False
    cudnn_benchmark: bool = False
    ema: bool = False

    def of(self, config: Config) -> Config:
        """The configuration with these switches and no others."""
        names = ("precision", "compile", "cuda_graph", "cudnn_benchmark")
        train = {name: getattr(self, name) for name in names}
        sections: dict[str, Any] = {
            "model": config.model.model_copy(update={"stem": self.stem}),
            "optim": config.optim.model_copy(update={"fused": self.fused}),
            "train": config.train.model_copy(update={**train, "accumulation_steps": 1}),
            "ema": EmaConfig(decay=EMA_DECAY) if self.ema else EmaConfig(),
        }
        return config.model_copy(update=sections)


# What a network gets where nobody has asked for more.
BASELINE = Variant("none: fp32, NCDHW, eager")


def variants_for(device: torch.device, *, compiled: bool = False) -> tuple[Variant, ...]:
    """The baseline, each switch alone, and together all that may save time, in every form of it.

    Args:
        compiled: also torch.compile, alone and with all others; it takes a minute each.
    """
    on_gpu = device.type == "cuda"
    fast: Precision = "bf16" if native_bf16(device) else "fp32"
    alone = [
        Variant("bf16", precision="bf16"),
        *([Variant("fp16", precision="fp16")] if on_gpu else []),
        Variant("channels_last_3d", channels_last=True),
        Variant("padded stem", stem="padded"),
        Variant("space_to_depth stem", stem="space_to_depth"),
        Variant("fused optimizer", fused=True),
        *([Variant("cuDNN benchmark", cudnn_benchmark=True)] if on_gpu else []),
        *([Variant("CUDA graph", cuda_graph=True)] if on_gpu else []),
        *([Variant("compile", compile=True)] if compiled else []),
        Variant("averaged weights", ema=True),
    ]
    stems: tuple[StemForm, ...] = ("direct", "padded", "space_to_depth")
    together = [
        Variant(
            f"all, {stem}{', compiled' if compile else ''}",
            precision=fast,
            channels_last=True,
            stem=stem,
            fused=True,
            compile=compile,
            cuda_graph=on_gpu,
            cudnn_benchmark=on_gpu,
        )
        for compile in ((False, True) if compiled else (False,))
        for stem in (stems if not compile else ("direct", "space_to_depth"))
    ]
    return (BASELINE, *alone, *together)


def bench_step(
    config: Config,
    *,
    variants: Sequence[Variant] | None = None,
    compiled: bool = False,
    num_samples: int | None = None,
    num_runs: int = 5,
    ceiling_size: int | None = None,
) -> dict[str, Any]:
    """Cost of a step of this configuration's model, clips, losses and optimizer, for each variant.

    Args:
        variants: None: `variants_for` the device; figures are set beside the first one's.
        compiled: as there.
        num_samples: samples a step in place of `train.batch_size`, where that many take too long.
        num_runs: measured steps a variant, after two that are not (more, where it records a graph).
        ceiling_size: as `measure_ceilings` has it.

    Returns:
        The model and the sizes; the `ceilings` of each number type, measured; `variants`, each with its
        `clips_per_second` of wall time, `cpu_ms_per_clip` (CPU only), `step` measurement, `tflops` and
        `of_ceiling`, their share of a matrix product's (None where fp32 convolutions run in TF32, or where
        operations cannot be counted), and `memory_mb`, the peak of a GPU's or what is resident on a CPU; or
        with an `error`, where it cannot be computed here; and `triplet_loss`, the loss of 256 pairs on one
        core.

    Raises:
        ConfigError: a model, loss or optimizer that there is not.
        MachineError: a GPU is asked for and there is none.
    """
    device = resolve_device(config.train.device)
    variants = variants_for(device, compiled=compiled) if variants is None else variants
    batch_size = num_samples or config.train.batch_size
    roles = sample_roles(config.loss)
    num_clips = len(roles.loaded) * batch_size
    try:
        flops: int | None = step_flops(config) * roles.num_encoded * batch_size
    except ConfigError:
        flops = None
    with torch_threads(config.train.num_torch_threads):
        ceilings = {
            precision: measure_ceilings(device, precision, size=ceiling_size)
            for precision in sorted({variant.precision for variant in variants})
        }
        measured: list[dict[str, Any]] = []
        for variant in variants:
            try:
                found = _measure(config, variant, batch_size, device, num_runs)
            except (RuntimeError, RunError) as error:  # a compiler is missing, memory runs out, ...
                if not measured:
                    raise
                reason = str(error).strip().partition("\n")[0]
                measured.append({"variant": variant.name, "error": reason})
                continue
            found["precision"] = variant.precision
            found["clips_per_second"] = 1e3 * num_clips / found["step"]["wall_ms"]
            if device.type == "cpu":
                found["cpu_ms_per_clip"] = found["step"]["cpu_ms"] / num_clips
            measured.append(found | _rate(flops, found["step"]["wall_ms"], ceilings[variant.precision]))
        num_threads = torch.get_num_threads()
    return {
        "device": str(device),
        "num_threads": num_threads,
        "model": config.model.model_dump(mode="json"),
        "optimizer": config.optim.name,
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "num_clips": num_clips,
        "gflops_a_clip": None if flops is None else flops / num_clips / 1e9,
        "ceilings": {precision: found.to_dict() for precision, found in ceilings.items()},
        "variants": measured,
        "triplet_loss": {
            "num_pairs": TRIPLET_PAIRS,
            "negatives": _triplet_negatives(config.loss),
            "cost": bench_triplet(config.loss, device=device).to_dict(),
        },
    }


def _measure(
    config: Config, variant: Variant, batch_size: int, device: torch.device, num_runs: int
) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        cost = measure(
            make_step(config, variant, batch_size, device),
            num_runs=num_runs,
            num_warmup=NUM_REHEARSALS + 2 if variant.cuda_graph else 2,
            synchronize=_synchronize(device),
        )
    finally:
        torch.backends.cudnn.benchmark = False
        if variant.compile:
            torch.compiler.reset()
    num_bytes = torch.cuda.max_memory_allocated(device) if on_gpu else memory_bytes(device)
    return {"variant": variant.name, "step": cost.to_dict(), "memory_mb": num_bytes / 2**20}


def _rate(flops: int | None, wall_ms: float, ceiling: Ceilings) -> dict[str, float | None]:
    if flops is None:
        return {"tflops": None, "of_ceiling": None}
    tflops = flops / wall_ms / 1e9
    in_tf32 = ceiling.device != "cpu" and ceiling.precision == "fp32" and torch.backends.cudnn.allow_tf32
    return {"tflops": tflops, "of_ceiling": None if in_tf32 else tflops / ceiling.tflops}


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
    """A function that takes one step, the same random batch again and again, and returns its loss.

    Raises ConfigError or MachineError for a variant that the device does not have.
    """
    config = variant.of(config)
    torch.manual_seed(config.seed)
    layout = torch.channels_last_3d if variant.channels_last else torch.contiguous_format
    encoder = build_encoder(config.model).to(device).train()
    encoder = encoder.to(memory_format=layout)  # type: ignore[call-overload]
    precision = autocast_dtype(device, config.train.precision)
    objective = SlicObjective(config, batch_size, encoder, precision).to(device)
    optimizer, scaler = optimizer_and_scaler(config, encoder, device)
    taken = training_step(config, encoder, objective, optimizer, scaler, device)
    average = None if config.ema.decay is None else WeightAverage(encoder, config.ema)
    number = count(1)
    taken.generator.manual_seed(config.seed)
    length, size = config.data.clip_length, config.data.crop_size
    clips_NCTHW = torch.randn(objective.num_roles * batch_size, 3, length, size, size, device=device)
    clips_NCTHW = clips_NCTHW.contiguous(memory_format=layout)
    labels_N = torch.arange(batch_size, device=device).repeat(objective.num_roles)  # a cluster a video

    def step() -> Tensor:
        result = taken.part(clips_NCTHW, labels_N, labels_N)
        taken.finish()
        if average is not None:
            average.update(encoder, next(number))
        return result.logged["loss"]

    return step


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A result's rows under `COLUMNS`, compared by CPU time on a CPU, by wall time on a GPU."""
    time = "cpu_ms" if result["device"] == "cpu" else "wall_ms"
    first = result["variants"][0]["step"][time]

    def row(found: dict[str, Any]) -> tuple[str, ...]:
        if "error" in found:
            return (found["variant"], "failed", *("-",) * (len(COLUMNS) - 2))
        tflops, share = found["tflops"], found["of_ceiling"]
        return (
            found["variant"],
            f"{found['clips_per_second']:.1f}",
            f"{found['cpu_ms_per_clip']:.1f}" if "cpu_ms_per_clip" in found else "-",
            f"{first / found['step'][time]:.2f}",
            "-" if tflops is None else f"{tflops:.3g}",
            "-" if share is None else f"{100 * share:.1f} %",
            f"{found['memory_mb']:.0f}",
        )

    return [row(found) for found in result["variants"]]


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
