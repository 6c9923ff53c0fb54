"""A GPU's optical-flow engine, through DALI's `fn.optical_flow`: the fields between pictures, in pixels.

The operator means another thing by flow than a store does (`data/flow.py`) and is brought to the same here:
of two pictures it tells where each pixel of the later one was in the earlier one (its own test says so: of a
picture and of one whose pixel x shows the first's x + d it wants d), so that films are handed over from their
end to their beginning; and one vector stands for a block of `grid` x `grid` pixels.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from slicfast.data.decoding.jpeg import as_tensors, build_pipeline, gist, outputs
from slicfast.data.glide import GLIDE, drawn_film
from slicfast.device import require_dali
from slicfast.errors import MachineError

LIBRARY = "libnvidia-opticalflow.so.1"  # the driver's
CAPABILITIES = "start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
MIN_CAPABILITY = (7, 5)  # CUDA compute capability of the first GPUs with an engine (Turing)
MIN_FINE_CAPABILITY = (8, 0)  # of the first whose engine has a vector for every pixel (Ampere); else 4 x 4
# Pictures are continued to multiples of so many pixels, and to no fewer than MIN_SIDE: the engine has a least
# size that differs among GPUs, and is set up anew for each size.
SIDE_STEP, MIN_SIDE = 64, 192
MAX_TRIAL_ERROR = 0.5  # pixels
STORED_INSTEAD = "or set flow.source=stored, which 'slicfast prepare ROOT STORE --flow' makes ready"


class Engine(Protocol):
    """What computes flow as `fn.optical_flow` does.

    Attributes:
        grid: pixels to a vector's side.
    """

    @property
    def grid(self) -> int: ...

    def run(
        self, films: Sequence[torch.Tensor], stream: torch.cuda.Stream | None = None
    ) -> list[torch.Tensor]:
        """(K - 1, H / grid, W / grid, 2) float32 of each film (K, H, W, 3) uint8; sides are rounded up.

        Field j leads from the pixels of picture j + 1 to where these are in picture j.
        """
        ...


class DaliEngine:
    """The engine of a GPU.

    Every pair of pictures is looked at alone (no hints from the one before), so that a field is the same
    whatever was computed before it.

    Args:
        max_films: the largest batch.
        grid: 1, 2 or 4 (Turing: 4 alone); None: the finest that the GPU has.
        preset: 0.0 (best), 0.5 or 1.0 (fastest).

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(
        self, device: torch.device, *, max_films: int, grid: int | None = None, preset: float = 0.0
    ) -> None:
        require_dali()
        self.grid = grid or finest_grid(torch.cuda.get_device_capability(device))
        fn: Any = importlib.import_module("nvidia.dali.fn")
        types: Any = importlib.import_module("nvidia.dali.types")

        def graph() -> Any:
            film = fn.external_source(name="film", device="gpu", dtype=types.UINT8, ndim=4, layout="FHWC")
            return fn.optical_flow(film, device="gpu", output_grid=self.grid, preset=preset)

        self._pipe = build_pipeline(graph, device, 1, max_films)

    def run(
        self, films: Sequence[torch.Tensor], stream: torch.cuda.Stream | None = None
    ) -> list[torch.Tensor]:
        """As Engine. Raises DecodeError with what DALI says."""
        with torch.cuda.stream(stream):  # on which the films were made, and DALI copies them
            self._pipe.feed_input("film", list(films))
        self._pipe.schedule_run()
        (output,) = outputs(self._pipe, stream)
        return as_tensors(output, stream)


def finest_grid(capability: tuple[int, int]) -> int:
    """Pixels to a vector's side, at least, on a GPU of this compute capability."""
    return 1 if capability >= MIN_FINE_CAPABILITY else 4


