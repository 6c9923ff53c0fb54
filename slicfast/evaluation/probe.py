"""CoCLR's linear probe (Han, Xie, Zisserman, NeurIPS 2020): a linear layer trained on frozen features by SGD.

The recipe is `config.probe`: Adam, dropout 0.9, lr / 10 twice. Training clips are cached windows, centre
crop without augmentation, one random window of each video an epoch; features are standardised, which takes
the place of the batch normalisation before the published probe. The test is CoCLR's ten crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config, OptimConfig
from slicfast.engine.embedding import Extractor
from slicfast.engine.optimization import build_optimizer, learning_rate, set_learning_rate
from slicfast.evaluation.classification import accuracy
from slicfast.evaluation.features import Features, Windows
from slicfast.evaluation.linear import LinearClassifier, Standardisation
from slicfast.models.heads import ClassHead
from slicfast.progress import track


def recipe(config: Config) -> Config:
    """The configuration with the supervised recipe of ``config.probe`` in the place of SLIC's."""
    probe = config.probe
    optim = OptimConfig(name="adam", lr=probe.lr, weight_decay=probe.weight_decay, schedule="steps")
    train = {"epochs": probe.epochs, "batch_size": probe.batch_size}
    return config.model_copy(update={"optim": optim, "train": config.train.model_copy(update=train)})


def linear_probe(features: Features) -> dict[str, Any]:
    """Train on the gallery's windows, test on the query videos' ten crops; Accuracy of pooled features."""
    subject = features.subject
    classifier = train_probe(
        features.training_windows,
        subject.gallery_labels,
        len(subject.classes),
        recipe(subject.config),
        subject.device,
    )
    encoder = subject.encoder()

    def pooled(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        return classifier(encoder.forward_features(clips_NCTHW).float())

    scores = features.ten_crop_mean(softmax_extractor(pooled, subject.device, subject.autocast))
    return {**accuracy(scores["probability"], subject.query_labels), "epochs": subject.config.probe.epochs}


def softmax_extractor(
    classify: Callable[[torch.Tensor], torch.Tensor], device: torch.device, autocast: torch.dtype | None
) -> Extractor:
    """Class probabilities of a clip by a function from clips to logits, to be averaged over clips."""

    def extract(clips_NCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            logits_NC = classify(clips_NCTHW)
        return {"probability": logits_NC.float().softmax(dim=1)}

    return extract


def train_probe(
    windows: Windows,
    labels_V: npt.NDArray[np.integer],
    num_classes: int,
    config: Config,
    device: torch.device,
) -> LinearClassifier:
    """A classifier of pooled features; the same for the same features and seed (on a CPU).

    Args:
        config: with optimizer, schedule, epochs and batch size as `recipe` makes them.
    """
    features_MD = windows.features_MD.to(device)
    standardise = Standardisation.of(features_MD)
    scaled_MD = standardise(features_MD)
    count_V = np.diff(windows.first_V)
    rng = np.random.default_rng(config.seed)
    size, epochs = config.train.batch_size, config.train.epochs
    steps = -(-len(labels_V) // size)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        track("Training the probe", epochs, unit="epochs") as bar,
    ):
        torch.manual_seed(config.seed)
        head = ClassHead(scaled_MD.shape[1], num_classes, config.probe.dropout).to(device)
        optimizer = build_optimizer(head, config.optim)
        for epoch in range(epochs):
            set_learning_rate(optimizer, learning_rate(epoch * steps, steps, config.optim, config.train))
            order_V = rng.permutation(len(labels_V))
            pick_V = windows.first_V[order_V] + (rng.random(len(order_V)) * count_V[order_V]).astype(np.int64)
            pick = torch.from_numpy(pick_V).to(device)
            truth = torch.from_numpy(np.asarray(labels_V, dtype=np.int64)[order_V]).to(device)
            for start in range(0, len(order_V), size):
                logits_BC = head(scaled_MD[pick[start : start + size]])
                loss = torch.nn.functional.cross_entropy(logits_BC, truth[start : start + size])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            bar.update(epoch + 1)
    return standardise.before(LinearClassifier(head.linear.weight.detach().T, head.linear.bias.detach()))
