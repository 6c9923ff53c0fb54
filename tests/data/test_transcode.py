"""Transcoding keeps exactly the pictures that FFmpeg presents, upright, at the right size and times."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from small_data import numbered_video, numbers, smooth_video, write_video

from slicfast.data.decoding.ffmpeg import Clock
from slicfast.data.preparing.transcode import OutputError, Pictures, transcode
from slicfast.data.stores.format import StoreSettings
from slicfast.errors import DataError

SMALL = StoreSettings(short_side=24)
MOST = 6  # grey levels of mean difference: chroma of so small pictures is coarse; a wrong one has 20 and more


def run(path: Path, settings: StoreSettings = SMALL, **options: float) -> tuple[Pictures, np.ndarray]:
    """What was made, and its pictures decoded again: (T, H, W, 3) RGB."""
    out = io.BytesIO()
    made = transcode(path, out, settings, **options)  # type: ignore[arg-type]
    data, start, pictures = out.getvalue(), 0, []
    for size, crc in zip(made.sizes, made.crcs, strict=True):
        jpeg = data[start : start + size]
        assert zlib.crc32(jpeg) == crc
        pictures.append(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
        start += size
    assert start == len(data)
    return made, np.stack(pictures)


def plain_frames(path: Path) -> list[np.ndarray]:
    """Every frame that PyAV decodes, as it is."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def shrunk(frame_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """The plain reference: averaged down, then once through JPEG."""
    small_HWC = cv2.resize(np.ascontiguousarray(frame_HWC), (width, height), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90]
    return cv2.imdecode(cv2.imencode(".jpg", small_HWC[..., ::-1], options)[1], cv2.IMREAD_COLOR)[..., ::-1]


def mean_difference(frame_HWC: np.ndarray, picture_HWC: np.ndarray) -> float:
    """Mean absolute difference between the plain reference and a stored picture, in grey levels."""
    expected_HWC = shrunk(frame_HWC, picture_HWC.shape[1], picture_HWC.shape[0])
    return float(np.abs(expected_HWC.astype(int) - picture_HWC).mean())


def plain_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("a.avi", "mpeg4", "yuv420p", (64, 48)),
        ("b.mp4", "libx264", "yuv420p", (62, 50)),
        ("c.mkv", "ffv1", "yuv444p", (51, 37)),
        ("d.mkv", "ffv1", "yuv420p10le", (80, 48)),
        ("e.mkv", "ffv1", "gray", (47, 33)),
        ("f.avi", "rawvideo", "bgr24", (50, 40)),
        ("g.mkv", "ffv1", "bgra", (40, 61)),
        ("h.avi", "mjpeg", "yuvj420p", (64, 48)),
        ("i.mkv", "ffv1", "yuv411p", (64, 48)),
    ],
)
def test_pictures_agree_with_plain_decoding(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    seed = int(np.random.default_rng().integers(1 << 31))
    print("seed", seed)
    video_THWC = smooth_video(np.random.default_rng(seed), 7, *size)
    path = write_video(tmp_path / name, video_THWC, codec=codec, pix_fmt=pix_fmt)
    made, stored_THWC = run(path)
    frames = plain_frames(path)
    assert len(frames) == len(stored_THWC) == 7
    assert (made.source_width, made.source_height) == size
    assert min(made.width, made.height) == 24
    assert max(made.width, made.height) == round(24 * max(size) / min(size))
    for frame_HWC, picture_HWC in zip(frames, stored_THWC, strict=True):
        assert mean_difference(frame_HWC, picture_HWC) < MOST
    assert made.fps == 25.0 and made.damage == ""


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_pictures_are_as_near_the_truth_as_plain_decoding(tmp_path: Path, pix_fmt: str) -> None:
    video_THWC = smooth_video(np.random.default_rng(), 3, 320, 240)
    path = write_video(tmp_path / "a.mkv", video_THWC, codec="ffv1", pix_fmt=pix_fmt)
    _, stored_THWC = run(path, StoreSettings())
    for true_HWC, frame_HWC, picture_HWC in zip(video_THWC, plain_frames(path), stored_THWC, strict=True):
        small_HWC = cv2.resize(true_HWC, (171, 128), interpolation=cv2.INTER_AREA).astype(int)
        plain_error = np.abs(small_HWC - shrunk(frame_HWC, 171, 128)).mean()
        assert np.abs(small_HWC - picture_HWC).mean() < plain_error + 0.2
        assert np.abs((small_HWC - picture_HWC).mean((0, 1))).max() < 1.0  # no cast


def test_small_video_is_not_enlarged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered_video(3, 18, 16))
    made, pictures_THWC = run(path, StoreSettings(short_side=128))
    assert pictures_THWC.shape == (3, 16, 18, 3) and (made.width, made.height) == (18, 16)


def test_quality_decides_the_bytes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", smooth_video(np.random.default_rng(1), 3, 64, 64))
    sizes = [sum(run(path, StoreSettings(quality=quality))[0].sizes) for quality in (50, 90, 98)]
    assert sizes == sorted(sizes) and sizes[2] > 1.5 * sizes[0]


# a, b, c, d of the display matrix: shown x = a x + c y, shown y = b x + d y, with y downward.
TURNS = {
    (1, 0, 0, 1): lambda picture: picture,
    (0, 1, -1, 0): lambda picture: np.rot90(picture, -1),  # clockwise
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (-1, 0, 0, 1): lambda picture: picture[:, ::-1],
    (1, 0, 0, -1): lambda picture: picture[::-1],
    (0, 1, 1, 0): lambda picture: picture.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrix_is_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    video_THWC = smooth_video(np.random.default_rng(3), 4, 64, 48)
    path = write_video(tmp_path / "a.mp4", video_THWC)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    made, stored_THWC = run(path)
    for frame_HWC, picture_HWC in zip(plain_frames(path), stored_THWC, strict=True):
        assert mean_difference(TURNS[matrix](frame_HWC), picture_HWC) < MOST
    shape = (32, 24) if matrix[0] == 0 else (24, 32)
    assert stored_THWC.shape[1:3] == shape and (made.source_height, made.source_width) == tuple(
        2 * side for side in shape
    )


def test_edit_list_hides_what_it_cuts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_video(40), fps=20, options={"g": "10"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # segment duration (ms), then media time (the track's ticks)
    mdhd = data.index(b"mdhd")
    ticks = struct.unpack(">I", data[mdhd + 16 : mdhd + 20])[0]
    data[at : at + 8] = struct.pack(">Ii", 750, 12 * ticks // 20)
    path.write_bytes(data)
    made, pictures_THWC = run(path)
    assert numbers(pictures_THWC) == list(range(12, 27))
    assert made.damage == ""


@pytest.mark.parametrize("fps", [None, 4.0, 10.0, 50.0])
def test_variable_frame_rate(tmp_path: Path, fps: float | None) -> None:
    generator = np.random.default_rng(11)
    times = np.concatenate([[0], np.cumsum(generator.integers(1, 9, 59) * 20)]).tolist()
    path = write_video(tmp_path / "a.mkv", numbered_video(60), codec="ffv1", times=times)
    made, pictures_THWC = run(path, StoreSettings(short_side=24, fps=fps))
    if fps is None:
        assert numbers(pictures_THWC) == list(range(60))
        assert made.fps == pytest.approx(59 / (times[-1] / 1000), rel=0.02)
        return
    end_ms = times[-1] + 40  # the last picture lasts as long as the file's rate says
    expected = [
        np.searchsorted(times, k * 1000 / fps, "right") - 1 for k in range(round(end_ms * fps / 1000))
    ]
    shown = numbers(pictures_THWC)
    assert abs(len(shown) - len(expected)) <= 1 and made.fps == fps
    assert all(one == other for one, other in zip(shown, expected, strict=False))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.flv"])
@pytest.mark.parametrize(("rate", "fps", "count"), [(30, 15, 30), (30, 30, 60), (25, 30, 72), (30, 7.5, 15)])
def test_constant_frame_rate_is_resampled(
    tmp_path: Path, name: str, rate: int, fps: float, count: int
) -> None:
    codec = "flv" if name.endswith("flv") else "mpeg4"
    path = write_video(tmp_path / name, numbered_video(60), fps=rate, codec=codec)
    made, pictures_THWC = run(path, StoreSettings(short_side=24, fps=fps))
    assert numbers(pictures_THWC) == [int(k * rate / fps + 1e-6) for k in range(count)]
    assert made.fps == fps


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "250", "bf": "3"}),
        ("a.mkv", "libx264", {"g": "20", "bf": "3"}),
        ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.ts", "mpeg2video", {"g": "12"}),
    ],
)
def test_segment_is_cut_exactly(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path = write_video(tmp_path / name, numbered_video(250), fps=20, codec=codec, options=options)
    with av.open(str(path)) as container:
        origin = (container.start_time or 0) / 1e6
    times = np.array(plain_times(path)) - origin
    whole = numbers(run(path)[1])
    for start_s, end_s in [(0.0, 1.0), (3.0, 3.5), (7.425, 9.0), (11.0, None), (None, 0.5)]:
        inside = (times >= (start_s or 0) - 1e-9) & (times < (end_s or 1e9) - 1e-9)
        _, pictures_THWC = run(path, start_s=start_s, end_s=end_s)  # type: ignore[arg-type]
        assert numbers(pictures_THWC) == [n for n, keep in zip(whole, inside, strict=True) if keep]
    with pytest.raises(DataError, match=r"no picture between 60 s and 70 s: the video ends at 12\.\d+ s"):
        run(path, start_s=60.0, end_s=70.0)


def test_later_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    parts = [smooth_video(generator, 12, 64, 48), smooth_video(generator, 12, 32, 32)]
    files = [
        write_video(tmp_path / f"{number}.ts", part, codec="mpeg2video") for number, part in enumerate(parts)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    made, pictures_THWC = run(path)
    frames = plain_frames(path)
    assert {frame.shape for frame in frames} == {(48, 64, 3), (32, 32, 3)}
    assert pictures_THWC.shape == (len(frames), 24, 32, 3) and (made.width, made.height) == (32, 24)
    for frame_HWC, picture_HWC in zip(frames, pictures_THWC, strict=True):
        assert mean_difference(frame_HWC, picture_HWC) < MOST


def test_interlaced_picture_is_scaled_whole(tmp_path: Path) -> None:
    video_THWC = smooth_video(np.random.default_rng(6), 4, 96, 96)
    video_THWC[:, ::2] = video_THWC[:, ::2] // 2  # a comb, as where something moved between two fields
    path = write_video(tmp_path / "a.mkv", video_THWC, codec="mpeg2video", options={"flags": "+ildct+ilme"})
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    _, pictures_THWC = run(path)
    for frame_HWC, picture_HWC in zip(plain_frames(path), pictures_THWC, strict=True):
        assert mean_difference(frame_HWC, picture_HWC) < MOST


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "mpeg4")])
def test_damaged_middle_is_passed_over_and_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, codec: str
) -> None:
    generator = np.random.default_rng(8)
    noisy_THWC = smooth_video(generator, 60, 96, 64) // 2 + generator.integers(
        0, 99, (60, 64, 96, 3), np.uint8
    )
    path = write_video(tmp_path / name, noisy_THWC, codec=codec, options={"g": "10"})
    data = bytearray(path.read_bytes())
    start, end = int(len(data) * 0.4), int(len(data) * 0.55)
    for position in generator.integers(start, end, 200):
        data[position] = int(generator.integers(256))
    path.write_bytes(data)
    made, pictures_THWC = run(path)
    assert 40 <= len(pictures_THWC) <= 60
    assert made.damage and "\n" not in made.damage
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "libx264")])
def test_video_cut_short_gives_what_is_there(tmp_path: Path, name: str, codec: str) -> None:
    video_THWC = smooth_video(np.random.default_rng(9), 80, 64, 48)
    faststart = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(
        tmp_path / name, video_THWC, codec=codec, options={"g": "10", "bf": "0"}, container_options=faststart
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.5)])
    made, pictures_THWC = run(path)
    assert 10 < len(pictures_THWC) < 70
    assert "of 80 pictures" in made.damage


def test_files_that_are_no_video_give_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("this is no video\n" * 100)
    with pytest.raises(DataError, match="FFmpeg cannot read it: Invalid data"):
        run(tmp_path / "text.avi")
    with pytest.raises(DataError, match="FFmpeg cannot read it: No such file"):
        run(tmp_path / "none.avi")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"no video stream \(found audio\)"):
        run(tmp_path / "sound.mkv")


def test_first_of_two_video_streams_is_taken(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream, width in zip(streams, (48, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for number in range(5):
            for stream, width in zip(streams, (48, 64), strict=True):
                frame = av.VideoFrame.from_ndarray(numbered_video(5, width, 48)[number], format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    made, pictures_THWC = run(tmp_path / "two.mkv")
    assert made.source_width == 48 and numbers(pictures_THWC) == list(range(5))


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    picture = b"\0image/jpeg\0\x03\0" + jpeg
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes((len(frame) >> shift) & 127 for shift in (21, 14, 7, 0))
    with av.open(str(tmp_path / "plain.mp3"), "w") as container:
        stream = container.add_stream("libmp3lame", rate=32000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 32000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    plain = (tmp_path / "plain.mp3").read_bytes()
    music = plain[plain.index(b"\xff\xfb") :]
    (tmp_path / "song.mp3").write_bytes(b"ID3\x03\0\0" + size + frame + music)
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(DataError, match="no video stream"):
        run(tmp_path / "song.mp3")


@pytest.mark.parametrize("name", ["sp ace,co'mma %03d ü.avi", "bad\udcff.avi", "a:b.avi", "-x.avi"])
def test_awkward_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "plain.avi", numbered_video(4)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(run(Path(name))[1]) == [0, 1, 2, 3]


def test_unwritable_output_is_not_the_videos_fault(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered_video(4))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OutputError) as caught:
        transcode(path, full, SMALL)
    assert caught.value.error.errno == 28


def test_clock_runs_forward_over_jumps_and_gaps() -> None:
    clock = Clock(step=0.1)
    times = [5.0, 5.1, 5.3, 0.0, 0.1, None, 900.0, 900.1]
    assert np.allclose([clock.tick(time) for time in times], [0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
