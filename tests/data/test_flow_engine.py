"""The optical-flow engine: its fields brought to a store's conventions; who has none is told in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from flow_stand_in import StandIn
from small_data import gliding_video

from slicfast.data.pipelines import flow_engine
from slicfast.data.pipelines.flow_engine import (
    DaliEngine,
    finest_grid,
    forward_fields,
    measured_glide,
    require_hardware_flow,
)
from slicfast.errors import MachineError

pytest.importorskip("nvidia.dali")

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_fields_are_brought_to_the_pixels_and_pictures_that_they_belong_to(grid: int) -> None:
    """Blocks whose vectors tell their own centre, and their pair's place in the order of handing over."""

    class Telling:
        def __init__(self) -> None:
            self.grid, self.seen = grid, torch.empty(0)

        def run(self, films: Sequence[torch.Tensor], stream: object = None) -> list[torch.Tensor]:
            (self.seen,) = films
            num, height, width, _ = self.seen.shape
            x, y = ((torch.arange(side // grid) + 0.5) * grid - 0.5 for side in (width, height))
            ramp = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
            order = torch.arange(num - 1, dtype=torch.float32)[:, None, None, None]
            return [ramp + 1000 * order]

    engine = Telling()
    rng = np.random.default_rng()
    height, width = (int(side) for side in rng.integers(30, 250, 2))
    film = torch.from_numpy(rng.integers(0, 256, (5, height, width, 3), dtype=np.uint8))
    (fields,) = forward_fields(engine, [film])
    assert fields.shape == (4, height, width, 2)
    inner_x, inner_y = torch.arange(grid, width - grid), torch.arange(grid, height - grid)
    expected = torch.stack(torch.meshgrid(inner_x, inner_y, indexing="xy"), dim=-1).float()
    for k in range(4):  # handed over backwards: the first pair of a film comes last
        found = fields[k, grid : height - grid, grid : width - grid] - 1000 * (3 - k)
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert torch.equal(engine.seen[:, :height, :width], film.flip(0))
    assert min(engine.seen.shape[1:3]) >= 192 and not any(side % 64 for side in engine.seen.shape[1:3])
    assert torch.equal(
        engine.seen[:, height:, :width], film.flip(0)[:, -1:].expand_as(engine.seen[:, height:, :width])
    )


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_the_stand_in_finds_motion_to_the_right_to_be_positive(grid: int) -> None:
    film = gliding_video(np.random.default_rng(), 4, 130, 100, (3.0, -2.0))
    (fields,) = forward_fields(StandIn(grid), [torch.from_numpy(film)])
    found = fields[:, 10:-10, 10:-10].reshape(-1, 2).median(dim=0).values
    torch.testing.assert_close(found, torch.tensor([3.0, -2.0]), atol=0.3, rtol=0)


@pytest.mark.parametrize(
    ("capability", "library", "glide", "told"),
    [
        ((7, 0), True, (3, 0), "needs a GPU of compute capability 7.5 or above; Some GPU has 7.0"),
        ((9, 0), False, (3, 0), "needs the driver's libnvidia-opticalflow.so.1, which does not load; start"),
        (
            (9, 0),
            True,
            (-3, 0),
            "glide by 3, 0 pixels are found to glide by -3.00, 0.00; see 'slicfast doctor'",
        ),
        (
            (9, 0),
            True,
            RuntimeError("Feature unsupported\nat some place"),
            "of Some GPU fails: Feature unsupp",
        ),
        ((9, 0), True, (3.2, 0.1), None),
    ],
)
def test_a_gpu_that_cannot_is_told_in_one_line(monkeypatch, capability, library, glide, told) -> None:
    def measured(device: torch.device) -> tuple[float, float]:
        if isinstance(glide, Exception):
            raise glide
        return glide

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(flow_engine, "loads", lambda name: library)
    monkeypatch.setattr(flow_engine, "measured_glide", measured)
    require_hardware_flow.cache_clear()
    if told is None:
        require_hardware_flow(GPU)
    else:
        with pytest.raises(MachineError) as raised:
            require_hardware_flow(GPU)
        assert told in str(raised.value) and "\n" not in str(raised.value)
        assert str(raised.value).endswith(
            "or set flow.source=stored, which 'slicfast prepare ROOT STORE --flow' makes ready"
        )
    require_hardware_flow.cache_clear()


def test_the_finest_grid_is_the_gpus() -> None:
    assert [finest_grid(capability) for capability in ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0))] == [
        4,
        1,
        1,
        1,
        1,
    ]


@pytest.mark.needs_cuda
def test_the_engine_of_this_gpu_finds_the_glide_at_every_grid_and_preset() -> None:
    require_hardware_flow(GPU)
    across, down = measured_glide(GPU)
    assert abs(across - 3) < 0.5 and abs(down) < 0.5
    film = torch.from_numpy(gliding_video(np.random.default_rng(1), 6, 171, 128, (4.0, -2.5))).to(GPU)
    finest = finest_grid(torch.cuda.get_device_capability(GPU))
    for grid in (grid for grid in (1, 2, 4) if grid >= finest):
        for preset in (0.0, 0.5, 1.0):
            (fields,) = forward_fields(DaliEngine(GPU, max_films=1, grid=grid, preset=preset), [film])
            assert fields.shape == (5, 128, 171, 2) and fields.device == GPU
            found = fields[:, 12:-12, 12:-12].reshape(-1, 2).median(dim=0).values.cpu()
            torch.testing.assert_close(found, torch.tensor([4.0, -2.5]), atol=0.5, rtol=0)
