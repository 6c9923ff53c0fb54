"""The projection head against its formula."""

import numpy as np
import pytest
import torch

from slicfast.models.heads import Projection


@pytest.mark.parametrize("norm", [False, True])
def test_projection_computes_linear_norm_relu_linear(norm):
    head = Projection(6, 16, 4, norm=norm).double()
    pooled = torch.from_numpy(np.random.default_rng().normal(size=(9, 6)))
    state = {name: value.numpy() for name, value in head.state_dict().items()}

    def normed(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    hidden = normed(pooled.numpy() @ state["fc1.weight"].T + state["fc1.bias"])
    hidden = np.maximum(hidden * state["bn_proj.weight"] + state["bn_proj.bias"], 0)
    expected = hidden @ state["fc2.weight"].T + state["fc2.bias"]
    got = head(pooled)
    np.testing.assert_allclose(got.detach().numpy(), normed(expected) if norm else expected, atol=1e-12)


def test_parameter_names_are_those_of_the_authors_checkpoints():
    names = {name for name, _ in Projection(6, 16, 4, norm=True).named_parameters()}
    linear = {f"{layer}.{part}" for layer in ("fc1", "fc2", "bn_proj") for part in ("weight", "bias")}
    assert names == linear


def test_output_norm_keeps_a_collapsing_batch_apart():
    head = Projection(6, 16, 4, norm=True)
    pooled = torch.ones(32, 6) + 1e-2 * torch.randn(32, 6)
    assert head(pooled).std(dim=0).min() > 0.9


def test_projection_runs_under_bf16_autocast():
    head = Projection(6, 16, 4, norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = head(torch.randn(8, 6, dtype=torch.bfloat16))
    embeddings.float().square().sum().backward()
    assert embeddings.dtype == torch.bfloat16
    assert head.fc1.weight.grad.dtype == torch.float32
