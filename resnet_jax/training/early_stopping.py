"""Early stopping: a run ends when its error no longer falls, with the weights of the lowest one."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass
class EarlyStopping:
    """The evaluations of a run so far (Prechelt 1998: training stops after some evaluations without progress).

    Attributes:
      patience: evaluations without a new lowest error after which the run is over; 0: never.
      best: step of the lowest error, the first of several alike; None ahead of the first evaluation.
      error: the lowest, in percent.
      waited: evaluations since.
    """

    patience: int
    best: int | None = None
    error: float = float("inf")
    waited: int = 0

    @classmethod
    def of_lines(cls, patience: int, lines: Iterable[Mapping[str, Any]]) -> "EarlyStopping":
        """As it is after the lines of metrics.jsonl, which is all that it depends on."""
        found = cls(patience)
        for line in lines:
            if "test_error" in line:
                found.saw(line["step"], line["test_error"])
        return found

    def saw(self, step: int, error: float) -> bool:
        """Takes in an evaluation; whether its error is a new lowest."""
        if error < self.error:
            self.best, self.error, self.waited = step, error, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether the run is."""
        return 0 < self.patience <= self.waited
