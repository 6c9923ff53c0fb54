"""Every form of the first convolution is the direct one: output, gradients, layout, in a network too."""

from __future__ import annotations

import pytest
import torch

from slicfast.errors import ConfigError
from slicfast.models.resnet3d import slic_r3d_10
from slicfast.models.stem import FORMS, StemConv, fold_kernel, space_to_depth

OTHERS = [form for form in FORMS if form != "direct"]


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("temporal_stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 16, 16), (3, 10, 14), (1, 8, 22), (5, 9, 11)])
def test_every_form_gives_the_direct_output_and_gradients(form, temporal_stride, size):
    torch.seed()
    direct = StemConv(3, 8, temporal_stride, "direct").double()
    other = StemConv(3, 8, temporal_stride, form).double()
    other.load_state_dict(direct.state_dict())
    clips_NCTHW = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = direct(clips_NCTHW)
    upstream = torch.randn_like(expected)
    found = other(clips_NCTHW)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, (direct.weight, clips_NCTHW), upstream)
    given = torch.autograd.grad(found, (other.weight, clips_NCTHW), upstream)
    for mine, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_stays_channels_last(form):
    stem = StemConv(3, 8, 1, form).to(memory_format=torch.channels_last_3d)
    clips_NCTHW = torch.randn(2, 3, 4, 16, 16).to(memory_format=torch.channels_last_3d)
    assert stem(clips_NCTHW).is_contiguous(memory_format=torch.channels_last_3d)
    assert space_to_depth(clips_NCTHW).is_contiguous(memory_format=torch.channels_last_3d)
    assert fold_kernel(stem.weight).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("form", OTHERS)
def test_a_network_of_another_form_takes_the_same_weights(form):
    torch.seed()
    direct = slic_r3d_10(width=0.125).eval()
    other = slic_r3d_10(width=0.125, stem=form).eval()
    other.load_state_dict(direct.state_dict())
    clips_NCTHW = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(other(clips_NCTHW), direct(clips_NCTHW), rtol=1e-4, atol=1e-5)


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="stem must be one of"):
        slic_r3d_10(stem="folded")
