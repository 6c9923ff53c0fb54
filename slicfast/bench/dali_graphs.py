"""DALI graphs to compare the loader with: parts of its work, and the usual way of writing all of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.config import Config
from slicfast.data.augment import draw
from slicfast.data.requests import Requests, View
from slicfast.data.store import ClipStore


class PeerGraphs:
    """DALI graphs on the CPU over the pictures of some batches, each giving a function that runs all batches.

    Args:
        pictures: JPEGs of each batch, in memory.
    """

    def __init__(
        self,
        config: Config,
        store: ClipStore,
        batches: Sequence[Requests],
        pictures: Sequence[Sequence[npt.NDArray[np.uint8]]],
        num_threads: int,
    ) -> None:
        self._config = config
        self._num_threads = num_threads
        self._dali: Any = importlib.import_module("nvidia.dali")
        self._fn: Any = importlib.import_module("nvidia.dali.fn")
        self._types: Any = importlib.import_module("nvidia.dali.types")
        length = config.data.clip_length
        rng = np.random.default_rng(1)
        self._inputs: list[dict[str, Any]] = []
        for batch, jpegs in zip(batches, pictures, strict=True):
            num = len(batch)
            width_N, height_N = store.width[batch["video"]], store.height[batch["video"]]
            is_motion_N = batch["view"] != View.RGB  # not blurred, here as in the loader
            params = draw(batch["seed"], width_N, height_N, config.augment, is_motion_N)
            jitter_N = rng.random(num) < config.augment.jitter_prob

            def factor(strength: float, jitter_N: npt.NDArray[np.bool_] = jitter_N) -> Any:
                drawn_N = 1.0 + strength * rng.uniform(-1, 1, len(jitter_N))
                return np.where(jitter_N, drawn_N, 1.0).astype(np.float32)

            grey_N = rng.random(num) < config.augment.grey_prob
            values = {
                "roi_start": params.top_left,
                "roi_end": params.bottom_right,
                "mirror": params.flip.astype(np.int32),
                "blur": params.blur,
                "brightness": factor(config.augment.brightness),
                "contrast": factor(config.augment.contrast),
                "saturation": np.where(grey_N, np.float32(0), factor(config.augment.saturation)),
                "hue": (360 * (factor(config.augment.hue) - 1)).astype(np.float32),
            }
            repeated = {name: np.repeat(value, length, axis=0) for name, value in values.items()}
            self._inputs.append({"jpeg": list(jpegs), **repeated})

    def _input(self, name: str) -> Any:
        dtype = {"jpeg": "UINT8", "mirror": "INT32", "blur": "BOOL"}.get(name, "FLOAT")
        ndim = 1 if name == "jpeg" else np.ndim(self._inputs[0][name]) - 1
        return self._fn.external_source(name=name, dtype=getattr(self._types, dtype), ndim=ndim)

    def _runs(self, graph: Callable[[], Any], *inputs: str) -> Callable[[], object]:
        pipe = self._dali.pipeline_def(
            graph,
            batch_size=len(self._inputs[0]["jpeg"]),
            num_threads=self._num_threads,
            device_id=None,
            exec_dynamic=True,
            prefetch_queue_depth=1,
            enable_conditionals=True,
        )()
        pipe.build()

        def run() -> None:
            for values in self._inputs:
                for name in inputs:
                    pipe.feed_input(name, values[name])
                pipe.run()

        return run

    def _resized(self, **options: Any) -> Any:
        picture = self._fn.decoders.image(self._input("jpeg"), device="cpu")
        size = [self._config.data.crop_size] * 2
        start, end = self._input("roi_start"), self._input("roi_end")
        return self._fn.resize(picture, size=size, roi_start=start, roi_end=end, roi_relative=True, **options)

    def resize(self) -> Callable[[], object]:
        """Decoding, and the crops resized."""
        inputs = ("jpeg", "roi_start", "roi_end")
        return self._runs(lambda: self._resized(dtype=self._types.FLOAT), *inputs)

    def naive(self) -> Callable[[], object]:
        """color_twist, gaussian_blur where drawn, crop_mirror_normalize."""
        fn, config = self._fn, self._config
        kernel, sigma = config.augment.blur_kernel, config.augment.blur_sigma
        mean = [255 * value for value in config.data.mean]
        std = [255 * value for value in config.data.std]
        twists = ("brightness", "contrast", "saturation", "hue")

        def graph() -> Any:
            twist = {name: self._input(name) for name in twists}
            picture = fn.color_twist(self._resized(), **twist)
            if self._input("blur"):
                picture = fn.gaussian_blur(picture, window_size=kernel, sigma=sigma)
            return fn.crop_mirror_normalize(
                picture, mirror=self._input("mirror"), mean=mean, std=std, output_layout="HWC"
            )

        return self._runs(graph, "jpeg", "roi_start", "roi_end", "mirror", "blur", *twists)
