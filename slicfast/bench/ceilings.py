"""What the machine can do at most, measured: floating-point operations of a matrix product, bytes of a copy.

A rate is worth what it is beside these. Both are of fresh random numbers: zeros run faster on some chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from slicfast.bench.harness import Measurement, measure
from slicfast.device import native_bf16

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ceilings:
    """Of one device, in one number type.

    Attributes:
        tflops: 10^12 operations a second of a square matrix product, multiplication and addition apart.
        copy_gbs: 10^9 bytes a second of a copy, those read and those written.
    """

    device: str
    precision: str
    tflops: float
    copy_gbs: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_ceilings(
    device: torch.device,
    precision: str = "fp32",
    *,
    size: int | None = None,
    num_runs: int = 5,
    num_threads: int | None = None,
) -> Ceilings:
    """Measure both; some tenths of a second on a GPU, some seconds on a CPU.

    Args:
        precision: a key of DTYPES.
        size: rows of the square matrices; by default 8192 on a GPU, 2048 on a CPU, 256 where it emulates
            the type, which takes some hundred times as long. Where it is given, so many numbers are copied
            as such a matrix has: for trials.
        num_threads: on a CPU, count the CPU time of each of so many threads in place of wall time, which
            grows with whatever else the machine does.
    """
    on_gpu = device.type == "cuda"
    # Far larger than any cache: a quarter of a GiB on a CPU, 2 GiB on a GPU.
    num_copied = ((1 << 29) if on_gpu else (1 << 26)) if size is None else size * size
    emulated = not on_gpu and (precision == "fp16" or (precision == "bf16" and not native_bf16(device)))
    size = size or (8192 if on_gpu else 256 if emulated else 2048)
    dtype = DTYPES[precision]
    synchronize: Callable[[], object] | None = (lambda: torch.cuda.synchronize(device)) if on_gpu else None
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    product = measure(
        lambda: torch.mm(left, right, out=out), num_runs=num_runs, num_warmup=2, synchronize=synchronize
    )
    source = torch.randn(num_copied, device=device)
    target = torch.empty_like(source)
    copy = measure(lambda: target.copy_(source), num_runs=num_runs, num_warmup=2, synchronize=synchronize)
    num_bytes = 2 * source.numel() * source.element_size()

    def spent_ms(cost: Measurement) -> float:
        return cost.wall_ms if on_gpu or num_threads is None else cost.cpu_ms / num_threads

    return Ceilings(
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        precision=precision,
        tflops=2 * size**3 / (1e9 * spent_ms(product)),
        copy_gbs=num_bytes / (1e6 * spent_ms(copy)),
    )


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of what `run` computes: matrix products and convolutions, both ways."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
