"""One procedural action video: the values that decide it, its scene, its moving camera, its pictures.

Legend: T frames, H rows, W columns, C = 3 channels RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.synthetic_figures import ACTIONS, Floats, draw, joints, project, random_body
from slicfast.errors import ConfigError, one_of

Clip = npt.NDArray[np.uint8]

CODECS = {"mpeg4": {"qscale": "3"}, "libx264": {"crf": "18", "preset": "veryfast"}}
_SUPER = 2  # frames are drawn at twice the size, then averaged down: smooth motion by parts of a pixel


@dataclass(frozen=True)
class SyntheticConfig:
    """What to draw; the same values always give the same videos.

    Attributes:
        seed: decides every body, scene, camera and phase.
        actions: motion classes, names from `ACTIONS`.
        train_groups, val_groups, test_groups: scenes a class in each split.
        min_videos, max_videos: videos a scene, drawn evenly.
        shared_scenes: False: a scene belongs to one class, as in UCF101. True: every scene shows all classes,
            so that scenes say nothing about classes even in training.
        width, height: pixels. num_frames, fps: length and rate of every video.
        camera: how far the camera pans and zooms; 0 is a tripod, 1 a hand.
        texture: contrast of what the background is covered with; 0 leaves soft colours.
        bright_figures: light figures before dark backgrounds; otherwise both of any brightness.
        figure_size: least and greatest height of a figure, in picture heights.
        place: how far to a side of the picture's middle a figure's way may lie, in picture widths.
        rise: how far above or below its usual place a figure may stand, in picture heights.
        glide: how far a figure moves through the picture, slowly to and fro, in picture widths.
        body_variation: how far proportions depart from the average; 1 is 15 %.
        tempo_variation: standard deviation of the logarithm of a video's tempo.
        codec: "mpeg4" (in every FFmpeg, UCF101's own) or "libx264".
    """

    seed: int = 0
    actions: tuple[str, ...] = (
        "walk",
        "wave",
        "jumping_jack",
        "squat",
        "kick",
        "arm_circles",
        "crawl",
        "bow",
    )
    train_groups: int = 10
    val_groups: int = 3
    test_groups: int = 4
    min_videos: int = 4
    max_videos: int = 7
    shared_scenes: bool = False
    width: int = 128
    height: int = 96
    num_frames: int = 48
    fps: int = 25
    camera: float = 0.3
    texture: float = 0.3
    bright_figures: bool = True
    figure_size: tuple[float, float] = (0.58, 0.76)
    place: float = 0.08
    rise: float = 0.08
    glide: float = 0.15
    body_variation: float = 0.6
    tempo_variation: float = 0.12
    codec: str = "mpeg4"

    def check(self) -> None:
        """Raises ConfigError, one line, for a value that cannot be drawn."""
        for action in self.actions:
            if action not in ACTIONS:
                raise ConfigError(one_of("an action", action, ACTIONS))
        if not self.actions or len(set(self.actions)) != len(self.actions):
            raise ConfigError(f"actions must be different names, at least one; got {list(self.actions)}")
        if self.codec not in CODECS:
            raise ConfigError(one_of("codec", self.codec, CODECS))
        if not 1 <= self.min_videos <= self.max_videos:
            raise ConfigError(
                f"videos a scene must be 1 <= min <= max; got {self.min_videos}, {self.max_videos}"
            )
        for name in ("train_groups", "num_frames", "fps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in (
            "seed",
            "val_groups",
            "test_groups",
            "camera",
            "texture",
            "place",
            "rise",
            "glide",
            "body_variation",
            "tempo_variation",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative; got {getattr(self, name)}")
        smallest, largest = self.figure_size
        if not 0.1 <= smallest <= largest <= 1.0:
            raise ConfigError(f"figure_size must be 0.1 <= least <= greatest <= 1; got {smallest}, {largest}")
        if min(self.width, self.height) < 32 or self.width % 2 or self.height % 2:
            raise ConfigError(
                f"width and height must be even and at least 32; got {self.width} x {self.height}"
            )


@dataclass(frozen=True)
class PlannedVideo:
    """One video to draw: where it goes, and the random streams its factors come from.

    Attributes:
        id: path under the root, POSIX.
        scene_key: seeds body, clothes, background and viewpoint, which the group shares.
        video_key: seeds phase, tempo, place and camera path, which are the video's own.
    """

    id: str
    split: str
    action: str
    group: int
    scene_key: tuple[int, ...]
    video_key: tuple[int, ...]


def render(video: PlannedVideo, config: SyntheticConfig) -> Clip:
    """Draw a video: (num_frames, height, width, 3) uint8 RGB."""
    import cv2

    scene, own = np.random.default_rng(video.scene_key), np.random.default_rng(video.video_key)
    num_frames, height, width = config.num_frames, config.height, config.width
    body = random_body(scene, config.body_variation, config.bright_figures)
    background = _background(scene, config)
    yaw = float(scene.choice([-1, 1]) * scene.uniform(0.35, 0.95) + own.normal(0, 0.08))
    size = float(
        scene.uniform(*config.figure_size) * own.uniform(0.93, 1.07)
    )  # body height in picture heights

    cycle = ACTIONS[video.action].cycle_frames * float(np.exp(own.normal(0, config.tempo_variation)))
    start = float(own.uniform(0, 2 * np.pi))
    phase_T = start + 2 * np.pi * np.arange(num_frames, dtype=np.float64) / cycle
    bodily = joints(video.action, phase_T, body)
    seen = {name: project(position, yaw) for name, position in bodily.items()}

    shift_T2, zoom_T = _camera(own, config)
    feet = np.array(
        [
            width / 2 + own.uniform(-1, 1) * config.place * width,
            height * (0.5 + 0.5 * size + own.uniform(-config.rise, config.rise)),
        ]
    )
    swing_T = np.sin(2 * np.pi * (own.uniform() + np.arange(num_frames) / own.uniform(50, 90)))
    glide_T = config.glide * width * own.uniform(0.5, 1.0) * swing_T
    centre = np.array([width / 2, height / 2])
    light = float(own.uniform(0.85, 1.15))
    clip = np.empty((num_frames, height, width, 3), np.uint8)
    canvas_centre = np.array(background.shape[1::-1]) / 2
    for t in range(num_frames):
        zoom = zoom_T[t] * _SUPER
        # a point p of the picture, seen from a camera moved by `shift`, lies at (p - centre) * zoom - shift
        offset = centre * _SUPER - shift_T2[t] * _SUPER
        matrix = np.array([[zoom, 0, 0], [0, zoom, 0]])
        matrix[:, 2] = offset - zoom * canvas_centre
        picture: Any = cv2.warpAffine(
            background,
            matrix,
            (width * _SUPER, height * _SUPER),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        points, depths = {}, {}
        for name, (position_T2, depth_T) in seen.items():
            x, y = (feet + [glide_T[t], 0] + position_T2[t] * size * height - centre) * zoom + offset
            points[name] = (float(x), float(y))
            depths[name] = float(depth_T[t])
        draw(picture, points, depths, body, size * height * zoom)
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        cv2.convertScaleAbs(small, dst=clip[t], alpha=light)
    return clip


def _background(rng: np.random.Generator, config: SyntheticConfig) -> Clip:
    """A wall and a floor of soft colours with a texture, larger than the picture on every side."""
    import cv2

    width, height = int(config.width * 1.5), int(config.height * 1.5)
    low, high = (10, 90) if config.bright_figures else (40, 215)
    spread = (high - low) / 6
    soft = rng.uniform(low, high, (1, 1, 3)) + rng.normal(0, spread, (3, 4, 3))
    picture = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width] / config.height
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.3)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:  # stripes
        pattern = np.sin(2 * np.pi * along / period)
    elif kind == 1:  # checks
        pattern = np.sign(np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period))
    elif kind == 2:  # clouds
        pattern = cv2.resize(
            rng.normal(0, 0.8, (round(1.5 / period), round(2 / period))),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
    else:  # boxes: furniture, windows
        pattern = np.zeros((height, width))
        for _ in range(12):
            left, top = rng.uniform(0, 2.0), rng.uniform(0, 1.5)
            inside = (abs(x - left) < rng.uniform(0.04, 0.25)) & (abs(y - top) < rng.uniform(0.04, 0.25))
            pattern[inside] = rng.uniform(-1, 1)
    picture += config.texture * spread * rng.uniform(0.5, 1.4) * pattern[:, :, None] * rng.uniform(0.3, 1, 3)
    floor = y > rng.uniform(1.05, 1.2)
    picture[floor] += rng.normal(0, 0.9 * spread, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _camera(rng: np.random.Generator, config: SyntheticConfig) -> tuple[Floats, Floats]:
    """A camera's path: (T, 2) pixels it has moved and (T,) zoom; drift, slow swings and a tremor."""
    time = np.arange(config.num_frames) / config.num_frames - 0.5
    paths = []
    for _ in range(3):
        drift = rng.uniform(-1, 1) * time
        swing = 0.5 * np.sin(2 * np.pi * (rng.uniform(0.5, 2.0) * time + rng.uniform()))
        tremor = np.convolve(rng.normal(0, 0.15, config.num_frames + 4), np.full(5, 0.2), mode="valid")
        paths.append(config.camera * (drift + swing + tremor))
    return np.stack(paths[:2], axis=1) * 0.08 * config.height, np.exp(0.06 * paths[2])
