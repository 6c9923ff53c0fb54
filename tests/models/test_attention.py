"""Attention and gates against their formulas, written out in NumPy in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from slicfast.models.attention import CBAM, NonLocal, SqueezeExcitation
from slicfast.models.s3d import Gate, Mixed

SHAPE = (2, 32, 3, 5, 4)  # N, C, T, H, W


def drawn(module: nn.Module) -> dict[str, np.ndarray]:
    """Every weight and statistic drawn anew, in float64 and evaluation mode."""
    module.double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_() if "var" not in name else tensor.uniform_(0.5, 2.0)
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def clip() -> np.ndarray:
    return np.random.default_rng().normal(size=SHAPE)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normed(x: np.ndarray, state: dict[str, np.ndarray], name: str = "bn") -> np.ndarray:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def assert_computes(module: nn.Module, x: np.ndarray, expected: np.ndarray) -> None:
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_squeeze_and_excitation_gates_channels_by_the_clips_means():
    module = SqueezeExcitation(SHAPE[1])
    state, x = drawn(module), clip()
    hidden = np.maximum(x.mean(axis=(2, 3, 4)) @ state["fc1.weight"].T + state["fc1.bias"], 0)
    gate = sigmoid(hidden @ state["fc2.weight"].T + state["fc2.bias"])
    assert hidden.shape == (2, SHAPE[1] // 16)
    assert_computes(module, x, x * gate[:, :, None, None, None])


def test_cbam_gates_channels_and_then_places():
    module = CBAM(SHAPE[1])
    state, x = drawn(module), clip()

    def shared(pooled: np.ndarray) -> np.ndarray:
        return np.maximum(pooled @ state["fc1.weight"].T, 0) @ state["fc2.weight"].T

    gate = sigmoid(shared(x.mean(axis=(2, 3, 4))) + shared(x.max(axis=(2, 3, 4))))
    gated = x * gate[:, :, None, None, None]
    seen = np.pad(np.stack((gated.mean(axis=1), gated.max(axis=1)), axis=1), [(0, 0), (0, 0)] + [(3, 3)] * 3)
    places = np.zeros((SHAPE[0], 1, *SHAPE[2:]))
    for t, h, w in np.ndindex(*SHAPE[2:]):
        window = seen[:, :, t : t + 7, h : h + 7, w : w + 7]
        places[:, 0, t, h, w] = (window * state["conv.weight"][0]).sum(axis=(1, 2, 3, 4))
    assert_computes(module, x, gated * sigmoid(normed(places, state)))


def test_a_non_local_block_is_softmax_attention_over_all_places():
    module = NonLocal(SHAPE[1])
    state, x = drawn(module), clip()

    def pointwise(x: np.ndarray, name: str) -> np.ndarray:
        weight = state[f"{name}.weight"][:, :, 0, 0, 0]
        return np.einsum("oc,nc...->no...", weight, x) + state[f"{name}.bias"][:, None, None, None]

    rows, columns = (range(0, size, 2) for size in SHAPE[3:])
    pooled = np.stack(
        [np.stack([x[:, :, :, h : h + 2, w : w + 2].max(axis=(3, 4)) for w in columns], -1) for h in rows], -2
    )
    expected = np.zeros_like(x)
    for n in range(SHAPE[0]):
        query, key, value = (
            pointwise(seen[n : n + 1], name)[0].reshape(SHAPE[1] // 2, -1)
            for seen, name in ((x, "theta"), (pooled, "phi"), (pooled, "g"))
        )
        logits = query.T @ key / np.sqrt(len(query))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        attended = value @ (weights / weights.sum(axis=1, keepdims=True)).T
        out = pointwise(attended.reshape(1, -1, *SHAPE[2:]), "out")
        expected[n] = x[n] + normed(out, state)[0]
    assert_computes(module, x, expected)


def test_s3d_gs_gate_sees_the_clips_mean_of_every_channel():
    module = Gate(SHAPE[1])
    state, x = drawn(module), clip()
    gate = sigmoid(x.mean(axis=(2, 3, 4)) @ state["fc.weight"].T + state["fc.bias"])
    assert_computes(module, x, x * gate[:, :, None, None, None])


def test_a_gated_block_is_the_plain_one_with_a_gate_on_each_branch():
    plain, gated = Mixed(16, "3b", 0.25, gated=False).eval(), Mixed(16, "3b", 0.25, gated=True).eval()
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and len(missing) == 4 * 2
    x = torch.randn(2, 16, 3, 5, 5)
    with torch.no_grad():
        parts = plain(x).split([16, 32, 8, 8], dim=1)
        expected = torch.cat([gate(part) for gate, part in zip(gated.gates, parts, strict=True)], dim=1)
        torch.testing.assert_close(gated(x), expected)
