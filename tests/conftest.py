"""Fixtures that several parts share: small real data, made on the fly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import encode_pictures, gliding_video, record_of, smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.preparing.flow import prepare_flow
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreSettings, StoreWriter
from slicfast.device import cap_onednn, ensure_torchvision_imports

TINY_SIZE = (40, 32)  # width, height

ensure_torchvision_imports()  # before any test imports timm or torchvision
cap_onednn()  # before the first convolution, whichever test has it
torch.set_num_threads(1)  # tests run side by side, one a core
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_cuda") is None or torch.cuda.is_available():
        return
    if os.environ.get("SLICFAST_REQUIRE_CUDA") == "1":
        pytest.fail("SLICFAST_REQUIRE_CUDA=1, but torch finds no NVIDIA GPU", pytrace=False)
    pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session")
def extra_data() -> Path:
    """The folder of official lists and of real and odd videos, too large for the repository."""
    folder = os.environ.get("SLICFAST_EXTRA_DATA")
    if not folder:
        pytest.skip("SLICFAST_EXTRA_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """12 videos, 40 x 32 pixels, 20-60 frames, classes 'left' and 'right', splits train (8) and test (4).

    Read-only: a test that damages bytes must work on a copy of the folder.
    """
    path = tmp_path_factory.mktemp("tiny") / "store"
    generator = np.random.default_rng(7)
    width, height = TINY_SIZE
    labels: dict[str, str | None] = {}
    splits: dict[str, list[str]] = {"train": [], "test": []}
    with StoreWriter(path, StoreSettings(short_side=32)) as writer:
        for number in range(12):
            label = ("left", "right")[number % 2]
            video_id = f"{label}/video_{number:02d}.avi"
            num_frames = int(generator.integers(20, 61)) if number > 1 else (20, 60)[number]
            pictures = encode_pictures(smooth_video(generator, num_frames, width, height))
            writer.add(record_of(video_id, label, pictures, width, height), b"".join(pictures))
            labels[video_id] = label
            splits["test" if number % 6 in (4, 5) else "train"].append(video_id)
        writer.finish(labels, splits)
    return ClipStore(path)


@pytest.fixture(scope="session")
def gliding_store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """6 videos of 64 x 48 pixels and 40-45 pictures with flow of both kinds, splits train (4) and test (2).

    Pictures glide to the right by 1.5 pixels and upwards by 0.75 (in stored pixels). Read-only.
    """
    folder = tmp_path_factory.mktemp("gliding")
    for number in range(6):
        video_THWC = gliding_video(np.random.default_rng(number), 40 + number, 128, 96, (3.0, -1.5))
        split, label = ("train", "test")[number // 4], ("left", "right")[number % 2]
        write_video(folder / "videos" / split / label / f"{number}.mkv", video_THWC, codec="ffv1")
    catalog = read_catalog(folder / "videos")
    prepare(catalog, folder / "store", StoreSettings(short_side=48), workers=1)
    prepare_flow(catalog, folder / "store", workers=1)
    prepare_flow(catalog, folder / "store", "both", workers=1)
    return ClipStore(folder / "store")
