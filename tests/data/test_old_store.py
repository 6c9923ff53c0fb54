"""A clip store that the first version of the format wrote (store_version_1.zip) opens and is gone on with."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import pytest
from small_data import encode_pictures, numbered_video, record_of

from slicfast.data.store import ClipStore
from slicfast.data.stores.format import StoreHeader, StoreSettings
from slicfast.data.stores.info import store_info
from slicfast.data.stores.merge import merge
from slicfast.data.stores.verify import verify
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import DataError

SETTINGS = StoreSettings(short_side=16, quality=50)
CRCS = {
    "a/1.avi": [1426840506, 2964889370, 4187600034],
    "b/2.avi": [319305673, 1946185511],
    "c.avi": [2555144503, 529941714, 3954097494, 3671726152],
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.unpack_archive(Path(__file__).with_name("store_version_1.zip"), tmp_path / "old")
    return tmp_path / "old"


def crcs(path: Path) -> dict[str, list[int]]:
    store = ClipStore(path)
    return {
        store.id(row): [zlib.crc32(frame) for frame in store.frames(row, range(int(store.num_frames[row])))]
        for row in range(len(store))
    }


def test_it_opens_as_it_was(old: Path) -> None:
    store = ClipStore(old)
    assert crcs(old) == CRCS
    assert store.settings == SETTINGS and store.settings.codec == "jpeg" and store.originals is None
    assert store.label_names == ("a", "b") and store.label_ids.tolist() == [0, 1, -1]
    assert store.ids(store.split("train")) == ["a/1.avi", "b/2.avi"]
    assert store.ids(store.split("test")) == ["c.avi"]
    assert store_info(old).num_left_out == 1 and verify(old).num_damaged == 0


def test_its_settings_are_those_of_new_stores_without_a_word_on_codecs(old: Path, tmp_path: Path) -> None:
    before = json.loads((old / "store.json").read_text())
    assert before["settings"] == {"short_side": 16, "quality": 50, "fps": None} == SETTINGS.to_dict()
    StoreHeader(SETTINGS, before["index"]).write(tmp_path)
    after = json.loads((tmp_path / "store.json").read_text())
    assert {key: after[key] for key in before} == before
    (old / "store.json").write_text(json.dumps({**before, "settings": {"short_side": 16, "coded": 1}}))
    with pytest.raises(DataError, match="damaged"):
        ClipStore(old)


def test_it_is_gone_on_with_and_merged(old: Path, tmp_path: Path) -> None:
    pictures = encode_pictures(numbered_video(3, 16, 16), 50)
    merge(tmp_path / "merged", [old])
    assert crcs(tmp_path / "merged") == CRCS
    with StoreWriter(old, SETTINGS) as writer:
        assert sorted(writer.ids()) == sorted(CRCS)
        writer.add(record_of("d.avi", "d", pictures, 16, 16), b"".join(pictures))
        writer.finish({}, {"train": ["d.avi"]})
    assert crcs(old) == {**CRCS, "d.avi": [zlib.crc32(picture) for picture in pictures]}
    assert ClipStore(old).label_names == ("a", "b", "d")
