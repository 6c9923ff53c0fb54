"""Jointed figures that walk, wave and jump: a body, its joint-angle curves over a cycle, and its drawing.

Legend: T frames, 3 = x (the figure's left), y (up), z (the way it faces), 2 = picture x, y.
Lengths are in body heights; angles in radians, absolute: `flex` lifts a segment forwards from hanging,
`abduct` sideways, away from the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

LIMBS = ("upper_arm", "forearm", "thigh", "shin")


@dataclass(frozen=True)
class Body:
    """Proportions and clothes of one figure; lengths in body heights, colours RGB."""

    torso: float = 0.30
    arm: float = 0.36
    leg: float = 0.48
    shoulders: float = 0.20
    hips: float = 0.11
    head: float = 0.075  # radius
    limb: float = 0.065  # thickness
    skin: Colour = (222, 184, 150)
    shirt: Colour = (190, 60, 50)
    trousers: Colour = (50, 60, 120)
    stripe: Colour = (240, 240, 240)
    num_stripes: int = 0
    outline: float = 0.35  # brightness of the outline, as a share of what it surrounds


def random_body(rng: np.random.Generator, variation: float = 1.0, bright: bool = False) -> Body:
    """A body whose proportions depart from the average by up to 15 % times `variation`, in random clothes.

    `bright` keeps clothes and skin light, to stand before a dark background.
    """

    def around(value: float) -> float:
        return value * float(1 + 0.15 * variation * rng.uniform(-1, 1))

    def colour() -> Colour:
        red, green, blue = (int(c) for c in rng.integers(190 if bright else 20, 250, 3))
        return red, green, blue

    tone = rng.uniform(0.85 if bright else 0.35, 1.0)
    return Body(
        torso=around(0.30),
        arm=around(0.36),
        leg=around(0.48),
        shoulders=around(0.20),
        hips=around(0.11),
        head=around(0.075),
        limb=around(0.065),
        skin=(int(240 * tone), int(200 * tone), int(165 * tone)),
        shirt=colour(),
        trousers=colour(),
        stripe=colour(),
        num_stripes=int(rng.integers(0, 4)),
        outline=float(rng.uniform(0.2, 0.6)),
    )


class Pose:
    """Joint angles over time, each a (T,) array; a new one stands still with arms hanging."""

    def __init__(self, num_frames: int) -> None:
        self.flex: dict[str, Floats] = {}
        self.abduct: dict[str, Floats] = {}
        for limb in LIMBS:
            for side in "lr":
                self.flex[limb + side] = np.zeros(num_frames)
                self.abduct[limb + side] = np.full(num_frames, 0.14 if "arm" in limb else 0.06)
        self.pitch = np.zeros(num_frames)  # the torso leaning forwards
        self.roll = np.zeros(num_frames)  # the torso leaning to its left
        self.hop = np.zeros(num_frames)  # height of the lower foot above the ground
        self.shift = np.zeros(num_frames)  # the whole figure to its left

    def set(
        self,
        limb: str,
        sides: str = "lr",
        *,
        flex: Floats | float | None = None,
        abduct: Floats | float | None = None,
    ) -> None:
        """Turn a limb segment of one side ("l", "r") or both ("lr")."""
        for side in sides:
            if flex is not None:
                self.flex[limb + side][:] = flex
            if abduct is not None:
                self.abduct[limb + side][:] = abduct

    def arms(
        self, sides: str, flex: Floats | float, abduct: Floats | float, bend: Floats | float = 0.0
    ) -> None:
        """An arm as a whole, its forearm flexed by `bend` more."""
        self.set("upper_arm", sides, flex=flex, abduct=abduct)
        self.set("forearm", sides, flex=flex + np.asarray(bend), abduct=abduct)

    def legs(
        self, sides: str, flex: Floats | float, knee: Floats | float, abduct: Floats | float = 0.06
    ) -> None:
        """A leg: its thigh's flexion, and how far the knee bends back from there."""
        self.set("thigh", sides, flex=flex, abduct=abduct)
        self.set("shin", sides, flex=flex - np.asarray(knee), abduct=abduct)


def _rise(phase: Floats) -> Floats:
    """0 to 1 and back once a cycle."""
    return 0.5 - 0.5 * np.cos(phase)


def walk(phase: Floats, pose: Pose) -> None:
    for side, p in (("l", phase), ("r", phase + np.pi)):
        pose.legs(side, 0.55 * np.sin(p), 0.15 + 0.9 * np.maximum(np.cos(p), 0))
        pose.arms(side, -0.55 * np.sin(p), 0.12, 0.35)


def wave(phase: Floats, pose: Pose) -> None:
    pose.set("upper_arm", "l", abduct=2.1 + 0.45 * np.sin(phase))
    pose.set("forearm", "l", abduct=2.8 + 1.0 * np.sin(phase))
    pose.roll[:] = -0.08 - 0.16 * np.sin(phase)


