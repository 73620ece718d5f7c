"""Steps that must not be kept, and the batches that `on_nan="rollback"` leaves out for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.data.sampling import batch_numbers

#: How often `on_nan="rollback"` goes back before it gives up.
MOST_ROLLBACKS = 10


class Diverged(Exception):
    """A step whose metrics say that it must not be kept: its number from 1, and what is wrong."""

    def __init__(self, step: int, complaint: str) -> None:
        super().__init__(complaint)
        self.step = step


class LeftOut:
    """The batches that a run leaves out.

    Attributes:
      batches: one mapping each, as in skipped.json: `batch`, its number; and `step`, `went_back_to` and `why`.
    """

    def __init__(self, batches: Sequence[Mapping[str, Any]] = ()) -> None:
        self.batches = [dict(batch) for batch in batches]

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def numbers(self) -> list[int]:
        """Of the batches, in the order in which they were left out."""
        return [batch["batch"] for batch in self.batches]

    def add(self, diverged: Diverged, went_back_to: int) -> int:
        """Leaves out the batch of a step, and returns its number.

        Args:
          diverged: the step.
          went_back_to: the step that training goes on from.
        """
        batch = batch_numbers([diverged.step - 1], self.numbers)[0]
        self.batches.append({"batch": batch, "step": diverged.step, "went_back_to": went_back_to, "why": str(diverged)})
        return batch


def last_words(what: str, left_out: LeftOut, steps: Sequence[int], workdir: Path) -> str:
    """What a run that diverged says as it ends.

    Args:
      what: what happened, at which step.
      left_out: the batches that it left out before.
      steps: those of its checkpoints.
      workdir: its folder.
    """
    last = f"the last good checkpoint is that of step {steps[-1]}" if steps else "there was no checkpoint yet"
    tried = f" after {len(left_out)} batches were left out" if left_out else ""
    return (
        f"{what}{tried}; {last}, and the record is kept, in {workdir}. A lower config.optimizer.learning_rate or a "
        "config.schedule.warmup may help, with a new workdir; config.on_nan=rollback leaves out such batches"
    )
