"""What the two codecs of a clip store keep of a picture, and what they cost: bytes, PSNR, SSIM, encoding.

Of each video every frame is scaled once; what is stored of it, decoded again, is compared with that.

python benchmarks/codecs.py VIDEOS benchmarks/results/<machine>-<date>-codecs.json [--videos N] [--crf N]

VIDEOS is a folder of real videos; drawn ones (slicfast synth) are made for the second half of the table.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from slicfast.bench.harness import cpu_seconds, write_result
from slicfast.bench.loader import WHOLE, bench_loader
from slicfast.config import Config
from slicfast.data.catalog import Catalog, Video, read_catalog
from slicfast.data.decoding.ffmpeg import Decoded, decode
from slicfast.data.decoding.pictures import FrameScaler
from slicfast.data.prepare import prepare
from slicfast.data.preparing.encoding import make_encoder
from slicfast.data.preparing.estimate import spread
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import StoreSettings, Uint8Array
from slicfast.data.synthetic import SyntheticConfig, write_dataset

NUM_VIDEOS = 30
MAX_FRAMES = 200  # a video
NUM_RUNS = 5  # of loading
COLUMNS = (
    "videos",
    "codec",
    "bytes a frame",
    "of JPEG",
    "PSNR, dB",
    "SSIM",
    "encoding, CPU ms a frame",
    "loading, CPU ms a clip",
)


def compare(videos: Sequence[Path], settings: dict[str, StoreSettings]) -> dict[str, dict[str, float]]:
    """Means over the frames of some videos, a row a codec."""
    sums = {name: np.zeros(4) for name in settings}
    num_frames = 0
    for path in videos:
        scaler = FrameScaler(next(iter(settings.values())).short_side, "bgr24")
        frames = [scaler.picture(frame) for frame, _ in take(decode(path, Decoded()), MAX_FRAMES)]
        num_frames += len(frames)
        for name, chosen in settings.items():
            encoder = make_encoder(chosen)
            started = cpu_seconds()
            stored = [encoder.encode(frame) for frame in frames]
            seconds = cpu_seconds() - started
            shown = (
                decoded_jpegs(stored) if chosen.codec == "jpeg" else decoded_ivf(encoder.head(25.0), stored)
            )
            pairs = list(zip(frames, shown, strict=True))
            sums[name] += [
                sum(map(len, stored)),
                sum(psnr(a, b) for a, b in pairs),
                sum(ssim(a, b) for a, b in pairs),
                1000 * seconds,
            ]
    columns = ("bytes_a_frame", "psnr_db", "ssim", "encoding_cpu_ms")
    return {
        name: dict(zip(columns, (total / num_frames).round(4).tolist(), strict=True))
        for name, total in sums.items()
    }


def loading_cpu_ms(videos: Sequence[Video], settings: StoreSettings) -> float:
    """A clip of 16 frames as training has it, from a store of these videos, on one thread."""
    with tempfile.TemporaryDirectory() as name:
        listed = tuple(sorted(videos, key=lambda video: video.id))
        splits = {"train": tuple(video.id for video in listed)}
        prepare(Catalog(Path(name), listed, splits, (), "flat"), Path(name) / "store", settings)
        stages = bench_loader(Config(), store=ClipStore(Path(name) / "store"), num_runs=NUM_RUNS)["stages"]
    return float(next(stage["cpu_ms"] for stage in stages if stage["what"] == WHOLE))


def take(frames: Iterator[Any], most: int) -> Iterator[Any]:
    return (frame for frame, _ in zip(frames, range(most), strict=False))


def decoded_jpegs(stored: Sequence[bytes]) -> list[Uint8Array]:
    return [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in stored]


def decoded_ivf(head: bytes, stored: Sequence[bytes]) -> list[Uint8Array]:
    data = b"".join(stored)
    with av.open(io.BytesIO(head + data[len(head) :])) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def psnr(a_HWC: Uint8Array, b_HWC: Uint8Array) -> float:
    """Decibels over all three channels; 100 where they are equal."""
    error = float(np.mean((a_HWC.astype(np.float64) - b_HWC) ** 2))
    return 100.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(a_HWC: Uint8Array, b_HWC: Uint8Array) -> float:
    """Of luma, with an 11 x 11 Gaussian window of sigma 1.5 (Wang et al., 2004)."""
    a, b = (cv2.cvtColor(x, cv2.COLOR_BGR2GRAY).astype(np.float64) for x in (a_HWC, b_HWC))

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float(np.mean(index / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def table_rows(results: dict[str, Any]) -> list[list[str]]:
    """One row a set of videos and codec."""
    rows = []
    for videos, codecs in results["videos"].items():
        jpeg = next(iter(codecs.values()))["bytes_a_frame"]
        for name, found in codecs.items():
            share = f"1 / {jpeg / found['bytes_a_frame']:.1f}"
            loading = found.get("loading_cpu_ms")
            quality = [
                f"{found['psnr_db']:.1f}",
                f"{found['ssim']:.4f}",
                f"{found['encoding_cpu_ms']:.1f}",
                "-" if loading is None else f"{loading:.1f}",
            ]
            rows.append([videos, name, f"{found['bytes_a_frame']:.0f}", share, *quality])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", nargs="?")
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS)
    parser.add_argument("--crf", type=int, default=StoreSettings().crf)
    arguments = parser.parse_args()
    settings = {
        f"JPEG, quality {StoreSettings().quality}": StoreSettings(),
        f"VP9, crf {arguments.crf}": StoreSettings(codec="vp9", crf=arguments.crf),
    }
    cv2.setNumThreads(1)
    real = spread(read_catalog(arguments.folder).videos, arguments.videos)
    found = {"film": compare([video.path for video in real], settings)}
    for name, chosen in settings.items():
        found["film"][name]["loading_cpu_ms"] = round(loading_cpu_ms(real, chosen), 2)
    with tempfile.TemporaryDirectory() as name:
        config = SyntheticConfig(train_groups=2, val_groups=0, test_groups=0, num_frames=64)
        write_dataset(Path(name) / "drawn", config)
        drawn = [video.path for video in spread(read_catalog(Path(name) / "drawn").videos, arguments.videos)]
        found["drawn"] = compare(drawn, settings)
    results = {"num_videos": len(real), "num_drawn": len(drawn), "videos": found}
    for row in table_rows(results):
        print("  ".join(row))
    if arguments.result:
        write_result(arguments.result, "codecs", results)


if __name__ == "__main__":
    main()
