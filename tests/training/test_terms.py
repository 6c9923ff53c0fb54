"""The sum of terms: what each needs and remembers, a resumed run beside an unbroken one, two ranks."""

from __future__ import annotations

import pytest
import torch
from test_distributed import torchrun

from slicfast.config import Config
from slicfast.data.requests import Role
from slicfast.data.roles import sample_roles
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.errors import ConfigError
from slicfast.losses.memory_bank import MemoryBank
from slicfast.records import read_metrics
from slicfast.training.loop import train
from slicfast.training.objective import StepPart
from slicfast.training.terms import SlicObjective

WEIGHTS = {
    "triplet": 1.0,
    "temporal": 0.5,
    "relative_speed": 2.0,
    "intra_negative": 0.4,
    "memory_triplet": 0.3,
    "nce": 0.2,
    "moco": 0.7,
    "uber_nce": 0.6,
}
ALL_TERMS = tuple(f"loss.{name}_weight={weight}" for name, weight in WEIGHTS.items())
SMALL = (
    "loss.queue_size=6",
    "loss.nce_num_negatives=5",
    "loss.memory_triplet_size=5",
    "loss.key_momentum=0.9",
)


def config_of(*overrides) -> Config:
    return Config.load(None, ["model.projection_dim=5", *SMALL, *overrides])


def only_overrides(name):
    return tuple(f"loss.{other}_weight={float(other == name)}" for other in WEIGHTS)


def only(name):
    return config_of(*only_overrides(name))


def random_part(objective, num_videos=9, size=4, seed=None):
    """Clips of five numbers each, which a network that changes nothing makes its embeddings."""
    generator = torch.Generator().manual_seed(torch.seed() if seed is None else seed)
    clips = torch.randn(objective.num_roles * size, 5, generator=generator)
    videos = torch.randint(num_videos, (objective.num_roles * size,), generator=generator)
    rows = clips[: objective.num_encoded * size].clone().requires_grad_()
    return StepPart(rows, clips, objective.labels_N[videos], videos, torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("name", "encoded", "for_keys"),
    [
        ("triplet", [Role.POSITIVE], []),
        ("temporal", [Role.POSITIVE, Role.ANCHOR_AGAIN], []),
        ("relative_speed", [Role.POSITIVE, Role.FAST], []),
        ("intra_negative", [Role.POSITIVE, Role.SHUFFLED], []),
        ("memory_triplet", [Role.POSITIVE], []),
        ("nce", [Role.DIFFERENCE], []),
        ("moco", [], [Role.POSITIVE]),
        ("uber_nce", [], [Role.POSITIVE]),
    ],
)
def test_a_term_alone_loads_and_encodes_only_what_it_needs(name, encoded, for_keys):
    config = only(name)
    roles = sample_roles(config.loss)
    assert roles.encoded == (Role.ANCHOR, *encoded)
    assert roles.loaded == (Role.ANCHOR, *encoded, *for_keys)
    objective = SlicObjective(config, 9, torch.nn.Identity())
    logged = objective(random_part(objective)).logged
    assert set(logged) - {"share_violating"} == {name, "loss"}
    assert bool(objective.state_dict()) == (name in ("memory_triplet", "nce", "moco", "uber_nce"))


def test_the_total_is_the_weighted_sum_of_all_terms():
    config = config_of(*ALL_TERMS)
    objective = SlicObjective(config, 9, torch.nn.Identity())
    for step in range(4):
        part = random_part(objective, size=12, seed=step)
        loss = objective(part)
        loss.total.backward()
        assert part.embeddings_ND.grad.abs().sum() > 0
    expected = sum(weight * loss.logged[name].item() for name, weight in WEIGHTS.items())
    assert loss.total.item() == loss.logged["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert all(loss.logged[name] > 0 for name in WEIGHTS)
    assert (
        sample_roles(config.loss).loaded
        == sample_roles(config.loss).encoded
        == tuple(role for role in Role if role != Role.EVAL)
    )


@pytest.mark.parametrize("name", ["triplet", "temporal"])
def test_the_first_terms_draw_as_if_they_were_alone(name):
    alone, together = only(name), config_of(*ALL_TERMS)
    embeddings = torch.randn(6 * 4, 5)
    videos = torch.randint(9, (6 * 4,))
    found = []
    for config in (alone, together):
        objective = SlicObjective(config, 9, torch.nn.Identity())
        count = objective.num_encoded * 4
        part = StepPart(
            embeddings[:count], embeddings[:count], videos[:count], videos[:count], torch.Generator()
        )
        part.generator.manual_seed(5)
        found.append(objective(part).logged[name].item())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("negatives", "name"), [("all_semi_hard", "all_semi_hard"), ("noise_contrastive", "contrastive")]
)
def test_other_losses_of_pairs_take_the_triplets_place(negatives, name):
    objective = SlicObjective(config_of(f"loss.negatives={negatives}"), 9, torch.nn.Identity())
    logged = objective(random_part(objective)).logged
    assert logged[name] > 0 and "triplet" not in logged


