"""VP9 in a clip store: a packet a picture, clips cut out from any key frame, files that players open."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from small_data import numbered_video, numbers, smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.preparing.estimate import estimate
from slicfast.data.preparing.transcode import Pictures, transcode
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores import ivf
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.writer import StoreWriter, VideoRecord
from slicfast.errors import ConfigError

VP9 = StoreSettings(short_side=32, codec="vp9")


def encode(path: Path, settings: StoreSettings = VP9, **options: float) -> tuple[Pictures, bytes]:
    out = io.BytesIO()
    return transcode(path, out, settings, **options), out.getvalue()  # type: ignore[arg-type]


def play(data: bytes) -> np.ndarray:
    """(T, H, W, 3) RGB of an IVF file, as any player reads it."""
    with av.open(io.BytesIO(data)) as container:
        assert container.format.name == "ivf"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Numbered videos of 1, 9, 20 and 37 pictures of odd size; read-only."""
    root = tmp_path_factory.mktemp("vp9")
    for num_frames in (1, 9, 20, 37):
        write_video(root / f"videos/{num_frames:02d}.avi", numbered_video(num_frames, 51, 33))
    prepare(read_catalog(root / "videos"), root / "store", VP9, workers=1)
    return ClipStore(root / "store")


@pytest.mark.parametrize("size", [(51, 33), (48, 32), (3, 9), (2, 2), (1, 1), (200, 17)])
def test_a_packet_a_picture_and_a_key_frame_every_eight(tmp_path: Path, size: tuple[int, int]) -> None:
    video_THWC = smooth_video(np.random.default_rng(size[0]), 19, *size)
    path = write_video(tmp_path / "a.mkv", video_THWC, codec="ffv1", pix_fmt="bgr0")
    made, data = encode(path, StoreSettings(codec="vp9"))
    packets = list(ivf.packets(data))
    assert len(packets) == len(made.sizes) == 19 and sum(made.sizes) == len(data)
    # The third and fourth lowest bits of an uncompressed header: an inter frame, a frame that is shown.
    assert [packet[0] >> 2 & 1 for packet in packets] == [int(n % 8 != 0) for n in range(19)]
    assert all(packet[0] >> 1 & 1 for packet in packets)
    start = 0
    for size_, crc in zip(made.sizes, made.crcs, strict=True):
        assert zlib.crc32(data[start : start + size_]) == crc
        start += size_
    played_THWC = play(data)
    assert played_THWC.shape == video_THWC.shape
    assert np.abs(played_THWC.astype(int) - video_THWC).mean() < 8  # chroma of tiny pictures is coarse


def test_quality_follows_crf_and_film_comes_out_several_times_smaller_than_jpeg(tmp_path: Path) -> None:
    noise_THW1 = np.random.default_rng(3).normal(0, 4, (17, 96, 128, 1))
    film_THWC = smooth_video(np.random.default_rng(1), 17, 128, 96) + noise_THW1
    path = write_video(tmp_path / "a.avi", film_THWC.clip(0, 255).astype(np.uint8))
    plain = StoreSettings(short_side=96)
    num_bytes = [len(encode(path, StoreSettings(short_side=96, codec="vp9", crf=crf))[1]) for crf in (10, 26)]
    assert 3 * num_bytes[1] < len(encode(path, plain)[1]) and num_bytes[1] < num_bytes[0]


def test_header_tells_players_rate_and_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered_video(23), fps=30)
    made, data = encode(path, StoreSettings(short_side=32, codec="vp9", fps=29.97))
    with av.open(io.BytesIO(data)) as container:
        assert 1 / container.streams.video[0].time_base == pytest.approx(29.97, rel=1e-4)
    assert int.from_bytes(data[24:28], "little") == len(made.sizes)
    assert made.crcs[0] == zlib.crc32(data[: made.sizes[0]])  # over the header as it ended up


def test_resampled_and_segmented_like_jpeg(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered_video(50), fps=25)
    for fps, start_s, end_s in ((50.0, None, 0.4), (10.0, 0.4, 1.2), (None, 1.0, 1.6)):
        jpeg, _ = encode(path, StoreSettings(short_side=32, fps=fps), start_s=start_s, end_s=end_s)
        made, data = encode(path, StoreSettings(32, fps=fps, codec="vp9"), start_s=start_s, end_s=end_s)
        assert (len(made.sizes), made.fps) == (len(jpeg.sizes), jpeg.fps)
        first = round((start_s or 0) * 25)
        step = 1 if fps is None else 25 / fps
        expected = [first + int(k * step) for k in range(len(made.sizes))]
        assert numbers(play(data)) == expected


