"""The page of a run, whole and with things missing: self-contained, the same again, and safe to open."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_data import encode_pictures, record_of, smooth_video

from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreSettings, StoreWriter
from slicfast.errors import ConfigError, DataError
from slicfast.report.page import write_report

SECTIONS = ("results", "curves", "clusters", "neighbours", "map", "classes", "configuration", "machine")


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def cell(value: float, low: float, high: float) -> str:
    interval = f'<span class="interval">{100 * low:.1f}–{100 * high:.1f}</span>' if low < high else ""
    return f"<td>{100 * value:.1f}\N{NO-BREAK SPACE}%{interval}</td>"


def test_a_finished_run_gives_a_whole_page_the_same_again(finished_run: Path, tmp_path: Path) -> None:
    page = write_report(finished_run, tmp_path / "a.html").read_text()
    assert sections(page) == list(SECTIONS)
    assert "finished: 2 epochs" in page
    assert 'class="problems"' not in page
    assert page == write_report(finished_run, tmp_path / "b.html").read_text()
    assert not (finished_run / "report.html").exists()
    text = html.unescape(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    document = json.loads((finished_run / "evaluation.json").read_text())
    for kind, name in document["row_names"].items():
        recall = document["retrieval"]["coclr"][kind]["recall"]
        cells = "".join(cell(**figure) for figure in recall.values())
        assert f'<th scope="row">{name}</th>{cells}' in text
    assert "Few-shot neighbours" in text
    assert text.count('class="query card"') == 4
    assert re.search(r'class="changed"><dt>epochs</dt><dd>2 <span class="default">default 600', text)


def test_everything_is_inside_and_nothing_else_may_run(finished_run: Path, tmp_path: Path) -> None:
    page = write_report(finished_run, tmp_path / "page.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    assert "@import" not in page and ' style="' not in page and not re.search(r"<[^>]* on\w+=", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")
    styles = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert (len(styles), len(scripts)) == (2, 1)
    for text in (*styles, *scripts):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"sha256-{digest}" in html.unescape(policy)


def test_what_is_missing_is_said_on_the_page(run_copy: Callable[..., Path]) -> None:
    run = run_copy("checkpoints", "assignments", "evaluation.json")
    page = write_report(run).read_text()
    assert sections(page) == ["curves", "configuration", "machine"]
    assert "No network:" in page
    metrics = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(metrics[:3]) + '{"kind": "tra')  # killed while it wrote
    assert re.search(r"unfinished: epoch \d of 2", write_report(run).read_text())
    (run / "metrics.jsonl").unlink()
    page = write_report(run).read_text()
    assert sections(page) == ["configuration", "machine"]
    assert "nothing logged yet" in page


def test_a_store_that_moved_leaves_curves_and_clusters(run_copy: Callable[..., Path]) -> None:
    page = write_report(run_copy(), overrides=["data.store=gone"]).read_text()
    assert sections(page) == ["results", "curves", "clusters", "configuration", "machine"]
    assert "Name the store with --set data.store=PATH" in page


def test_results_are_measured_where_no_evaluation_was(run_copy: Callable[..., Path]) -> None:
    page = write_report(run_copy("evaluation.json"), max_videos=6).read_text()
    assert "measured for this page" in page
    assert "frame differences" in page
    assert "6 more videos were left out" in page


def test_skipping_the_network_is_quick_and_keeps_the_rest(run_copy: Callable[..., Path]) -> None:
    page = write_report(run_copy(), skip_embedding=True).read_text()
    assert sections(page) == ["results", "curves", "clusters", "configuration", "machine"]


HOSTILE = '</script><img src=x onerror="alert(1)">'


@pytest.mark.parametrize("label", [HOSTILE, None], ids=["hostile", "unlabelled"])
def test_names_stay_text_and_classes_may_be_missing(
    label: str | None, run_copy: Callable[..., Path], tmp_path: Path
) -> None:
    """Another store under the same run, whose videos have an awkward class, or none."""
    generator = np.random.default_rng(3)
    ids = [f"{number} & <b>.avi" for number in range(6)]
    with StoreWriter(tmp_path / "store", StoreSettings(short_side=32)) as writer:
        for video_id in ids:
            pictures = encode_pictures(smooth_video(generator, 20, 40, 32))
            writer.add(record_of(video_id, label, pictures, 40, 32), b"".join(pictures))
        writer.finish(dict.fromkeys(ids, label), {"train": ids})
    assert len(ClipStore(tmp_path / "store")) == 6
    run = run_copy("evaluation.json")
    (run / "assignments" / "epoch-0009.tsv").write_text(
        "".join(f"{v}\t{i // 3}\n" for i, v in enumerate(ids))
    )
    page = write_report(
        run, overrides=[f"data.store={tmp_path / 'store'}", "eval.query_split=null"]
    ).read_text()
    assert HOSTILE not in page
    assert ("classes" in sections(page)) == (label is not None)
    assert {"clusters", "neighbours", "map"} <= set(sections(page))
    points = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["points"]
    assert {point[1] for point in points} == {label}
    assert "0 &amp; &lt;b&gt;.avi" in page
    if label is None:
        assert 'class="mark"' not in page and 'id="query-class"' not in page


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), DataError, "holds no config.yaml"),
        (lambda run: (run / "evaluation.json").write_text("{"), None, "cannot be read as an evaluation"),
        (
            lambda run: (run / "assignments/epoch-0001.tsv").write_text("a\tx\n"),
            DataError,
            "is not an assignment",
        ),
    ],
)
def test_damage_is_one_line(
    break_it: Callable[[Path], object],
    error: type[Exception] | None,
    message: str,
    run_copy: Callable[..., Path],
) -> None:
    run = run_copy()
    break_it(run)
    if error is None:
        assert message in write_report(run, skip_embedding=True).read_text()
        return
    with pytest.raises(error, match=message):
        write_report(run, skip_embedding=True)


def test_a_split_that_is_not_there_is_an_error(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split must be one of test, train; got 'tset'"):
        write_report(finished_run, tmp_path / "page.html", query="tset")
