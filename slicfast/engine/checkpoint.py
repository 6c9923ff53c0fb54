"""Checkpoints: everything a run needs to go on as if it had never stopped, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slicfast.assignment import Assignment
from slicfast.config import Config, ModelConfig
from slicfast.engine.encoder import NoProjection, VideoEncoder, build_encoder
from slicfast.engine.foreign import Foreign, read_foreign
from slicfast.errors import DataError, RunError
from slicfast.models.inflated import InflatedNet
from slicfast.records import write_atomically

FORMAT = "slicfast-checkpoint"
VERSION = 1
EXPORT_FORMAT = "slicfast-encoder"  # of a safetensors file's metadata
EXPORT_VERSION = 1

# Numbers as other programs save them ('best_prec1'); NumPy before 2 had another name for the first.
_NUMPY_NUMBERS: list[Any] = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32")),
]


@dataclass
class Checkpoint:
    """A run's state between two steps.

    Attributes:
        config: the resolved configuration, plain values.
        model, optimizer: state dicts.
        epoch, step: the next step to take, ``step`` counted within the epoch.
        global_step: optimizer steps taken.
        assignment: of the clustering in force; None before the first.
        centroids_KD: k-means' last centroids, for its warm start.
        best: the best validation figure so far.
        video_ids: of the training videos, in order.
        flow: which of them had stored flow, and in which of the store's members; empty where none was used.
        metrics_bytes: size of metrics.jsonl; a resumed run cuts it there, since it writes the rest again.
        scaler: state of the loss scaling; empty where there is none.
        bank: of a running bank; empty where there is none.
        objective: what terms of the loss remember: queues, memories, a key encoder; by the order of
            ``video_ids`` where it is of videos.
        ema: state dict of the averaged weights; empty where none are kept.
    """

    config: dict[str, Any]
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    assignment: Assignment | None = None
    centroids_KD: torch.Tensor | None = None
    best: float | None = None
    video_ids: tuple[str, ...] = ()
    flow: dict[str, Any] = field(default_factory=dict)
    metrics_bytes: int | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    bank: dict[str, torch.Tensor] = field(default_factory=dict)
    objective: dict[str, torch.Tensor] = field(default_factory=dict)
    ema: dict[str, torch.Tensor] = field(default_factory=dict)

    def weights(self, use_ema: bool = True) -> dict[str, torch.Tensor]:
        """State dict of the network to use: the averaged weights where there are any, unless told not to."""
        return self.ema if use_ema and self.ema else self.model

    @property
    def has_projection(self) -> bool:
        """Whether there is more than a backbone."""
        return any(name.startswith("projection.") for name in self.model)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically. Raises MachineError without space; the previous file then still stands."""
    assignment = checkpoint.assignment
    values = {
        **{name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__},
        "assignment": None
        if assignment is None
        else {
            "ids": list(assignment.ids),
            "labels": torch.from_numpy(assignment.labels),
            "epoch": assignment.epoch,
            "positives": None if assignment.positives is None else torch.from_numpy(assignment.positives),
            "next_label": assignment.next_label,
            "agreement": assignment.agreement,
        },
        "video_ids": list(checkpoint.video_ids),
        "format": FORMAT,
        "version": VERSION,
    }
    write_atomically(path, lambda stream: torch.save(values, stream))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, ours or one of those that `read_foreign` knows.

    Ours also are the weights and configuration that `slicfast export --to safetensors` wrote. Nothing but
    tensors and plain values is accepted from a file.

    Raises DataError for a missing, damaged or unknown file.
    """
    found = load_any(path)
    if isinstance(found, Checkpoint):
        return found
    return Checkpoint(config=found.config, model=found.model, epoch=found.epoch, best=found.best)


def load_any(path: str | Path) -> Checkpoint | Foreign:
    """The same, with what a foreign file says of itself. Raises DataError as `load_checkpoint`."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return _load_exported(path)
    values = _read_plain(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        return read_foreign(values, path)
    if values["version"] != VERSION:
        raise DataError(
            f"{path} is a checkpoint of format version {values['version']}, this slicfast reads {VERSION};"
            " use the slicfast that wrote it"
        )
    # Files written before a field was added do without it.
    fields = {name: values[name] for name in Checkpoint.__dataclass_fields__ if name in values}
    saved = values["assignment"]
    if saved is not None:
        positives = saved.get("positives")
        fields["assignment"] = Assignment(
            tuple(saved["ids"]),
            saved["labels"].numpy(),
            saved["epoch"],
            None if positives is None else positives.numpy(),
            saved.get("next_label", -1),
            saved.get("agreement"),
        )
    fields["video_ids"] = tuple(values["video_ids"])
    return Checkpoint(**fields)


def _read_plain(path: Path) -> Any:
    """What a PyTorch file holds, if that is tensors, numbers, text and containers of these."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_NUMBERS):
            warnings.simplefilter("ignore")  # about foreign pickles, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"no checkpoint at {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name the checkpoint file in it") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        held = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if held is not None:
            raise DataError(
                f"{path} holds a Python object ({held[1]}); only tensors and plain values are read, since"
                " objects can run code. Save its state_dict alone, with the program that wrote it"
            ) from None
        raise DataError(f"{path} is not a readable checkpoint: {_damage(path, error)}") from None


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a file that torch does not read, in place of torch's own paragraphs about it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with open(path, "rb") as stream:
        start = stream.read(4)
    if not start:
        return "it is empty"
    if start == b"PK\x03\x04":
        return "it is damaged or cut off"
    return "it is damaged, or torch.save did not write it"


def read_epoch(path: Path) -> int:
    """The epoch a checkpoint stands at, without reading its weights. Raises DataError as load_checkpoint."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(values["epoch"])
    except Exception:  # load_checkpoint says what is wrong with it
        return load_checkpoint(path).epoch


def _load_exported(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            note = file.metadata() or {}
            if note.get("format") != EXPORT_FORMAT or note.get("version") != str(EXPORT_VERSION):
                raise DataError(f"{path} is not an encoder that this slicfast exported")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(config=json.loads(note["config"]), model=tensors)
    except FileNotFoundError:
        raise DataError(f"no checkpoint at {path}") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error})") from None