def jumping_jack(phase: Floats, pose: Pose) -> None:
    rise = _rise(phase)
    pose.arms("lr", 0.0, 0.2 + 2.6 * rise)
    pose.legs("lr", 0.0, 0.0, 0.05 + 0.45 * rise)
    pose.hop[:] = 0.05 * np.abs(np.sin(phase))


def squat(phase: Floats, pose: Pose) -> None:
    rise = _rise(phase)
    pose.legs("lr", 1.35 * rise, 2.2 * rise, 0.06 + 0.15 * rise)
    pose.arms("lr", 1.5, 0.1)
    pose.pitch[:] = 0.45 * rise


def jump(phase: Floats, pose: Pose) -> None:
    crouch, flight = np.maximum(np.sin(phase), 0), np.maximum(-np.sin(phase), 0)
    pose.legs("lr", 0.8 * crouch, 1.5 * crouch)
    pose.arms("lr", -0.7 * crouch + 2.9 * flight, 0.15)
    pose.pitch[:] = 0.35 * crouch
    pose.hop[:] = 0.22 * flight


def kick(phase: Floats, pose: Pose) -> None:
    lift = _rise(phase)
    pose.legs("l", 1.6 * lift - 0.3, 0.9 * np.sin(phase).clip(0))
    pose.arms("l", 0.4 - 0.9 * lift, 0.5, 0.4)
    pose.arms("r", 0.9 * lift, 0.5, 0.4)
    pose.pitch[:] = 0.1 - 0.4 * lift


def punch(phase: Floats, pose: Pose) -> None:
    for side, p in (("l", phase), ("r", phase + np.pi)):
        reach = _rise(p)
        pose.set("upper_arm", side, flex=-0.3 + 1.8 * reach, abduct=0.15)
        pose.set("forearm", side, flex=2.3 - 0.75 * reach, abduct=0.15)
    pose.legs("l", 0.35 + 0.25 * np.cos(2 * phase), 0.3 + 0.3 * np.cos(2 * phase))
    pose.legs("r", -0.25, 0.3 + 0.3 * np.cos(2 * phase))
    pose.roll[:] = 0.15 * np.sin(phase)
    pose.shift[:] = 0.05 * np.sin(phase)


def arm_circles(phase: Floats, pose: Pose) -> None:
    pose.arms("lr", 0.0, phase)


def crawl(phase: Floats, pose: Pose) -> None:
    """Swimming: the arms circle forwards by turns, the body bent."""
    pose.pitch[:] = 0.75
    for side, p in (("l", phase), ("r", phase + np.pi)):
        pose.arms(side, -p, 0.1)
    pose.legs("lr", 0.25, 0.3)
    pose.roll[:] = 0.2 * np.sin(phase)


def bow(phase: Floats, pose: Pose) -> None:
    pitch = 1.25 * _rise(phase)
    pose.pitch[:] = pitch
    pose.arms("lr", 0.3 * pitch, 0.1)


def lunge(phase: Floats, pose: Pose) -> None:
    rise = _rise(phase)
    pose.legs("l", 0.25 + 0.95 * rise, 0.2 + 0.9 * rise)
    pose.legs("r", -0.25 - 0.35 * rise, 0.1 + 0.8 * rise)
    pose.arms("lr", 0.0, 0.8, 1.6)


def sway(phase: Floats, pose: Pose) -> None:
    """Dancing on the spot: leaning from side to side with both arms up."""
    pose.arms("lr", 0.0, 2.7)
    pose.roll[:] = 0.45 * np.sin(phase)
    pose.shift[:] = 0.05 * np.sin(phase)
    for side, sign in (("l", 1), ("r", -1)):
        pose.set("upper_arm", side, abduct=2.7 - 0.5 * sign * np.sin(phase))
        pose.set("forearm", side, abduct=2.7 - 0.8 * sign * np.sin(phase))


@dataclass(frozen=True)
class Action:
    """A class of motion: its joint-angle curves, and how many frames a cycle takes.

    The lengths of cycles are such that every class changes a plain picture by about the same mean
    absolute frame difference, so that classes cannot be told apart by how much moves.
    """

    curves: Callable[[Floats, Pose], None]
    cycle_frames: float


ACTIONS: dict[str, Action] = {
    "walk": Action(walk, 27),
    "wave": Action(wave, 10),
    "jumping_jack": Action(jumping_jack, 37),
    "squat": Action(squat, 33),
    "jump": Action(jump, 43),
    "kick": Action(kick, 20),
    "punch": Action(punch, 26),
    "arm_circles": Action(arm_circles, 15),
    "crawl": Action(crawl, 20.5),
    "bow": Action(bow, 22),
    "lunge": Action(lunge, 20),
    "sway": Action(sway, 46),
}