def test_stored_videos_play_as_they_are(store: ClipStore) -> None:
    (shard,) = (store.path / "shards").glob("*.tar")
    with tarfile.open(shard) as archive:
        names = archive.getnames()
        assert names[:2] == ["00000000.ivf", "00000000.json"]
        for name in names[::2]:
            data = archive.extractfile(name).read()  # type: ignore[union-attr]
            record = json.load(archive.extractfile(name.replace("ivf", "json")))  # type: ignore[arg-type]
            assert numbers(play(data)) == list(range(len(record["sizes"])))
    values = json.loads((store.path / "store.json").read_text())
    assert values["version"] == 2
    assert values["settings"] == {"short_side": 32, "fps": None, "codec": "vp9", "crf": 26, "key_interval": 8}


@pytest.mark.parametrize("stride", [1, 2, 7, 8, 9, 20])
def test_cut_decodes_to_the_pictures_asked_for(store: ClipStore, stride: int) -> None:
    whole = {row: store.cut(row, range(n)) for row, n in enumerate(store.num_frames.tolist())}
    generator = np.random.default_rng(stride)
    for row, num_frames in enumerate(store.num_frames.tolist()):
        start = int(generator.integers(num_frames))
        indices = np.minimum(start + stride * np.arange(8), num_frames - 1)  # past the end: the last, again
        cut = store.cut(row, indices)
        played_THWC = play(cut.data.tobytes())
        assert numbers(played_THWC[cut.frames]) == indices.tolist()
        assert np.array_equal(play(whole[row].data.tobytes())[indices], played_THWC[cut.frames])
        runs = set((indices // 8).tolist())  # only what is needed: of each run up to the last asked for
        assert len(played_THWC) == sum(int(indices[indices // 8 == run].max()) % 8 + 1 for run in runs)


def test_cut_takes_any_order_and_refuses_what_is_not_there(store: ClipStore) -> None:
    cut = store.cut(3, [30, 2, 17, 17])
    assert numbers(play(cut.data.tobytes())[cut.frames]) == [30, 2, 17, 17]
    with pytest.raises(IndexError, match=r"frame 37 of '37\.avi', which has 37"):
        store.cut(3, [37])
    with pytest.raises(IndexError):
        store.cut(3, [-1])
    with pytest.raises(ValueError, match="use 'cut'"):
        store.frames(3, [0])


def test_jpeg_store_has_no_cuts(tiny_store: ClipStore) -> None:
    with pytest.raises(ValueError, match="use 'frames'"):
        tiny_store.cut(0, [0])
    values = json.loads((tiny_store.path / "store.json").read_text())
    assert values["version"] == 1 and values["settings"] == {"short_side": 32, "quality": 90, "fps": None}


def test_damage_in_a_packet_on_the_way_to_the_picture_is_found(store: ClipStore, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", VP9) as writer:
        video_THWC = numbered_video(20)
        made, data = encode(write_video(tmp_path / "a.avi", video_THWC))
        record = VideoRecord("a", None, 25.0, made.width, made.height, made.sizes, made.crcs)
        writer.add(record, data)
        writer.finish({}, {})
    (shard,) = (tmp_path / "store/shards").glob("*.tar")
    damaged = bytearray(shard.read_bytes())
    damaged[512 + sum(made.sizes[:9]) + 14] ^= 4  # in packet 9
    shard.write_bytes(damaged)
    damaged_store = ClipStore(tmp_path / "store")
    for index, bad in ((7, False), (8, False), (9, True), (12, True), (16, False)):
        if bad:
            with pytest.raises(DamagedClip, match="frame 9 of 'a'"):
                damaged_store.cut(0, [index])
        else:
            damaged_store.cut(0, [index])


def test_estimate_of_a_vp9_store(tmp_path: Path) -> None:
    for number in range(3):
        video_THWC = smooth_video(np.random.default_rng(number), 24, 64, 48)
        write_video(tmp_path / f"videos/{number}.avi", video_THWC)
    catalog = read_catalog(tmp_path / "videos")
    report = prepare(catalog, tmp_path / "store", VP9, workers=1)
    told = estimate(catalog, settings=VP9)
    assert told.bytes == pytest.approx(report.bytes + 28 * report.num_frames, rel=0.5)


def test_settings_of_the_other_codec_are_refused(tmp_path: Path, store: ClipStore) -> None:
    with pytest.raises(ConfigError, match="quality is no setting of codec vp9"):
        StoreSettings.of({"codec": "vp9", "quality": 80})
    with pytest.raises(ConfigError, match="crf is no setting of codec jpeg"):
        StoreSettings.of({"crf": 20})
    with pytest.raises(ConfigError, match="codec must be one of jpeg, vp9, files; got 'vp8'; did"):
        StoreSettings(codec="vp8")
    with pytest.raises(ConfigError, match=r"made with short side 32, VP9 of crf 26, a key frame every 8"):
        StoreWriter(store.path, StoreSettings(short_side=32))
