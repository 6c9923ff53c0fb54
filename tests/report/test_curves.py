"""metrics.jsonl as curves: no point twice, means that are means, every figure on a panel."""

from __future__ import annotations

import numpy as np
import pytest

from slicfast.report.curves import MAX_POINTS, panels, steps_per_epoch, unbroken


def line(step: int, kind: str = "train", **values: object) -> dict[str, object]:
    return {"kind": kind, "step": step, **values}


def test_what_a_resumed_run_wrote_again_replaces_what_was() -> None:
    written = [line(4, loss=1.0), line(8, loss=2.0), line(12, loss=3.0), line(6, "cluster", nmi=0.1)]
    again = [line(8, loss=20.0), line(6, "cluster", nmi=0.2), line(12, loss=30.0)]
    (losses, agreement) = panels([*written, *again])
    assert losses.series[0].x == (4, 8, 12)
    assert losses.series[0].y == (1.0, 20.0, 30.0)
    assert agreement.series[0].y == (0.2,)


def test_a_run_that_went_back_further_drops_what_is_ahead() -> None:
    kept = unbroken([line(4, loss=1.0), line(8, loss=2.0), line(12, loss=3.0), line(6, loss=9.0)])
    assert [entry["step"] for entry in kept] == [4, 6]


def test_epochs_come_from_lines_between_two_epochs() -> None:
    entries = [line(5, epoch=0, loss=1.0), line(20, "retrieval", epoch=2, pooled_r1=0.5)]
    assert steps_per_epoch(entries) == 10
    losses, retrieval = panels(entries)
    assert (losses.series[0].x, retrieval.series[0].x) == ((0.5,), (2.0,))
    assert losses.x_label == "epoch"
    assert panels(entries[:1])[0].x_label == "step"


def test_long_curves_are_means_with_their_range() -> None:
    values = np.random.default_rng().normal(size=MAX_POINTS * 3).tolist()
    (panel,) = panels([line(step, loss=value) for step, value in enumerate(values)])
    (series,) = panel.series
    assert len(series.y) == MAX_POINTS
    assert np.allclose(series.y, np.reshape(values, (-1, 3)).mean(1))
    assert np.allclose(series.low, np.reshape(values, (-1, 3)).min(1))
    assert np.allclose(series.high, np.reshape(values, (-1, 3)).max(1))
    assert np.allclose(series.x, np.arange(len(values)).reshape(-1, 3).mean(1))


def test_every_figure_finds_a_panel_and_gaps_are_left_out() -> None:
    entries = [
        line(
            1, loss=2.0, triplet=1.5, temporal=0.5, lr=0.1, clips_per_second=9.0, wait_share=0.1, memory_mb=7
        )
        | {"peak_memory_mb": 8, "num_replaced": 0},
        line(2, loss=None, triplet=1.0, temporal=float("nan"), unheard_of_seconds=3.0, lr=0.1),
        line(2, "cluster", epoch=1, nmi=0.3, num_clusters=4, churn=0.5, partition_sizes=[4, 2]),
        line(2, "retrieval", epoch=1, pooled_r1=0.2, pooled_r5=0.4, projection_r1=0.1),
        line(2, "novelty", figure=1.0),
    ]
    found = {panel.key: panel for panel in panels(entries)}
    assert [series.name for series in found["loss"].series] == ["loss", "temporal", "triplet"]
    assert [len(series.y) for series in found["loss"].series] == [1, 1, 2]
    assert [series.name for series in found["retrieval"].series] == [
        "R@1 pooled",
        "R@1 projection",
        "R@5 pooled",
    ]
    keys = {"lr", "clips_per_second", "wait_share", "memory", "agreement", "num_clusters", "churn"}
    assert keys | {"loss", "retrieval", "novelty-figure", "train-unheard_of_seconds"} == set(found)
    assert [series.name for series in found["memory"].series] == ["in use", "peak"]


def test_one_term_is_not_drawn_twice() -> None:
    (panel,) = panels([line(1, loss=2.0, contrastive=2.0), line(2, loss=1.0, contrastive=1.0)])
    assert [series.name for series in panel.series] == ["loss (contrastive)"]


@pytest.mark.parametrize(
    ("values", "expected"), [((1.0, 30.0), True), ((1.0, 10.0), False), ((0.0, 30.0), False)]
)
def test_a_logarithmic_axis_is_offered_where_it_says_more(values: tuple[float, ...], expected: bool) -> None:
    (panel,) = panels([line(step, loss=value) for step, value in enumerate(values)])
    assert panel.wants_log is expected
