"""Figures for papers: what is drawn is what was found, files are whole and the same again, gaps are named."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import matplotlib.image
import numpy as np
import pytest

from slicfast.data.store import ClipStore
from slicfast.errors import ConfigError, DataError
from slicfast.report.curves import Panel, Series
from slicfast.report.heatmap import similarity_over_time
from slicfast.report.paper import (
    class_figure,
    cluster_figure,
    confusion_figure,
    curve_figure,
    map_figure,
    recall_figure,
    write_figures,
)
from slicfast.report.view import embed, open_run


@pytest.fixture(scope="module")
def view(finished_run):
    opened = open_run(finished_run)
    embed(opened)
    return opened


def test_every_figure_is_written_as_png_and_pdf_and_the_same_again(finished_run, tmp_path):
    report = write_figures(finished_run, tmp_path / "one")
    assert report.missing == {}
    names = {path.stem for path in report.written}
    assert {"curve-loss", "cluster-sizes", "map", "confusion", "recall", "recall-by-class"} <= names
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        f"{name}{suffix}" for name in names for suffix in (".png", ".pdf")
    )
    write_figures(finished_run, tmp_path / "two")
    for path in report.written:
        content = path.read_bytes()
        assert content == (tmp_path / "two" / path.name).read_bytes(), path.name
        assert content.startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
    picture = matplotlib.image.imread(tmp_path / "one" / "curve-loss.png")
    assert picture.shape[1] == pytest.approx(3.3 * 300, abs=1)
    assert 0.01 < (picture[..., :3] < 0.9).any(axis=2).mean() < 0.5  # something is drawn, most is paper


def test_a_curve_shows_its_points_in_per_cent_where_they_are_shares():
    rng = np.random.default_rng()
    y = tuple(rng.random(5).tolist())
    low, high = tuple(v - 0.01 for v in y), tuple(v + 0.01 for v in y)
    series = (
        Series("a", (0, 1, 2, 3, 4), y, low, high),
        Series("b", (0, 1, 2, 3, 4), y[::-1], y[::-1], y[::-1]),
    )
    (axes,) = curve_figure(Panel("p", "Panel", series, "epoch", "%"), 3.3).axes
    first, second = axes.get_lines()
    np.testing.assert_allclose(first.get_ydata(), 100 * np.array(y))
    np.testing.assert_allclose(second.get_ydata(), 100 * np.array(y[::-1]))
    assert first.get_linestyle() != second.get_linestyle()
    assert len(axes.collections) == 1  # the range of the averaged one
    assert axes.get_ylabel() == "Panel (%)"


def test_a_colour_taken_again_has_another_dash():
    many = tuple(Series(str(n), (0, 1), (n, n), (n, n), (n, n)) for n in range(30))
    (axes,) = curve_figure(Panel("p", "Panel", many, "epoch"), 3.3).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == len(many)


def test_recall_is_drawn_with_its_intervals(finished_run):
    document = json.loads((finished_run / "evaluation.json").read_text())
    (axes,) = recall_figure(document, 3.3).axes
    handles, labels = axes.get_legend_handles_labels()
    at = labels.index("trained, pooled, IIC's protocol")
    row = document["retrieval"]["iic"]["trained_pooled"]["recall"]
    line, _, (bars,) = handles[at].lines
    np.testing.assert_allclose(line.get_ydata(), [100 * figure["value"] for figure in row.values()])
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, [[100 * f["low"], 100 * f["high"]] for f in row.values()])
    assert labels.count("chance") == 1


def test_the_map_has_every_video_and_the_matrix_every_query(view):
    (axes,) = map_figure(view, 3.3).axes
    assert sum(len(c.get_offsets()) for c in axes.collections) == len(view.embedded.rows_V)
    matrix = confusion_figure(view, 3.3).axes[0].images[0].get_array()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    rates = [bar.get_width() for bar in class_figure(view, 3.3).axes[0].patches]
    assert rates == sorted(rates, reverse=True)
    np.testing.assert_allclose(sorted(rates), sorted(100 * np.diag(matrix)))
    heights = [bar.get_height() for bar in cluster_figure(view, 3.3).axes[0].patches]
    assert sum(heights) == len(np.unique(view.assignment.labels))


def test_the_heat_map_is_the_cosine_of_windows(view, finished_run):
    ids = view.store.ids()
    found = similarity_over_time(view, (ids[0], ids[0]), hop=3)
    windows = found.first.features_WD
    frames = int(view.store.num_frames[0])
    assert len(windows) == (frames - 4) // 3 + 1
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in windows] for a in windows]
    np.testing.assert_allclose(found.cosine_WW, expected, atol=1e-5)
    np.testing.assert_allclose(np.diag(found.cosine_WW), 1, atol=1e-5)
    assert found.first.end_s <= frames / float(view.store.fps[0]) + 1e-6


def test_files_are_compared_as_videos_of_the_store_are(view, tmp_path):
    store, ids = view.store, view.store.ids()
    frames = store.frames(1, np.arange(int(store.num_frames[1])))
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:  # the stored pictures themselves, in a file
        stream = container.add_stream("mjpeg", rate=round(float(store.fps[1])))
        stream.width, stream.height, stream.pix_fmt = int(store.width[1]), int(store.height[1]), "yuvj420p"
        for number, jpeg in enumerate(frames):
            packet = av.Packet(jpeg.tobytes())
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = Fraction(1, round(float(store.fps[1])))
            container.mux(packet)
    found = similarity_over_time(view, (str(path), ids[1]), hop=2)
    assert found.cosine_WW.shape[0] >= found.cosine_WW.shape[1] - 1
    size = min(found.cosine_WW.shape)
    assert np.diag(found.cosine_WW)[:size].min() > 0.98


def test_what_is_missing_is_named_and_the_rest_is_drawn(run_copy, tmp_path):
    run = run_copy("checkpoints", "assignments", "evaluation.json")
    report = write_figures(run, tmp_path / "out")
    assert set(report.missing) == {"cluster-sizes", "map", "confusion", "recall", "recall-by-class"}
    assert "has not clustered" in report.missing["cluster-sizes"]
    assert any(path.stem == "curve-loss" for path in report.written)


@pytest.mark.parametrize(("pair", "hop"), [(("nowhere.mp4", "x"), None), (("x", "y"), 0)])
def test_a_pair_that_cannot_be_is_refused_in_a_line(view, pair, hop):
    with pytest.raises((DataError, ConfigError)) as caught:
        similarity_over_time(view, pair, hop)
    assert "\n" not in str(caught.value)


def test_widths_that_are_none_are_refused(finished_run, tmp_path):
    with pytest.raises(ConfigError, match="wider than half an inch"):
        write_figures(finished_run, tmp_path, width_in=0.1)
    assert ClipStore(open_run(finished_run).config.data.store).ids()
    assert not list(tmp_path.iterdir())