def joints(action: str, phase_T: Floats, body: Body) -> dict[str, Floats]:
    """Positions of all joints, (T, 3) each, in body heights; the lower foot is on the ground, y = 0."""
    pose = Pose(len(phase_T))
    ACTIONS[action].curves(phase_T, pose)

    def along(limb: str, length: float) -> Floats:
        flex, abduct = pose.flex[limb], pose.abduct[limb]
        sideways = np.sin(abduct) * (1 if limb.endswith("l") else -1)
        down = -np.cos(abduct) * np.cos(flex)
        return length * np.stack([sideways, down, np.cos(abduct) * np.sin(flex)], axis=1)

    up = np.stack(
        [np.sin(pose.roll), np.cos(pose.roll) * np.cos(pose.pitch), np.cos(pose.roll) * np.sin(pose.pitch)],
        axis=1,
    )
    points: dict[str, Floats] = {"pelvis": np.zeros((len(phase_T), 3))}
    points["neck"] = points["pelvis"] + body.torso * up
    points["head"] = points["neck"] + (body.head * 1.5) * up
    for side, sign in (("l", 1.0), ("r", -1.0)):
        across = np.array([sign / 2, 0.0, 0.0])
        points["shoulder" + side] = points["neck"] + across * body.shoulders
        points["elbow" + side] = points["shoulder" + side] + along("upper_arm" + side, body.arm * 0.52)
        points["hand" + side] = points["elbow" + side] + along("forearm" + side, body.arm * 0.48)
        points["hip" + side] = points["pelvis"] + across * body.hips
        points["knee" + side] = points["hip" + side] + along("thigh" + side, body.leg * 0.5)
        points["foot" + side] = points["knee" + side] + along("shin" + side, body.leg * 0.5)
    lift = pose.hop - np.minimum(points["footl"][:, 1], points["footr"][:, 1])
    move = np.stack([pose.shift, lift, np.zeros_like(lift)], axis=1)
    return {name: position + move for name, position in points.items()}


def project(position_T3: Floats, yaw: float) -> tuple[Floats, Floats]:
    """Seen from `yaw` off the front and slightly above: (T, 2) in body heights, y down, and (T,) depth."""
    x, y, z = position_T3.T
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    return np.stack([x * np.cos(yaw) + z * np.sin(yaw), -(y - 0.15 * depth)], axis=1), depth


def draw(
    picture: Picture,
    points: dict[str, tuple[float, float]],
    depths: dict[str, float],
    body: Body,
    scale: float,
) -> None:
    """Draw one frame's figure in place, far limbs first, anti-aliased, with dark outlines.

    Args:
        picture: (rows, columns, 3) uint8.
        points: joints in pixels.
        depths: larger is nearer.
        scale: pixels a body height.
    """
    import cv2

    fraction = 4  # bits behind the point in the coordinates given to OpenCV

    def at(name: str) -> tuple[int, int]:
        x, y = points[name]
        return round(x * 2**fraction), round(y * 2**fraction)

    def capsule(start: str, end: str, thickness: float, colour: Colour) -> None:
        outer = max(3, round(thickness * scale * 1.35))
        inner = max(1, round(thickness * scale))
        for width, paint in ((outer, _darker(colour, body.outline)), (inner, colour)):
            cv2.line(picture, at(start), at(end), paint, width, cv2.LINE_AA, fraction)

    parts: list[tuple[float, str, str, float, Colour]] = [
        (depths["pelvis"], "neck", "pelvis", 2.1 * body.limb, body.shirt)
    ]
    for side in "lr":
        parts += [
            (depths["elbow" + side], "shoulder" + side, "elbow" + side, body.limb, body.shirt),
            (depths["hand" + side], "elbow" + side, "hand" + side, 0.85 * body.limb, body.skin),
            (depths["knee" + side], "hip" + side, "knee" + side, 1.25 * body.limb, body.trousers),
            (depths["foot" + side] - 1e-3, "knee" + side, "foot" + side, body.limb, body.trousers),
        ]
    for _, start, end, thickness, colour in sorted(parts, key=lambda part: part[0]):
        capsule(start, end, thickness, colour)
        if start == "neck":
            for k in range(body.num_stripes):
                share = (k + 0.7) / (body.num_stripes + 0.4)
                x, y = (
                    np.asarray(points["neck"]) * (1 - share) + np.asarray(points["pelvis"]) * share
                ) * 2**fraction
                half = 0.7 * body.limb * scale * 2**fraction
                cv2.line(
                    picture,
                    (round(x - half), round(y)),
                    (round(x + half), round(y)),
                    body.stripe,
                    max(1, round(0.03 * scale)),
                    cv2.LINE_AA,
                    fraction,
                )
    radius = round(body.head * scale * 2**fraction)
    rim = round(0.17 * body.limb * scale * 2**fraction)
    cv2.circle(picture, at("head"), radius + rim, _darker(body.skin, body.outline), -1, cv2.LINE_AA, fraction)
    cv2.circle(picture, at("head"), radius, body.skin, -1, cv2.LINE_AA, fraction)


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = (int(c * share) for c in colour)
    return red, green, blue
