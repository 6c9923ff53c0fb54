"""Checkpoints of others as networks of ours: the SLIC authors', torchvision's and 3D-ResNets-PyTorch's files.

What a file does not say (whether there is a max-pool, how clips are normalised) is what its project trains
with; what is said by the tensors' names and shapes is read from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from slicfast.config import Config
from slicfast.engine.encoder import build_encoder
from slicfast.errors import DataError
from slicfast.models.published import (
    TORCHVISION_R2PLUS1D,
    TORCHVISION_R3D,
    TORCHVISION_S3D,
    Rules,
    published_name,
)
from slicfast.models.resnet3d import DEPTHS

Kind = Literal["slic", "torchvision", "3d-resnets"]
State = dict[str, torch.Tensor]

PROJECTION = ("fc1.", "bn_proj.", "fc2.")
OWN_NOTE = "slicfast"  # the configuration, in a file that `slicfast convert` wrote; others leave it alone
WRAPPER = "module."  # what DataParallel puts before every name
STEM_CHANNELS = 64  # of every published network here, at width 1

# Clips as each project trains and tests on them: torchvision's presets, Hara's and the authors' options.
TORCHVISION_DATA = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
CLIPS: dict[str, dict[str, dict[str, Any]]] = {
    "slic": {},
    "torchvision": {"data": {"crop_size": 112, **TORCHVISION_DATA}, "eval": {"resize": (128, 171)}},
    "torchvision s3d": {"data": {"crop_size": 224, **TORCHVISION_DATA}, "eval": {"resize": (256, 256)}},
    "3d-resnets": {
        "data": {"crop_size": 112, "mean": (0.4345, 0.4051, 0.3775), "std": (0.2768, 0.2713, 0.2737)}
    },
}


@dataclass(frozen=True)
class Foreign:
    """A foreign file read.

    Attributes:
        kind: of which project.
        config: resolved, plain values.
        model: state of a VideoEncoder, without the projection's where there is none.
        classifier: weight (K, F) and bias (K,) of a linear classifier, which an encoder has no place for.
        epoch, best: as the file says them, where it does.
    """

    kind: Kind
    config: dict[str, Any]
    model: State
    classifier: State = field(default_factory=dict)
    epoch: int = 0
    best: float | None = None


def read_foreign(values: object, path: Path) -> Foreign:
    """Recognise what ``torch.load`` gave.

    Raises:
        DataError: one line for what it is not, or what of it is missing or another network's.
    """
    state = _find_state(values)
    if state is None:
        raise DataError(
            f"{path} is not a slicfast checkpoint, nor one of SLIC's authors, torchvision or"
            " 3D-ResNets-PyTorch; expected tensors by name, alone or as 'state_dict'"
        )
    facts = values if isinstance(values, Mapping) else {}
    kind, model, rules, clips = _recognise(state, path)
    said = facts.get(OWN_NOTE)
    known = dict(said) if isinstance(said, Mapping) else {"model": model, **CLIPS[clips]}
    config = Config.from_dict(known, source=str(path))
    with torch.device("meta"):
        encoder = build_encoder(config.model)
    used = set()
    converted: State = {}
    for name, own in encoder.backbone.state_dict().items():
        theirs = published_name(name, rules)
        converted[f"backbone.{name}"] = _fitting(state, theirs, own.shape, path)
        used.add(theirs)
    for name, own in encoder.projection.state_dict().items() if kind == "slic" else ():
        converted[f"projection.{name}"] = _fitting(state, name, own.shape, path)
        used.add(name)
    classifier = {}
    for name in ("weight", "bias"):
        theirs = published_name(f"fc.{name}", rules)
        if theirs in state:
            classifier[name] = state[theirs].flatten(1) if name == "weight" else state[theirs]
            used.add(theirs)
    extra = next((name for name in state if name not in used), None)
    if extra is not None:
        raise DataError(
            f"{path} also has '{extra}', which {model['name']} does not; it is of another network"
        )
    best = facts.get("best_prec1")
    return Foreign(
        kind,
        config.to_dict(),
        converted,
        classifier,
        epoch=int(facts.get("epoch") or 0),
        best=None if best is None else float(best),
    )


def _find_state(values: object) -> State | None:
    """The tensors of a file by their names, without DataParallel's prefix."""
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping) or not values:
        return None
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in values.items()):
        return None
    if all(name.startswith(WRAPPER) for name in values):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in values.items()}
    return dict(values)


