"""Memory used again, but never while anybody can see it."""

import gc

import torch

from slicfast.data.recycling import MAX_SPARE, TensorPool


def test_memory_is_used_again_once_its_tensor_is_gone():
    pool = TensorPool()
    first = pool.tensor((3, 5))
    address = first.data_ptr()
    del first
    second = pool.tensor((2, 4))
    assert second.data_ptr() == address and second.shape == (2, 4) and second.dtype == torch.float32


def test_memory_seen_through_a_view_or_an_array_is_not_used_again():
    pool = TensorPool()
    for see in (
        lambda tensor: tensor[1:].permute(1, 0),
        lambda tensor: tensor.numpy()[0],
        lambda tensor: torch.from_dlpack(tensor),
        lambda tensor: torch.nn.Parameter(tensor),
    ):
        tensor = pool.tensor((4, 4))
        seen, address = see(tensor), tensor.data_ptr()
        del tensor
        gc.collect()
        other = pool.tensor((4, 4))
        assert other.data_ptr() != address
        del seen, other


def test_a_larger_tensor_gets_memory_that_holds_it():
    pool = TensorPool()
    pool.tensor((2,))
    large = pool.tensor((1000,))
    assert large.fill_(1.0).sum() == 1000 and large.untyped_storage().nbytes() >= 4000


def test_only_so_much_memory_is_kept():
    pool = TensorPool()
    held = [pool.tensor((10,)) for _ in range(3 * MAX_SPARE)]
    assert len({tensor.data_ptr() for tensor in held}) == len(held)
    held.clear()
    assert len(pool._spare) == MAX_SPARE


def test_memory_begins_where_torchs_own_does():
    pool = TensorPool()
    held = [pool.tensor((size,)) for size in (1, 3, 17, 100, 5000)]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in held)
