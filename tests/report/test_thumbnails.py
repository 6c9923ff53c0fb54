"""Strips: the right pictures in the right order, a page's budget kept, damage passed over."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_data import smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import StoreSettings
from slicfast.report import thumbnails
from slicfast.report.thumbnails import HEIGHT, NUM_PICTURES, WIDTH, Strips, strip


@pytest.mark.parametrize("row", [0, 1])  # of 20 and of 60 pictures
def test_a_strip_shows_the_middle_of_the_video_in_order(row: int, tiny_store: ClipStore) -> None:
    decoded = cv2.imdecode(np.frombuffer(strip(tiny_store, row), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (HEIGHT, NUM_PICTURES * WIDTH, 3)
    num_frames = int(tiny_store.num_frames[row])
    pictures = [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in tiny_store.frames(row, range(num_frames))]
    small = np.stack([cv2.resize(picture, (WIDTH, HEIGHT)) for picture in pictures]).astype(float)
    shown = []
    for place in range(NUM_PICTURES):
        tile = decoded[:, place * WIDTH : (place + 1) * WIDTH].astype(float)
        shown.append(int(np.abs(small - tile).mean((1, 2, 3)).argmin()))
    assert shown == sorted(set(shown))
    assert abs((shown[0] + shown[-1]) / 2 - (num_frames - 1) / 2) <= 1


@pytest.mark.parametrize("codec", ["vp9", "files"])
def test_a_strip_is_the_same_whatever_the_store_keeps(codec: str, tmp_path: Path) -> None:
    video_THWC = smooth_video(np.random.default_rng(5), 40, 64, 48)
    write_video(tmp_path / "videos" / "a.mp4", video_THWC)
    shown = {}
    for kept in ("jpeg", codec):
        prepare(
            read_catalog(tmp_path / "videos"),
            tmp_path / kept,
            StoreSettings(short_side=48, codec=kept),
            workers=1,
        )
        image = np.frombuffer(strip(ClipStore(tmp_path / kept), 0), np.uint8)
        shown[kept] = cv2.imdecode(image, cv2.IMREAD_COLOR).astype(float)
    apart = np.abs(shown["jpeg"] - shown[codec]).mean()
    wrong = (np.roll(shown[codec], WIDTH, axis=1), shown[codec][:, :, ::-1])  # pictures, colours
    assert apart < 8 and all(np.abs(shown["jpeg"] - other).mean() > 2 * apart for other in wrong)


def test_the_page_stops_at_its_budget(tiny_store: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_BYTES", len(strip(tiny_store, 0)) + 1)
    strips = Strips(tiny_store)
    strips.add(tiny_store.ids())
    assert [strips.number(video_id) for video_id in tiny_store.ids()[:3]] == [0, 1, None]
    assert strips.css().count("data:image/webp;base64,") == 2


def test_damaged_and_unknown_videos_have_no_strip(tiny_store: ClipStore, tmp_path: Path) -> None:
    shutil.copytree(tiny_store.path, tmp_path / "store")
    for shard in (tmp_path / "store").rglob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    strips = Strips(ClipStore(tmp_path / "store"))
    strips.add([tiny_store.id(0), "nowhere.mp4"])
    assert strips.css() == ""
    assert Strips(None).number("x") is None
