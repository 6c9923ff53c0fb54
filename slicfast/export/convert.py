"""`slicfast convert`: checkpoints of others to ours and back, tensor for tensor, under each one's names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from slicfast.config import Config, ModelConfig
from slicfast.engine.checkpoint import Checkpoint, encoder_of, find_checkpoint, load_any, save_checkpoint
from slicfast.engine.foreign import OWN_NOTE, Foreign, State
from slicfast.errors import ConfigError, one_of
from slicfast.models.published import (
    TORCHVISION_R2PLUS1D,
    TORCHVISION_R3D,
    TORCHVISION_S3D,
    Rules,
    published_name,
)
from slicfast.overrides import apply_override
from slicfast.records import write_atomically

Target = Literal["slicfast", "slic", "torchvision", "3d-resnets"]
TARGETS: tuple[Target, ...] = ("slicfast", "slic", "torchvision", "3d-resnets")

# Which of our networks torchvision has, and how it names their parameters.
IN_TORCHVISION: dict[str, Rules] = {
    "slic_r3d_18": TORCHVISION_R3D,
    "slic_r2plus1d_18": TORCHVISION_R2PLUS1D,
    "slic_s3d": TORCHVISION_S3D,
}
# Its first kernels over time: the parameter here, and its frames.
TORCHVISION_FRAMES = {"slic_r3d_18": ("conv1.weight", 3), "slic_r2plus1d_18": ("conv1.temporal.weight", 3)}


@dataclass(frozen=True)
class ConvertReport:
    """What was read and written.

    Attributes:
        source: slicfast, slic, torchvision or 3d-resnets.
        model: name of the network; ``num_parameters`` written, statistics apart.
        notes: a sentence each on what the output lacks, or on what its reader must be told.
    """

    source: str
    model: str
    num_parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Parts:
    """A network taken apart; names are ours, without the part's own."""

    source: str
    config: Config
    epoch: int
    best: float | None
    backbone: State
    projection: State
    classifier: State


def convert(
    path: str | Path,
    output: Path,
    to: Target = "slicfast",
    *,
    overrides: Sequence[str] = (),
    prefix: str = "",
    use_ema: bool = True,
) -> ConvertReport:
    """Read a checkpoint of any known kind and write it as another kind.

    Args:
        path: a run folder or a checkpoint file.
        overrides: of the configuration, for what a foreign file does not say (``model.max_pool=false``).
        prefix: put before every name of a `slic` or `3d-resnets` file, such as ``module.``.
        use_ema: write the averaged weights, where the checkpoint has some.

    Raises:
        ConfigError: a target that does not exist, or that has no such network.
        DataError, RunError: nothing readable there, or tensors that do not fit.
        MachineError: no space; nothing is written then.
    """
    if to not in TARGETS:
        raise ConfigError(one_of("--to", to, TARGETS))
    file = find_checkpoint(path)
    if output.exists() and output.samefile(file):
        raise ConfigError(f"{output} is what is to be converted; name another file to write")
    if prefix and to not in ("slic", "3d-resnets"):
        raise ConfigError(f"--prefix is for slic and 3d-resnets files; got --to {to}")
    parts = _take_apart(load_any(file), file, overrides, use_ema)
    notes: list[str] = []
    if to == "slicfast":
        state = _ours(parts, notes)
        saved = Checkpoint(parts.config.to_dict(), state, epoch=parts.epoch, best=parts.best)
        save_checkpoint(output, saved)
    else:
        write = {"slic": _slic, "torchvision": _torchvision, "3d-resnets": _3d_resnets}[to]
        values, state = write(parts, notes, prefix)
        write_atomically(output, lambda stream: torch.save(values, stream))
    num = sum(t.numel() for n, t in state.items() if "running_" not in n and t.is_floating_point())
    return ConvertReport(parts.source, parts.config.model.name, num, tuple(notes))


def _take_apart(found: Checkpoint | Foreign, file: Path, overrides: Sequence[str], use_ema: bool) -> _Parts:
    values = dict(found.config)
    for override in overrides:
        apply_override(values, override)
    config = Config.from_dict(values, source=str(file))
    classifier = found.classifier if isinstance(found, Foreign) else {}
    state = found.model if isinstance(found, Foreign) else found.weights(use_ema)
    fine_tuned = {n.removeprefix("projection.linear."): t for n, t in state.items() if ".linear." in n}
    model = {n: t for n, t in state.items() if ".linear." not in n}
    encoder_of(Checkpoint(config.to_dict(), model), file)  # what does not fit is said here

    def part(name: str) -> State:
        return {n.removeprefix(f"{name}."): t for n, t in model.items() if n.startswith(f"{name}.")}

    return _Parts(
        source=found.kind if isinstance(found, Foreign) else "slicfast",
        config=config,
        epoch=found.epoch,
        best=found.best,
        backbone=part("backbone"),
        projection=part("projection"),
        classifier=classifier or fine_tuned,
    )


