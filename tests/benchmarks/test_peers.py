"""The peers of the benchmark: the frames asked for, the same region and colours for the same draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from small_data import numbered_video, numbers, smooth_video

from benchmarks import tables
from benchmarks.peers import __main__ as main
from benchmarks.peers import contenders, curves, measuring, side_by_side
from benchmarks.peers.contenders import PEERS, find_peers, make_batches
from benchmarks.peers.corpus import CODINGS, Corpus, corpus_of, encode, lengthened, multiplied
from benchmarks.peers.factors import Factors
from slicfast.config import AugmentConfig, Config
from slicfast.data.augment import colour_matrix, draw
from slicfast.errors import DataError

SIZE = (96, 64)
NUM_FRAMES = 130  # beyond a key frame of either coding
LENGTH, CROP, NUM_CLIPS = 4, 24, 6


def config_of(**augment: float | str) -> Config:
    values = {"data": {"clip_length": LENGTH, "clip_stride": 3, "crop_size": CROP}, "augment": augment}
    return Config.from_dict(values)


GEOMETRY_ONLY = {"jitter_prob": 0.0, "grey_prob": 0.0, "blur_prob": 0.0}


def make_corpus(folder: Path, coding: str, pictures: np.ndarray) -> Corpus:
    videos = folder / "videos"
    videos.mkdir()
    for number in range(2):
        encode(videos / f"v{number}{CODINGS[coding].extension}", pictures, CODINGS[coding], SIZE)
    return corpus_of(folder, videos, coding)


@pytest.fixture(scope="module", params=list(CODINGS))
def numbered(request, tmp_path_factory) -> Corpus:
    pictures = numbered_video(NUM_FRAMES, *SIZE)
    return make_corpus(tmp_path_factory.mktemp("numbered"), request.param, pictures)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory) -> Corpus:
    pictures = smooth_video(np.random.default_rng(3), 40, *SIZE)
    return make_corpus(tmp_path_factory.mktemp("smooth"), "h264", pictures)


def all_contenders(config: Config, corpus: Corpus):
    peers, missing = find_peers(config)
    assert set(peers) | set(missing) == set(PEERS)
    pytest.importorskip("nvidia.dali")
    return contenders.contenders(config, corpus, NUM_CLIPS, peers)


def as_thwc(clip) -> np.ndarray:
    if isinstance(clip, torch.Tensor):
        return clip.permute(0, 2, 3, 1).numpy()
    return np.stack([np.asarray(picture) for picture in clip])


def decoded_clips(contender, batch) -> list[np.ndarray]:
    """The batch's clips, (T, H, W, 3); slicfast shows picture after picture, each good until the next."""
    if not contender.name.startswith("slicfast"):
        (clips,) = contender.decode([batch])
        return [as_thwc(clip) for clip in clips]
    pictures = [picture.copy() for picture in contender.decode([batch])]
    length = batch.frames_NT.shape[1]
    assert len(pictures) == batch.frames_NT.size
    return [np.stack(pictures[first : first + length]) for first in range(0, len(pictures), length)]


def test_every_contender_decodes_the_frames_that_were_asked_for(numbered):
    config = config_of()
    (batch,) = make_batches(config, numbered, NUM_CLIPS, NUM_CLIPS)
    assert batch.frames_NT.min() < 25 and batch.frames_NT.max() > 100
    for name, contender in all_contenders(config, numbered).items():
        for clip, frames_T in zip(decoded_clips(contender, batch), batch.frames_NT, strict=True):
            missed_T = np.abs(np.array(numbers(clip)) - frames_T)
            # AVI does not tell when frames are shown; with B-frames these two are misled by one.
            misled = numbered.name == "mpeg4" and name in ("torchcodec", "decord")
            assert missed_T.max() <= misled, name


def test_pictures_are_those_that_pyav_decodes_one_after_another(smooth):
    config = config_of()
    (batch,) = make_batches(config, smooth, NUM_CLIPS, NUM_CLIPS)
    with av.open(str(smooth.files[0])) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for name, contender in all_contenders(config, smooth).items():
        if name == "slicfast":
            continue  # its pictures are smaller; the test of regions compares them
        clip, frames_T = decoded_clips(contender, batch)[0], batch.frames_NT[0]
        clip = clip[..., ::-1] if name == "OpenCV" else clip
        expected = np.stack([plain[frame] for frame in frames_T])
        tolerance = 4 if name == "authors' way" else 1.5  # JPEG once more
        assert np.abs(clip.astype(int) - expected).mean() < tolerance, name


