"""What a CUDA graph does, on the CPU: operators recorded once with the tensors they touch, and run again.

Whatever a function took from Python while it was recorded is frozen here too. Differs in one thing: recording
computes, so the first replay has nothing left to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators whose result, or its shape, the host must know before it can go on.
SYNCHRONISING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave.Tensor",
}


def tensors_of(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class NoSynchronisation(TorchDispatchMode):
    """Fails at an operator that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.num_operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masked = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            index.dtype in (torch.bool, torch.uint8) for index in tensors_of(args[1])
        )
        if masked or name in SYNCHRONISING or f"{name}.{func._overloadname}" in SYNCHRONISING:
            raise AssertionError(f"{name} makes the host wait for the device")
        self.num_operators += 1
        return func(*args, **(kwargs or {}))


class Tape(NoSynchronisation):
    """A recorder (`slicfast.engine.graph.Recorder`) for the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.num_replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def rehearse(self, run: Any) -> Any:
        return run()

    def record(self, run: Any) -> Any:
        with self:
            return run()

    def replay(self) -> None:
        self.num_replays += 1
        if self.num_replays == 1:
            return
        with torch.no_grad():
            for func, args, kwargs, recorded in self.calls:
                result = func(*args, **kwargs)
                for old, new in zip(tensors_of(recorded), tensors_of(result), strict=True):
                    if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)
