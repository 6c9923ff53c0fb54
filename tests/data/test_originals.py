"""Original files kept beside their videos: whole, described truly, completed later, safe against kills."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from small_data import numbered_video, numbers, smooth_video, write_video

from slicfast.data.catalog import Catalog, Video, read_catalog
from slicfast.data.prepare import PrepareReport, prepare
from slicfast.data.preparing.estimate import estimate
from slicfast.data.preparing.source import stat_source, with_fingerprint
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.original import OriginalFacts, segment_of
from slicfast.data.stores.original_facts import original_facts
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import DataError

SMALL = StoreSettings(short_side=24)
ROOT = Path(__file__).parents[2]


def run(videos: Path, store: Path, keep: bool = True) -> PrepareReport:
    return prepare(read_catalog(videos), store, SMALL, workers=1, keep_original=keep)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for number in range(4):
        video_THWC = smooth_video(np.random.default_rng(number), 8 + number, 64, 48)
        write_video(root / f"{number}.avi", video_THWC)
    return root


def originals(store: Path) -> dict[str, bytes]:
    opened = ClipStore(store)
    kept = {}
    for row in range(len(opened)):
        try:
            kept[opened.id(row)] = opened.original(row).data.tobytes()
        except DataError:
            continue
    return kept


def files(videos: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in videos.iterdir()}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", {"g": "7", "bf": "3", "sc_threshold": "0"}),
        ("a.avi", "mpeg4", {"g": "5"}),
        ("b.avi", "mpeg4", {"g": "6", "bf": "2"}),  # AVI gives B-frames no times
        ("a.webm", "libvpx-vp9", {"g": "4"}),
    ],
)
def test_facts_are_those_of_the_decoded_file(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, numbered_video(23), codec=codec, options=options)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        stream = container.streams.video[0]
        told = (container.format.name, stream.codec.canonical_name, stream.width, stream.height)
        time_base = (stream.time_base.numerator, stream.time_base.denominator)
    facts = original_facts(path)
    assert (facts.container, facts.codec, facts.width, facts.height) == told
    assert facts.num_frames == len(decoded) == 23 and facts.time_base == time_base
    assert list(facts.key_frames) == [n for n, frame in enumerate(decoded) if frame.key_frame]
    assert len(facts.key_frames) > 2 and facts.rate == (25, 1)


def test_originals_come_back_whole(videos: Path, tmp_path: Path) -> None:
    report = run(videos, tmp_path / "store")
    assert report.num_originals == 4 and report.original_bytes == sum(map(len, files(videos).values()))
    store = ClipStore(tmp_path / "store")
    assert originals(store.path) == files(videos)
    original = store.original(2)
    with av.open(io.BytesIO(original.data)) as container:
        assert len(list(container.decode(video=0))) == original.facts.num_frames == store.num_frames[2]
    with original.shard.open("rb") as file:
        file.seek(original.offset)
        assert file.read(len(original.data)) == original.data.tobytes()
    assert (original.suffix, original.start_s, original.end_s) == ("avi", None, None)
    with tarfile.open(original.shard) as archive:
        assert archive.getnames()[:2] == ["00000000.avi", "00000000.json"] and len(archive.getnames()) == 8
    assert '"version": 1' in (store.path / "store.json").read_text()  # the pictures are as they always were


def test_a_second_run_completes_a_store_without_originals(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "store", keep=False)
    (shard,) = (tmp_path / "store/shards").glob("*.tar")
    before = shard.read_bytes()
    with pytest.raises(DataError, match=r"does not keep the original of '0\.avi'.*--keep-original"):
        ClipStore(tmp_path / "store").original(0)
    report = run(videos, tmp_path / "store")
    assert (report.num_done, report.num_originals, report.num_already) == (4, 4, 4)
    assert [path.read_bytes() for path in (tmp_path / "store/shards").glob("*.tar")] == [before]
    assert originals(tmp_path / "store") == files(videos)
    assert run(videos, tmp_path / "store").num_done == 0
    run(videos, tmp_path / "store", keep=False)  # a run that does not ask for them leaves them there
    assert originals(tmp_path / "store") == files(videos)


def test_a_changed_file_never_goes_with_other_pictures(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "store")
    write_video(videos / "1.avi", numbered_video(33))
    run(videos, tmp_path / "store", keep=False)
    assert sorted(originals(tmp_path / "store")) == ["0.avi", "2.avi", "3.avi"]
    assert run(videos, tmp_path / "store").num_originals == 1
    assert originals(tmp_path / "store") == files(videos)


def test_segments_share_one_copy(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.avi", numbered_video(100))
    segments = [(0.0, 1.0), (1.0, 1.4), (8.0, 9.0)]
    listed = tuple(Video(f"long.avi#{start:g}-{end:g}", path, "a", start, end) for start, end in segments)
    catalog = Catalog(tmp_path, listed, {"train": tuple(video.id for video in listed)}, (), "list")
    report = prepare(catalog, tmp_path / "store", SMALL, workers=1, keep_original=True)
    assert report.num_originals == 1 and report.num_left_out == 1
    store = ClipStore(tmp_path / "store")
    assert set(originals(store.path).values()) == {path.read_bytes()} and len(originals(store.path)) == 2
    original = store.original(store.row("long.avi#1-1.4"))
    assert (original.start_s, original.end_s, original.facts.num_frames) == (1.0, 1.4, 100)
    assert store.originals is not None and len(store.originals) == 1
    again = prepare(catalog, tmp_path / "store", SMALL, workers=1, keep_original=True)
    assert again.num_done == 0


def test_segment_ids() -> None:
    assert segment_of("a/b.mp4#1.5-20") == ("a/b.mp4", 1.5, 20.0)
    for whole in ("a.mp4", "a#1-2.mp4", "a#x-2"):
        assert segment_of(whole) == (whole, None, None)


def test_damage_is_found(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "store")
    (shard,) = (tmp_path / "store/originals").glob("*.tar")
    data = bytearray(shard.read_bytes())
    data[data.index((videos / "2.avi").read_bytes()) + 99] ^= 1
    shard.write_bytes(data)
    store = ClipStore(tmp_path / "store")
    with pytest.raises(DamagedClip, match=r"'2\.avi': its original file does not match its checksum"):
        store.original(2)
    assert store.original(1).facts.num_frames == 9
    os.truncate(shard, store.original(1).offset + 5)
    with pytest.raises(DamagedClip, match=r"'3\.avi': shard-00000\.tar ends before"):
        store.original(3)
    shard.unlink()
    with pytest.raises(DamagedClip, match=r"'0\.avi': cannot read"):
        store.original(0)


@pytest.mark.parametrize("cut", [1, 600, 1700, 3000])
def test_a_copy_cut_short_is_made_again(videos: Path, tmp_path: Path, cut: int) -> None:
    run(videos, tmp_path / "store")
    (shard,) = (tmp_path / "store/originals").glob("*.tar")
    os.truncate(shard, shard.stat().st_size - 1024 - cut)  # 1024: the end of the tar file
    report = run(videos, tmp_path / "store")
    assert (report.num_done, report.num_originals) == (1, 1)
    assert originals(tmp_path / "store") == files(videos)
    with tarfile.open(shard) as archive:
        assert len(archive.getnames()) == 8


KILLED = (
    "import os, signal, sys; from pathlib import Path; sys.path[:0] = ['tests', 'tests/data']\n"
    "from test_originals import *\n"
    "store, videos, place = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
    "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    "import slicfast.data.stores.shards as shards\n"
    "write, left = shards._write, int(place)\n"
    "def counted(descriptor, data):\n"
    "    global left\n"
    "    left -= len(data)\n"
    "    if left < 0:\n"
    "        write(descriptor, data[: len(data) + left]); kill()\n"
    "    write(descriptor, data)\n"
    "shards._write = counted\n"
    "run(videos, store)\n"
)


def test_a_kill_at_any_byte_loses_at_most_the_video_in_hand(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "whole")
    pictures, files_ = (record_bytes(tmp_path / "whole" / name) for name in ("shards", "originals"))
    ends = np.cumsum(np.stack([pictures, files_], axis=1).reshape(-1))  # one after the other, video by video
    for number, place in enumerate(np.random.default_rng(5).integers(1, ends[-1], 4).tolist()):
        store = tmp_path / f"store{number}"
        done = subprocess.run(
            [sys.executable, "-c", KILLED, store, videos, str(place)], cwd=ROOT, capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        report = run(videos, store)
        whole = ends <= place
        assert report.num_already == whole[::2].sum()
        assert report.num_originals == 4 - whole[1::2].sum()
        assert originals(store) == files(videos)
        shards = [next((path / "shards").glob("*.tar")) for path in (store, tmp_path / "whole")]
        assert shards[0].read_bytes() == shards[1].read_bytes()


def record_bytes(folder: Path) -> list[int]:
    """Bytes of each record of the only shard there, its json included."""
    (shard,) = folder.glob("*.tar")
    with tarfile.open(shard) as archive:
        starts = [member.offset for member in archive.getmembers()][::2]
    end = int(np.load(shard.with_suffix(".npz"))["end"])
    return np.diff([*starts, end]).tolist()


def test_file_that_changes_under_the_copy_leaves_the_shard_whole(videos: Path, tmp_path: Path) -> None:
    facts = OriginalFacts("avi", "mpeg4", 64, 48, 8, (0,), (25, 1), (1, 25))
    with StoreWriter(tmp_path / "store", SMALL) as writer:
        source = with_fingerprint(videos / "0.avi", stat_source(videos / "0.avi"))
        for size in (source.size - 1, source.size + 1):
            with pytest.raises(DataError, match="changed while it was copied"):
                writer.add_original("0.avi", videos / "0.avi", replace(source, size=size), facts)
        with pytest.raises(DataError, match="cannot be read: No such file"):
            writer.add_original("none.avi", videos / "none.avi", source, facts)
        writer.add_original("0.avi", videos / "0.avi", source, facts)
        assert writer.original("0.avi") == source and writer.original("1.avi") is None
    (shard,) = (tmp_path / "store/originals").glob("*.tar")
    with tarfile.open(shard) as archive:
        member = archive.extractfile("00000000.avi")
        assert member is not None and member.read() == (videos / "0.avi").read_bytes()
        assert len(archive.getnames()) == 2


def test_file_that_went_missing_is_named_and_keeps_its_pictures(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(videos, tmp_path / "store", keep=False)
    (videos / "3.avi").write_bytes(b"no video any more")
    report = run(videos, tmp_path / "store")
    assert sorted(originals(tmp_path / "store")) == ["0.avi", "1.avi", "2.avi"]
    assert list(report.left_out) == ["3.avi"] and report.num_originals == 3


def test_estimate_counts_the_files(videos: Path) -> None:
    catalog = read_catalog(videos)
    plain, kept = (estimate(catalog, settings=SMALL, keep_original=keep).bytes for keep in (False, True))
    assert kept - plain == sum(map(len, files(videos).values()))


def test_numbered_pictures_agree_with_the_kept_file(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/a.mp4", numbered_video(20), codec="h264", options={"bf": "2"})
    run(tmp_path / "videos", tmp_path / "store")
    original = ClipStore(tmp_path / "store").original(0)
    with av.open(io.BytesIO(original.data)) as container:
        played = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert numbers(played) == list(range(20))
