"""Clustering by CuPy kernels and by cuML over the memory of torch's tensors, handed over by DLPack.

CuPy works on torch's current stream, so neither waits for the other; cuML works on a stream of its own, which
is kept in order with torch's by waiting before and after. Nothing here copies a row to the host.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slicfast.clustering.fused import SOURCE, Launch, fused_operations, fused_sums
from slicfast.clustering.rows import HalvedRows
from slicfast.device import rapids_install_line
from slicfast.errors import MachineError

_MIN_CAPABILITY = (8, 0)  # Ampere: cp.async and mma.m16n8k16
_LEAST_TOLERANCE = 1e-12  # cuML refuses 0; below this no centroid has moved


class TorchStream:
    """torch's current stream under the protocol by which CuPy takes over streams of other libraries."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream.cuda_stream


def require_cupy(device: torch.device) -> None:
    """Raises MachineError where CuPy does not load or the device is too old for the kernels."""
    try:
        import cupy  # noqa: F401
    except ImportError as error:
        raise _missing("CuPy", "cupy", error) from None
    capability = torch.cuda.get_device_capability(device)
    if capability < _MIN_CAPABILITY:
        raise MachineError(
            f"clustering backend cupy needs a GPU of compute capability 8.0 or later; this one has"
            f" {capability[0]}.{capability[1]}; take backend torch or auto"
        )


def require_cuml() -> None:
    """Raises MachineError where cuML does not load."""
    try:
        import cuml  # noqa: F401
    except ImportError as error:
        raise _missing("cuML", "cuml", error) from None


def _missing(name: str, module: str, error: ImportError) -> MachineError:
    return MachineError(
        f"clustering backend {module} needs {name} ({str(error).partition(chr(10))[0]});"
        f" install it with {rapids_install_line(module)} or take backend torch or auto"
    )


@cache
def _module() -> Any:
    """kernels.cu, compiled when a kernel is first asked for; CuPy keeps what it compiled on disk."""
    import cupy

    return cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=("-std=c++17",))


@cache
def _kernel(name: str, device_index: int) -> Any:
    """A kernel of the module; its attributes are a device's own."""
    return _module().get_function(name)


def launcher(device: torch.device) -> Launch:
    """What launches kernels on the device, each on the stream that is torch's current one at that time."""
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index

    def launch(name: str, blocks: int, threads: int, shared_bytes: int, *arguments: Tensor | int) -> None:
        with cupy.cuda.Device(index), cupy.cuda.Stream.from_external(TorchStream(device)):
            kernel = _kernel(name, index)
            if shared_bytes > kernel.max_dynamic_shared_size_bytes:
                kernel.max_dynamic_shared_size_bytes = shared_bytes
            given = [
                np.int32(argument) if isinstance(argument, int) else cupy.from_dlpack(argument.detach())
                for argument in arguments
            ]
            kernel((blocks,), (threads,), tuple(given), shared_mem=shared_bytes)

    return launch


class CupyRows(HalvedRows):
    """A bank whose searches and sums are the kernels of kernels.cu."""

    def __init__(self, unit_ND: Tensor) -> None:
        import cupy

        super().__init__(unit_ND.contiguous())
        self._launch = launcher(unit_ND.device)
        device = cupy.cuda.Device(unit_ND.get_device())
        self.operations = fused_operations(self._launch, device.attributes["MaxSharedMemoryPerBlockOptin"])

    def sums_by_label(self, labels_N: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
        return fused_sums(self._launch, self.unit_ND, labels_N, num_labels)


def cuml_centroids(unit_ND: Tensor, start_KD: Tensor, num_iterations: int) -> Tensor:
    """(K, D) float32 centroids that cuML's KMeans finds from those given; an empty cluster keeps its own.

    Raises MachineError where cuML does not load.
    """
    require_cuml()
    import cupy
    from cuml.cluster import KMeans

    with (
        cupy.cuda.Device(unit_ND.get_device()),
        cupy.cuda.Stream.from_external(TorchStream(unit_ND.device)),
    ):
        model = KMeans(
            n_clusters=len(start_KD),
            init=cupy.from_dlpack(start_KD.contiguous()),
            n_init=1,  # "auto" would run ten times from the same centroids
            max_iter=num_iterations,
            tol=_LEAST_TOLERANCE,
            output_type="cupy",
        )
        torch.cuda.current_stream(unit_ND.device).synchronize()  # sync: cuML computes on its own stream
        model.fit(cupy.from_dlpack(unit_ND.contiguous()))  # and returns when it is done
        centroids_KD: Tensor = torch.from_dlpack(cupy.ascontiguousarray(model.cluster_centers_))
        return centroids_KD.clone()  # cuML's memory is not torch's to keep
