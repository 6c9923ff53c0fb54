"""Small computations whose right answer is known, to find out whether this machine computes it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BF16_ROUNDING = 2**-8  # of a value: half of its last place


def worst_bf16_error(
    device: torch.device, shape_NCTHW: tuple[int, ...], out_channels: int, kernel: int
) -> float:
    """Largest error of a bf16 Conv3d beyond its rounding, in standard deviations of the fp32 result."""
    import torch

    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(shape_NCTHW, generator=generator).bfloat16()
    fan_in = shape_NCTHW[1] * kernel**3
    weight = (
        torch.randn(out_channels, shape_NCTHW[1], *[kernel] * 3, generator=generator) / fan_in**0.5
    ).bfloat16()
    clips = clips.to(device).to(memory_format=torch.channels_last_3d)
    weight = weight.to(device).to(memory_format=torch.channels_last_3d)
    stride = (1, 2, 2) if kernel == 7 else 1
    with torch.inference_mode():
        fast = torch.nn.functional.conv3d(clips, weight, stride=stride, padding=kernel // 2).float()
        exact = torch.nn.functional.conv3d(clips.float(), weight.float(), stride=stride, padding=kernel // 2)
        beyond = (fast - exact).abs() - BF16_ROUNDING * exact.abs()
        return max(0.0, float(beyond.max() / exact.std()))


def decoding_error(device: str, num_frames: int = 16) -> float:
    """Mean absolute difference in grey levels between DALI's and OpenCV's pictures of one clip."""
    import cv2
    import numpy as np
    import torch

    dali: Any = importlib.import_module("nvidia.dali")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (num_frames, 8, 10, 3), dtype=np.uint8)
    smooth = [cv2.resize(frame, (171, 128), interpolation=cv2.INTER_CUBIC) for frame in coarse]
    encoded = [cv2.imencode(".jpg", frame)[1].reshape(-1) for frame in smooth]

    @dali.pipeline_def(batch_size=num_frames, num_threads=1, device_id=None if device == "cpu" else 0)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        read = dali.fn.external_source(lambda: encoded, dtype=dali.types.UINT8)
        return dali.fn.decoders.image(read, device=device, output_type=dali.types.BGR)

    pipeline = graph()
    pipeline.build()
    (decoded,) = pipeline.run()
    pictures = torch.from_dlpack(decoded.as_tensor()).cpu().numpy().astype(np.float32)
    reference = [np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.float32) for data in encoded]
    return float(np.abs(pictures - np.stack(reference)).mean())
