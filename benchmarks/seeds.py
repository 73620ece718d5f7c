"""Several seeds in one program beside one alone: how much less than their sum they take.

python -m benchmarks seeds --model=cifar_resnet20,cifar_resnet20@8 --seeds=2,5 --write
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contest import contest, ratio
from benchmarks.ours import make_benchmark_trainer, name_and_size, steps_per_dispatch
from benchmarks.pages import table
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.training.step import PACKINGS
from resnet_jax.training.stepper import Programs, Stepper
from resnet_jax.training.trainer import Trainer


class Pack:
    """Runs of one net that differ in their seed, at work in one program.

    Attributes:
      states: after `step` steps, of each.
      step: steps done.
    """

    def __init__(self, trainer: Trainer, seeds: int, packing: str | None = None) -> None:
        """`packing`: see `training.step.make_packed_step`."""
        self._programs = Programs(trainer, packing=packing)
        self._most = steps_per_dispatch(trainer)
        self._steppers, self.states, self.step = [], [], 0
        for seed in range(seeds):
            config = trainer.config.copy_and_resolve_references()
            config.seed = seed
            one = trainer.with_config(config)
            self._steppers.append(Stepper(one, self._programs))
            self.states.append(one.init())

    def advance(self, count: int) -> list[list[float]]:
        """Takes `count` steps of each run, one dispatch ahead, and waits for them.

        Returns:
          The loss of each step, of each run.
        """
        losses: list[list[float]] = [[] for _ in self._steppers]
        while count > 0:
            now = self._most if count >= self._most else 1
            count -= now
            ready = [s.prepare(state, self.step, now) for s, state in zip(self._steppers, self.states, strict=True)]
            self._programs.run(ready)
            for i, dispatch in enumerate(ready):
                self.states[i], metrics = dispatch.take()
                self._steppers[i].dispatched(self.step, now, metrics)
            self.step += now
            for found, stepper in zip(losses, self._steppers, strict=True):
                found += [m["loss"] for _, steps in stepper.collect(1 if count else 0) for m in steps]
        return losses


def measure(
    nets: Sequence[str],
    seeds: Sequence[int],
    packings: Sequence[str],
    batch_size: int,
    dtype: str,
    seconds: float,
    rounds: int,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """One row for each net, number of seeds and packing, and one for a run alone.

    Args:
      nets: names, with "@SIZE" for images of another size.
      seeds: numbers of runs at once.
      packings: of `PACKINGS`.
      batch_size, dtype: of each run.
      seconds, rounds: see `contest`.
      note: told what is being measured.
    """
    for packing in packings:
        if packing not in PACKINGS:
            raise unknown_name("packing", packing, PACKINGS)
    if not packings or not seeds or min(seeds) < 2:
        raise UserError("--seeds and --packing say how many runs go at once, 2 or more, and in which ways")
    rows = []
    for net in nets:
        name, size = name_and_size(net)
        trainer = make_benchmark_trainer(name, batch_size, size, dtype)
        ways = [(1, "alone"), *((count, packing) for count in seeds for packing in packings)]
        note(f"{net}: {', '.join(f'{count} {packing}' for count, packing in ways)}")
        packs = {way: Pack(trainer, way[0], None if way[0] == 1 else way[1]) for way in ways}
        unit = steps_per_dispatch(trainer)
        works = {f"{count} {way}": lambda n, p=packs[count, way], u=unit: p.advance(n * u) for count, way in ways}
        found = contest(works, seconds, rounds)
        alone = found["1 alone"]
        for count, packing in ways:
            one = found[f"{count} {packing}"]
            low, high = one.spread
            per_second = unit * count * batch_size
            rows.append({
                "model": name, "pixels": trainer.summary.image_size, "seeds": count, "packing": packing,
                "images_per_second": one.rate * per_second, "least": low * per_second, "most": high * per_second,
                "ratio": count * ratio(one.rates, alone.rates), "step_seconds": 1 / (one.rate * unit),
            })  # fmt: skip
    return rows


def report(rows: Sequence[dict[str, Any]], batch_size: int, dtype: str, as_json: bool) -> str:
    """The table, or one JSON object, whose `ratio` is the largest: one by one, by all at once."""
    if as_json:
        return json.dumps({"ratio": max(row["ratio"] for row in rows if row["seeds"] > 1), "rows": list(rows)})
    cells = [
        [row["model"], str(row["pixels"]), str(row["seeds"]), row["packing"], f"{1000 * row['step_seconds']:.1f}",
         f"{row['images_per_second']:,.0f}", f"{row['least']:,.0f} - {row['most']:,.0f}",
         "-" if row["seeds"] == 1 else f"{row['ratio']:.2f}"]
        for row in rows
    ]  # fmt: skip
    headings = ["net", "pixels", "seeds", "packing", "ms a step of all", "images/s of all (median)", "least - most",
                "one by one / at once"]  # fmt: skip
    return f"Batch {batch_size} of each seed, {dtype}.\n\n{table(headings, cells)}"
