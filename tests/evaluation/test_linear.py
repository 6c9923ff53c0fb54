"""Linear classifiers against scikit-learn's, and who is held out to choose between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from slicfast.config import Config
from slicfast.evaluation.features import Windows
from slicfast.evaluation.linear import Standardisation, fit_chosen, held_out_part, logistic, ridge
from slicfast.evaluation.probe import recipe, train_probe


def clouds(num: int, dims: int, num_classes: int, spread: float) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng()
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num - num_classes)])
    centres = rng.normal(size=(num_classes, dims))
    return torch.tensor(centres[labels] + spread * rng.normal(size=(num, dims)) + 3), labels


@pytest.mark.parametrize("dims", [8, 90])
def test_ridge_is_scikit_learns(dims):
    features, labels = clouds(60, dims, 4, 1.0)
    for penalty, mine in zip((1e-3, 0.5), ridge(features, labels, 4, (1e-3, 0.5)), strict=True):
        theirs = Ridge(alpha=60 * penalty, solver="svd").fit(features.numpy(), np.eye(4)[labels])
        np.testing.assert_allclose(mine.weight_DC.numpy(), theirs.coef_.T, atol=1e-8)
        np.testing.assert_allclose(mine.bias_C.numpy(), theirs.intercept_, atol=1e-8)


def test_logistic_regression_is_scikit_learns():
    features, labels = clouds(120, 6, 3, 1.5)
    penalties = (1e-2, 1.0)
    for penalty, mine in zip(penalties, logistic(features, labels, 3, penalties), strict=True):
        theirs = LogisticRegression(C=1 / (120 * penalty), tol=1e-9, max_iter=2000)
        theirs.fit(features.numpy(), labels)
        scores = mine(features).softmax(dim=1).numpy()
        np.testing.assert_allclose(scores, theirs.predict_proba(features.numpy()), atol=2e-3)


def test_the_penalty_is_chosen_on_held_out_videos_and_the_fit_uses_all():
    features, labels = clouds(80, 30, 4, 3.0)
    held_out = np.random.default_rng().random(80) < 0.25
    penalties = (1e-6, 1e-2, 1.0, 100.0)
    classifier, chosen = fit_chosen(ridge, features, labels, 4, penalties, held_out)
    right = {
        penalty: int((one(features[held_out]).argmax(dim=1).numpy() == labels[held_out]).sum())
        for penalty, one in zip(
            penalties, ridge(features[~held_out], labels[~held_out], 4, penalties), strict=True
        )
    }
    assert chosen == max(penalty for penalty in penalties if right[penalty] == max(right.values()))
    torch.testing.assert_close(classifier.weight_DC, ridge(features, labels, 4, [chosen])[0].weight_DC)


def test_whole_groups_are_held_out_where_names_tell_groups():
    ids = [f"A/v_A_g{group:02d}_c{clip:02d}.avi" for group in range(8, 18) for clip in range(3)]
    held, how = held_out_part(ids, np.zeros(30, int), seed=1)
    assert how == "by group"
    assert held.reshape(10, 3).all(axis=1).sum() == held.reshape(10, 3).any(axis=1).sum() == 2
    assert (held == held_out_part(ids, np.zeros(30, int), seed=1)[0]).all()


def test_a_class_is_never_held_out_whole():
    ids = [f"v_{name}_g{group:02d}_c01.avi" for name in "ab" for group in range(5)] + ["v_c_g00_c01.avi"]
    labels = np.array([0] * 5 + [1] * 5 + [2])
    for seed in range(40):
        held, _ = held_out_part(ids, labels, seed)
        assert all((~held[labels == label]).any() for label in range(3))
    plain, how = held_out_part([f"{n}.mp4" for n in range(11)], labels, 0)
    assert how == "by class"
    assert np.bincount(labels[plain], minlength=3).tolist() == [1, 1, 0]


def test_standardisation_folds_into_a_classifier():
    features, labels = clouds(40, 5, 3, 1.0)
    features[:, 2] = 7.0  # a constant feature
    standardise = Standardisation.of(features)
    scaled = standardise(features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(5, dtype=torch.float64))
    (classifier,) = ridge(scaled, labels, 3, [0.1])
    torch.testing.assert_close(standardise.before(classifier)(features), classifier(scaled))


def test_the_probe_learns_from_any_window_of_a_video_and_repeats_itself():
    features, labels = clouds(40, 12, 3, 0.3)
    counts = np.random.default_rng().integers(1, 5, 40)
    windows = Windows(
        torch.repeat_interleave(features.float(), torch.from_numpy(counts), dim=0),
        np.concatenate([[0], np.cumsum(counts)]),
    )
    config = recipe(Config.load(None, ["probe.epochs=20", "probe.batch_size=8", "probe.lr=0.02"]))
    assert (config.optim.name, config.train.epochs) == ("adam", 20)
    first, second = (train_probe(windows, labels, 3, config, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first.weight_DC, second.weight_DC)
    assert (first(features.float()).argmax(dim=1).numpy() == labels).mean() > 0.9
