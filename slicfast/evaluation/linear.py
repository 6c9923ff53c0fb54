"""Linear classifiers on cached features in seconds: ridge regression in closed form, and logistic by L-BFGS.

How strongly to regularise is chosen on a held-out part of the training videos, never on the test videos;
the classifier is then fitted to all of the training videos.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Labels = npt.NDArray[np.integer]

# Of the penalty a / 2 * |W|^2 beside the mean loss of a video, features standardised.
RIDGE_PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 5))
LOGISTIC_PENALTIES = tuple(10.0**power for power in range(-5, 2))
HELD_OUT = 0.2
_GROUP = re.compile(r"_g(\d+)_c\d+")  # UCF101's names: clips of a group show the same people and place


@dataclass(frozen=True)
class LinearClassifier:
    """Scores = x W + b."""

    weight_DC: torch.Tensor
    bias_C: torch.Tensor

    def __call__(self, features_ND: torch.Tensor) -> torch.Tensor:
        return features_ND @ self.weight_DC + self.bias_C


Fit = Callable[[torch.Tensor, Labels, int, Sequence[float]], list[LinearClassifier]]


def ridge(
    features_ND: torch.Tensor, labels_N: Labels, num_classes: int, penalties: Sequence[float]
) -> list[LinearClassifier]:
    """Least squares on one-hot classes with an L2 penalty N * a, one classifier a penalty.

    One eigendecomposition, of the smaller of the two Gram matrices in float64, serves all penalties.
    """
    num, dims = features_ND.shape
    x_ND = features_ND.double()
    targets_NC = torch.nn.functional.one_hot(_tensor(labels_N, x_ND.device), num_classes).double()
    mean_D, mean_C = x_ND.mean(dim=0), targets_NC.mean(dim=0)
    x_ND, y_NC = x_ND - mean_D, targets_NC - mean_C
    wide = dims > num
    values, vectors = torch.linalg.eigh(x_ND @ x_ND.T if wide else x_ND.T @ x_ND)
    values = values.clamp(min=0)
    turned = vectors.T @ (y_NC if wide else x_ND.T @ y_NC)
    made = []
    for penalty in penalties:
        weight = vectors @ (turned / (values + num * penalty)[:, None])
        weight_DC = x_ND.T @ weight if wide else weight
        bias_C = mean_C - mean_D @ weight_DC
        made.append(LinearClassifier(weight_DC.to(features_ND.dtype), bias_C.to(features_ND.dtype)))
    return made


def logistic(
    features_ND: torch.Tensor, labels_N: Labels, num_classes: int, penalties: Sequence[float]
) -> list[LinearClassifier]:
    """Multinomial logistic regression: mean cross-entropy + a / 2 * |W|^2, one classifier a penalty.

    The penalties are solved from the strongest down, each from where the last one ended.
    """
    labels = _tensor(labels_N, features_ND.device)
    made: dict[float, LinearClassifier] = {}
    weight_DC = features_ND.new_zeros(features_ND.shape[1], num_classes, requires_grad=True)
    bias_C = features_ND.new_zeros(num_classes, requires_grad=True)
    for penalty in sorted(penalties, reverse=True):
        optimizer = torch.optim.LBFGS(
            [weight_DC, bias_C],
            max_iter=200,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(features_ND @ weight_DC + bias_C, labels)
            value = value + 0.5 * penalty * weight_DC.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        made[penalty] = LinearClassifier(weight_DC.detach().clone(), bias_C.detach().clone())
    return [made[penalty] for penalty in penalties]


def fit_chosen(
    fit: Fit,
    features_ND: torch.Tensor,
    labels_N: Labels,
    num_classes: int,
    penalties: Sequence[float],
    held_out_N: npt.NDArray[np.bool_],
) -> tuple[LinearClassifier, float]:
    """The classifier of the penalty that does best on the held-out videos, fitted to all videos.

    Of equals the strongest penalty is taken; without a held-out video the middle one of the list.
    """
    ordered = sorted(penalties, reverse=True)
    chosen = ordered[len(ordered) // 2]
    if held_out_N.any():
        held_out = torch.from_numpy(held_out_N).to(features_ND.device)
        tried = fit(features_ND[~held_out], labels_N[~held_out_N], num_classes, ordered)
        truth = _tensor(labels_N[held_out_N], features_ND.device)
        right = [int((one(features_ND[held_out]).argmax(dim=1) == truth).sum()) for one in tried]
        chosen = ordered[right.index(max(right))]
    (classifier,) = fit(features_ND, labels_N, num_classes, [chosen])
    return classifier, chosen


def held_out_part(
    ids: Sequence[str], labels_N: Labels, seed: int, share: float = HELD_OUT
) -> tuple[npt.NDArray[np.bool_], str]:
    """(N,) which training videos are held out, about a fifth, and how they were chosen.

    By group where the ids tell groups (UCF101's _gXX_cYY), since clips of a group are almost copies of each
    other; else by class. A class is never held out whole.
    """
    rng = np.random.default_rng(seed)
    found = [_GROUP.search(video_id) for video_id in ids]
    held_N = np.zeros(len(ids), dtype=bool)
    groups_N = np.array([int(match[1]) if match else -1 for match in found])
    groups = np.unique(groups_N)
    by_group = len(ids) > 0 and groups[0] >= 0 and len(groups) > 1
    if by_group:
        num = min(max(1, round(share * len(groups))), len(groups) - 1)
        held_N = np.isin(groups_N, rng.permutation(groups)[:num])
    for label in np.unique(labels_N):
        of_class = np.flatnonzero(labels_N == label)
        if not by_group:
            held_N[rng.permutation(of_class)[: int(share * len(of_class))]] = True
        elif held_N[of_class].all():
            held_N[of_class] = False
    return held_N, "by group" if by_group else "by class"


@dataclass(frozen=True)
class Standardisation:
    """(x - mean) * scale: mean 0 and deviation 1 on the training features; constant features become 0."""

    mean_D: torch.Tensor
    scale_D: torch.Tensor

    @classmethod
    def of(cls, train_ND: torch.Tensor) -> Standardisation:
        mean_D, std_D = train_ND.mean(dim=0), train_ND.std(dim=0, correction=0)
        scale_D = torch.where(std_D > 1e-6 * std_D.max(), 1.0 / std_D, torch.zeros_like(std_D))
        return cls(mean_D, scale_D)

    def __call__(self, features_ND: torch.Tensor) -> torch.Tensor:
        return (features_ND - self.mean_D) * self.scale_D

    def before(self, classifier: LinearClassifier) -> LinearClassifier:
        """The classifier that gives the same scores of features that are not standardised."""
        weight_DC = self.scale_D[:, None] * classifier.weight_DC
        return LinearClassifier(weight_DC, classifier.bias_C - self.mean_D @ weight_DC)


def _tensor(labels_N: Labels, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(labels_N, dtype=np.int64)).to(device)
