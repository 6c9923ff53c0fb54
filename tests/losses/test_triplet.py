"""The triplet loss against a float64 loop over pairs, and against the faults of the published code."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from slicfast.errors import ConfigError
from slicfast.losses.distance import cosine_distances
from slicfast.losses.negatives import NEGATIVES, weigh_densely, weigh_triplets
from slicfast.losses.triplet import TripletOutput, triplet_loss

KERNELS = [weigh_triplets, weigh_densely]
both_kernels = pytest.mark.parametrize("weigh", KERNELS, ids=["cpu", "dense"])
# Other numbers in every run, under names that are the same in every worker; a failure shows the seed.
fresh_seeds = pytest.mark.parametrize("seed", np.random.default_rng().integers(2**31, size=3), ids="abc")
each_strategy = pytest.mark.parametrize("negatives", NEGATIVES)


def plain_triplets(
    distances: np.ndarray, labels: list[int], margin: float, negatives: str, uniform: np.ndarray
) -> list[tuple[int, int, int]]:
    """(anchor, positive, negative) of every pair, by looking at one pair at a time."""
    triplets = []
    num_rows = len(labels)
    for a in range(num_rows):
        for p in range(a + 1, num_rows):
            others = [n for n in range(num_rows) if labels[n] != labels[a]]
            if labels[p] != labels[a] or not others:
                continue
            others.sort(key=lambda n: distances[a, n])
            violators = [n for n in others if distances[a, n] < distances[a, p] + margin]
            pool = others if negatives == "random_negative" else violators
            if negatives == "fixed_semi_hard" or not pool:
                pool = others[:1]
            triplets.append((a, p, pool[int(uniform[a, p] * len(pool))]))
    return triplets


def plain_loss(embeddings: Tensor, triplets: list[tuple[int, int, int]], margin: float) -> Tensor:
    """Mean hinge over triplets, one at a time, differentiable."""

    def distance(x: int, y: int) -> Tensor:
        return 1 - torch.nn.functional.cosine_similarity(embeddings[x], embeddings[y], dim=0)

    terms = [torch.relu(distance(a, p) - distance(a, n) + margin) for a, p, n in triplets]
    return torch.stack(terms).mean()


def random_batch(seed: int, num_samples: int = 10, num_labels: int = 6) -> tuple[Tensor, Tensor]:
    """Anchors, then positives that lie near them, of a few labels; float64."""
    rng = np.random.default_rng(seed)
    anchors = rng.normal(size=(num_samples, 5))
    positives = anchors + rng.normal(size=anchors.shape)
    labels = rng.integers(num_labels, size=num_samples)
    return torch.from_numpy(np.concatenate([anchors, positives])), torch.from_numpy(np.tile(labels, 2))


def masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    other = labels[:, None] != labels[None]
    return other, (~other).triu(1) & other.any(1, keepdim=True)


@each_strategy
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
@fresh_seeds
def test_loss_and_gradient_equal_a_float64_loop_over_pairs(seed, margin, negatives):
    embeddings, labels = random_batch(seed)
    embeddings.requires_grad_()
    output = triplet_loss(
        embeddings, labels, margin=margin, negatives=negatives, generator=torch.Generator().manual_seed(7)
    )
    output.loss.backward()
    gradient = embeddings.grad
    embeddings.grad = None

    distances = cosine_distances(embeddings.detach()).numpy()
    uniform = torch.empty(len(labels), len(labels), dtype=torch.float64)
    uniform.uniform_(generator=torch.Generator().manual_seed(7))
    triplets = plain_triplets(distances, labels.tolist(), margin, negatives, uniform.numpy())
    expected = plain_loss(embeddings, triplets, margin)
    expected.backward()

    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, embeddings.grad, rtol=0, atol=1e-12)
    assert output.num_pairs.item() == len(triplets)
    hinges = [distances[a, p] - distances[a, n] + margin > 0 for a, p, n in triplets]
    assert output.share_violating.item() == pytest.approx(np.mean(hinges))
    assert output.positive_distance.item() == pytest.approx(
        np.mean([distances[a, p] for a, p, _ in triplets])
    )
    assert output.negative_distance.item() == pytest.approx(
        np.mean([distances[a, n] for a, _, n in triplets])
    )


@each_strategy
@fresh_seeds
def test_both_kernels_choose_the_same_triplets(seed, negatives):
    embeddings, labels = random_batch(seed, num_samples=40, num_labels=25)
    distances = cosine_distances(embeddings.float())
    other, pair = masks(labels)
    uniform = torch.rand(distances.shape, generator=torch.Generator().manual_seed(int(seed)))
    cpu, dense = (kernel(distances, other, pair, uniform, 0.1, negatives) for kernel in KERNELS)
    assert torch.equal(cpu[0], dense[0])
    torch.testing.assert_close(cpu[1], dense[1])


@both_kernels
def test_semi_hard_draws_uniformly_among_all_violators(weigh):
    angles = torch.tensor([0.0, 0.9, 0.2, 0.5, 0.8, 1.0, 1.1, 1.3, 2.5, 3.0], dtype=torch.float64)
    distances = 1 - torch.cos(angles[:, None] - angles[None])
    labels = torch.tensor([0, 0, *range(1, 9)])
    violators = (distances[0] < distances[0, 1] + 0.2) & (labels != 0)
    assert violators.nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    picked = count_picks(weigh, distances, labels, 0.2, "random_semi_hard", num_draws=3000)
    assert set(picked) == {2, 3, 4, 5, 6}
    assert_uniform(picked)


@both_kernels
def test_random_negative_draws_uniformly_among_all_rows_of_other_labels(weigh):
    embeddings = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 3)))
    labels = torch.tensor([5, 1, 2, 5, 1, 3, 4, 9])
    # so wide a margin that every choice violates it, and shows among the weights
    picked = count_picks(weigh, cosine_distances(embeddings), labels, 3.0, "random_negative", num_draws=3000)
    assert set(picked) == {1, 2, 4, 5, 6, 7}
    assert_uniform(picked)


def count_picks(weigh, distances, labels, margin, negatives, num_draws) -> dict[int, int]:
    """How often each row became the negative of the first anchor's one pair."""
    other, pair = masks(labels)
    pair[1:] = False
    generator = torch.Generator().manual_seed(3)
    counts: dict[int, int] = {}
    for _ in range(num_draws):
        uniform = torch.rand(distances.shape, generator=generator, dtype=distances.dtype)
        weights, _ = weigh(distances, other, pair, uniform, margin, negatives)
        row = int(weights[0].argmin())
        counts[row] = counts.get(row, 0) + 1
    return counts


