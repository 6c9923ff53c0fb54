"""Retrieval on a validation split during training, which decides the best checkpoint."""

from __future__ import annotations

from typing import Any

from slicfast.engine.embedding import encoder_extractor
from slicfast.evaluation.protocol import retrieve, splits_to_compare
from slicfast.training.session import Session


def validate(session: Session) -> dict[str, Any]:
    """R@1 and R@5 of projection and pooled features, as ``pooled_r1`` and so on; the same on every rank."""
    config = session.config
    query, gallery = splits_to_compare(session.store, config, config.eval.query_split)
    table = retrieve(
        encoder_extractor(session.evaluated(), session.device, session.autocast),
        session.eval_loader,
        session.store,
        query,
        gallery,
        config,
        session.device,
        ks=(1, 5),
        ranks=session.ranks,
    )
    session.encoder.train()
    return {
        f"{name}_r{k}": round(recall, 6)
        for name, recalls in table.items()
        if name != "chance"
        for k, recall in recalls.items()
    }