def _recognise(state: State, path: Path) -> tuple[Kind, dict[str, Any], Rules, str]:
    """Of which project, the model section, how its parameters are named, and how its clips are made."""
    if "features.0.0.0.weight" in state:
        return "torchvision", {"name": "slic_s3d"}, TORCHVISION_S3D, "torchvision s3d"
    if "stem.3.weight" in state:
        depth = _depth(state, path, "conv1.0.0.weight", bottleneck="-")
        return "torchvision", {"name": f"slic_r2plus1d_{depth}"}, TORCHVISION_R2PLUS1D, "torchvision"
    if "stem.0.weight" in state:
        depth = _depth(state, path, "conv1.0.weight", bottleneck="conv3.0.weight")
        return "torchvision", _resnet(state["stem.0.weight"], depth, path), TORCHVISION_R3D, "torchvision"
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        depth = _depth(state, path, "conv1.weight", bottleneck="conv3.weight")
        model = _resnet(state["conv1.weight"], depth, path)
        if "layer2.0.downsample.0.weight" not in state:
            raise DataError(
                f"{path} is a 3-D ResNet whose shortcuts have no parameters (type A); slicfast's are"
                " 1 x 1 x 1 convolutions with BatchNorm (type B), so it cannot compute this one"
            )
        if not any(name.startswith(PROJECTION) for name in state):
            return "3d-resnets", {**model, "max_pool": True}, (), "3d-resnets"
        for name in ("fc1.weight", "fc2.weight"):
            if name not in state:
                raise DataError(f"{path} is a SLIC checkpoint without '{name}'; it may be cut off")
        hidden, dim = len(state["fc1.weight"]), len(state["fc2.weight"])
        return "slic", {**model, "projection_hidden": hidden, "projection_dim": dim}, (), "slic"
    first = ", ".join(list(state)[:3])
    raise DataError(
        f"{path} is of no network that slicfast knows: not a slicfast checkpoint, nor one of SLIC's authors,"
        f" torchvision's r3d_18, r2plus1d_18 or s3d, or 3D-ResNets-PyTorch; its first tensors are {first}"
    )


def _depth(state: State, path: Path, first: str, *, bottleneck: str) -> int:
    """By the number of blocks in each stage."""
    blocks = [
        len({n for n in state if re.fullmatch(rf"layer{s}\.\d+\.{re.escape(first)}", n)}) for s in range(1, 5)
    ]
    is_bottleneck = f"layer1.0.{bottleneck}" in state
    for depth, depths in DEPTHS.items():
        if list(depths) == blocks and (depth >= 50) == is_bottleneck:
            return depth
    raise DataError(
        f"{path} is a 3-D ResNet with {', '.join(map(str, blocks))} blocks in its stages, which no published"
        " depth has; it may be cut off"
    )


def _resnet(stem: torch.Tensor, depth: int, path: Path) -> dict[str, Any]:
    """The model section that the first kernel (C, 3, t, 7, 7) speaks of."""
    if stem.dim() != 5 or stem.shape[1] != 3 or stem.shape[3:] != (7, 7):
        shape = " x ".join(map(str, stem.shape))
        raise DataError(f"{path} has a first kernel of {shape}; expected channels x 3 x frames x 7 x 7")
    model: dict[str, Any] = {"name": f"slic_r3d_{depth}", "width": stem.shape[0] / STEM_CHANNELS}
    if stem.shape[2] != 7:
        model["conv1_temporal_size"] = stem.shape[2]
    return model


def _fitting(state: State, name: str, shape: torch.Size, path: Path) -> torch.Tensor:
    found = state.get(name)
    if found is None and name.endswith("num_batches_tracked"):
        return torch.tensor(0)  # torch before 0.4.1 did not count
    if found is None:
        raise DataError(f"{path} has no '{name}'; it may be cut off, or of another network")
    if found.shape != shape:
        raise DataError(
            f"{path}: '{name}' is {tuple(found.shape)} where this kind of network has {tuple(shape)};"
            " it is of another network"
        )
    return found
