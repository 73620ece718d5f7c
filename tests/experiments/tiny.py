"""Tables of tiny nets, and runs that need no process of their own."""

import json
from pathlib import Path
from typing import Any

from experiments.experiment import Experiment, Row
from experiments.launchers.process import Outcome, write_failure
from resnet_jax.config import from_dict
from resnet_jax.errors import UserError
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay

#: An 8-layer net with narrow stages, as tests/conftest.py has it.
TINY = {
    "model.stage_sizes": (1, 1, 1), "model.widths": (4, 8, 8), "model.bn_group_size": 0,
    "steps": 6, "batch_size": 16, "log_every": 2, "eval_every": 3, "checkpoint_every": 2,
}  # fmt: skip


def tiny_row(name: str, config: str = "digits:resnet20", **changes: Any) -> Row:
    """A row of that net; fields by their dotted names."""
    return Row(name, name.title(), config, {**TINY, **{k.replace("__", "."): v for k, v in changes.items()}})


def table(*rows: Row, seeds: int = 1, name: str = "he2015.tiny") -> Experiment:
    """A table of those rows."""
    return Experiment(name, "A tiny table", rows, ("error",), protocol="best", seeds=seeds)


class DiesAt(ProgressDisplay):
    """Ends a run at a step without a trace, as a kill does; 0 or None: never."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def update(self, step: int, values: Any, *, line: bool) -> None:
        if self.step and step >= self.step:
            raise KeyboardInterrupt


class InProcess:
    """Stands in for `TrialProcess`: the run goes here, when it is looked at.

    Attributes:
      started: the folders, in the order of their starts.
      kills: the steps at which the next runs are killed, one for each start.
    """

    started: list[Path] = []
    kills: list[int] = []

    def __init__(self, asked: dict[str, Any], env: dict[str, str]) -> None:
        asked = json.loads(json.dumps(asked))
        self.config, self.folder = from_dict(asked["config"]), Path(asked["folder"])
        self.stopped = False
        self.started.append(self.folder)

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None: ...

    def poll(self) -> Outcome:
        if self.stopped:
            return Outcome("stopped", "", 0)
        try:
            fit(self.config, self.folder, DiesAt(self.kills.pop(0) if self.kills else None))
        except UserError as error:
            write_failure(self.folder, f"exit status 2\n{error}")
            return Outcome("failed", f"exit status 2\n{error}", 0)
        except KeyboardInterrupt:
            return Outcome("killed", "killed by SIGKILL", 0)
        return Outcome("done", "", 0)