def test_a_clustering_gives_remembered_rows_new_labels():
    """With all videos in one cluster no remembered row is a negative any more."""
    objective = SlicObjective(config_of(*ALL_TERMS), 9, torch.nn.Identity())
    before = [objective(random_part(objective, size=12, seed=step)).logged for step in range(3)][-1]
    objective.set_labels(torch.zeros(9, dtype=torch.int64))
    after = objective(random_part(objective, size=12, seed=7)).logged
    for name in ("memory_triplet", "nce", "moco"):
        assert before[name] > 0 and after[name].item() == pytest.approx(0.0, abs=1e-6)


def test_nothing_to_train_is_a_config_error():
    weights = [f"loss.{name}_weight=0" for name in WEIGHTS]
    with pytest.raises(ConfigError, match=r"every loss\.\*_weight is 0"):
        Config.load(None, weights)
    with pytest.raises(ConfigError, match=r"memory_triplet_skipped 0\.2 must be below"):
        Config.load(None, ["loss.memory_triplet_skipped=0.2"])


def test_a_run_of_all_terms_goes_on_exactly_and_logs_each_term(tiny_config, tmp_path):
    """Queues, memories and the key encoder go on where they were, over clusterings too."""
    config = tiny_config(
        *ALL_TERMS, *SMALL, "train.epochs=4", "train.accumulation_steps=2", "loss.nce_form=logistic"
    )
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config, whole)
    train(config, halved, max_steps=3)
    train(config, halved, resume="auto")
    one, two = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (whole, halved))
    assert one.global_step == 8 and len(one.objective) > 30
    for name, tensor in {**one.model, **one.objective}.items():
        assert torch.equal(tensor, {**two.model, **two.objective}[name]), name
    lines = [entry for entry in read_metrics(whole / "metrics.jsonl") if entry["kind"] == "train"]
    assert all(set(WEIGHTS) < set(line) for line in lines)
    assert lines[-1]["moco"] > 0 and lines[-1]["memory_triplet"] > 0


def test_the_memories_go_on_from_epoch_to_epoch(tiny_config, tmp_path):
    """The published code begins its NCE memory afresh every epoch; an epoch has two steps here."""
    config = tiny_config("loss.nce_weight=1", "loss.triplet_weight=0", "loss.temporal_weight=0", *SMALL)
    found = []
    for steps in (2, 3):
        train(config, tmp_path / str(steps), max_steps=steps)
        checkpoint = load_checkpoint(tmp_path / str(steps) / "checkpoints" / "last.pt")
        found.append(checkpoint.objective["memories.rows_VND"])
    begin = MemoryBank(8, 8, config.seed).rows_VND
    changed, moved = ((found[1] != before).any(dim=2) for before in (begin, found[0]))
    assert changed.all()  # the first epoch has seen every video,
    assert moved.sum(dim=1).tolist() == [4, 4]  # and a step of the second one changes its own four alone


def test_the_key_encoder_follows_the_encoder_by_its_momentum(tiny_config, tmp_path):
    config = tiny_config("loss.moco_weight=1", "loss.triplet_weight=0", "loss.temporal_weight=0", *SMALL)
    name = "backbone.conv1.weight"
    found = []
    for steps in (1, 2):
        train(config, tmp_path / str(steps), max_steps=steps)
        checkpoint = load_checkpoint(tmp_path / str(steps) / "checkpoints" / "last.pt")
        found.append((checkpoint.model[name], checkpoint.objective[f"key_encoder.encoder.{name}"]))
    (_, key_before), (weight, key_after) = found
    torch.testing.assert_close(key_after, 0.9 * key_before + 0.1 * weight)
    assert not torch.equal(key_after, weight)


