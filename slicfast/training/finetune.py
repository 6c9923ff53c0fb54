"""Fine-tuning by CoCLR's recipe (Han, Xie, Zisserman, NeurIPS 2020): all of the network trained with labels.

The training loop is SLIC's; what differs is the head, the loss, the rates, and that a sample is one clip. The
recipe is `config.probe`: Adam, lr 1e-3 and a tenth of it for the backbone, dropout 0.9, 150 epochs, lr / 10
twice. Training clips are augmented as the run's are; the test is ten crops of every window.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slicfast.config import Config, EmaConfig
from slicfast.data.requests import Role
from slicfast.data.sampling import SampleSampler
from slicfast.distributed import Ranks, process_group, read_environment
from slicfast.engine.checkpoint import Checkpoint, load_checkpoint, load_weights
from slicfast.engine.encoder import VideoEncoder
from slicfast.errors import ConfigError, RunError
from slicfast.evaluation.classification import accuracy
from slicfast.evaluation.document import FILE, document, finetune_folder, write_document
from slicfast.evaluation.features import Features
from slicfast.evaluation.probe import recipe, softmax_extractor
from slicfast.evaluation.protocols import classification_chance
from slicfast.evaluation.subject import Subject, open_subject
from slicfast.models.heads import ClassHead
from slicfast.records import RunFolder
from slicfast.training.loop import train
from slicfast.training.objective import Objective, StepLoss, StepPart
from slicfast.training.session import Session, assemble

logger = logging.getLogger("slicfast")


@dataclass(frozen=True)
class FinetuneResult:
    """Where the fine-tuned network is; the evaluation, unless a signal stopped the training before it."""

    folder: Path
    evaluation: dict[str, Any] | None
    stopped_by: signal.Signals | None = None


def finetune(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    query: str | None = None,
    gallery: str | None = None,
    store: str | Path | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> FinetuneResult:
    """Fine-tune a checkpoint on one split with its labels and test it on another; go on where one was begun.

    Alone or as one rank under torchrun.

    Args: as `open_subject`'s, and
        folder: a run folder for the fine-tuning; None: RUN/finetune, for another store RUN/finetune-STORE.

    Raises:
        SlicfastError: one line for whatever the configuration, the data or the machine lacks.
    """
    subject = open_subject(path, query=query, gallery=gallery, store=store, overrides=overrides)
    if subject.same_videos:
        raise ConfigError(
            "fine-tuning needs videos to test that it was not trained on; choose another --query"
        )
    folder = Path(folder or finetune_folder(path, subject))
    config, ranks = finetuning_config(subject), read_environment()
    with process_group(ranks, subject.device):
        result = train(config, folder, resume="auto", open_run=partial(open_finetuning, subject))
        if result.stopped_by is not None:
            return FinetuneResult(folder, None, result.stopped_by)
        tested = ten_crop_accuracy(subject, RunFolder(folder).last, ranks)
    figures = {**tested, "epochs": config.train.epochs, "chance": classification_chance(len(subject.classes))}
    evaluation = document(subject, finetune=figures)
    if ranks.is_main:
        write_document(folder / FILE, evaluation)
    return FinetuneResult(folder, evaluation)


def finetuning_config(subject: Subject) -> Config:
    """The configuration of the fine-tuning run: the subject's, with the supervised recipe."""
    config = recipe(subject.config)
    sections: dict[str, dict[str, Any]] = {
        "data": {"store": subject.store.path, "train_split": subject.gallery, "min_frames": 1},
        "sampling": {"anchor_start": "random"},
        "cluster": {"method": "none", "bank": "fresh"},
        "eval": {"query_split": None},
        "train": {"init_from": subject.file},
    }
    replaced = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update={**replaced, "ema": EmaConfig()})  # the recipe averages no weights


def open_finetuning(
    subject: Subject,
    config: Config,
    run: RunFolder,
    ranks: Ranks,
    device: torch.device,
    resume: Checkpoint | None,
) -> Session:
    """A session of the training loop for labelled single clips. Raises ConfigError or RunError."""
    rows_N = subject.gallery_rows
    if config.train.batch_size > len(rows_N):
        raise ConfigError(
            f"probe.batch_size is {config.train.batch_size} but split '{subject.gallery}' has only"
            f" {len(rows_N)} videos; set probe.batch_size to {len(rows_N)} or less"
        )
    encoder = classifier(subject)
    if resume is None:
        pretrained = {k: v for k, v in subject.checkpoint.weights().items() if k.startswith("backbone.")}
        load_weights(encoder, {**encoder.state_dict(), **pretrained}, subject.file)
    elif Path(resume.config["train"]["init_from"]).resolve() != subject.file.resolve():
        raise RunError(
            f"{run.path} fine-tunes {resume.config['train']['init_from']}, not {subject.file};"
            " choose another --folder"
        )
    session = assemble(
        config,
        run,
        ranks,
        device,
        resume,
        store=subject.store,
        rows_N=rows_N,
        sampler=SampleSampler(rows_N, subject.store.num_frames[rows_N], config, roles=[Role.ANCHOR]),
        encoder=encoder,
        objective=CrossEntropy(),
        groups=[
            {"params": list(encoder.backbone.parameters()), "lr_scale": config.probe.backbone_lr_scale},
            {"params": list(encoder.projection.parameters())},
        ],
        otherwise="choose another --folder",
    )
    session.label_of_row[rows_N] = subject.gallery_labels
    return session


def classifier(subject: Subject) -> VideoEncoder:
    """The subject's backbone, freshly initialised, with a class head in the place of the projection."""
    encoder = subject.encoder(trained=False).cpu()
    width = int(getattr(encoder.backbone, "num_features"))  # noqa: B009
    return VideoEncoder(
        encoder.backbone, ClassHead(width, len(subject.classes), subject.config.probe.dropout)
    )


class CrossEntropy(Objective):
    """Mean cross-entropy of the clips; top-1 is logged beside."""

    def forward(self, part: StepPart) -> StepLoss:
        logits_NC = part.embeddings_ND.float()
        loss = torch.nn.functional.cross_entropy(logits_NC, part.labels_N)
        right = (logits_NC.detach().argmax(dim=1) == part.labels_N).float().mean()
        return StepLoss(loss, {"loss": loss.detach(), "top1": right})


def ten_crop_accuracy(subject: Subject, checkpoint: Path, ranks: Ranks = Ranks()) -> dict[str, Any]:
    """Top-1, top-5 and a table a class of a fine-tuned checkpoint on the query videos."""
    encoder = classifier(subject)
    load_weights(encoder, load_checkpoint(checkpoint).model, checkpoint)
    encoder.to(device=subject.device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    scores = Features(subject).ten_crop_mean(
        softmax_extractor(encoder, subject.device, subject.autocast), ranks
    )
    return {**accuracy(scores["probability"], subject.query_labels)}