def forward_fields(
    engine: Engine, films: Sequence[torch.Tensor], stream: torch.cuda.Stream | None = None
) -> list[torch.Tensor]:
    """(K - 1, H, W, 2) float32 of each film (K, H, W, 3) uint8, K >= 2: flow as a store means it, in pixels.

    Field k tells of each pixel of picture k where it goes in picture k + 1: to the right, downwards.
    """
    fields = engine.run([_handed_over(film) for film in films], stream)
    return [
        _at_pixels(field.flip(0), engine.grid, film.shape[1], film.shape[2])
        for field, film in zip(fields, films, strict=True)
    ]


def _handed_over(film_KHWC: torch.Tensor) -> torch.Tensor:
    """Backwards in time, and continued by its border to a size that the engine takes."""

    def places(length: int) -> torch.Tensor:
        longer = max(MIN_SIDE, -(-length // SIDE_STEP) * SIDE_STEP)
        return torch.arange(longer, device=film_KHWC.device).clamp_(max=length - 1)

    _, height, width, _ = film_KHWC.shape
    return film_KHWC.flip(0).index_select(1, places(height)).index_select(2, places(width))


def _at_pixels(blocks_KHW2: torch.Tensor, grid: int, height: int, width: int) -> torch.Tensor:
    """A vector for every pixel of a picture that the blocks cover; vectors stay as long as they are."""
    if grid > 1:
        blocks_K2HW = blocks_KHW2.permute(0, 3, 1, 2)
        pixels_K2HW = torch.nn.functional.interpolate(
            blocks_K2HW, scale_factor=grid, mode="bilinear", align_corners=False
        )
        blocks_KHW2 = pixels_K2HW.permute(0, 2, 3, 1)
    return blocks_KHW2[:, :height, :width]


@functools.cache
def require_hardware_flow(device: torch.device) -> None:
    """Raise MachineError, in one line, unless the device computes flow, and computes it rightly (a trial)."""
    if device.type != "cuda":
        raise MachineError(
            "flow.source=hardware needs an NVIDIA GPU, and this runs on the CPU; use train.device=cuda where"
            f" there is one, {STORED_INSTEAD}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        raise MachineError(
            f"flow.source=hardware needs a GPU of compute capability {_dotted(MIN_CAPABILITY)} or above;"
            f" {torch.cuda.get_device_name(device)} has {_dotted(capability)}; use another GPU,"
            f" {STORED_INSTEAD}"
        )
    if not loads(LIBRARY):
        raise MachineError(
            f"flow.source=hardware needs the driver's {LIBRARY}, which does not load; {CAPABILITIES},"
            f" {STORED_INSTEAD}"
        )
    try:
        across, down = measured_glide(device)
    except Exception as error:  # whatever DALI throws is what there is to be said
        raise MachineError(
            f"flow.source=hardware: the engine of {torch.cuda.get_device_name(device)} fails: {gist(error)};"
            f" see 'slicfast doctor', {STORED_INSTEAD}"
        ) from None
    if not glides_rightly(across, down):
        raise MachineError(
            f"flow.source=hardware: pictures that glide by {GLIDE}, 0 pixels are found to glide by"
            f" {across:.2f}, {down:.2f}; see 'slicfast doctor', {STORED_INSTEAD}"
        )


def measured_glide(device: torch.device) -> tuple[float, float]:
    """Median flow of the drawn film in pixels, across and down, by a GPU's engine."""
    film = torch.from_numpy(drawn_film()).to(device)
    with torch.cuda.device(device):  # whose current stream DALI copies on
        (fields,) = forward_fields(DaliEngine(device, max_films=1), [film])
    across, down = fields[:, 8:-8, 8:-8].reshape(-1, 2).median(dim=0).values.tolist()
    return across, down


def glides_rightly(across: float, down: float) -> bool:
    """Whether the drawn film was found to glide as it does."""
    return abs(across - GLIDE) < MAX_TRIAL_ERROR and abs(down) < MAX_TRIAL_ERROR


def loads(library: str) -> bool:
    """Whether a library of the driver's is there."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
