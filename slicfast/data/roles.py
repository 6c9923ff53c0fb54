"""Which clips a sample has: those that the loss's terms of some weight need, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from slicfast.config import LossConfig
from slicfast.data.requests import Role

# Beside the anchor, what a term looks at; all of it passes through the network.
_NEEDED: dict[str, tuple[Role, ...]] = {
    "triplet_weight": (Role.POSITIVE,),
    "temporal_weight": (Role.POSITIVE, Role.ANCHOR_AGAIN),
    "relative_speed_weight": (Role.POSITIVE, Role.FAST),
    "intra_negative_weight": (Role.POSITIVE, Role.SHUFFLED),
    "memory_triplet_weight": (Role.POSITIVE,),
    "nce_weight": (Role.DIFFERENCE,),
    "moco_weight": (),
    "uber_nce_weight": (),
}


@dataclass(frozen=True)
class SampleRoles:
    """The clips of a sample in their order.

    Attributes:
        loaded: beginning with the anchor; those for the network first.
        num_encoded: how many of them pass through the network; a positive that only the key encoder needs
            comes after them.
    """

    loaded: tuple[Role, ...]
    num_encoded: int

    @property
    def encoded(self) -> tuple[Role, ...]:
        return self.loaded[: self.num_encoded]


def needs_keys(loss: LossConfig) -> bool:
    """Whether positives pass through a key encoder."""
    return loss.moco_weight > 0 or loss.uber_nce_weight > 0


def sample_roles(loss: LossConfig) -> SampleRoles:
    """The clips that these terms need."""
    needed = {role for name, roles in _NEEDED.items() if getattr(loss, name) > 0 for role in roles}
    encoded = (Role.ANCHOR, *sorted(needed))
    keys = (Role.POSITIVE,) if needs_keys(loss) and Role.POSITIVE not in needed else ()
    return SampleRoles(encoded + keys, len(encoded))