def _ours(parts: _Parts, notes: list[str]) -> State:
    _drop_classifier(parts, notes)
    return {
        **{f"backbone.{name}": tensor for name, tensor in parts.backbone.items()},
        **{f"projection.{name}": tensor for name, tensor in parts.projection.items()},
    }


def _slic(parts: _Parts, notes: list[str], prefix: str) -> tuple[dict[str, Any], State]:
    _require_resnet(parts.config.model, "slic")
    _require_like(parts, "slic", ("max_pool", "conv1_temporal_stride"), ("conv1.weight", 7))
    if not parts.projection or parts.config.model.projection_norm:
        lack = "a projection without a BatchNorm behind it" if parts.projection else "a projection"
        raise ConfigError(f"a slic file has {lack}; write this network with --to 3d-resnets")
    _drop_classifier(parts, notes)
    return _wrapped({**parts.backbone, **parts.projection}, parts, prefix, best_prec1=parts.best or 0.0)


def _3d_resnets(parts: _Parts, notes: list[str], prefix: str) -> tuple[dict[str, Any], State]:
    model = parts.config.model
    _require_resnet(model, "3d-resnets")
    _drop_projection(parts, notes)
    flags = []
    if not model.max_pool:
        flags.append("--no_max_pool")
    if model.conv1_temporal_stride != 1:
        flags.append(f"--conv1_t_stride {model.conv1_temporal_stride}")
    if model.conv1_temporal_size not in (None, 7):
        flags.append(f"--conv1_t_size {model.conv1_temporal_size}")
    if model.width != 1:
        flags.append(f"--resnet_widen_factor {model.width:g}")
    if flags:
        notes.append(f"3D-ResNets-PyTorch reads it with {' '.join(flags)}")
    state = {**parts.backbone, **{f"fc.{name}": tensor for name, tensor in parts.classifier.items()}}
    return _wrapped(state, parts, prefix, arch=f"resnet-{model.name.rpartition('_')[2]}")


def _torchvision(parts: _Parts, notes: list[str], prefix: str) -> tuple[dict[str, Any], State]:
    model = parts.config.model
    if model.name not in IN_TORCHVISION:
        known = ", ".join(IN_TORCHVISION)
        raise ConfigError(f"torchvision has no {model.name}; of ours it has {known}; try --to 3d-resnets")
    rules = IN_TORCHVISION[model.name]
    keys = ("width", "max_pool", "conv1_temporal_stride")
    _require_like(parts, "torchvision", keys, TORCHVISION_FRAMES.get(model.name))
    _drop_projection(parts, notes)
    state = {published_name(name, rules): tensor for name, tensor in parts.backbone.items()}
    for name, tensor in parts.classifier.items():
        is_convolution = model.name == "slic_s3d" and name == "weight"
        state[published_name(f"fc.{name}", rules)] = (
            tensor[:, :, None, None, None] if is_convolution else tensor
        )
    if not parts.classifier:
        notes.append("it has no classifier: load_state_dict(..., strict=False)")
    return state, state


def _wrapped(state: State, parts: _Parts, prefix: str, **facts: Any) -> tuple[dict[str, Any], State]:
    """As training scripts save; the configuration goes along, for the way back."""
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    return {"epoch": parts.epoch, **facts, "state_dict": named, OWN_NOTE: parts.config.to_dict()}, state


def _require_resnet(model: ModelConfig, to: str) -> None:
    family, _, depth = model.name.rpartition("_")
    if family != "slic_r3d" or not depth.isdigit():
        raise ConfigError(f"a {to} file holds a 3-D ResNet such as slic_r3d_18; got {model.name}")


def _require_like(parts: _Parts, to: str, keys: Sequence[str], frames: tuple[str, int] | None) -> None:
    """Raise ConfigError naming the first key in which the target's network is another one.

    Args:
        frames: the parameter of the first kernel over time, and its frames there.
    """
    model = parts.config.model
    checked = [(key, getattr(model, key), ModelConfig.model_fields[key].default) for key in keys]
    if frames is not None:
        place, wanted = frames
        checked.append(("conv1_temporal_size", parts.backbone[place].shape[2], wanted))
    for key, got, wanted in checked:
        if got != wanted:
            raise ConfigError(
                f"{to}'s {model.name.removeprefix('slic_')} has model.{key}={json.dumps(wanted)};"
                f" this network has {json.dumps(got)}, which makes it another one"
            )


def _drop_classifier(parts: _Parts, notes: list[str]) -> None:
    if parts.classifier:
        notes.append(f"its classifier of {len(parts.classifier['weight'])} classes is left out")


def _drop_projection(parts: _Parts, notes: list[str]) -> None:
    if parts.projection:
        notes.append("its projection is left out: features are the pooled ones")
