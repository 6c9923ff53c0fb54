"""Search: exact, whatever the block; overlapping windows give one hit; another network is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from small_data import smooth_video, write_video
from small_network import write_checkpoint

from slicfast.engine.video_embedding import Encoder
from slicfast.errors import ConfigError, DataError, RunError
from slicfast.evaluation import search as search_module
from slicfast.evaluation.embed_files import embed_files, find_videos
from slicfast.evaluation.features_file import (
    FORMAT,
    VERSION,
    VIDEO_COLUMNS,
    FeaturesFile,
    FeatureTable,
    write_features,
)
from slicfast.evaluation.search import embed_query, query_encoder, search, similarities


def make_index(path, features_ND, video_N=None, start_s_N=None, end_s_N=None, **meta):
    num = len(features_ND)
    video_N = np.arange(num, dtype=np.int32) if video_N is None else np.asarray(video_N, dtype=np.int32)
    num_videos = int(video_N.max()) + 1
    table = FeatureTable(
        {"format": FORMAT, "version": VERSION, **meta},
        [f"video {n}" for n in range(num_videos)],
        video_N,
        np.zeros(num) if start_s_N is None else np.asarray(start_s_N, dtype=float),
        np.ones(num) if end_s_N is None else np.asarray(end_s_N, dtype=float),
        {name: np.zeros(num_videos, dtype=np.int64) for name in VIDEO_COLUMNS},
        {},
    )
    write_features(path, table, features_ND.shape[1], lambda first, last: features_ND[first:last])
    return FeaturesFile(path)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_similarities_are_those_of_a_plain_product(suffix, block_rows, tmp_path):
    generator = np.random.default_rng()
    bank_ND = generator.standard_normal((50, 12)).astype(np.float32) * 3
    bank_ND[5] = 0
    queries_QD = generator.standard_normal((4, 12)).astype(np.float32)
    index = make_index(tmp_path / f"i.{suffix}", bank_ND)
    norms = np.linalg.norm(queries_QD, axis=1)[:, None] * np.linalg.norm(bank_ND, axis=1)
    wanted = queries_QD.astype(float) @ bank_ND.T.astype(float) / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(similarities(index, queries_QD, block_rows), wanted, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10, 60, 500])
def test_the_nearest_first_and_all_of_them_where_k_is_large(k, tmp_path):
    generator = np.random.default_rng()
    bank_ND = generator.standard_normal((200, 6)).astype(np.float32)
    bank_ND[100:150] = bank_ND[50]  # equals: the earlier row first
    query_D = generator.standard_normal(6).astype(np.float32)
    (hits,) = search(make_index(tmp_path / "i.npz", bank_ND), query_D[None], k)
    cosine_N = bank_ND @ query_D / np.linalg.norm(bank_ND, axis=1) / np.linalg.norm(query_D)
    wanted = np.argsort(-np.round(cosine_N, 5), kind="stable")[:k]
    assert [hit.row for hit in hits] == wanted.tolist()
    np.testing.assert_allclose([hit.similarity for hit in hits], cosine_N[wanted], atol=1e-5)


def test_more_queries_than_fit_give_the_same(tmp_path, monkeypatch):
    generator = np.random.default_rng()
    index = make_index(tmp_path / "i.npz", generator.standard_normal((30, 4)).astype(np.float32))
    queries = generator.standard_normal((5, 4)).astype(np.float32)
    wanted = search(index, queries, 3)
    monkeypatch.setattr(search_module, "MAX_SCORES", 60)
    assert [[h.row for h in hits] for hits in search(index, queries, 3)] == [
        [h.row for h in hits] for hits in wanted
    ]


def test_of_overlapping_windows_the_best_stands(tmp_path):
    # Two videos of six windows of 2 s every second; similarity falls from row 2 of the first on.
    angles = np.array([0.3, 0.1, 0.0, 0.2, 0.4, 0.5, 0.25, 0.35, 0.6, 0.7, 0.8, 0.9])
    bank_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    starts = np.tile(np.arange(6.0), 2)
    index = make_index(tmp_path / "i.npz", bank_ND, np.repeat([0, 1], 6), starts, starts + 2)
    (hits,) = search(index, np.array([[1, 0]], dtype=np.float32), 5)
    # Row 2 takes 1 and 3 with it, row 6 takes 7; windows that only touch are apart.
    assert [hit.row for hit in hits] == [2, 6, 0, 4, 8]
    assert [(hit.id, hit.start_s, hit.end_s) for hit in hits[:2]] == [("video 0", 2, 4), ("video 1", 0, 2)]


def test_bad_queries_are_one_line(tmp_path):
    index = make_index(tmp_path / "i.npz", np.ones((2, 4), dtype=np.float32))
    with pytest.raises(DataError, match="holds features of 4"):
        search(index, np.ones((1, 5), dtype=np.float32))
    with pytest.raises(DataError, match="not finite"):
        search(index, np.full((1, 4), np.nan, dtype=np.float32))
    with pytest.raises(ConfigError, match="k must be at least 1"):
        search(index, np.ones((1, 4), dtype=np.float32), 0)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A folder with network.pt, long.mkv (three scenes of 2 s), and cut.mkv, the middle scene alone."""
    folder = tmp_path_factory.mktemp("search")
    generator = np.random.default_rng()
    scenes = [smooth_video(generator, 50, 40, 32) for _ in range(3)]
    write_video(folder / "long.mkv", np.concatenate(scenes), codec="ffv1")
    write_video(folder / "cut.mkv", scenes[1], codec="ffv1")
    write_checkpoint(folder / "network.pt")
    encoder = Encoder.from_checkpoint(folder / "network.pt", device="cpu")
    plan = encoder.plan_for(window_s=1.0, hop_s=1.0)
    embed_files(encoder, find_videos([str(folder / "long.mkv")]), folder / "index.npz", plan=plan)
    return folder


def test_a_scene_is_found_inside_a_long_video(long_video):
    index = FeaturesFile(long_video / "index.npz")
    encoder = query_encoder(index, device="cpu")
    for query, seconds, place_s in (("cut.mkv", (None, 1.0), 2.0), ("long.mkv", (4.0, 5.0), 4.0)):
        (hits,) = search(index, embed_query(encoder, index, long_video / query, *seconds), 1)
        assert (hits[0].start_s, hits[0].end_s) == pytest.approx((place_s, place_s + 1))
        assert hits[0].similarity == pytest.approx(1, abs=1e-4)


def test_another_network_is_refused_and_a_moved_one_taken(long_video, tmp_path):
    index = FeaturesFile(long_video / "index.npz")
    other = write_checkpoint(tmp_path / "other.pt")
    with pytest.raises(RunError, match="made by another network"):
        query_encoder(index, other, device="cpu")
    moved = shutil.copy(long_video / "network.pt", tmp_path / "moved.pt")
    assert query_encoder(index, moved, device="cpu").source == moved
    index.table.meta["checkpoint"] = "gone.pt"
    with pytest.raises(DataError, match=r"made with gone\.pt, which is gone; give --checkpoint"):
        query_encoder(index, device="cpu")
