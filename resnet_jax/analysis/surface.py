"""The loss around a solution (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4).

The loss is computed over a line or a plane through the trained parameters. Its directions are random and "filter-wise
normalised": each filter of a direction has the norm of the net's filter. A net with batch norm computes the same for
filters of any norm, and raw directions would compare nets by these norms. As in the authors' code, directions are zero
for biases and batch norm (`ignore='biasbn'`), the running statistics are those of the solution, and the images are the
training set's, in testing mode and without augmentation.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from resnet_jax.analysis.run_files import drawn_batches, open_analysed, resume, write_json
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import OpenRun, resident_pipeline
from resnet_jax.evaluation.scoring import Report, silent

FILE = "surface.json"

#: (loss, error in percent) of a row of points; None where the loss is not finite.
Row = tuple[list[float | None], list[float]]


def filter_normalised(direction: Any, params: Any) -> Any:
    """Scales each filter of a direction to the norm of the parameters' filter; biases and batch norm become zero.

    Li et al. 2018, section 4: d_ij <- d_ij / |d_ij| * |theta_ij| for filter j of layer i. A filter makes one output:
    kernel[..., j], of a convolution or a fully connected layer. Direction and result are trees like `params`.
    """

    def one(d: np.ndarray, w: np.ndarray) -> np.ndarray:
        if np.ndim(w) <= 1:
            return np.zeros(np.shape(w), np.float32)
        d, w, axes = np.asarray(d, np.float64), np.asarray(w, np.float64), tuple(range(np.ndim(w) - 1))
        lengths = [np.sqrt(np.sum(np.square(x), axis=axes, keepdims=True)) for x in (d, w)]
        return (d * lengths[1] / (lengths[0] + 1e-10)).astype(np.float32)

    return jax.tree.map(one, direction, params)


def random_direction(params: Any, seed: int) -> Any:
    """Draws a normal, filter-normalised direction, which depends on the seed and shapes, not on JAX's version."""
    rng = np.random.Generator(np.random.Philox(seed))
    flat = traverse_util.flatten_dict(jax.device_get(params))
    direction = {path: rng.standard_normal(np.shape(flat[path])) for path in sorted(flat)}
    return filter_normalised(traverse_util.unflatten_dict(direction), jax.device_get(params))


def loss_surface(
    evaluate: Callable[[Any], tuple[float, float]],
    params: Any,
    directions: Sequence[Any],
    xs: Sequence[float],
    ys: Sequence[float],
    done: Sequence[Row] = (),
    report: Report = silent,
    save: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Computes loss and error at params + x * directions[0] + y * directions[1].

    Args:
      evaluate: parameters to (mean loss, error in percent).
      params: the centre.
      directions: two trees like `params`; one for a line, where `ys` is (0,).
      xs, ys: the grid.
      done: the first rows, if they were computed before, each of one y.
      report: called with (points done, points in all).
      save: called with all rows after each new one.

    Returns:
      For each y: (losses, errors), lists along x.
    """

    @jax.jit
    def shifted(params: Any, directions: Any, at: Array) -> Any:
        return jax.tree.map(lambda p, *d: p + sum(a * v for a, v in zip(at, d, strict=True)), params, *directions)

    rows = list(done)
    for y in ys[len(rows) :]:
        losses: list[float | None] = []
        errors: list[float] = []
        for x in xs:
            at = jnp.array((x, y)[: len(directions)], jnp.float32)
            loss, error = evaluate(shifted(params, tuple(directions), at))
            losses.append(loss if math.isfinite(loss) else None)
            errors.append(error)
            report(len(rows) * len(xs) + len(errors), len(ys) * len(xs))
        rows.append((losses, errors))
        save(rows)
    return rows


def make_evaluate(run: OpenRun, images: int = 0) -> Callable[[Any], tuple[float, float]]:
    """Makes a function from parameters to (mean loss, error in percent) on a run's training images.

    Args:
      run: the run, whose running statistics are used.
      images: how many, the same for every net; 0 for all.

    Raises:
      UserError: if there are fewer.
    """
    pipeline = resident_pipeline(run.trainer)
    devices = run.trainer.mesh.size
    batches = drawn_batches(pipeline.train_size, images, pipeline.eval_batch_size, devices, "training")

    def evaluate(params: Any) -> tuple[float, float]:
        variables = run.state.tested_variables | {"params": params}
        sums = [run.trainer.eval_step(variables, pipeline.train, *batch) for batch in batches]
        metrics = run.trainer.task.eval_metrics(jax.device_get(sums))
        return metrics["test_loss"], metrics["test_error"]

    return evaluate


def run_surface(
    workdir: str | Path,
    points: int = 21,
    span: float = 1.0,
    dimensions: int = 2,
    images: int = 0,
    seed: int = 0,
    data_dir: str | None = None,
    report: Report = silent,
) -> Path:
    """Writes `surface.json` into a trained run's folder, row by row; a killed analysis continues where it was.

    The file holds `settings`, the axes `x` and `y`, and `loss` and `error` (percent), both [y][x].

    Args:
      workdir: the run's folder.
      points: on each axis; odd, so that the solution itself is one of them.
      span: the axes go from -span to span; 1 is the norm of the parameters.
      dimensions: 1 for a line, 2 for a plane.
      images: training images that the loss is over; 0 for all.
      seed: of the directions.
      data_dir: where the data are, if not where the run found them.
      report: called with (points done, points in all).

    Raises:
      UserError: for impossible settings, or if the folder holds no trained run, or a surface of other settings.
    """
    if points < 3 or points % 2 == 0:
        raise UserError(f"points={points} must be odd, and 3 or more, so that the solution is one of them")
    if not (span > 0 and math.isfinite(span)) or dimensions not in (1, 2):
        raise UserError(f"span={span} must be above 0, and dimensions={dimensions} 1 or 2")
    if seed < 0:
        raise UserError(f"seed={seed} must be 0 or more")
    run = open_analysed(workdir, data_dir)
    evaluate = make_evaluate(run, images)
    settings = {"step": run.step, "points": points, "span": span, "dimensions": dimensions, "images": images,
                "seed": seed}  # fmt: skip
    path = run.workdir / FILE
    there = resume(path, settings)
    done = [] if there is None else list(zip(there["loss"], there["error"], strict=True))
    # Exactly symmetric, with an exact zero.
    half = [span * i / (points // 2) for i in range(1, points // 2 + 1)]
    xs = [*(-x for x in reversed(half)), 0.0, *half]
    ys = xs if dimensions == 2 else [0.0]

    def save(rows: list[Row]) -> None:
        losses, errors = ([row[i] for row in rows] for i in (0, 1))
        write_json(path, {"settings": settings, "x": xs, "y": ys, "loss": losses, "error": errors})

    params = run.state.tested_variables["params"]
    directions = [random_direction(params, 2 * seed + i) for i in range(dimensions)]
    loss_surface(evaluate, params, directions, xs, ys, done, report, save)
    return path