def reference(corpus: Corpus, batch, config: Config) -> torch.Tensor:
    """(N, 3, T, S, S): the region by an affine map, flip and colour matrix in float64; no blur."""
    clips = []
    mean, std = np.array(config.data.mean), np.array(config.data.std)
    for n, folder in enumerate(batch.folders):
        frames = []
        for frame in batch.frames_NT[n]:
            picture = cv2.imread(str(folder / f"{frame:06d}.jpg"))[..., ::-1].astype(np.float64)
            size = np.array(picture.shape[:2])
            (top, left), (bottom, right) = (
                edge[n] * size for edge in (batch.params.top_left, batch.params.bottom_right)
            )
            scale_x, scale_y = (right - left) / CROP, (bottom - top) / CROP
            move = np.array([[scale_x, 0, left + scale_x / 2 - 0.5], [0, scale_y, top + scale_y / 2 - 0.5]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            out = cv2.warpAffine(picture, move, (CROP, CROP), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            out = out[:, ::-1] if batch.params.flip[n] else out
            luma = (out @ [0.299, 0.587, 0.114]).mean()
            out = out @ batch.params.colour[n].T + batch.params.contrast_offset[n] * luma
            frames.append((out.clip(0, 255) / 255 - mean) / std)
        clips.append(np.stack(frames))
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(
    ("augment", "tolerance"),
    [(GEOMETRY_ONLY, 0.07), ({"colour": "fast", "blur_prob": 0.0, "grey_prob": 0.5, "hue": 0.0}, 0.12)],
    ids=["geometry", "colour"],
)
def test_every_contender_shows_the_same_region_and_colours(smooth, augment, tolerance):
    config = config_of(**augment)
    (batch,) = make_batches(config, smooth, NUM_CLIPS, NUM_CLIPS)
    expected = reference(smooth, batch, config)
    moved = reference(smooth, batch, config_of()).roll(1, 0)
    assert (moved - expected).abs().mean() > 4 * tolerance  # another clip would be told apart
    for name, contender in all_contenders(config, smooth).items():
        (loaded,) = contender.load([batch])
        assert loaded.shape == (NUM_CLIPS, 3, LENGTH, CROP, CROP) and loaded.dtype == torch.float32, name
        assert (loaded - expected).abs().mean() < tolerance, name


def test_blur_and_hue_are_applied_where_they_are_drawn_and_alike(smooth):
    changed = config_of(blur_prob=1.0, jitter_prob=1.0, grey_prob=0.0)
    (batch,), (before,) = (
        make_batches(c, smooth, NUM_CLIPS, NUM_CLIPS) for c in (changed, config_of(**GEOMETRY_ONLY))
    )
    shown = {}
    for name, contender in all_contenders(changed, smooth).items():
        (shown[name],) = contender.load([batch])
        if name != "slicfast":  # which draws for itself
            (unchanged,) = contender.load([before])
            assert ((shown[name] - unchanged).abs().mean((1, 2, 3, 4)) > 0.05).all(), name
    for name, clips in shown.items():
        assert (clips - shown["authors' way"]).abs().mean() < 0.15, name


def test_factors_give_back_the_matrix_they_were_taken_from():
    params = draw(np.arange(200, dtype=np.uint64), 171, 128, AugmentConfig(colour="fast"))
    kinds = set()
    for n in range(200):
        factors = Factors.of(params, n)
        kinds.add((bool(factors.operators), factors.grey))
        found = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **dict(factors.operators)}
        values = (
            *(found["brightness"], found["contrast"]),
            *(0.0 if factors.grey else found["saturation"], 2 * np.pi * found["hue"]),
        )
        matrix, offset = colour_matrix(*(np.array([value]) for value in values))
        np.testing.assert_allclose(matrix[0], params.colour[n], atol=1e-4)
        np.testing.assert_allclose(offset[0], params.contrast_offset[n], atol=1e-4)
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize("numbered", ["h264"], indirect=True)
def test_a_lengthened_and_a_multiplied_corpus_show_the_same_frames(numbered, tmp_path):
    config = config_of()
    for kind, corpus in (
        ("long", lengthened(numbered, tmp_path / "long", 2)),
        ("many", multiplied(numbered, tmp_path / "many", 7)),
    ):
        assert len(corpus.files) == len(corpus.store) == (2 if kind == "long" else 7)
        assert set(corpus.store.num_frames.tolist()) == {NUM_FRAMES * (2 if kind == "long" else 1)}
        (batch,) = make_batches(config, corpus, NUM_CLIPS, NUM_CLIPS)
        expected = (batch.frames_NT % NUM_FRAMES).tolist()
        for name, contender in all_contenders(config, corpus).items():
            assert [numbers(clip) for clip in decoded_clips(contender, batch)] == expected, name


@pytest.fixture(scope="module")
def small_result(smooth) -> dict:
    config = config_of()
    peers, _ = find_peers(config)
    pytest.importorskip("nvidia.dali")
    source = side_by_side.measure_source(config, peers, smooth, num_runs=2, num_clips=4, batch_size=2)
    result = {"clip": [LENGTH, CROP, CROP], "sources": [source, source]}
    return json.loads(json.dumps(result))


def test_the_table_tells_every_contender_and_what_preparing_costs(small_result):
    rows = side_by_side.table_rows(small_result)
    assert {len(row) for row in rows} == {len(side_by_side.COLUMNS)}
    source = small_result["sources"][0]
    names = [row["name"] for row in source["contenders"]]
    assert names[0] == "slicfast" and len(rows) == 2 * (1 + len(names))
    assert source["prepare"]["cpu_s_per_hour"] > 0 and source["original_bytes_per_hour"] > 0
    for row in source["contenders"]:
        low, high = row["load"]["cpu_ms_quartiles"]
        assert 0 < low <= row["load"]["cpu_ms"] <= high
        assert row["name"] != "slicfast" or row["load"]["ratio"] == 1
    assert tables.TABLES["peers"](small_result).count("\n") == len(rows) + 1
    assert tables.TABLES["peers-made"](small_result).count("\n") == 1 + 2 * 4


def test_costs_along_curves_have_a_value_a_contender_and_place(smooth):
    config = config_of()
    peers, _ = find_peers(config)
    pytest.importorskip("nvidia.dali")
    points = [curves.Point("stride", "frames", x, config, smooth) for x in (1, 2)]
    result = curves.measure_curves(
        points, {"PyAV": peers["PyAV"]}, num_runs=1, num_clips=2, say=lambda _: None
    )
    (curve,) = result["curves"]
    assert curve["x"] == [1, 2] and len(curve["store_open_ms"]) == 2
    assert set(curve["series"]) == {"slicfast", "PyAV"}
    assert all(len(series["cpu_ms"]) == 2 for series in curve["series"].values())
    table = tables.TABLES["peers-curves"](result).splitlines()
    assert table[0] == "| CPU ms a clip | slicfast | PyAV |" and table[2].startswith(
        "| stride, 1 to 2 frames |"
    )


def test_a_peer_that_cannot_read_the_videos_is_left_out_and_named(smooth):
    config = config_of()
    peers, _ = find_peers(config)
    everyone = contenders.contenders(config, smooth, 2, {name: peers[name] for name in ("PyAV", "OpenCV")})
    (batch,) = make_batches(config, smooth, 2, 2)
    broken = replace(batch, files=[smooth.folders[0] / "000000.txt"] * 2)
    rows, failed = measuring.measure_contenders(everyone, [broken], num_runs=1, stages=("load",))
    assert [row["name"] for row in rows] == ["slicfast"]
    assert [line.split(" (")[0] for line in failed] == [
        f"{name} cannot read these videos" for name in ("PyAV", "OpenCV")
    ]


def test_videos_shorter_than_a_clip_are_refused_in_a_line(smooth):
    with pytest.raises(DataError, match="h264: a video has 40 frames, a clip 64; leave out such videos"):
        make_batches(Config.from_dict({"data": {"clip_length": 64}}), smooth, 2, 2)


def test_charts_are_drawn_the_same_from_the_same_json(small_result, tmp_path):
    grown = {"cpu_ms": [1.0, 2.0], "cpu_ms_quartiles": [[0.9, 1.1], [1.9, 2.1]]}
    curve = {"what": "stride", "unit": "frames", "x": [1, 2], "series": {"slicfast": grown, "PyAV": grown}}
    for part, result in (("side-by-side", small_result), ("curves", {"curves": [curve] * 5})):
        (tmp_path / "a.json").write_text(json.dumps({"results": result}))
        charts = []
        for _ in range(2):
            main.draw(part, tmp_path / "a.json")
            charts.append((tmp_path / "a.svg").read_text())
        assert charts[0] == charts[1] and "<svg" in charts[0]


def test_wrong_arguments_end_in_one_line(tmp_path, capsys):
    for arguments, told in (
        (["--videos", str(tmp_path / "none")], "no folder of videos at"),
        (["--only", "charts", "--output", str(tmp_path)], "no result *-peers.json in"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main.main(arguments)
        assert str(stopped.value.code).startswith(f"error: {told}")
    with pytest.raises(SystemExit):
        main.main(["--only", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_a_peer_whose_library_is_missing_is_left_out_with_its_line(monkeypatch):
    monkeypatch.setitem(PEERS, "decord", ("no_such_peer", "NoSuchPeer", "pip install decord"))
    peers, missing = find_peers(config_of())
    assert "decord" not in peers and "OpenCV" in peers
    assert missing["decord"].startswith("decord is left out (")
    assert missing["decord"].endswith("install it with: pip install decord")
