"""Draw docs/motion.png: one instant of a drawn video as pictures and flow, as stored, cropped and mirrored.

python benchmarks/motion_figure.py [docs/motion.png]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch

from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.augment import draw
from slicfast.data.catalog import read_catalog
from slicfast.data.loader import ClipLoader
from slicfast.data.prepare import prepare
from slicfast.data.preparing.flow import prepare_flow
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import FlowStore
from slicfast.data.synthetic import SyntheticConfig, write_dataset

CONFIG = DataConfig(clip_length=2)
GEOMETRY = AugmentConfig(jitter_prob=0, grey_prob=0, blur_prob=0, max_area=0.5)
FRAME = 12


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "motion.png"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = SyntheticConfig(
            actions=("walk",), train_groups=1, val_groups=0, test_groups=0, num_frames=2 * FRAME
        )
        write_dataset(folder / "videos", drawn)
        catalog = read_catalog(folder / "videos")
        prepare(catalog, folder / "store")
        prepare_flow(catalog, folder / "store", "both")
        save(target, rows(ClipStore(folder / "store")))


def rows(store: ClipStore) -> dict[str, list[np.ndarray]]:
    """What is shown of an instant: (H, W, 3) pictures in 0-1."""
    seed_N = np.arange(1000, dtype=np.uint64)
    params = draw(seed_N, int(store.width[0]), int(store.height[0]), GEOMETRY)
    centre = np.abs((params.top_left + params.bottom_right) / 2 - 0.5).max(axis=1) < 0.12
    plain, mirrored = (seed_N[centre & (params.flip == flip)][0] for flip in (False, True))
    evaluation = make_requests([0], FRAME, role=Role.EVAL)
    found = {"the stored picture's centre": show(store, evaluation, None)}
    for what, seed in (("a crop", plain), ("a mirrored crop", mirrored)):
        request = make_requests([0], FRAME, role=Role.ANCHOR, seed_N=seed)
        found[what] = show(store, request, GEOMETRY)
    return found


def show(store: ClipStore, request: Requests, augment: AugmentConfig | None) -> list[np.ndarray]:
    """The picture, u, v, and the three channels of both."""
    shown = []
    for view, components in ((View.RGB, "both"), (View.FLOW, "horizontal"), (View.FLOW, "both")):
        asked = request.copy()
        asked["view"] = view
        flow = FlowStore(store, components)
        (batch,) = ClipLoader(store, CONFIG, augment=augment, flow=flow, max_batch=1).load([asked])
        clip_HWC = batch.clips[0, :, 0].permute(1, 2, 0)
        shown.append((clip_HWC * torch.tensor(CONFIG.std) + torch.tensor(CONFIG.mean)).clamp(0, 1).numpy())
    picture, u, both = shown
    return [picture, u, np.repeat(both[..., 1:2], 3, axis=2), both]


def save(target: Path, found: dict[str, list[np.ndarray]]) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    columns = ("picture", "u: right is light", "v: down is light", "both: u, v, mid-grey")
    figure, axes = pyplot.subplots(
        len(found), len(columns), figsize=(8.4, 6.6), layout="constrained", squeeze=False
    )
    for line, (what, pictures) in zip(axes, found.items(), strict=True):
        line[0].set_ylabel(what)
        for cell, picture in zip(line, pictures, strict=True):
            cell.imshow(picture)
            cell.set_xticks([])
            cell.set_yticks([])
    for cell, title in zip(axes[0], columns, strict=True):
        cell.set_title(title, fontsize=10)
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    main()
