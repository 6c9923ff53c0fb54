"""Two ranks under torchrun (gloo, loopback) give what one rank gives."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from slicfast.distributed import Ranks, gather_rows, read_environment
from slicfast.errors import MachineError


def torchrun(script, *arguments, cwd, num_ranks=2):
    """Run a script under torchrun; fails with its output where a rank fails."""
    file = cwd / "script.py"
    file.write_text(textwrap.dedent(script))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(num_ranks),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(file), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_gathered_negatives_give_the_gradient_of_the_whole_batch(tmp_path):
    """The published code takes negatives from one GPU's share; gathered, two ranks equal one large batch."""
    torchrun(
        """
        import sys, torch, torch.distributed as dist
        from slicfast.config import Config
        from slicfast.training.objective import StepPart
        from slicfast.training.terms import SlicObjective
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        generator = torch.Generator().manual_seed(3)
        inputs = torch.randn(2, 12, 5, generator=generator)     # two roles
        labels = torch.randint(0, 4, (12,), generator=generator).repeat(2, 1)
        weight = torch.randn(5, 4, generator=generator)
        config = Config.load(None, ["loss.temporal_weight=0", "loss.gather_negatives=true"])
        objective = SlicObjective(config, 12, torch.nn.Identity())

        def gradient(inputs, labels):
            w = weight.clone().requires_grad_()
            draws = torch.Generator().manual_seed(7)
            labels = labels.reshape(-1)
            rows = inputs.reshape(-1, 5) @ w
            objective(StepPart(rows, inputs.reshape(-1, 5), labels, labels, draws)).total.backward()
            return w.grad
        mine = slice(rank * 6, rank * 6 + 6)
        shared = gradient(inputs[:, mine], labels[:, mine])
        dist.all_reduce(shared)
        shared /= 2                                              # as DDP averages
        dist.destroy_process_group()
        torch.testing.assert_close(shared, gradient(inputs, labels))   # one rank, whole batch
        assert shared.abs().sum() > 0.01
        """,
        cwd=tmp_path,
    )


def test_two_ranks_train_what_one_rank_trains_in_two_parts(tiny_store, tmp_path):
    """Same batches, same assignment, weights to rounding; the number of videos need not divide."""
    from slicfast.config import Config
    from slicfast.engine.checkpoint import load_checkpoint
    from slicfast.training.loop import train

    overrides = [
        f"data.store={tiny_store.path}",
        "data.clip_length=4",
        "data.crop_size=16",
        "model.name=slic_r3d_10",
        "model.width=0.125",
        "model.projection_hidden=16",
        "model.projection_dim=8",
        "eval.batch_size=3",
        "train.epochs=2",
        "train.batch_size=4",
        "train.precision=fp32",
        "train.device=cpu",
        "optim.lr=0.001",
        "cluster.interval=5",
    ]
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(Config.load(None, [*overrides, "train.accumulation_steps=2"]), alone)
    torchrun(
        """
        import sys, torch
        torch.set_num_threads(1)
        from slicfast import Config, train
        train(Config.load(None, sys.argv[2:]), sys.argv[1])
        """,
        together,
        *overrides,
        cwd=tmp_path,
    )
    one, two = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (alone, together))
    assert one.global_step == two.global_step > 2
    assert one.assignment.ids == two.assignment.ids
    assert np.array_equal(one.assignment.labels, two.assignment.labels)
    for name, tensor in one.model.items():
        if "running_" not in name and "num_batches" not in name:  # each rank counts its own batches
            torch.testing.assert_close(two.model[name], tensor, rtol=2e-3, atol=2e-5, msg=name)
    assert not list(together.glob("**/*.tmp"))


def test_a_running_bank_is_the_same_on_every_rank(tmp_path):
    torchrun(
        """
        import numpy as np, torch
        import torch.distributed as dist
        from slicfast.data.requests import Role, make_requests
        from slicfast.training.running_bank import RunningBank
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        bank = RunningBank(np.arange(6), torch.device("cpu"), 2)
        anchors = torch.arange(12.0).reshape(6, 2)
        videos = [[0, 1, 2], [4, 3, 4]][rank]                     # one twice, as a substitute may be
        bank.update(make_requests(videos, 0, role=Role.ANCHOR), anchors[rank * 3 : rank * 3 + 3])
        assert bank.complete() is None                             # video 5 is missing
        more = make_requests([[5], [0]][rank], 0, role=Role.ANCHOR)
        bank.update(more, torch.full((1, 2), 20.0 + rank))
        dist.destroy_process_group()
        expected = torch.cat([anchors, torch.full((1, 2), 20.0)])[[0, 1, 2, 4, 3, 6]]
        expected[0] = 21.0
        assert torch.equal(bank.complete(), expected), bank.complete()
        """,
        cwd=tmp_path,
    )


def test_averaged_weights_are_the_same_on_every_rank_and_go_on_exactly(tiny_store, tmp_path):
    """Each rank averages its own running statistics; what is embedded with and saved is rank 0's."""
    torchrun(
        """
        import sys, torch
        torch.set_num_threads(1)
        import torch.distributed as dist
        from slicfast.config import Config
        from slicfast.distributed import gather_rows
        from slicfast.engine.checkpoint import load_checkpoint
        from slicfast.training.loop import train
        from slicfast.training.session import open_session
        dist.init_process_group("gloo")
        rank, config = dist.get_rank(), Config.load(None, sys.argv[2:])
        sessions = []

        def opened(*arguments):
            sessions.append(open_session(*arguments))
            return sessions[-1]

        def everywhere(tensors):
            return gather_rows(torch.cat([t.detach().double().reshape(-1) for t in tensors])[None])

        train(config, sys.argv[1] + "/whole", open_run=opened)
        session = sessions[-1]
        weights = everywhere(session.average.encoder.parameters())
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[rank], everywhere(session.encoder.parameters())[rank])
        before = everywhere(session.average.encoder.buffers())
        for buffer in session.average.encoder.buffers():
            buffer.add_(rank)
        session.evaluated()
        after = everywhere(session.average.encoder.buffers())
        assert torch.equal(after[0], after[1]) and torch.equal(after[0], before[0])
        train(config, sys.argv[1] + "/halved", max_steps=3, open_run=opened)
        train(config, sys.argv[1] + "/halved", resume="auto", open_run=opened)
        whole, halved = (load_checkpoint(f"{sys.argv[1]}/{name}/checkpoints/last.pt")
                         for name in ("whole", "halved"))
        assert whole.global_step == halved.global_step > 3
        assert all(torch.equal(halved.ema[name], tensor) for name, tensor in whole.ema.items())
        dist.destroy_process_group()
        """,
        tmp_path,
        *[f"data.store={tiny_store.path}", "data.clip_length=4", "data.crop_size=16"],
        *["model.name=slic_r3d_10", "model.width=0.125", "model.projection_hidden=16"],
        *["model.projection_dim=8", "eval.batch_size=3", "train.epochs=2", "train.batch_size=4"],
        *["train.precision=fp32", "train.device=cpu", "ema.decay=0.8", "ema.use_warmup=true"],
        *["cluster.interval=1", "eval.query_split=test", "eval.interval=1", "eval.num_clips=1"],
        cwd=tmp_path,
    )


def test_one_process_is_one_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert read_environment() == Ranks(0, 1, 0)
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows


def test_nonsense_in_the_environment_is_one_line(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(MachineError, match="must be integers"):
        read_environment()
