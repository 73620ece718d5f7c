"""The CIFAR-10 rows of both papers in the order of their worth, and which of them fit into the time there is."""

import dataclasses
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ml_collections import ConfigDict

from experiments import registry
from experiments.estimate import Rates, device_rate
from experiments.plan import Line, Plan, State, Trial, make_plan, packs, status
from resnet_jax.config import model_overrides
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model
from resnet_jax.models.summary import Summary, summarize
from resnet_jax.training.record import Result, RunRecord
from resnet_jax.training.stop import StopRequest

#: Steps of ResNet-20 that must bring the test error below a bound before anything long begins.
PROOF_STEPS, PROOF_ERROR = 2000, 50.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """Rows of one table that are of like worth.

    Attributes:
      experiment: name of the table or figure.
      rows: names of its rows; none: all.
      seeds: runs of each row, with seeds 0, 1, ...; those of an earlier stage count.
    """

    experiment: str
    rows: tuple[str, ...]
    seeds: int


#: What a table is worth most for comes first: depth against degradation, then the deviations, then the variants.
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


@dataclasses.dataclass(frozen=True)
class Campaign:
    """All runs in their order.

    Attributes:
      plan: with a line for each row, in the order of the stages.
      stages: the runs of each that no earlier one has, most worth first.
    """

    plan: Plan
    stages: tuple[tuple[Trial, ...], ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All runs in their order."""
        return tuple(trial for stage in self.stages for trial in stage)

    def packs(self, trials: Sequence[Trial], seeds_at_once: int) -> list[tuple[Trial, ...]]:
        """Some of the runs in groups, see `plan.packs`; none waits for one of a later stage, nor goes ahead with it."""
        wanted = {trial.folder for trial in trials}
        chosen = [[trial for trial in stage if trial.folder in wanted] for stage in self.stages]
        return [pack for stage in chosen for pack in packs(stage, seeds_at_once)]


def make_campaign(
    out: Path, steps_scale: float = 1.0, changes: Mapping[str, Any] | None = None, stages: Sequence[Stage] = STAGES
) -> Campaign:
    """The runs of all stages, each once.

    Args:
      out: folder of the run folders.
      steps_scale, changes: see `registry.row_config`.
      stages: in the order of their worth.

    Raises:
      UserError: for fields that there are not.
    """
    trials: dict[Path, Trial] = {}
    of_stages: list[tuple[Trial, ...]] = []
    lines: dict[tuple[str, str], Line] = {}
    shown: set[Path] = set()
    for stage in stages:
        experiment = registry.load(stage.experiment)
        plan = make_plan(
            [experiment], out, rows=stage.rows, seeds=stage.seeds, steps_scale=steps_scale, changes=changes
        )
        of_stages.append(tuple(trial for trial in plan.trials if trial.folder not in trials))
        trials |= {trial.folder: trial for trial in of_stages[-1]}
        for line in plan.lines:
            known = lines.get((line.experiment, line.row.name))
            if known is None or len(known.trials) < len(line.trials):
                lines[line.experiment, line.row.name] = line
    for key, line in lines.items():
        same = tuple(trials[trial.folder] for trial in line.trials)
        lines[key] = dataclasses.replace(line, trials=same, own=tuple(t for t in same if t.folder not in shown))
        shown |= {trial.folder for trial in same}
    return Campaign(Plan(tuple(lines.values())), tuple(of_stages))


def proof_trials(out: Path, count: int, steps_scale: float = 1.0,
                 changes: Mapping[str, Any] | None = None) -> list[Trial]:  # fmt: skip
    """`count` short runs of ResNet-20, to go at the same time as later runs will."""
    steps = max(1, round(PROOF_STEPS * steps_scale))
    short = {"steps": steps, "eval_every": steps, "checkpoint_every": steps, "log_every": max(1, steps // 10)}
    row = dataclasses.replace(registry.Row("proof", "proof", "cifar10:resnet20"), changes={**(changes or {}), **short})
    configs = [registry.row_config(row, seed) for seed in range(count)]
    return [Trial(config, registry.run_folder(out / "proof", config), "proof") for config in configs]


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the short runs showed.

    Attributes:
      results: of each.
      images_per_second: of all together.
      overhead: seconds of a run beside its steps: start, compilation, evaluation.
    """

    results: tuple[Result, ...]

    @property
    def images_per_second(self) -> float:
        return sum(result.images_per_second for result in self.results)

    @property
    def overhead(self) -> float:
        return max(r.seconds - r.steps * r.batch_size / r.images_per_second for r in self.results)


def check_proof(trials: Sequence[Trial], steps_scale: float) -> Proof:
    """Reads the records of the short runs.

    Raises:
      UserError: if one has no result, was not tested on 10,000 images' worth of CIFAR, or learned too little.
    """
    results = []
    for trial in trials:
        result = RunRecord(trial.folder).result()
        if result is None:
            raise UserError(f"the short run in {trial.folder} left no result.json; its log.txt says why")
        if steps_scale == 1.0 and not result.test_error < PROOF_ERROR:
            raise UserError(
                f"ResNet-20 has {result.test_error:.2f} % test error after {result.steps} steps, not below "
                f"{PROOF_ERROR:.0f}: something is wrong, and nothing long was begun (record: {trial.folder})"
            )
        results.append(result)
    return Proof(tuple(results))


class Seconds:
    """How long runs take: by the rate of their net where that is known, else by that of the short runs.

    The step of a narrow net takes time for each layer rather than for each multiply-add, on a device that it does not
    fill: a deeper one is taken to be slower by the larger of the two ratios.
    """

    def __init__(self, rates: Rates, proof: Proof, proof_config: ConfigDict) -> None:
        self._rates, self._proof = rates, proof
        self._base = _summary(proof_config)
        rates.add(proof_config, min(map(device_rate, proof.results)), "short run")

    def __call__(self, trial: Trial) -> float:
        """Of what is left of a run, with its start and compilation."""
        config, found = trial.config, status(trial)
        if found.state is State.DONE:
            return 0.0
        steps = trial.steps - found.step
        net = _summary(config)
        slower = max(net.depth / self._base.depth, net.flops / self._base.flops)
        known = self._rates.seconds(config, steps)
        if known is None:
            rate = min(map(device_rate, self._proof.results))
            known = steps * config.batch_size * slower / rate
        return known + self._proof.overhead * max(1.0, slower)


def _summary(config: ConfigDict) -> Summary:
    return summarize(create_model(config.model.name, **model_overrides(config)), config.model.name, 32)


def fitting(
    trials: Sequence[Trial], seconds_of: Seconds, seconds: float, at_once: int
) -> tuple[list[Trial], list[Trial]]:
    """(runs that fit into the time, those that do not), each most worth first.

    A run that is too long for what is left lets later, shorter ones through. Several at once are laid end to end on
    as many lanes, each on the one that is free first.
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
    """A stop request that the clock makes as well, by SIGALRM."""

    def __init__(self, at: float) -> None:
        """`at`: of `time.monotonic`."""
        super().__init__()
        self._at = at

    def __enter__(self) -> Self:
        super().__enter__()
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._note)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._at - time.monotonic()))
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().__exit__(*exception)


def check_cifar(data_dir: str | None) -> None:
    """That CIFAR-10 is there, whole.

    Raises:
      UserError: if it is not.
    """
    dataset = load_dataset("cifar10", data_dir)
    if (len(dataset.train), len(dataset.test)) != (50_000, 10_000):
        raise UserError(f"CIFAR-10 has {len(dataset.train)} and {len(dataset.test)} images, not 50,000 and 10,000")
