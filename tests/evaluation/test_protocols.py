"""Protocols over a small store, short videos among them, against plain loops; transfer; what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import encode_pictures, record_of, smooth_video
from small_network import write_checkpoint

from slicfast.data.loader import ClipLoader
from slicfast.data.requests import make_requests
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.writer import StoreWriter
from slicfast.data.views import ten_crops
from slicfast.errors import ConfigError, DataError, MachineError
from slicfast.evaluation.document import read_document
from slicfast.evaluation.features import Features
from slicfast.evaluation.run import evaluate, evaluate_all, evaluate_run
from slicfast.evaluation.subject import open_subject

LENGTHS = {"train": (2, 3, 5, 8, 20, 31), "test": (1, 4, 9, 26), "other": (6,)}


def write_store(path: Path, classes: tuple[str | None, ...] = ("a", "b"), other: str = "c") -> ClipStore:
    """Videos of 1 to 31 pictures; classes take turns within a split, but for the split `other`."""
    generator = np.random.default_rng(3)
    labels: dict[str, str | None] = {}
    splits: dict[str, list[str]] = {}
    with StoreWriter(path, StoreSettings(short_side=32)) as writer:
        for split, lengths in LENGTHS.items():
            for number, num_frames in enumerate(lengths):
                label = other if split == "other" else classes[number % len(classes)]
                video_id = f"{split}_{number}.avi"
                pictures = encode_pictures(smooth_video(generator, num_frames, 40, 32))
                writer.add(record_of(video_id, label, pictures, 40, 32), b"".join(pictures))
                labels[video_id] = label
                splits.setdefault(split, []).append(video_id)
        writer.finish(labels, splits)
    return ClipStore(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return write_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def checkpoint(store: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "last.pt"
    return write_checkpoint(path, f"data.store={store.path}", "data.num_threads=1")


def plain_starts(num_frames: int) -> list[int]:
    """Windows of 4 frames, every round(7 / 16 * 4) = 2; a shorter video begins before its first frame."""
    return [num_frames - 4] if num_frames < 4 else list(range(0, num_frames - 3, 2))


def test_coclrs_features_are_means_over_windows_centred_on_their_split(store, checkpoint):
    subject = open_subject(checkpoint)
    split, encoder = Features(subject).coclr, subject.encoder()
    loader = ClipLoader(store, subject.config.data, augment=None, geometry=ten_crops, max_batch=1)

    def plain(rows):
        means = []
        for row in rows:
            starts = plain_starts(int(store.num_frames[row]))
            clips = loader.load(make_requests(np.array([row]), start) for start in starts)
            with torch.no_grad():
                means.append(torch.stack([encoder.forward_features(b.clips)[0] for b in clips]).mean(dim=0))
        bank = torch.stack(means).double().numpy()
        return bank - bank.mean(axis=0)

    query, gallery = plain(subject.query_rows), plain(subject.gallery_rows)
    np.testing.assert_allclose(split.query["trained_pooled"].numpy(), query, atol=1e-5)
    np.testing.assert_allclose(split.gallery["trained_pooled"].numpy(), gallery, atol=1e-5)

    cosine = query @ gallery.T / np.outer(np.linalg.norm(query, axis=1), np.linalg.norm(gallery, axis=1))
    right = subject.gallery_labels[cosine.argmax(axis=1)] == subject.query_labels
    found = evaluate_run(checkpoint).document["retrieval"]["coclr"]["trained_pooled"]
    assert found["recall"]["1"]["value"] == pytest.approx(right.mean())
    assert found["per_class"] == [right[subject.query_labels == label].mean() for label in range(2)]


def test_every_video_is_compared_once_however_short_and_without_randomness(store, checkpoint):
    first, second = evaluate_run(checkpoint), evaluate_run(checkpoint)
    assert (first.num_query, first.num_gallery) == (4, 6)
    assert first.document["videos_per_class"] == {"query": [2, 2], "gallery": [3, 3]}
    assert first.document["retrieval"] == second.document["retrieval"]
    assert set(first.document["retrieval"]["iic"]) == set(first.document["row_names"])
    assert first.table["trained_pooled"][50] == 1.0


def test_training_windows_are_those_of_the_gallery_at_most_ten_a_video(store, checkpoint):
    subject = open_subject(checkpoint)
    windows = Features(subject).training_windows
    assert np.diff(windows.first_V).tolist() == [1, 1, 1, 3, 9, 10]
    assert windows.features_MD.shape == (25, 64)


def test_all_protocols_are_written_with_what_is_needed_to_read_them(store, checkpoint):
    document, path = evaluate_all(checkpoint, overrides={"probe": {"epochs": 2, "batch_size": 4}})
    assert path == checkpoint.parent.parent / "evaluation.json"
    assert document == read_document(path) == json.loads(path.read_text())
    assert {"retrieval", "linear", "knn", "machine", "protocols", "checkpoint"} <= set(document)
    assert document["protocols"]["coclr"]["window_step"] == 2
    assert document["linear"]["coclr"]["trained_pooled"]["epochs"] == 2
    assert document["linear"]["held_out"] == {"how": "by class", "num_videos": 0}
    assert set(document["knn"]["trained_pooled"]) == {"1", "2", "5", "10", "all"}
    assert document["machine"]["torch"] == torch.__version__


def test_transfer_takes_classes_and_splits_of_the_other_store(checkpoint, tmp_path):
    other = write_store(tmp_path / "hmdb", classes=("x", "y", "z"), other="x")
    document, path = evaluate_all(checkpoint, store=other.path, train_probe=False)
    assert path == checkpoint.parent.parent / "evaluation-hmdb.json"
    assert document["classes"] == ["x", "y", "z"] and document["store"] == str(other.path)
    assert document["trained_on"]["store"] != document["store"]


def test_the_same_split_twice_leaves_each_video_out(checkpoint):
    document = evaluate(checkpoint, query="train", gallery="train", sections=("retrieval", "knn"))
    assert document["num_query"] == document["num_gallery"] == 6
    assert document["retrieval"]["iic"]["chance"]["recall"]["1"]["value"] == pytest.approx(2 / 5)


def test_what_cannot_be_evaluated_is_one_line(store, checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="split must be one of other, test, train; got 'tset'"):
        open_subject(checkpoint, query="tset")
    with pytest.raises(DataError, match=r"'train' has no video of 1 of the classes of split 'other' \(c\)"):
        open_subject(checkpoint, query="other")
    unlabelled = write_store(tmp_path / "plain", classes=(None,), other="c")
    with pytest.raises(DataError, match="4 of 4 videos of split 'test' have no class"):
        open_subject(checkpoint, store=unlabelled.path)
    with pytest.raises(DataError, match="holds no checkpoint"):
        open_subject(tmp_path)
    with pytest.raises(MachineError, match="cannot write"):  # before anything is computed
        evaluate_all(checkpoint, output=tmp_path)
    with pytest.raises(DataError, match="no evaluation at"):
        read_document(tmp_path / "evaluation.json")
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(DataError, match="is no evaluation"):
        read_document(tmp_path / "table.json")
