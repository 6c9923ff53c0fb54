"""A function whose kernels are recorded once and then launched together: a CUDA graph with static inputs.

The rules are PyTorch's (CUDA semantics, "CUDA Graphs"): some calls on a side stream first, then a capture on
that stream, which computes nothing; from then on the host only fills the inputs and replays. What a function
takes from Python (a learning rate, a seed) is frozen in the graph unless it lies in a tensor on the device or
in a generator that the graph knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from slicfast.errors import ConfigError, MachineError, RunError

NUM_REHEARSALS = 3  # calls before the capture, as PyTorch advises: libraries choose and allocate in them

Result = TypeVar("Result")


class Recorder(Protocol):
    """Who records the kernels of one function."""

    def rehearse(self, run: Callable[[], Result]) -> Result:
        """Compute as while recording, without recording."""
        ...

    def record(self, run: Callable[[], Result]) -> Result:
        """Record without computing; what is returned is filled by each replay."""
        ...

    def replay(self) -> None:
        """Compute what was recorded."""
        ...


class CudaRecorder:
    """A CUDA graph.

    Args:
        generators: of random numbers that the function draws, on `device`; seeded anew before a replay they
            give the numbers that they give without a graph. torch's own generator is always known.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def rehearse(self, run: Callable[[], Result]) -> Result:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = run()
        current.wait_stream(self._stream)
        return result

    def record(self, run: Callable[[], Result]) -> Result:
        # thread_local: the loader's thread allocates and launches meanwhile, on streams of its own.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            return run()

    def replay(self) -> None:
        self._graph.replay()


RecorderMaker = Callable[[Sequence[torch.Generator]], Recorder]


def recorder_maker(device: torch.device, num_ranks: int = 1) -> RecorderMaker:
    """What makes recorders on this device.

    Raises:
        MachineError: the device is no GPU.
        ConfigError: there are several ranks, whose gradients are exchanged by hooks outside of a graph.
    """
    if device.type != "cuda":
        raise MachineError(
            f"train.cuda_graph=true needs an NVIDIA GPU, but this run computes on the {device.type};"
            " set train.cuda_graph=false"
        )
    if num_ranks > 1:
        raise ConfigError(
            f"train.cuda_graph=true works on one GPU, but this run has {num_ranks} ranks;"
            " set train.cuda_graph=false"
        )
    return lambda generators: CudaRecorder(device, generators)


class Recorded(Generic[Result]):
    """`function` of tensors, computed call by call at first and replayed once it is recorded.

    Every call's inputs are copied into the same tensors, so they must always have the shapes and types of the
    first call's. What a call returns is overwritten by the next. Results of Python that the function leaves
    behind are those of the recording.
    """

    def __init__(self, function: Callable[..., Result], recorder: Recorder, device: torch.device) -> None:
        self._function = function
        self._recorder = recorder
        self._device = device
        self._inputs: tuple[Tensor, ...] | None = None
        self._rehearsals_left = NUM_REHEARSALS
        self._result: list[Result] = []  # one, once it is recorded

    @property
    def is_recorded(self) -> bool:
        """Whether calls are replays by now."""
        return bool(self._result)

    def __call__(self, *inputs: Tensor) -> Result:
        """Raises ValueError for inputs of another shape, RunError where the function cannot be recorded."""
        self._fill(inputs)
        if self._rehearsals_left:
            self._rehearsals_left -= 1
            return self._recorder.rehearse(self._run)
        if not self._result:
            try:
                self._result.append(self._recorder.record(self._run))
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise RunError(
                    f"the step cannot be recorded as a CUDA graph ({reason}); set train.cuda_graph=false"
                ) from None
        self._recorder.replay()
        return self._result[0]

    def _run(self) -> Result:
        return self._function(*(self._inputs or ()))

    def _fill(self, inputs: tuple[Tensor, ...]) -> None:
        if self._inputs is None:
            self._inputs = tuple(torch.empty_like(given, device=self._device) for given in inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            if own.shape != given.shape or own.dtype != given.dtype:
                raise ValueError(
                    f"a recorded step takes {tuple(own.shape)} of {own.dtype};"
                    f" got {tuple(given.shape)} of {given.dtype}"
                )
            own.copy_(given, non_blocking=True)
