"""A dry run looks into files in processes of their own: one that crashes or hangs FFmpeg is told of."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from small_data import numbered_video, smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.decoding import ffmpeg as decode
from slicfast.data.preparing import estimate as dry
from slicfast.data.preparing import transcode
from slicfast.data.stores.format import StoreSettings

SMALL = StoreSettings(short_side=24)

# Stands before PyAV in the workers, whose sys.path is their parent's: an FFmpeg with a hole in it.
HOLE = """
import importlib.util, os, sys, time
sys.path.remove({folder!r})
del sys.modules["av"]
import av
sys.modules["av"] = av
sound = av.open
def open(path, *arguments, **options):
    if path.endswith("crash.avi"):
        os.abort()
    while path.endswith("hang.avi"):
        time.sleep(1)
    return sound(path, *arguments, **options)
av.open = open
"""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(3):
        video_THWC = smooth_video(np.random.default_rng(number), 8, 64, 48)
        write_video(tmp_path / "videos" / f"{number}.avi", video_THWC)
    return tmp_path / "videos"


def test_a_file_that_crashes_or_hangs_ffmpeg_is_one_that_cannot_be_read(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("crash", "hang"):
        os.link(videos / "0.avi", videos / f"{name}.avi")
    (tmp_path / "hole/av").mkdir(parents=True)
    (tmp_path / "hole/av/__init__.py").write_text(HOLE.format(folder=str(tmp_path / "hole")))
    monkeypatch.syspath_prepend(tmp_path / "hole")
    catalog = read_catalog(videos)
    begun = time.monotonic()
    told = dry.estimate(catalog, settings=SMALL, workers=1, limit_s=4)
    assert time.monotonic() - begun < 60
    assert told.num_videos == told.num_sampled == 5
    assert list(told.unreadable) == ["crash.avi", "hang.avi"]
    assert told.unreadable["crash.avi"].startswith("decoding it ended the worker process (SIGABRT)")
    assert told.unreadable["hang.avi"] == "not done after 4 s, the time limit of a video"
    assert told.hours * 3600 == pytest.approx(3 * 8 / 25) and told.bytes > 0


def test_the_command_itself_decodes_nothing(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = read_catalog(videos)
    expected = dry.estimate(catalog, settings=SMALL, workers=1)
    for name in ("open_video", "decode"):
        monkeypatch.delattr(transcode, name)
        monkeypatch.delattr(decode, name)
    assert dry.estimate(catalog, settings=SMALL, workers=1) == expected and expected.bytes > 0


def test_a_segment_counts_as_long_as_it_is(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/a.avi", numbered_video(50))
    (tmp_path / "videos/train.txt").write_text("a.avi walk 0 0.4\na.avi run 0.4 1.6\na.avi run 1.8 9\n")
    told = dry.estimate(read_catalog(tmp_path / "videos/train.txt"), settings=SMALL, workers=1)
    assert told.num_videos == 3 and told.hours * 3600 == pytest.approx(0.4 + 1.2 + 0.2)
