"""A run's batches, loaded ahead of the step, across epochs: validation finds the loader at work, not at rest.

A batch is a function of (seed, epoch, step) and the labels, so the next epoch's first batches can be made
while this epoch is validated, unless clustering changes the labels in between: the stream ends there.
"""

from __future__ import annotations

from collections.abc import Iterator

from slicfast.data.loader import ClipBatch, ClipIterator
from slicfast.data.requests import Requests
from slicfast.data.sampling import take_part
from slicfast.training.rounds import is_due
from slicfast.training.session import Session


class BatchStream:
    """This rank's parts of the steps to come; for one training run. Close it to stop the loader's thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._batches: ClipIterator | None = None
        self._end = 0  # the first epoch that the open stream does not reach

    def here(self) -> Iterator[ClipBatch]:
        """The batches from the session's next step on; call it at the beginning of an epoch or of a run."""
        state = self._session.state
        if self._batches is None or state.epoch >= self._end:
            self.close()
            self._end = self._last_epoch(state.epoch) + 1
            self._batches = self._session.loader.load(self._parts(state.epoch, state.step, self._end))
        return self._batches

    def close(self) -> None:
        """Stop loading; what was loaded ahead is dropped."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _last_epoch(self, epoch: int) -> int:
        """The last epoch that is sampled by the labels of this one."""
        while epoch + 1 < self._session.config.train.epochs and not is_due(self._session, epoch + 1):
            epoch += 1
        return epoch

    def _parts(self, first_epoch: int, first_step: int, end: int) -> Iterator[Requests]:
        """The loader's thread comes here, ahead of the session's state, which it must not read."""
        sampler, ranks = self._session.sampler, self._session.ranks
        accumulation = self._session.config.train.accumulation_steps
        for epoch in range(first_epoch, end):
            for step in range(first_step if epoch == first_epoch else 0, sampler.steps_per_epoch):
                batch = sampler.batch(epoch, step)
                for micro in range(accumulation):
                    part = ranks.rank * accumulation + micro
                    yield take_part(batch, len(sampler.roles), part, ranks.size * accumulation)
