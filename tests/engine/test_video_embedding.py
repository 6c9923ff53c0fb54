"""slicfast.Encoder: files and arrays to vectors, the same as from a clip store, with bad files named."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from small_data import numbered_video, numbers, smooth_video, write_video
from small_network import SMALL_NETWORK, write_checkpoint

import slicfast
from slicfast.config import Config
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import StoreSettings, prepare
from slicfast.data.sampling import evenly_spaced
from slicfast.data.sources import file_clips
from slicfast.data.sources.file_clips import read_clips
from slicfast.data.sources.file_sources import ArraySource, ClipPlan, FileSource
from slicfast.data.store import ClipStore
from slicfast.engine.embedding import embed_videos, encoder_extractor, evaluation_loader
from slicfast.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with five videos of 3 to 60 pictures and two sizes, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng()
    for number, num_frames in enumerate((60, 3, 31, 20, 45)):
        size = (64, 48) if number % 2 else (56, 56)
        write_video(folder / f"{number}.mkv", smooth_video(generator, num_frames, *size), codec="ffv1")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a freshly drawn network."""
    return write_checkpoint(tmp_path_factory.mktemp("run") / "network.pt")


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return slicfast.Encoder.from_checkpoint(checkpoint, device="cpu")


def paths_of(folder):
    return sorted(folder.glob("?.mkv"))


@pytest.mark.parametrize("features", ["pooled", "projection"])
def test_the_same_vectors_as_from_a_store(features, videos, encoder, tmp_path):
    prepare(read_catalog(videos), tmp_path / "store", StoreSettings(quality=100), workers=1)
    store = ClipStore(tmp_path / "store")
    config = Config.load(None, [*SMALL_NETWORK, f"data.store={store.path}"])
    device = torch.device("cpu")
    banks = embed_videos(
        encoder_extractor(encoder.network, device, None),
        evaluation_loader(store, config, device),
        store,
        np.arange(len(store)),
        config,
        device,
        num_clips=config.eval.num_clips,
    )
    found = encoder.embed([videos / video_id for video_id in store.ids()], features)
    assert found.shape == banks[features].shape
    wanted = banks[features].numpy()
    # Directions about the mean: with a network untrained, all videos look alike in their common part. What
    # the store's JPEG changes weighs more in some random networks than in others, so most rows must agree
    # closely, and each must be nearest to its own.
    found_ND, wanted_ND = (torch.from_numpy(rows - wanted.mean(0)) for rows in (found, wanted))
    cosines_NN = torch.cosine_similarity(found_ND[:, None], wanted_ND[None], dim=2)
    assert cosines_NN.argmax(dim=1).tolist() == list(range(len(store))), cosines_NN
    assert cosines_NN.diagonal().median() > 0.95, cosines_NN


def test_a_video_alone_gets_what_it_gets_among_others(videos, encoder):
    paths = paths_of(videos)
    together = encoder.embed(paths[::-1], num_threads=3)[::-1]
    for path, row in zip(paths, together, strict=True):
        np.testing.assert_allclose(encoder.embed(str(path))[0], row, rtol=1e-4, atol=1e-5)


def test_an_array_of_pictures_is_as_good_as_its_file(encoder, tmp_path):
    video_THWC = smooth_video(np.random.default_rng(), 25, 64, 48)
    path = write_video(tmp_path / "lossless.mkv", video_THWC, codec="ffv1", pix_fmt="bgr0")
    from_file, from_array = encoder.embed([path, video_THWC], num_clips=2)
    np.testing.assert_allclose(from_array, from_file, rtol=1e-3, atol=1e-4)


def test_the_mean_over_clips_by_hand(encoder):
    video_THWC = smooth_video(np.random.default_rng(), 37, 40, 24)  # resized to 24 x 32: the crop's own size
    data = encoder.config.data
    starts = evenly_spaced(np.array([0]), [37], 3, clip_span=4, stride=1)["start"]
    clips = []
    for start in starts:
        clip = torch.from_numpy(video_THWC[start : start + 4]).permute(0, 3, 1, 2).float()
        clip = torch.nn.functional.interpolate(clip, size=(24, 32), mode="bilinear", antialias=True)
        clip = clip[..., 4:28].round() / 255
        clip = (clip - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
        clips.append(clip.transpose(0, 1))
    with torch.no_grad():
        wanted = encoder.network.forward_features(torch.stack(clips)).mean(0).numpy()
    found = encoder.embed([video_THWC])[0]
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02 * np.abs(wanted).max())


def clips_of(source, plan):
    """Numbers of the pictures of every clip, its row, and the facts."""
    pieces = read_clips(source, plan)
    shown, rows = [], []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return shown, rows, end.value
        for clip_T, row in zip(piece.index_CT, piece.row_C, strict=True):
            shown.append(numbers(piece.pictures[clip_T]))
            rows.append(int(row))


PLAN = ClipPlan(clip_length=4, clip_stride=2, resize=(32, 48), crop_size=32, num_clips=3, max_clips=2)


