"""Optical flow by DIS: how exact each preset is on drawn motion, and what an hour of video costs in prepare.

python benchmarks/flow.py [benchmarks/results/<machine>-<date>-flow.json]

Exactness: pairs of 320 x 240 pictures in which a textured ground and three textured ellipses move by known
affine maps, with a little noise. Errors are in pixels at 240 rows, over all pixels, also those that get
hidden.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from slicfast.bench.harness import measure_in_turn, write_result
from slicfast.data.flow import LEVELS_PER_PIXEL, make_dis
from slicfast.data.preparing.transcode import transcode
from slicfast.data.store import StoreSettings

FILM, STORED = (320, 240), (171, 128)  # width, height
NUM_PAIRS, NUM_RUNS = 40, 5
NUM_FRAMES, FPS = 100, 25
SPEEDS = {"ground": 4.0, "ellipse": 14.0}  # the largest, pixels a frame at 240 rows
PRESETS, CHOSEN = ("ultrafast", "fast", "medium"), "fast, one scale finer"
SMALL = np.array(STORED) / FILM


@dataclass(frozen=True)
class Pair:
    """Two grey pictures (H, W) uint8 and the displacements (H, W, 2) between them, in pixels."""

    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray


class Scene:
    """Textures that move by known maps."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        width, height = FILM
        centre, middle = np.array([width / 2, height / 2]), np.array([40, 40])
        maps = self._map(centre, SPEEDS["ground"], 0.02, 0.02)
        self._layers: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = [(self._texture(), maps, None)]
        for _ in range(3):
            place = rng.uniform(middle, np.array(FILM) - middle)
            moved = self._map(place, SPEEDS["ellipse"], 0.06, 0.03)
            self._layers.append((self._texture(), moved, np.stack([place, rng.uniform(18, 50, 2)])))

    def _texture(self) -> np.ndarray:
        ground = np.full((2 * FILM[1], 2 * FILM[0]), self._rng.uniform(70, 180), dtype=np.float32)
        for scale in (2, 4, 8, 16, 32, 64):
            coarse = self._rng.normal(0, 3 * scale**0.5, (ground.shape[0] // scale, ground.shape[1] // scale))
            ground += cv2.resize(coarse.astype(np.float32), ground.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return ground.clip(0, 255)

    def _map(self, centre: np.ndarray, speed: float, turn: float, growth: float) -> np.ndarray:
        """(3, 3): a turn and growth about a point, and a step of at most `speed`."""
        size, angle = self._rng.uniform(0, speed), self._rng.uniform(0, 2 * np.pi)
        turned, grown = self._rng.uniform(-turn, turn), 1 + self._rng.uniform(-growth, growth)
        matrix = np.eye(3)
        matrix[:2, :2] = grown * np.array(
            [[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]]
        )
        matrix[:2, 2] = centre - matrix[:2, :2] @ centre + size * np.array([np.cos(angle), np.sin(angle)])
        return matrix

    def picture(self, step: int, truth: np.ndarray | None = None) -> np.ndarray:
        """(H, W) uint8 after so many steps; fills `truth` (H, W, 2) with where each pixel goes next."""
        width, height = FILM
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        here = np.stack([columns, rows, np.ones_like(rows)], axis=-1).astype(np.float64)
        shown = np.zeros((height, width))
        for texture, moved, ellipse in self._layers:
            origin = here @ np.linalg.matrix_power(np.linalg.inv(moved), step).T
            place = (origin[..., :2] + [width / 2, height / 2]).astype(np.float32)
            seen = cv2.remap(texture, place, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            cover = np.ones((height, width))
            if ellipse is not None:
                radius = np.linalg.norm((origin[..., :2] - ellipse[0]) / ellipse[1], axis=-1)
                cover = np.clip((1 - radius) * ellipse[1].min() + 0.5, 0, 1)
            shown += cover * (seen - shown)
            if truth is not None:
                covered = cover > 0.5
                truth[covered] = (here @ moved.T - here)[covered][:, :2]
        return (shown + self._rng.normal(0, 2, shown.shape)).clip(0, 255).astype(np.uint8)


def pairs() -> list[Pair]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(NUM_PAIRS):
        scene, truth = Scene(rng), np.zeros((FILM[1], FILM[0], 2))
        found.append(Pair(scene.picture(0, truth), scene.picture(1), truth))
    return found


def shrink(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, STORED, interpolation=cv2.INTER_AREA)


def compressed(picture: np.ndarray) -> np.ndarray:
    jpeg = cv2.imencode(".jpg", shrink(picture), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)


def exactness(found: list[Pair]) -> list[dict[str, Any]]:
    sources: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "stored size": shrink,
        "stored size, from JPEG": compressed,
        "size of film": lambda picture: picture,
    }
    truths = [shrink(pair.truth) for pair in found]  # in pixels at 240 rows, whatever the size
    rows = []
    for source, prepared in sources.items():
        pictures = [(prepared(pair.before), prepared(pair.after)) for pair in found]
        runs: dict[str, Callable[[], list[np.ndarray]]] = {}
        for preset in (*PRESETS, CHOSEN):
            name = f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"
            dis = make_dis() if preset == CHOSEN else cv2.DISOpticalFlow.create(getattr(cv2, name))
            runs[preset] = lambda dis=dis, pictures=pictures: [dis.calc(*two, None) for two in pictures]
        costs = measure_in_turn(runs, num_runs=NUM_RUNS, num_warmup=1)
        for preset, run in runs.items():
            scale = 1.0 if source == "size of film" else 1.0 / SMALL
            fields = [shrink(field * scale) if np.isscalar(scale) else field * scale for field in run()]
            errors = np.stack([field - truth for field, truth in zip(fields, truths, strict=True)])
            distance = np.linalg.norm(errors, axis=-1)
            rows.append(
                {
                    "preset": preset,
                    "pictures": source,
                    "endpoint_error_px": float(distance.mean()),
                    "share_above_3_px": float((distance > 3).mean()),
                    "error_of_u_levels": float(LEVELS_PER_PIXEL * np.abs(errors[..., 0]).mean()),
                    "cpu_ms": costs[preset].cpu_ms / len(found),
                }
            )
    return rows


def cost() -> list[dict[str, Any]]:
    """CPU seconds of an hour of 320 x 240 film at 25 pictures a second, decoding included, and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.avi"
        write_film(path)
        runs, made = {}, {}
        for content in ("pictures", "flow-u", "flow-uv"):
            settings = StoreSettings(content=content)
            made[content] = transcode(path, io.BytesIO(), settings)
            runs[content] = lambda settings=settings: transcode(path, io.BytesIO(), settings)
        costs = measure_in_turn(runs, num_runs=NUM_RUNS, num_warmup=1)
    return [
        {
            "content": content,
            "cpu_s_an_hour": 3600 * FPS / NUM_FRAMES * costs[content].cpu_ms / 1e3,
            "bytes_a_picture": round(sum(made[content].sizes) / len(made[content].sizes)),
        }
        for content in runs
    ]


def write_film(path: Path) -> None:
    """MPEG-4 in AVI, as UCF101 has it."""
    scene = Scene(np.random.default_rng(1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = FILM
        stream.pix_fmt, stream.bit_rate = "yuv420p", 600_000
        for step in range(NUM_FRAMES):
            grey = scene.picture(step % 10)
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    cv2.setNumThreads(1)
    results = {"num_pairs": NUM_PAIRS, "stored": STORED, "exactness": exactness(pairs()), "cost": cost()}
    for row in (*results["exactness"], *results["cost"]):
        print(row)
    if len(sys.argv) > 1:
        write_result(sys.argv[1], "flow", results)


if __name__ == "__main__":
    main()
