"""The configuration of a run: typed, read from YAML, overridden by dotted keys, saved whole with the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from slicfast.errors import ConfigError
from slicfast.overrides import apply_override, dotted_keys, explain, read_yaml
from slicfast.sections import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_DISTANCE,
    MIN_SAMPLES,
    AugmentConfig,
    ClusterConfig,
    DataConfig,
    EmaConfig,
    EvalConfig,
    FlowConfig,
    LoggingConfig,
    LossConfig,
    ModelConfig,
    MotionConfig,
    NonNegativeInt,
    OptimConfig,
    ProbeConfig,
    SamplingConfig,
    Section,
    TrainConfig,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_DISTANCE",
    "MIN_SAMPLES",
    "AugmentConfig",
    "ClusterConfig",
    "Config",
    "DataConfig",
    "EmaConfig",
    "EvalConfig",
    "FlowConfig",
    "LoggingConfig",
    "LossConfig",
    "ModelConfig",
    "MotionConfig",
    "OptimConfig",
    "ProbeConfig",
    "SamplingConfig",
    "Section",
    "TrainConfig",
    "all_keys",
]


class Config(Section):
    seed: NonNegativeInt = 0
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    motion: MotionConfig = MotionConfig()
    flow: FlowConfig = FlowConfig()
    sampling: SamplingConfig = SamplingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    cluster: ClusterConfig = ClusterConfig()
    eval: EvalConfig = EvalConfig()
    train: TrainConfig = TrainConfig()
    ema: EmaConfig = EmaConfig()
    logging: LoggingConfig = LoggingConfig()
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.train.batch_size % self.train.accumulation_steps:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is not a multiple of"
                f" train.accumulation_steps {self.train.accumulation_steps}"
            )
        if self.loss.intra_negative_weight and self.data.clip_length < 3:
            raise ValueError(
                "loss.intra_negative_weight needs clips of at least 3 frames, whose order can be shuffled"
            )
        if self.model.image_weights is not None and not self.model.name.startswith("inflated:"):
            raise ValueError("model.image_weights is for model.name=inflated:NAME")
        if self.flow.faithful and self.motion.components == "both":
            raise ValueError("flow.faithful is about horizontal flow; set motion.components to horizontal")
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "configuration") -> Config:
        """Validate nested plain values. Raises ConfigError with one line that names the key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error, Config)}") from None

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a YAML file (None: all defaults) and apply overrides such as ``optim.lr=0.05``.

        Raises ConfigError for an unreadable file, an unknown key (naming the nearest) or a bad value.
        """
        values = read_yaml(Path(path)) if path is not None else {}
        for override in overrides:
            apply_override(values, override)
        source = "configuration" if path is None else f"{path}{' with overrides' if overrides else ''}"
        return cls.from_dict(values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def all_keys() -> list[str]:
    """Every dotted key, in the order of the file."""
    return dotted_keys(Config)