@pytest.mark.parametrize("kept", [1 << 30, 1])
def test_evenly_spaced_clips_whether_the_video_is_kept_or_read_twice(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(file_clips, "MAX_HELD_BYTES", kept)
    path = write_video(tmp_path / "n.mkv", numbered_video(60), codec="ffv1")
    shown, rows, facts = clips_of(FileSource(path, PLAN), PLAN)
    assert shown == [[0, 2, 4, 6], [27, 29, 31, 33], [53, 55, 57, 59]]
    assert rows == [0, 0, 0]
    assert (facts.num_frames, facts.fps, facts.duration_s) == (60, 25.0, pytest.approx(2.4))


def test_a_short_video_repeats_its_last_picture():
    shown, _, _ = clips_of(ArraySource(numbered_video(3), PLAN), PLAN)
    assert shown == [[0, 2, 2, 2]] * 3


def test_windows_slide_and_the_last_ends_with_the_video(tmp_path):
    path = write_video(tmp_path / "n.mkv", numbered_video(100), codec="ffv1")
    plan = ClipPlan(4, 2, (32, 48), 32, num_clips=2, window_s=0.8, hop_s=0.4, max_clips=3)
    shown, rows, facts = clips_of(FileSource(path, plan), plan)
    starts = [0, 10, 20, 30, 40, 50, 60, 70, 80]
    wanted = [[start + offset + step for step in (0, 2, 4, 6)] for start in starts for offset in (0, 13)]
    assert (shown, rows) == (wanted, [row for row in range(9) for _ in range(2)])
    assert facts.row_start_s == pytest.approx([start / 25 for start in starts])
    assert facts.row_end_s == pytest.approx([(start + 20) / 25 for start in starts])
    longer = write_video(tmp_path / "m.mkv", numbered_video(103), codec="ffv1")
    shown, rows, facts = clips_of(FileSource(longer, plan), plan)
    assert (shown[-2][0], rows[-1], facts.row_start_s[-1]) == (83, 9, pytest.approx(83 / 25))
    short = write_video(tmp_path / "s.mkv", numbered_video(7), codec="ffv1")
    shown, rows, facts = clips_of(FileSource(short, plan), plan)
    assert (rows, facts.row_start_s, facts.row_end_s) == ([0, 0], [0.0], [pytest.approx(7 / 25)])


def test_a_segment_has_its_own_pictures_and_the_files_seconds(tmp_path):
    path = write_video(tmp_path / "n.mkv", numbered_video(100), codec="ffv1")
    plan = ClipPlan(4, 1, (32, 48), 32, num_clips=1, window_s=0.4, hop_s=0.4)
    shown, _, facts = clips_of(FileSource(path, plan, start_s=2.0, end_s=2.8), plan)
    assert shown == [[53, 54, 55, 56], [63, 64, 65, 66]]
    assert facts.row_start_s == pytest.approx([2.0, 2.4])


def test_pictures_on_a_regular_clock_where_fps_is_given(tmp_path):
    path = write_video(tmp_path / "n.mkv", numbered_video(50), codec="ffv1")
    plan = ClipPlan(4, 1, (32, 48), 32, num_clips=1, fps=5.0)
    shown, _, facts = clips_of(FileSource(path, plan), plan)
    assert (facts.num_frames, facts.fps) == (10, 5.0)
    assert np.diff(shown[0]).tolist() == [5, 5, 5]


def test_an_unreadable_video_is_named_or_skipped(videos, encoder, tmp_path, caplog):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    good = paths_of(videos)[0]
    with pytest.raises(DataError, match=r"bad\.mp4: FFmpeg cannot read it"):
        encoder.embed([good, bad])
    with pytest.raises(DataError, match=r"gone\.mp4: no such file"):
        encoder.embed(tmp_path / "gone.mp4")
    found = encoder.embed([bad, good], skip_unreadable=True)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    assert "bad.mp4" in caplog.text
    np.testing.assert_allclose(found[1], encoder.embed(good)[0], rtol=1e-4, atol=1e-5)


def test_nothing_in_gives_no_rows_of_the_right_width(encoder):
    assert encoder.embed([]).shape == (0, encoder.num_features())
    assert encoder.embed([], "projection").shape == (0, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": "pooling"}, "did you mean 'pooled'"),
        ({"num_clips": 0}, "num_clips must be above 0"),
        ({"fps": -1.0}, "fps must be above 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, videos, encoder):
    with pytest.raises(ConfigError, match=message):
        encoder.embed(paths_of(videos), **arguments)


def test_pictures_of_another_kind_are_refused(encoder):
    with pytest.raises(DataError, match="video 0 of those given: expected pictures"):
        encoder.embed([np.zeros((4, 3, 32, 32), dtype=np.float32)])


def test_the_fingerprint_tells_weights_apart(checkpoint, encoder, tmp_path):
    copy = shutil.copy(checkpoint, tmp_path / "copy.pt")
    again = slicfast.Encoder.from_checkpoint(copy, device="cpu")
    assert again.fingerprint() == encoder.fingerprint()
    before = again.fingerprint("pooled")
    with torch.no_grad():
        again.network.projection.fc2.bias[0] += 1e-6
    assert again.fingerprint() != encoder.fingerprint()
    assert again.fingerprint("pooled") == before == encoder.fingerprint("pooled")


def test_larger_pictures_are_averaged_down_as_a_store_does():
    video_THWC = smooth_video(np.random.default_rng(), 6, 400, 300)
    plan = ClipPlan(2, 1, (48, 64), 48, short_side=48, num_clips=1)
    piece = next(read_clips(ArraySource(video_THWC, plan), plan))
    wanted = cv2.resize(video_THWC[2], (64, 48), interpolation=cv2.INTER_AREA)[:, 8:56]
    assert np.abs(piece.pictures[0].astype(int) - wanted).max() <= 1