def assert_uniform(counts: dict[int, int]) -> None:
    expected = sum(counts.values()) / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 20.5  # the 99.9% point for five degrees of freedom; four have less


def exhaustive_weights(weigh, distances, labels, margin, negatives):
    """The weights under the smallest, a middle and the largest uniform number there is."""
    other, pair = masks(labels)
    for u in (0.0, 0.5, np.nextafter(np.float32(1), np.float32(0)).item()):
        weights, _ = weigh(distances, other, pair, torch.full_like(distances, u), margin, negatives)
        yield weights, other


@both_kernels
@each_strategy
def test_fallback_negative_has_another_label(negatives, weigh):
    # Two tight clusters far apart: at margin 0 nothing violates, and with the margin at 2 everything does.
    angles = torch.tensor([0.0, 3.0, 0.1, 3.1, 0.05, 3.05])
    labels = torch.tensor([4, 8, 4, 8, 4, 8])
    distances = 1 - torch.cos(angles[:, None] - angles[None])
    for margin in (0.0, 2.0):
        for weights, other in exhaustive_weights(weigh, distances, labels, margin, negatives):
            assert not (weights[~other] < 0).any()
            assert (weights < 0).any() == (margin > 0)
    generator = torch.Generator().manual_seed(0)
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    output = triplet_loss(points, labels, margin=0.0, negatives=negatives, generator=generator)
    assert output.loss.item() == 0
    if negatives != "random_negative":  # the closest row of another label, for each of the six pairs
        closest = torch.where(labels[:, None] != labels, distances, torch.inf).amin(1)
        anchors = [0, 0, 2, 1, 1, 3]
        assert output.negative_distance.item() == pytest.approx(closest[anchors].mean().item(), abs=1e-6)


@both_kernels
@each_strategy
@fresh_seeds
def test_negative_is_never_the_anchor_nor_of_its_label(seed, negatives, weigh):
    embeddings, labels = random_batch(seed, num_samples=30, num_labels=4)
    distances = cosine_distances(embeddings.float())
    for margin in (0.0, 0.2, 3.0):
        for weights, other in exhaustive_weights(weigh, distances, labels, margin, negatives):
            assert not (weights[~other] < 0).any()
            assert not weights.diagonal().any()
            assert not (weights[other] > 0).any()


