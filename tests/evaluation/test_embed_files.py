"""slicfast embed: features of files, in a file; a kill costs only what was in hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_data import smooth_video, write_video
from small_network import write_checkpoint

from slicfast.engine.video_embedding import Encoder
from slicfast.errors import ConfigError, DataError, MachineError, RunError
from slicfast.evaluation import partial_features
from slicfast.evaluation.embed_files import embed_files, find_videos
from slicfast.evaluation.features_file import FeaturesFile
from slicfast.evaluation.partial_features import PartialFeatures, partial_folder

NUM_FRAMES = (60, 3, 31, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """network.pt, and videos/ with four videos and one that is none."""
    folder = tmp_path_factory.mktemp("embed")
    generator = np.random.default_rng()
    for number, num_frames in enumerate(NUM_FRAMES):
        video = smooth_video(generator, num_frames, 40, 32)
        write_video(folder / "videos" / f"{number}.mkv", video, codec="ffv1")
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    write_checkpoint(folder / "network.pt")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder.from_checkpoint(folder / "network.pt", device="cpu")


def rows_of(file):
    return np.concatenate([block for _, block in file.blocks(block_rows=3)])


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_file_holds_what_the_encoder_gives_and_says_what_was_left_out(suffix, folder, encoder, tmp_path):
    output = tmp_path / f"features.{suffix}"
    report = embed_files(encoder, find_videos([str(folder / "videos")]), output)
    assert (report.num_videos, report.num_rows, report.num_done) == (4, 4, 4)
    file = FeaturesFile(output)
    paths = [folder / "videos" / f"{number}.mkv" for number in range(4)]
    assert file.table.ids == [str(path) for path in paths]
    np.testing.assert_allclose(rows_of(file), encoder.embed(paths), rtol=1e-4, atol=1e-5)
    assert file.table.videos["num_frames"].tolist() == list(NUM_FRAMES)
    np.testing.assert_allclose(file.table.videos["duration_s"], np.array(NUM_FRAMES) / 25, atol=1e-3)
    ((broken, reason),) = file.table.left_out.items()
    assert broken.endswith("broken.mp4") and "FFmpeg cannot read it" in reason
    assert file.table.meta["fingerprint"] == encoder.fingerprint("pooled")
    assert not partial_folder(output).exists()


def test_others_read_the_files_with_numpy_and_pyarrow_alone(folder, encoder, tmp_path):
    videos = find_videos([str(folder / "videos" / "*.mkv")])
    for suffix in ("npz", "parquet"):
        embed_files(encoder, videos, tmp_path / f"f.{suffix}", features="projection")
    with np.load(tmp_path / "f.npz") as found:
        plain = found["features"]
        assert plain.shape == (4, 8)
        assert found["ids"][found["video"]].tolist() == [video.name for video in videos]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "f.parquet")
    assert parquet["id"].to_pylist() == [video.name for video in videos]
    np.testing.assert_array_equal(np.array(parquet["features"].to_pylist(), dtype=np.float32), plain)


def test_windows_are_rows_with_their_seconds(folder, encoder, tmp_path):
    output = tmp_path / "index.npz"
    plan = encoder.plan_for(window_s=0.8, hop_s=0.4)
    report = embed_files(encoder, find_videos([str(folder / "videos" / "0.mkv")]), output, plan=plan)
    file = FeaturesFile(output)
    assert report.num_rows == file.num_rows == 5
    np.testing.assert_allclose(file.table.start_s_N, [0, 0.4, 0.8, 1.2, 1.6], atol=1e-3)
    np.testing.assert_allclose(file.table.end_s_N, [0.8, 1.2, 1.6, 2.0, 2.4], atol=1e-3)


def run_embed(folder, names, output):
    code = "import sys; from slicfast.cli import main; main()"
    videos = [folder / "videos" / name for name in names]
    return subprocess.Popen(
        [sys.executable, "-c", code, "embed", folder / "network.pt", *videos, "-o", output, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def wait_for_lines(path, process, num_lines):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_bytes().count(b"\n") >= num_lines):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_it_goes_on_with_the_videos_missing(how, folder, encoder, tmp_path):
    inside = tmp_path / "data"
    shutil.copytree(folder, inside)
    fifo = inside / "videos" / "1a.mkv"  # whoever opens it waits: two videos are done, two are not begun
    os.mkfifo(fifo)
    output = tmp_path / "features.npz"
    names = ["0.mkv", "1.mkv", "1a.mkv", "2.mkv", "3.mkv"]
    process = run_embed(inside, names, output)
    partial = partial_folder(output)
    writer = None
    try:
        wait_for_lines(partial / "videos.jsonl", process, 1)
        writer = os.open(fifo, os.O_RDWR)
        process.send_signal(how)
        if how == signal.SIGINT:
            time.sleep(0.3)
    finally:
        if writer is not None:
            os.close(writer)
    _, err = process.communicate(timeout=60)
    assert not output.exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err.startswith("slicfast: interrupted; ") and "the same command goes on" in err, err
    with (partial / "features.bin").open("ab") as stream:  # what a kill may leave behind
        stream.write(b"half a row")
    with (partial / "videos.jsonl").open("ab") as stream:
        stream.write(b'{"id": "cut')
    fifo.unlink()
    report = embed_files(encoder, find_videos([str(inside / "videos")]), output)
    assert report.num_done == 3  # of two done one was in hand: its batch was not full
    assert report.num_videos == 4
    paths = [inside / "videos" / f"{number}.mkv" for number in range(4)]
    np.testing.assert_allclose(rows_of(FeaturesFile(output)), encoder.embed(paths), rtol=1e-4, atol=1e-5)


def test_again_with_more_videos_only_those_are_done(folder, encoder, tmp_path):
    videos = find_videos([str(folder / "videos" / "*.mkv")])
    output = tmp_path / "features.npz"
    embed_files(encoder, videos[1:3], output)
    before = output.stat().st_mtime_ns
    assert embed_files(encoder, videos[1:3], output).num_done == 0
    assert output.stat().st_mtime_ns == before
    assert embed_files(encoder, videos, output).num_done == 2
    assert FeaturesFile(output).table.ids == [video.name for video in videos]
    np.testing.assert_allclose(
        rows_of(FeaturesFile(output)), encoder.embed([v.source for v in videos]), rtol=1e-4, atol=1e-5
    )


def test_a_changed_file_is_done_again(encoder, tmp_path):
    generator = np.random.default_rng()
    path = write_video(tmp_path / "a.mkv", smooth_video(generator, 9, 40, 32), codec="ffv1")
    output = tmp_path / "features.npz"
    embed_files(encoder, find_videos([str(path)]), output)
    write_video(path, smooth_video(generator, 12, 40, 32), codec="ffv1")
    assert embed_files(encoder, find_videos([str(path)]), output).num_done == 1
    np.testing.assert_allclose(rows_of(FeaturesFile(output)), encoder.embed(path), rtol=1e-4, atol=1e-5)


def test_other_settings_are_not_mixed_in(folder, encoder, tmp_path):
    videos = find_videos([str(folder / "videos" / "1.mkv")])
    output = tmp_path / "features.npz"
    embed_files(encoder, videos, output)
    with pytest.raises(ConfigError, match="features with num_clips 3, not 2; choose another file"):
        embed_files(encoder, videos, output, plan=encoder.plan_for(num_clips=2))
    with pytest.raises(ConfigError, match="with features pooled, not projection"):
        embed_files(encoder, videos, output, features="projection")


def test_two_at_once_are_refused(encoder, tmp_path):
    with (
        PartialFeatures(tmp_path / "f.npz", {}, 4),
        pytest.raises(RunError, match="another `slicfast embed` is writing"),
    ):
        PartialFeatures(tmp_path / "f.npz", {}, 4)


def test_strict_stops_and_keeps_what_was_done(folder, encoder, tmp_path):
    videos = find_videos([str(folder / "videos")])
    with pytest.raises(DataError, match=r"broken\.mp4: FFmpeg cannot read it"):
        embed_files(encoder, videos, tmp_path / "f.npz", strict=True, num_threads=1)
    assert not (tmp_path / "f.npz").exists()


def test_nothing_readable_is_an_error(folder, encoder, tmp_path):
    with pytest.raises(DataError, match="none of 1 videos could be read"):
        embed_files(encoder, find_videos([str(folder / "videos" / "broken.mp4")]), tmp_path / "f.npz")


def test_videos_are_found_by_every_kind_of_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    names = [f"videos/{number}.mkv" for number in range(4)]
    assert [video.name for video in find_videos(["videos"])] == [*names, "videos/broken.mp4"]
    assert [video.name for video in find_videos(["videos/2.mkv", "videos/*.mkv"])] == [
        names[2],
        *(name for name in names if name != names[2]),
    ]
    Path("some.txt").write_text("videos/1.mkv\nvideos/gone.mkv\nvideos/0.mkv - 0.5 1.5\n")
    listed = find_videos(["some.txt"])
    assert [video.name for video in listed] == ["videos/1.mkv", "videos/0.mkv#0.5-1.5", "videos/gone.mkv"]
    assert (listed[1].start_s, listed[1].end_s) == (0.5, 1.5)
    with pytest.raises(DataError, match="nothing matches"):
        find_videos(["*.webm"])
    with pytest.raises(DataError, match=r"no file, folder or list at vidoes"):
        find_videos(["vidoes"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", None])
def test_a_foreign_or_damaged_features_file_is_named(content, tmp_path):
    path = tmp_path / "f.npz"
    if content is None:
        np.savez(path, features=np.zeros((2, 3)))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="is not a features file"):
        FeaturesFile(path)


def test_missing_pyarrow_is_said_before_anything_is_done(encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # what an import then finds: nothing
    with pytest.raises(MachineError, match=r"parquet needs pyarrow; run pip install 'slicfast\[parquet\]'"):
        embed_files(encoder, [], tmp_path / "f.parquet")


def test_lines_that_outlived_their_vectors_do_not_count(encoder, folder, tmp_path):
    video = find_videos([str(folder / "videos" / "1.mkv")])[0]
    meta = {"format": "x"}
    entry = partial_features.Entry(video.name, start_s=[0.0], end_s=[1.0])
    with PartialFeatures(tmp_path / "f.npz", meta, 4) as partial:
        partial.add(entry, np.ones((1, 4), dtype=np.float32))
    (partial_folder(tmp_path / "f.npz") / "features.bin").write_bytes(b"\0" * 8)
    with PartialFeatures(tmp_path / "f.npz", meta, 4) as partial:
        assert not partial.entries