# What changes the function of a network and the shape of no weight.
UNSEEN_IN_WEIGHTS = ("max_pool", "conv1_temporal_stride")


def load_weights(encoder: VideoEncoder, state: dict[str, torch.Tensor], source: str | Path) -> None:
    """Fill an encoder. Raises RunError naming the first tensor that does not fit."""
    own = encoder.state_dict()
    if "projection.linear.weight" in state and "projection.linear.weight" not in own:
        raise RunError(f"{source} is a fine-tuned classifier without a projection; use the run it came from")
    for name, tensor in own.items():
        if name not in state:
            raise RunError(f"{source} is a checkpoint of another model: it has no '{name}'; check model.*")
        if state[name].shape != tensor.shape:
            raise RunError(
                f"{source} is a checkpoint of another model: '{name}' is {tuple(state[name].shape)} there and"
                f" {tuple(tensor.shape)} here; check model.*"
            )
    extra = next((name for name in state if name not in own), None)
    if extra is not None:
        raise RunError(f"{source} is a checkpoint of another model: it also has '{extra}'; check model.*")
    encoder.load_state_dict(state)


def new_encoder(config: Config) -> VideoEncoder:
    """A run's encoder before its first step: drawn anew, or with the weights that the configuration names.

    Raises ConfigError, DataError, RunError or MachineError for weights that are not there or do not fit.
    """
    encoder = build_encoder(config.model)
    if config.train.init_from is not None:
        start_from(encoder, config.model, config.train.init_from)
    elif config.model.image_weights is not None:
        assert isinstance(encoder.backbone, InflatedNet)  # the configuration saw to it
        encoder.backbone.load_image_weights(config.model.image_weights)
    return encoder


def start_from(encoder: VideoEncoder, model: ModelConfig, source: str | Path) -> None:
    """Give a new encoder the weights of a checkpoint; a file of a backbone alone leaves its projection new.

    Raises:
        DataError: no such checkpoint.
        RunError: it is of another network.
    """
    checkpoint = load_checkpoint(source)
    theirs = Config.from_dict(checkpoint.config, source=str(source)).model
    for key in UNSEEN_IN_WEIGHTS:
        there, here = getattr(theirs, key), getattr(model, key)
        if there != here:
            raise RunError(
                f"{source} is of a network with model.{key}={str(there).lower()}, this one has"
                f" {str(here).lower()}: the same weights would compute something else; set it alike"
            )
    state = checkpoint.weights()
    if not checkpoint.has_projection:
        new = {k: v for k, v in encoder.state_dict().items() if k.startswith("projection.")}
        state = {**new, **state}
    load_weights(encoder, state, source)


def weights_fingerprint(state: dict[str, torch.Tensor]) -> str:
    """16 hexadecimal digits that tell weights apart, wherever and in whichever format they lie."""
    digest = hashlib.sha256()
    for name in sorted(name for name, tensor in state.items() if tensor.is_floating_point()):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint meant by a file or by a run folder (its best where validated, else its last).

    Raises DataError where there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise DataError(f"no run or checkpoint at {path}")
    for candidate in (path / "checkpoints" / "best.pt", path / "checkpoints" / "last.pt"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{path} holds no checkpoint; expected a run folder that `slicfast train` wrote")


def load_model(path: str | Path, *, use_ema: bool = True) -> VideoEncoder:
    """The encoder of a run folder or checkpoint, in evaluation mode, on the CPU.

    Args:
        use_ema: with the averaged weights, where the run kept some (``ema.decay``).
    """
    file = find_checkpoint(path)
    return encoder_of(load_checkpoint(file), file, use_ema=use_ema).eval()


def encoder_of(checkpoint: Checkpoint, source: str | Path, *, use_ema: bool = True) -> VideoEncoder:
    """The network of a checkpoint; of an exported backbone, one whose projection says that it is missing."""
    encoder = build_encoder(Config.from_dict(checkpoint.config, source=str(source)).model)
    if not checkpoint.has_projection:
        encoder.projection = NoProjection()
    load_weights(encoder, checkpoint.weights(use_ema), source)
    return encoder