@each_strategy
def test_one_label_for_all_rows_gives_zero_with_a_gradient_of_zero(negatives):
    embeddings = torch.randn(8, 4, requires_grad=True)
    output = triplet_loss(embeddings, torch.full((8,), 3), margin=0.2, negatives=negatives)
    output.loss.backward()
    assert output.num_pairs.item() == 0
    assert [value.item() for value in output] == [0.0] * 5
    assert torch.equal(embeddings.grad, torch.zeros(8, 4))


@each_strategy
def test_rows_of_different_labels_throughout_give_no_pair(negatives):
    embeddings = torch.randn(8, 4, requires_grad=True)
    output = triplet_loss(embeddings, torch.arange(8), margin=0.2, negatives=negatives)
    output.loss.backward()
    assert [value.item() for value in output] == [0.0] * 5
    assert torch.equal(embeddings.grad, torch.zeros(8, 4))


def test_one_row_alone_gives_no_pair():
    output = triplet_loss(torch.randn(1, 4), torch.tensor([0]), margin=0.2, negatives="random_semi_hard")
    assert output.num_pairs.item() == 0
    assert output.loss.item() == 0


@each_strategy
def test_labels_are_names_not_numbers(negatives):
    embeddings, labels = random_batch(5)
    names = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 2**40, 2**40 + 1])

    def loss(labels: Tensor) -> TripletOutput:
        generator = torch.Generator().manual_seed(1)
        return triplet_loss(embeddings, labels, margin=0.3, negatives=negatives, generator=generator)

    assert loss(labels) == loss(names[labels])


@each_strategy
def test_gradient_passes_gradcheck(negatives):
    embeddings, labels = random_batch(11, num_samples=4, num_labels=3)

    def loss(embeddings: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return triplet_loss(embeddings, labels, margin=0.3, negatives=negatives, generator=generator).loss

    assert loss(embeddings).item() > 0
    assert torch.autograd.gradcheck(loss, embeddings.requires_grad_())


def test_same_generator_state_gives_the_same_loss_and_the_next_draw_another():
    embeddings, labels = random_batch(3, num_samples=30, num_labels=20)
    generator = torch.Generator().manual_seed(1)

    def loss() -> float:
        output = triplet_loss(
            embeddings, labels, margin=0.5, negatives="random_semi_hard", generator=generator
        )
        return output.loss.item()

    first, second = loss(), loss()
    assert first != second
    generator.manual_seed(1)
    assert loss() == first


def test_distances_are_float32_under_autocast():
    embeddings, labels = random_batch(9, num_samples=50, num_labels=50)
    rounded = embeddings.bfloat16()
    expected = triplet_loss(rounded.double(), labels, margin=0.2, negatives="fixed_semi_hard").loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = triplet_loss(rounded, labels, margin=0.2, negatives="fixed_semi_hard").loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@fresh_seeds
def test_float32_rank_stays_inside_the_candidates_for_the_largest_uniform_number(seed):
    counts = torch.from_numpy(np.random.default_rng(seed).integers(1, 2**24, size=100_000))
    counts[:1000] = torch.arange(1, 1001)
    largest = np.nextafter(np.float32(1), np.float32(0)).item()
    assert ((torch.tensor(largest) * counts).long() < counts).all()


@each_strategy
def test_dense_kernel_has_no_operation_whose_shape_or_branch_depends_on_data(negatives):
    embeddings, labels = random_batch(2)
    distances = cosine_distances(embeddings.float())
    arguments = (distances, *masks(labels), torch.rand_like(distances))
    # A fake tensor has a shape but no data: tracing fails at anything that would wait for a value.
    graph = make_fx(lambda *tensors: weigh_densely(*tensors, 0.2, negatives), tracing_mode="fake")(*arguments)
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert targets and not any("nonzero" in name or "_local_scalar_dense" in name for name in targets)


@each_strategy
def test_whole_loss_and_its_gradient_trace_without_data(negatives):
    with FakeTensorMode():
        embeddings = torch.randn(12, 4, requires_grad=True)
        output = triplet_loss(embeddings, torch.arange(6).repeat(2), margin=0.2, negatives=negatives)
        output.loss.backward()
    assert [tuple(value.shape) for value in output] == [()] * 5
    assert embeddings.grad.shape == (12, 4)


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'random_semi_hard'"):
        triplet_loss(torch.randn(4, 2), torch.zeros(4), margin=0.2, negatives="random_semihard")


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [((4, 2), (3,)), ((4,), (4,)), ((0, 2), (0,)), ((4, 2), (4, 1))],
)
def test_shapes_that_do_not_fit_are_named(embeddings, labels):
    with pytest.raises(ValueError, match="expected embeddings"):
        triplet_loss(torch.zeros(embeddings), torch.zeros(labels), margin=0.2, negatives="random_negative")
