"""Prepare: what is stored, what a second run does, what kills, full disks and changed catalogs lead to."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_data import numbered_video, smooth_video, write_video

from slicfast.data.catalog import Catalog, Video, read_catalog
from slicfast.data.prepare import PrepareReport, StoreSettings, estimate, prepare
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import ConfigError, DataError

SMALL = StoreSettings(short_side=24)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good videos in two classes; read-only."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(10):
        video_THWC = smooth_video(np.random.default_rng(number), 8 + number, 64, 48)
        write_video(root / ("walk", "run")[number % 2] / f"{number}.avi", video_THWC)
    return root


@pytest.fixture
def videos(plain_videos: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(plain_videos, tmp_path / "videos"))


def contents(store: Path) -> dict[str, tuple[str | None, list[bytes]]]:
    """Label and pictures of every stored video."""
    opened = ClipStore(store)
    names = (*opened.label_names, None)
    return {
        opened.id(row): (
            names[opened.label_ids[row]],
            [frame.tobytes() for frame in opened.frames(row, range(int(opened.num_frames[row])))],
        )
        for row in range(len(opened))
    }


def run(videos: Path, store: Path, **options: object) -> PrepareReport:
    return prepare(read_catalog(videos), store, SMALL, **{"workers": 1, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unbroken(plain_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("unbroken") / "store"
    run(plain_videos, store)
    return store


def test_videos_become_a_store(videos: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, int, str]] = []
    report = run(videos, tmp_path / "store", workers=2, progress=lambda *state: calls.append(state))
    store = ClipStore(tmp_path / "store")
    assert store.ids() == [video.id for video in read_catalog(videos).videos]
    assert store.label_names == ("run", "walk") and len(store.split("train")) == 10
    for row, video_id in enumerate(store.ids()):
        assert store.num_frames[row] == 8 + int(video_id[-5])
        assert video_id.startswith(store.label_names[store.label_ids[row]])
    assert (report.num_done, report.num_kept, report.num_already, report.num_left_out) == (10, 10, 0, 0)
    assert report.num_frames == store.num_frames.sum()
    assert report.seconds_of_video == pytest.approx(report.num_frames / 25)
    assert calls[0] == (0, 10, 0, "") and calls[-1][:3] == (10, 10, 10)
    assert not (tmp_path / "store/tmp").exists()


def test_second_run_does_nothing_again(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "store", limit=4)
    assert {video_id[0] for video_id in contents(tmp_path / "store")} == {"r", "w"}  # every class has a share
    report = run(videos, tmp_path / "store")
    assert (report.num_done, report.num_already, report.num_kept) == (6, 4, 10)
    before = contents(tmp_path / "store")
    report = run(videos, tmp_path / "store")
    assert (report.num_done, report.num_already, report.num_kept) == (0, 10, 10)
    assert contents(tmp_path / "store") == before


def test_label_alone_changed_needs_no_decoding(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(videos, tmp_path / "store")
    before = contents(tmp_path / "store")
    catalog = read_catalog(videos)
    relabelled = [
        Video(video.id, video.path, "crawl" if number < 2 else video.label)
        for number, video in enumerate(catalog.videos)
    ]
    new = Catalog(catalog.root, tuple(relabelled[:-1]), {"test": (relabelled[0].id,)}, (), "folder")
    with caplog.at_level(logging.WARNING, "slicfast"):
        report = prepare(new, tmp_path / "store", SMALL, workers=1)
    assert (report.num_done, report.num_relabelled, report.num_kept) == (0, 2, 9)
    assert report.not_in_catalog == (catalog.videos[-1].id,)
    assert (
        "videos with another label: 2; stored videos that the catalog no longer has, kept: 1" in caplog.text
    )
    after = contents(tmp_path / "store")
    assert {key: value[1] for key, value in after.items()} == {key: value[1] for key, value in before.items()}
    assert [label for label, _ in after.values()].count("crawl") == 2
    store = ClipStore(tmp_path / "store")
    assert store.splits == ("test", "train") and store.ids(store.split("test")) == [relabelled[0].id]


def test_changed_file_is_done_again_and_a_copied_one_is_not(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "store")
    write_video(videos / "run/1.avi", numbered_video(33))
    os.utime(videos / "run/3.avi", (1, 1))
    report = run(videos, tmp_path / "store")
    assert report.changed == ("run/1.avi",) and report.num_done == 1
    assert len(contents(tmp_path / "store")["run/1.avi"][1]) == 33
    (videos / "run/1.avi").write_text("now it is no video")
    report = run(videos, tmp_path / "store")
    assert "run/1.avi" in report.left_out and "run/1.avi" not in contents(tmp_path / "store")
    (videos / "run/5.avi").unlink()
    report = run(videos, tmp_path / "store")  # a video whose file is gone stays
    assert report.num_done == 0 and "run/5.avi" in contents(tmp_path / "store")


def test_left_out_videos_are_named_and_not_tried_again(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (videos / "run/bad.avi").write_text("no video")
    (videos / "run/empty name.avi").touch()
    with caplog.at_level(logging.WARNING, "slicfast"):
        report = run(videos, tmp_path / "store")
    assert report.left_out["run/empty name.avi"] == "empty file"
    assert "Invalid data" in report.left_out["run/bad.avi"] and report.num_left_out == 2
    assert (report.num_done, report.num_kept) == (11, 10)
    assert caplog.text.count("left out run/bad.avi: FFmpeg cannot read it") == 1
    lines = (tmp_path / "store/left_out.tsv").read_text().splitlines()
    assert len(lines) == 3 and lines[2].startswith("run/empty name.avi\tempty file\t")
    caplog.clear()
    report = run(videos, tmp_path / "store")
    assert report.num_done == 0 and report.num_left_out == 2
    assert "left out" not in caplog.text
    assert run(videos, tmp_path / "store", retry=True).num_done == 1
    write_video(videos / "run/bad.avi", numbered_video(9))
    report = run(videos, tmp_path / "store")
    assert report.num_done == 1 and list(report.left_out) == ["run/empty name.avi"]
    assert len(contents(tmp_path / "store")["run/bad.avi"][1]) == 9


def test_nothing_usable_is_an_error_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.avi").write_text("no video")
    with pytest.raises(DataError, match=r"none of the 1 videos can be used; 'a\.avi': FFmpeg cannot read it"):
        prepare(read_catalog(tmp_path / "videos"), tmp_path / "store", SMALL)
    write_video(tmp_path / "videos/a.avi", numbered_video(3))
    other = StoreSettings(short_side=16)  # nothing was stored, so the settings are still free
    assert prepare(read_catalog(tmp_path / "videos"), tmp_path / "store", other).num_kept == 1


def test_bad_arguments(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers must be 0"):
        run(videos, tmp_path / "store", workers=-1)
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        run(videos, tmp_path / "store", limit=0)
    with pytest.raises(ConfigError, match="short_side must be at least 8"):
        StoreSettings(short_side=1)
    assert not (tmp_path / "store").exists()


def test_segments_of_one_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.avi", numbered_video(100))
    segments = [(0.0, 1.0), (1.0, 1.4), (3.0, 9.0), (8.0, 9.0)]
    videos = tuple(Video(f"long.avi#{start:g}-{end:g}", path, "a", start, end) for start, end in segments)
    catalog = Catalog(tmp_path, videos, {"train": tuple(video.id for video in videos)}, (), "list")
    report = prepare(catalog, tmp_path / "store", SMALL, workers=1)
    lengths = {video_id: len(pictures) for video_id, (_, pictures) in contents(tmp_path / "store").items()}
    assert lengths == {"long.avi#0-1": 25, "long.avi#1-1.4": 10, "long.avi#3-9": 25}
    assert "no picture between 8 s and 9 s" in report.left_out["long.avi#8-9"]


START = (
    "import resource, sys, time; sys.path.insert(0, 'tests')\n"
    "from pathlib import Path; from slicfast.data.catalog import read_catalog\n"
    "from slicfast.data.prepare import StoreSettings, prepare\n"
    "from slicfast.errors import SlicfastError\n"
    "def show(done, total, kept, name):\n"
    "    print(done, flush=True)\n"
    "    if done == 5: time.sleep(1)\n"  # time to be stopped in the middle
    "limit = int(sys.argv[3])\n"
    "if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
    "try:\n"
    "    settings = StoreSettings(short_side=24)\n"
    "    prepare(read_catalog(sys.argv[1]), sys.argv[2], settings, workers=2, progress=show)\n"
    "except SlicfastError as error:\n"
    "    sys.exit(f'{type(error).__name__}: {error}')\n"
)


def start(videos: Path, store: Path, file_bytes: int = 0) -> subprocess.Popen[str]:
    """Prepare in another process that prints how many videos are done."""
    command = [sys.executable, "-c", START, str(videos), str(store), str(file_bytes)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, process_group=0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_prepare_goes_on_where_it_was(
    videos: Path, unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    store = tmp_path / "store"
    with start(videos, store) as process:
        assert process.stdout is not None and process.stderr is not None
        while int(process.stdout.readline()) < 5:
            pass
        process.send_signal(number)
        if number != signal.SIGKILL:
            code = process.wait(timeout=20)
            assert code in (143, -signal.SIGINT), process.stderr.read()
            assert not (store / "tmp").exists()
            assert len(list((store / "shards").glob("*.npz"))) == 1
    with pytest.raises(DataError, match="not finished"):
        ClipStore(store)
    report = run(videos, store)
    assert 5 <= report.num_already < 10 and report.num_kept == 10
    assert contents(store) == contents(unbroken)
    assert not (store / "tmp").exists()


def test_no_space_left_is_one_line_and_keeps_the_store(videos: Path, unbroken: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with start(videos, store, file_bytes=60_000) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("MachineError: no space left for the clip store") and errors.count("\n") == 1
    assert not (store / "tmp").exists()
    report = run(videos, store)
    assert 0 < report.num_already < 10 and report.num_kept == 10
    assert contents(store) == contents(unbroken)


def test_no_space_for_the_index_keeps_the_one_there_was(videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(videos, store, limit=3)
    before = contents(store)
    script = (
        "import resource, sys; from slicfast.data.stores.writer import StoreWriter, StoreSettings\n"
        "from slicfast.errors import MachineError\n"
        "with StoreWriter(sys.argv[1], StoreSettings(short_side=24)) as writer:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "    try: writer.finish({}, {})\n"
        "    except MachineError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, store], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("no space left for the clip store")
    assert contents(store) == before and len(list(store.glob("index-*"))) == 1


def test_two_prepares_into_one_store_refuse(videos: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", SMALL):
        process = start(videos, tmp_path / "store")
        _, errors = process.communicate(timeout=60)
    assert errors.startswith("RunError: another process is preparing") and process.returncode == 1


def test_estimate_is_near_what_comes_out(videos: Path, tmp_path: Path) -> None:
    (videos / "run/bad.avi").write_text("no video")
    catalog = read_catalog(videos)
    told = estimate(catalog, settings=SMALL)
    report = prepare(catalog, tmp_path / "store", SMALL, workers=1)
    assert told.num_videos == told.num_sampled == 11 and list(told.unreadable) == ["run/bad.avi"]
    assert told.hours * 3600 == pytest.approx(report.seconds_of_video)
    assert told.bytes == pytest.approx(report.bytes + 28 * report.num_frames, rel=0.1)
    assert estimate(catalog, 3).num_videos == 3
    resampled = estimate(catalog, settings=StoreSettings(short_side=24, fps=5))
    assert resampled.bytes == pytest.approx(told.bytes / 5, rel=0.01)


needs_extra = pytest.mark.skipif("SLICFAST_EXTRA_DATA" not in os.environ, reason="needs SLICFAST_EXTRA_DATA")


@needs_extra
def test_odd_videos_give_what_their_labels_say(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ["SLICFAST_EXTRA_DATA"]) / "odd_videos"
    with (folder / "LABELS.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    videos = tuple(
        sorted((Video(row["file"], folder / row["file"]) for row in rows), key=lambda video: video.id)
    )
    catalog = Catalog(folder, videos, {"train": tuple(video.id for video in videos)}, (), "flat")
    report = prepare(catalog, tmp_path / "store", workers=2)
    store = ClipStore(tmp_path / "store")
    assert len(rows) == 50 and len(store) + report.num_left_out == 50
    for row in rows:
        video_id, expected = row["file"], row["expected"]
        if expected in ("fail", "no_video"):
            reason = report.left_out[video_id]
            assert reason and "\n" not in reason, video_id
            assert ("no video stream" in reason) == (expected == "no_video"), video_id
            continue
        number, width, height = (int(row[name]) for name in ("frames", "width", "height"))
        at = store.row(video_id)
        scale = min(1.0, 128 / min(width, height))
        assert (store.width[at], store.height[at]) == (round(width * scale), round(height * scale)), video_id
        assert abs(int(store.num_frames[at]) - number) <= (3 if expected == "partial" else 0), video_id
        assert (video_id in report.damaged) == (expected == "partial"), video_id
        assert len(store.frames(at, range(int(store.num_frames[at])))) == store.num_frames[at]
    assert capfd.readouterr().out == ""
    assert "moov" not in capfd.readouterr().err  # FFmpeg's own lines stay away
