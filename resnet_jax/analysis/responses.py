"""Layer responses (He et al. 2015, section 4.2, "Analysis of Layer Responses", and figure 7).

The paper takes the standard deviation of "the outputs of each 3x3 layer, after BN and before other nonlinearity
(ReLU/addition)". Residual nets have smaller responses than plain ones, and deeper nets smaller ones than shallow nets.
It does not say over which images; here they are the test set's by default.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import Array

from resnet_jax.analysis.run_files import open_analysed, read_json, write_json
from resnet_jax.data.sampling import padded_batches
from resnet_jax.errors import unknown_name
from resnet_jax.evaluation.open_run import resident_pipeline
from resnet_jax.evaluation.scoring import Report, silent
from resnet_jax.models.features import forward_with_features
from resnet_jax.models.summary import summarize

FILE = "responses.json"
SPLITS = ("test", "train")


def response_layers(model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]) -> list[str]:
    """Returns the paths of the responses of all 3x3 layers, in layer order: `stem/bn`, `stage1/block1/bn1`, ...

    For a convolution without a batch norm after it, as the last of a unit with full pre-activation, it is the
    convolution's own output: `stage1/block1/conv2`. `image_shape` is (height, width, channels).
    """
    params = traverse_util.flatten_dict(dict(variables["params"]), sep="/")
    layers = [layer.path for layer in summarize(model, "", image_shape[0], image_shape[2]).layers]
    found = []
    for path in layers:
        parent, _, name = path.rpartition("/")
        if np.shape(params.get(f"{path}/kernel"))[:2] == (3, 3):
            norm = f"{parent}/{name.replace('conv', 'bn')}"
            found.append(norm if norm in layers else path)
    return found


def layer_responses(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: np.ndarray | Array,
    batch_size: int = 500,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Computes the standard deviation of each 3x3 layer's response over images, positions and channels.

    Args:
      model, variables: of the net.
      images: (n, height, width, channels), normalised as for training.
      batch_size: images of one pass; it affects memory only.
      report: called with the number of finished batches.

    Returns:
      `[{"layer": "stem/bn", "std": 0.71}, ...]` in layer order.
    """
    paths = response_layers(model, variables, images.shape[1:])
    wanted = frozenset(paths)

    @jax.jit
    def moments(variables: Any, images: Array, mask: Array) -> dict[str, tuple[Array, Array, int]]:
        """Returns each response's mean over the images with mask 1, squares about it, and entries for one image."""
        features = forward_with_features(model, variables, images, wanted.__contains__)[1]
        found = {}
        for path in paths:
            x = features[path].astype(jnp.float32)
            weight = jnp.broadcast_to(mask.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
            mean = jnp.sum(x * weight) / jnp.sum(weight)
            found[path] = mean, jnp.sum(jnp.square(x - mean) * weight), x[0].size
        return found

    total = dict.fromkeys(paths, (0, 0.0, 0.0))
    batches = list(padded_batches(len(images), min(batch_size, len(images))))
    for done, (indices, mask) in enumerate(batches, start=1):
        for path, (mean, squares, entries) in moments(variables, images[indices], mask).items():
            count = int(entries) * int(mask.sum())
            total[path] = _merge(total[path], (count, float(mean), float(squares)))
        report(done, len(batches))
    return [{"layer": path, "std": float(np.sqrt(total[path][2] / total[path][0]))} for path in paths]


def _merge(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    """Merges (count, mean, squares about the mean) of two parts (Chan et al. 1979), without cancellation."""
    count, delta = one[0] + other[0], other[1] - one[1]
    mean = one[1] + delta * other[0] / count
    return count, mean, one[2] + other[2] + delta**2 * one[0] * other[0] / count


def run_responses(
    workdir: str | Path, split: str = "test", data_dir: str | None = None, report: Report = silent
) -> Path:
    """Writes `responses.json` into a trained run's folder: `settings`, and `responses`, the list of `layer_responses`.

    Earlier versions wrote the list alone: `read_responses` reads both.

    Args:
      workdir: the run's folder.
      split: "test" (or held-out) or "train" images, without augmentation.
      data_dir: where the data are, if not where the run found them.
      report: called with (done, total).

    Raises:
      UserError: if the folder holds no trained run, for an unknown split, or if it cannot be written to.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    run = open_analysed(workdir, data_dir)
    pipeline = resident_pipeline(run.trainer)
    resident = jax.device_get(pipeline.test if split == "test" else pipeline.train)
    # On one device: this takes seconds.
    images, _ = pipeline.eval_batch(resident, jnp.arange(len(resident["labels"])))
    found = layer_responses(run.trainer.model, run.variables, np.asarray(images), report=report)
    return write_json(run.workdir / FILE, {"settings": {"step": run.step, "split": split}, "responses": found})


def read_responses(path: Path) -> list[dict[str, Any]]:
    """Returns the list of `layer_responses` that a file of `run_responses` holds.

    Raises:
      UserError: if it cannot be read.
    """
    found = read_json(path)
    return found["responses"] if isinstance(found, dict) and "responses" in found else found