def test_two_ranks_remember_the_same_and_train_what_one_rank_trains(tmp_path):
    """Per-sample terms and gathered pairs: the mean of two halves' gradients is that of the whole batch."""
    torchrun(
        """
        import copy, sys, torch, torch.distributed as dist
        from slicfast.config import Config
        from slicfast.training.objective import StepPart
        from slicfast.training.terms import SlicObjective
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        config = Config.load(None, sys.argv[1:])
        draws = torch.Generator().manual_seed(3)
        weight = torch.randn(5, 5, generator=draws)

        def encoder():
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 5))
            with torch.no_grad():
                network[1].weight.copy_(weight); network[1].bias.zero_()
            return network

        def gradients(parts):
            network = encoder()
            objective, found = SlicObjective(config, 9, network), []
            for clips, videos in parts:
                encoded = objective.num_encoded * len(clips) // objective.num_roles
                shared = torch.Generator().manual_seed(7)
                rows = network(clips[:encoded])
                network.zero_grad()
                objective(StepPart(rows, clips, videos, videos, shared)).total.backward()
                gradient = network[1].weight.grad.clone()
                if dist.is_initialized():
                    dist.all_reduce(gradient); gradient /= 2          # as DDP averages
                found.append(gradient)
            return found, objective.state_dict()

        num_roles = SlicObjective(config, 9, encoder()).num_roles
        steps = []
        for _ in range(4):
            clips = torch.randn(num_roles, 4, 5, 1, 1, 1, generator=draws)
            videos = torch.stack([torch.randperm(9, generator=draws)[:4] for _ in range(num_roles)])
            steps.append((clips, videos))
        mine = slice(rank * 2, rank * 2 + 2)
        halves = [(clips[:, mine].flatten(0, 1), videos[:, mine].flatten()) for clips, videos in steps]
        shared, remembered = gradients(halves)
        theirs = [copy.deepcopy(remembered) for _ in range(2)]
        dist.all_gather_object(theirs, remembered)
        for name, tensor in theirs[0].items():
            assert torch.equal(tensor.nan_to_num(), theirs[1][name].nan_to_num()), name
        dist.destroy_process_group()
        whole, alone = gradients([(clips.flatten(0, 1), videos.flatten()) for clips, videos in steps])
        for mine, expected in zip(shared, whole):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
            assert expected.abs().sum() > 0.01
        for name, tensor in alone.items():
            torch.testing.assert_close(remembered[name], tensor, rtol=1e-4, atol=1e-5, equal_nan=True)
        """,
        "model.projection_dim=5",
        "loss.gather_negatives=true",
        *SMALL,
        *ALL_TERMS,
        "loss.nce_weight=1e-9",  # its noise is drawn rank by rank, its memories are shared
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        only_overrides("nce"),
        only_overrides("moco"),
        only_overrides("uber_nce"),
        (*only_overrides("triplet"), "loss.negatives=all_semi_hard"),
    ],
    ids=["nce", "moco", "uber_nce", "all_semi_hard"],
)
def test_descent_on_a_term_tells_noisy_vectors_apart(overrides):
    """Half of each clip's numbers are its video's, half are noise: a network learns to look at the former."""
    torch.manual_seed(0)
    config = Config.load(None, ["model.projection_dim=16", "loss.nce_num_negatives=32", *overrides])
    videos_ND, mixed_DD = torch.randn(40, 8), torch.linalg.qr(torch.randn(16, 16))[0]
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16)
    )
    objective = SlicObjective(config, 40, network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)

    def clips_of(videos):
        noisy = torch.cat([videos_ND[videos], 2 * torch.randn(len(videos), 8)], dim=1)
        return (noisy @ mixed_DD)[:, :, None, None, None]

    def share_found():
        one, other = (
            torch.nn.functional.normalize(network(clips_of(torch.arange(40))), dim=1) for _ in range(2)
        )
        return ((one @ other.T).argmax(dim=1) == torch.arange(40)).float().mean().item()

    before = share_found()
    for step in range(150):
        videos = torch.randperm(40)[:16].repeat(objective.num_roles)
        clips, draws = clips_of(videos), torch.Generator().manual_seed(step)
        rows = network(clips[: 16 * objective.num_encoded])
        optimizer.zero_grad()
        objective(StepPart(rows, clips, videos, videos, draws)).total.backward()
        optimizer.step()
        objective.after_step(network)
    assert before < 0.25 and share_found() > 0.7


FIXED = ("loss.negatives=fixed_semi_hard", "loss.nce_weight=0", "loss.memory_triplet_weight=0")


@pytest.mark.needs_cuda
def test_a_gpu_computes_the_terms_that_draw_nothing_as_a_cpu_does():
    config = config_of(*ALL_TERMS, *FIXED)
    losses = {}
    for device in ("cpu", "cuda"):
        objective = SlicObjective(config, 9, torch.nn.Identity()).to(device)
        for seed in range(4):
            part = random_part(objective, seed=seed)
            rows, clips = part.embeddings_ND.to(device), part.clips_NCTHW.to(device)
            where = (part.labels_N.to(device), part.videos_N.to(device), torch.Generator(device))
            loss = objective(StepPart(rows, clips, *where))
        losses[device] = {name: value.item() for name, value in loss.logged.items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-4)


@pytest.mark.needs_cuda
def test_no_term_waits_for_the_gpu():
    config = config_of(*ALL_TERMS, "loss.nce_form=logistic", "loss.negatives=all_semi_hard")
    objective = SlicObjective(config, 9, torch.nn.Linear(5, 5)).cuda()
    sizes = (objective.num_roles * 4, objective.num_encoded * 4)
    videos, generator = torch.randint(9, sizes[:1], device="cuda"), torch.Generator("cuda")
    rows, clips = (torch.randn(size, 5, device="cuda", requires_grad=True) for size in sizes[::-1])
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective(StepPart(rows, clips, videos, videos, generator)).total.backward()
        objective.after_step(torch.nn.Linear(5, 5).cuda())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows.grad.isfinite().all()
