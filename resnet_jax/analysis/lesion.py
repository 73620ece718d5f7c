"""Lesion study: units of a trained net are removed or exchanged (Veit et al. 2016, section 4).

"Residual Networks Behave Like Ensembles of Relatively Shallow Networks": the error of a residual net hardly changes
when one unit is removed, and grows smoothly with more of them; a plain net falls to chance with one.

A removed unit of a residual net keeps its shortcut and loses its residual, also where the shape changes (options A and
B). A removed unit of a plain net passes its input on, and cannot be removed where the shape changes. What is around the
addition, such as the ReLU after it, stays.

Units are exchanged with their parameters and statistics, within a stage and between units that keep the shape.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import Array
from jax.sharding import Mesh

from resnet_jax.analysis.run_files import drawn_batches, open_analysed, write_json
from resnet_jax.data.resident import ResidentPipeline
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import OpenRun, resident_pipeline
from resnet_jax.evaluation.scoring import Report, silent
from resnet_jax.models.scan import unrolled
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.tasks.classification import is_error
from resnet_jax.training.distributed import batch_sharded, replicated

FILE = "lesion.json"

#: How many units are removed, or pairs exchanged, at once: Veit et al. 2016, figure 5, go up to 20.
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 20)


@dataclasses.dataclass(frozen=True)
class UnitInfo:
    """Describes a unit of a net by its path, as `stage1/block1`."""

    path: str
    changes_shape: bool
    removable: bool


def find_units(model: nn.Module, image_shape: Sequence[int]) -> list[UnitInfo]:
    """Finds the units of a net, in order, for images of (height, width, channels); VGG has none."""
    found: list[UnitInfo] = []

    def look(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_join(context):
            x, _, residual = args[:3]
            changes = x.shape != residual.shape
            removable = not (changes and context.module.kind == "none")
            found.append(UnitInfo(_unit_path(context.module), changes, removable))
        return next_call(*args, **kwargs)

    def forward(key: Array, images: Array) -> Any:
        with nn.intercept_methods(look):
            return model.init(key, images, train=False)

    jax.eval_shape(forward, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


def _is_join(context: Any) -> bool:
    return isinstance(context.module, Shortcut) and context.method_name == "__call__"


def _unit_path(join: nn.Module) -> str:
    return "/".join(join.path[:-1])


def lesioned_logits(
    model: nn.Module, variables: Mapping[str, Any], images: Array, keep: Mapping[str, Array | bool]
) -> Array:
    """Computes the logits (batch, num_classes), in testing mode, of a net without some of its units.

    Args:
      model, variables: of the net.
      images: (batch, height, width, channels).
      keep: by path, whether units stay: scalars, so that one compiled program serves any set. Other units stay.

    Raises:
      UserError: for a unit that cannot be removed.
    """

    def remove(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not _is_join(context) or (path := _unit_path(context.module)) not in keep:
            return next_call(*args, **kwargs)
        x, activated, residual, *rest = args
        if context.module.kind != "none":
            left = jnp.zeros_like(residual)
        elif x.shape == residual.shape:
            left = x
        else:
            raise UserError(f"{path} of a plain net changes the shape from {x.shape} and cannot be removed")
        return next_call(x, activated, jnp.where(keep[path], residual, left), *rest, **kwargs)

    with nn.intercept_methods(remove):
        return unrolled(model).apply(variables, images, train=False)  # type: ignore[return-value]


def exchangeable(variables: Mapping[str, Any], units: Sequence[UnitInfo]) -> list[tuple[str, str]]:
    """Returns pairs of units that can be exchanged: of one stage, with equal parameter shapes, keeping the shape."""

    leaves = traverse_util.flatten_dict(dict(variables), sep="/")

    def kind(unit: UnitInfo) -> Any:
        inside = [path for path in leaves if f"/{unit.path}/" in path]
        shapes = sorted((path.replace(unit.path, ""), np.shape(leaves[path])) for path in inside)
        return unit.path.split("/")[0], shapes

    kinds = [(unit.path, kind(unit)) for unit in units if not unit.changes_shape]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(kinds, 2) if one == other]


def rearranged(variables: Mapping[str, Any], origin: Mapping[str, str]) -> dict[str, Any]:
    """Returns variables in which the unit at each path of `origin` is the one of the path that it maps to."""
    leaves = traverse_util.flatten_dict(dict(variables), sep="/")
    moved = dict(leaves)
    for here, there in origin.items():
        moved |= {
            path.replace(f"/{there}/", f"/{here}/"): leaf for path, leaf in leaves.items() if f"/{there}/" in path
        }
    return traverse_util.unflatten_dict(moved, sep="/")


def kendall_tau(order: Sequence[int]) -> float:
    """Returns the rank correlation of a permutation with the ascending order: 1 if equal, -1 if reversed."""
    pairs = list(itertools.combinations(order, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs) if pairs else 1.0


Score = Callable[[Mapping[str, Any], Sequence[str]], float]


def make_score(
    model: nn.Module, units: Sequence[UnitInfo], pipeline: ResidentPipeline, mesh: Mesh, images: int = 0
) -> Score:
    """Makes a function (variables, paths of removed units) -> test error in percent; it compiles once.

    Args:
      model, units, pipeline, mesh: of the run.
      images: how many of the test set, the same for every net; 0 for all.

    Raises:
      UserError: if there are fewer.
    """
    paths = [unit.path for unit in units if unit.removable]
    batches = drawn_batches(pipeline.test_size, images, pipeline.eval_batch_size, mesh.size, "test")

    def errors(variables: Any, keep: Array, resident: Any, indices: Array, mask: Array) -> Array:
        images, labels = pipeline.eval_batch(resident, indices)
        logits = lesioned_logits(model, variables, images, dict(zip(paths, keep, strict=True)))
        return jnp.sum(is_error(logits, labels) * mask)

    everywhere, shared = replicated(mesh), batch_sharded(mesh)
    step = jax.jit(errors, in_shardings=(everywhere,) * 3 + (shared,) * 2, out_shardings=everywhere)

    def score(variables: Mapping[str, Any], removed: Sequence[str] = ()) -> float:
        assert set(removed) <= set(paths), removed
        keep = np.array([path not in removed for path in paths], bool)
        sums = jax.device_get([step(variables, keep, pipeline.test, *batch) for batch in batches])
        return 100 * float(np.sum(sums)) / (images or pipeline.test_size)

    return score


def lesion_study(
    run: OpenRun, repeats: int = 10, images: int = 0, seed: int = 0, report: Report = silent
) -> dict[str, Any]:
    """Measures test errors, in percent, without single units, without several, and with units exchanged.

    Several units are drawn from those that keep the shape, so that a plain net and its residual twin lose the same.

    Args:
      run: the run.
      repeats: draws for each number of units.
      images: test images that the error is of; 0 for all.
      seed: of the draws.
      report: called with (evaluations done, evaluations in all).

    Returns:
      `error` of the whole net; `single`, for each unit `{"block", "changes_shape", "error"}` (None where it cannot be
      removed); `removed`, for each number of units `{"count", "errors": [repeats]}`; `exchanged`, for each number of
      exchanges, one after another, `{"count", "errors": [repeats], "kendall_tau": [repeats]}`.

    Raises:
      UserError: for a net without units, or fewer images.
    """
    trainer = run.trainer
    pipeline = resident_pipeline(trainer)
    image_shape = pipeline.image_shape
    units = find_units(trainer.model, image_shape)
    if not units:
        raise UserError(f"{run.config.model.name} has no units that could be removed")
    score = make_score(trainer.model, units, pipeline, trainer.mesh, images)
    variables = run.state.tested_variables
    keeping = [unit.path for unit in units if not unit.changes_shape]
    pairs = exchangeable(variables, units)
    removals = [count for count in COUNTS if count <= len(keeping)]
    exchanges = [count for count in COUNTS if count <= len(pairs)]
    rng = np.random.Generator(np.random.Philox(seed))
    total = 1 + sum(unit.removable for unit in units) + repeats * (len(removals) + len(exchanges))
    done = itertools.count(1)

    def scored(variables: Mapping[str, Any], removed: Sequence[str] = ()) -> float:
        error = score(variables, removed)
        report(next(done), total)
        return error

    def drawn(count: int) -> float:
        return scored(variables, [keeping[i] for i in rng.choice(len(keeping), count, replace=False)])

    def exchanged(count: int) -> tuple[float, float]:
        origin = {path: path for path in keeping}
        # No pair twice: exchanging it again would undo the exchange.
        for i in rng.choice(len(pairs), count, replace=False):
            a, b = pairs[i]
            origin[a], origin[b] = origin[b], origin[a]
        moved = {here: there for here, there in origin.items() if here != there}
        return scored(rearranged(variables, moved)), kendall_tau([keeping.index(path) for path in origin.values()])

    whole = scored(variables)
    single = [
        {"block": unit.path, "changes_shape": unit.changes_shape,
         "error": scored(variables, [unit.path]) if unit.removable else None}
        for unit in units
    ]  # fmt: skip
    several = [{"count": count, "errors": [drawn(count) for _ in range(repeats)]} for count in removals]
    moved = []
    for count in exchanges:
        errors, taus = zip(*(exchanged(count) for _ in range(repeats)), strict=True)
        moved.append({"count": count, "errors": list(errors), "kendall_tau": list(taus)})
    return {"error": whole, "single": single, "removed": several, "exchanged": moved}


def run_lesion(
    workdir: str | Path,
    repeats: int = 10,
    images: int = 0,
    seed: int = 0,
    data_dir: str | None = None,
    report: Report = silent,
) -> Path:
    """Writes `lesion.json` into a trained run's folder: `settings` and the result of `lesion_study`.

    Args:
      workdir: the run's folder.
      repeats, images, seed, report: see `lesion_study`.
      data_dir: where the data are, if not where the run found them.

    Raises:
      UserError: if the folder holds no trained run or cannot be written to, for a net without units, no repeats, or
        fewer images.
    """
    if repeats < 1 or seed < 0:
        raise UserError(f"repeats={repeats} must be 1 or more, and seed={seed} 0 or more")
    run = open_analysed(workdir, data_dir)
    settings = {"step": run.step, "repeats": repeats, "images": images, "seed": seed}
    found = lesion_study(run, repeats, images, seed, report)
    return write_json(run.workdir / FILE, {"settings": settings, **found})
