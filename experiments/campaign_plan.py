"""Orders the CIFAR-10 rows of both papers by importance, and chooses those that fit into a given time."""

import dataclasses
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ml_collections import ConfigDict

from experiments import registry
from experiments.estimate import Rates
from experiments.experiment import Row, row_config, run_folder
from experiments.plan import Line, Plan, State, Trial, make_plan, status
from resnet_jax.config import model_overrides
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.models.summary import Summary, summarize
from resnet_jax.training.result import Result
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.stopping import StopRequest

#: Steps of ResNet-20 that must bring the test error below a bound before anything long begins.
PROOF_STEPS, PROOF_ERROR = 2000, 50.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """Rows of one table that are equally important.

    Attributes:
      experiment: name of the table or figure.
      rows: names of its rows; none: all.
      seeds: runs of each row, with seeds 0, 1, ..., those of earlier stages included.
    """

    experiment: str
    rows: tuple[str, ...]
    seeds: int


#: Most important first: depth and degradation, then standard deviations, then the variants.
STAGES = (
    Stage("he2015.table6", ("resnet20", "resnet56", "resnet110"), 1),
    Stage("he2015.figure6", ("plain20", "plain56"), 1),
    Stage("he2015.table6", ("resnet32", "resnet44"), 1),
    Stage("he2015.table6", ("resnet110",), 5),
    Stage("he2015.table6", ("resnet20", "resnet56"), 5),
    Stage("he2015.figure6", ("plain20", "plain56"), 5),
    Stage("he2015.table6", ("resnet32", "resnet44"), 5),
    Stage("he2015.table6", ("resnet1202",), 1),
    Stage("he2015.figure6", (), 1),
    Stage("he2015.figure7", (), 1),  # the same runs, whose layers are looked at
    Stage("he2016.table2", (), 1),
    Stage("he2016.table1", (), 1),
    Stage("he2016.table3", (), 1),
    Stage("he2016.table2", (), 5),
)


def make_campaign(
    out: Path,
    steps_scale: float = 1.0,
    changes: Mapping[str, Any] | None = None,
    stages: Sequence[Stage] | None = None,
) -> Plan:
    """Returns the runs of all stages, most important first, with a line for each row.

    Args:
      out: folder of the run folders.
      steps_scale, changes: see `experiment.row_config`.
      stages: most important first; `STAGES` by default.

    Raises:
      UserError: for unknown fields.
    """
    trials: dict[Trial, None] = {}
    lines: dict[tuple[str, str], Line] = {}
    for stage in STAGES if stages is None else stages:
        plan = make_plan([registry.load(stage.experiment)], out, rows=",".join(stage.rows), seeds=stage.seeds,
                         steps_scale=steps_scale, changes=changes)  # fmt: skip
        trials |= dict.fromkeys(plan.trials)
        for line in plan.lines:
            key = stage.experiment, line.row.name
            if key not in lines or len(lines[key].trials) < len(line.trials):
                lines[key] = line
    return Plan(tuple(lines.values()), tuple(trials))


def proof_trials(out: Path, count: int, steps_scale: float = 1.0,
                 changes: Mapping[str, Any] | None = None) -> list[Trial]:  # fmt: skip
    """Returns `count` short runs of ResNet-20, as many as will later go at the same time."""
    steps = max(1, round(PROOF_STEPS * steps_scale))
    short = {"steps": steps, "eval_every": steps, "checkpoint_every": steps, "log_every": max(1, steps // 10)}
    row = dataclasses.replace(Row("proof", "proof", "cifar10:resnet20"), changes={**(changes or {}), **short})
    configs = [row_config(row, seed) for seed in range(count)]
    return [Trial(config, run_folder(out / "proof", config), "proof") for config in configs]


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the short runs showed: the result of each."""

    results: tuple[Result, ...]

    @property
    def images_per_second(self) -> float:
        """Of all runs together."""
        return sum(result.images_per_second for result in self.results)

    @property
    def overhead(self) -> float:
        """The most seconds that a run takes besides its steps: for start, compilation and evaluation."""
        return max(r.seconds - r.steps * r.batch_size / r.images_per_second for r in self.results)


def check_proof(trials: Sequence[Trial], steps_scale: float) -> Proof:
    """Reads the records of the short runs.

    Raises:
      UserError: if one has no result, or learned too little.
    """
    results = []
    for trial in trials:
        result = RunRecord(trial.folder).result()
        if result is None:
            raise UserError(f"the short run in {trial.folder} left no result.json; its log.txt says why")
        if steps_scale == 1.0 and not result.metrics["test_error"] < PROOF_ERROR:
            raise UserError(
                f"ResNet-20 has {result.metrics['test_error']:.2f} % test error after {result.steps} steps, not below "
                f"{PROOF_ERROR:.0f}: something is wrong, and nothing long was begun (record: {trial.folder})"
            )
        results.append(result)
    return Proof(tuple(results))


class Seconds:
    """Estimates how long runs take, from the rate of their net if it is known, else from the short runs.

    On a device that a narrow net does not fill, its step takes time for each layer rather than for each multiply-add:
    a deeper net is taken to be slower by the larger of the two ratios.
    """

    def __init__(self, rates: Rates, proof: Proof, proof_config: ConfigDict) -> None:
        self._rates, self._overhead = rates, proof.overhead
        self._base = _summary(proof_config)
        self._rate = min(result.images_per_second for result in proof.results)
        rates.add(proof_config, self._rate, "short run")

    def __call__(self, trial: Trial) -> float:
        """Returns the seconds that the rest of a run takes, with its start and compilation."""
        config, found = trial.config, status(trial)
        if found.state is State.DONE:
            return 0.0
        steps = trial.steps - found.step
        net = _summary(config)
        slower = max(net.depth / self._base.depth, net.flops / self._base.flops)
        known = self._rates.seconds(config, steps)
        if known is None:
            known = steps * config.batch_size * slower / self._rate
        return known + self._overhead * max(1.0, slower)


def _summary(config: ConfigDict) -> Summary:
    return summarize(create_model(config.model.name, **model_overrides(config)), config.model.name, 32)


def fitting(
    trials: Sequence[Trial], seconds_of: Seconds, seconds: float, at_once: int
) -> tuple[list[Trial], list[Trial]]:
    """Returns the runs that fit into the time and those that do not, each most important first.

    A run that is too long is passed over, and later, shorter ones may still fit. If several go at once, each run takes
    the place that is free first.
    """
    lanes = [0.0] * at_once
    inside, outside = [], []
    for trial in trials:
        first = min(range(at_once), key=lanes.__getitem__)
        needed = seconds_of(trial)
        if lanes[first] + needed <= seconds:
            lanes[first] += needed
            inside.append(trial)
        else:
            outside.append(trial)
    return inside, outside


class Deadline(StopRequest):
    """A stop request that is also made at a given time, by SIGALRM."""

    def __init__(self, at: float) -> None:
        """`at` is a time of `time.monotonic`."""
        super().__init__()
        self._at = at

    def __enter__(self) -> Self:
        super().__enter__()
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._note)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._at - time.monotonic()))
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM or self.signal is None:  # what was asked for from outside counts more
            super()._note(number, frame)

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().__exit__(*exception)


def check_cifar(data_dir: str | None) -> None:
    """Raises UserError unless CIFAR-10 is there, complete."""
    dataset = load_dataset("cifar10", data_dir)
    if (len(dataset.train), len(dataset.test)) != (50_000, 10_000):
        raise UserError(f"CIFAR-10 has {len(dataset.train)} and {len(dataset.test)} images, not 50,000 and 10,000")
