"""How far either mode of colour is from torchvision's operators: levels of 255, over random clips and draws.

python benchmarks/colour.py benchmarks/results/<machine>-<date>-colour.json [--clips N]

A clip is one frame of a drifting texture (slicfast bench loader's), cropped and resized once; then its draw
is carried out by torchvision on 8-bit pictures, in the drawn order, and by the loader.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.bench.harness import write_result
from slicfast.bench.texture import texture_store
from slicfast.config import AugmentConfig
from slicfast.data.augment import ClipParams, draw
from slicfast.data.augment_cpu import CpuAugmenter
from slicfast.data.decoding.jpeg_clips import JpegClip
from slicfast.data.recycling import ScratchPool
from slicfast.data.resampling import resample
from slicfast.device import ensure_torchvision_imports

CROP = 112
MODES = ("exact", "fast")
OPERATORS = ("brightness", "contrast", "saturation", "hue")  # as ClipParams.order numbers them
COLUMNS = ("augment.colour", "mean error", "of the worst clip in a hundred", "99.9 % of values within")


def torchvisions(shown_HWC: npt.NDArray[np.uint8], params: ClipParams, n: int, is_grey: bool) -> Any:
    """(H, W, 3) uint8: row n's colour of a frame, by torchvision."""
    ensure_torchvision_imports()
    from torchvision.transforms.v2 import functional

    picture = torch.from_numpy(shown_HWC.copy()).permute(2, 0, 1)
    for number in params.order[n].tolist():
        if number >= 0:
            operator = getattr(functional, f"adjust_{OPERATORS[number]}")
            picture = operator(picture, float(params.factors[n, number]))
    if is_grey:
        picture = functional.rgb_to_grayscale(picture, 3)
    return picture.permute(1, 2, 0).numpy()


def measure(num_clips: int) -> dict[str, Any]:
    """Errors of either mode over the same draws; every clip has its colours changed."""
    with tempfile.TemporaryDirectory(prefix="slicfast-colour-") as folder:
        store = texture_store(Path(folder) / "store")
        rng = np.random.default_rng(0)
        video_N = rng.integers(0, len(store), num_clips)
        pictures = [store.frames(int(v), [int(rng.integers(store.num_frames[v]))])[0] for v in video_N]
    scratch = ScratchPool()
    clips = [JpegClip([picture], scratch) for picture in pictures]
    width, height = int(store.width[0]), int(store.height[0])
    seed_N = rng.integers(0, 2**64, num_clips, dtype=np.uint64)
    augmenter = CpuAugmenter(clip_length=1, crop_size=CROP, mean=(0.0,) * 3, std=(1.0,) * 3)
    shown, expected = {}, []
    for mode in MODES:
        config = AugmentConfig(colour=mode, jitter_prob=1.0, blur_prob=0.0, flip_prob=0.0)
        params = draw(seed_N, width, height, config)
        shown[mode] = 255.0 * augmenter(clips, params)[:, 0].numpy()
        if mode == "exact":
            for n in range(num_clips):
                region = params.top_left[n], params.bottom_right[n]
                frame = resample(clips[n], *region, CROP)[0]
                expected.append(torchvisions(frame, params, n, bool(params.offset[n].any())))
    wanted = np.stack(expected).astype(np.float32)
    return {"num_clips": num_clips, "modes": {mode: _errors(shown[mode], wanted) for mode in MODES}}


def _errors(shown_NHWC: npt.NDArray[Any], wanted_NHWC: npt.NDArray[Any]) -> dict[str, float]:
    error = np.abs(shown_NHWC - wanted_NHWC)
    clip_N = error.mean(axis=(1, 2, 3))
    return {
        "mean": float(error.mean()),
        "worst_clip_in_100": float(np.quantile(clip_N, 0.99)),
        "within_999": float(np.quantile(error, 0.999)),
    }


def table_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The results as rows under COLUMNS."""
    return [
        (mode, *(f"{found[key]:.1f}" for key in ("mean", "worst_clip_in_100", "within_999")))
        for mode, found in results["modes"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clips", type=int, default=300)
    options = parser.parse_args()
    results = measure(options.clips)
    write_result(options.output, "colour", results)
    for row in (COLUMNS, *table_rows(results)):
        print("   ".join(row))


if __name__ == "__main__":
    main()
