"""Loads weights from wherever they are: a folder of weights, a run, or a file of another project."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.config import config_hash, model_overrides
from resnet_jax.data.imagenet.wnids import official_wnids
from resnet_jax.errors import UserError
from resnet_jax.interop import hub
from resnet_jax.interop.convert import Converted, convert
from resnet_jax.interop.files import HUB_FILES, read_tensors
from resnet_jax.interop.weights import Weights, is_weights_folder, read_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.checkpoint import read_newest
from resnet_jax.training.finetune import make_tuned_optimizer
from resnet_jax.training.mesh import make_mesh, replicated
from resnet_jax.training.run_folder import CHECKPOINTS, DATASET_INFO, RunFolder
from resnet_jax.training.state import init_state


def load_weights(path: str | Path, model: str | None = None) -> Weights:
    """Loads trained weights: `load_weights(path).create_model().apply(weights.variables, images)`.

    Args:
      path: a folder that `convert` or `save_weights` wrote, the folder of a run, or what `import_weights`
        takes: a file of PyTorch's, safetensors, Flax's, or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model: the net that they must be of; unset: any.

    Raises:
      UserError: if it is none of these, of another net, or damaged.
    """
    folder = Path(path).expanduser()
    if is_weights_folder(folder):
        weights = read_weights(folder)
    elif (folder / "config.json").is_file() and not any((folder / name).is_file() for name in HUB_FILES):
        weights = weights_of_run(folder)
    elif folder.is_dir() and not any(folder.iterdir()):
        raise UserError(f"{path} holds neither weights (weights.json) nor a run (config.json)")
    else:
        return import_weights(path, model).weights
    if model is not None and weights.model != model:
        raise UserError(f"{path} holds weights of {weights.model}, not of {model}")
    return weights


def weights_of_run(workdir: str | Path) -> Weights:
    """Loads the weights of a run's newest checkpoint that can be read, as they are evaluated, without its data set.

    Raises:
      UserError: if the folder holds no run, a run without a checkpoint, or one of a version that kept no data.json.
    """
    folder = RunFolder(workdir)
    config = folder.config()
    directory = folder.workdir / CHECKPOINTS
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    info = folder.dataset_info()
    if info is None:
        raise UserError(
            f"{workdir} has no {DATASET_INFO}, which says what images its net is for: an early version trained it; "
            "python -m resnet_jax evaluate --workdir still tests it"
        )
    fields = model_overrides(config) | {"num_classes": info.num_classes}
    model = create_model(config.model.name, **fields)
    height, width, channels = info.image_shape
    like = jax.eval_shape(
        lambda: init_state(
            model, make_tuned_optimizer(config), config.seed, (height, width, channels),
            config.regularization.ema_decay > 0,
        )
    )  # fmt: skip
    restored = read_newest(directory, like, replicated(make_mesh()))
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    source = {
        "run": folder.workdir.name, "config_hash": config_hash(config), "dataset": config.data.name,
        "steps": int(restored.state.step),
    }  # fmt: skip
    variables = jax.device_get(restored.state.tested_variables)
    return Weights(
        config.model.name, fields, variables, height, info.mean, info.std, info.classes, source
    )  # fmt: skip


def import_weights(source: str | Path, model: str | None = None, *, fields: Mapping[str, str] | None = None,
                   num_classes: int | None = None, mean: Sequence[float] | None = None,
                   std: Sequence[float] | None = None, image_size: int | None = None,
                   classes: str | Path | None = None) -> Converted:  # fmt: skip
    """Converts a file; see `interop.convert.convert`.

    Args:
      source: a file, a folder of Orbax's or transformers', or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model, fields, num_classes: as `interop.convert.convert` takes them.
      mean, std: of pixels in [0, 1], instead of what is known of the layout.
      image_size: side of the images in pixels, instead of the net's own.
      classes: a text file with a name for each output, a line each. Unset: the WordNet ids of ImageNet for 1,000.

    Raises:
      UserError: as `interop.convert.convert` does; also for a file of classes, means or deviations that do
        not fit, and if the hub cannot be reached.
    """
    found = hub.fetch(str(source)) if str(source).startswith(hub.PREFIX) else None
    converted = convert(read_tensors(found.path if found else source), model, fields=fields, num_classes=num_classes)
    weights, notes = converted.weights, list(converted.notes)
    if found:
        about = dict(weights.source) | {"hub": found.repo, "revision": found.revision, "file": found.file}
        weights = dataclasses.replace(weights, source=about)
        notes.append(f"{found.file} of {found.repo} at revision {found.revision}, cached at {found.path}")
    if mean is None or std is None:
        notes.append(
            f"images are taken to be normalised by mean {_numbers(weights.mean if mean is None else mean)} and "
            f"deviation {_numbers(weights.std if std is None else std)}: no file says so itself"
        )
    replaced: dict[str, Any] = {
        name: _checked(name, values, weights.channels) for name, values in (("mean", mean), ("std", std))
        if values is not None
    }  # fmt: skip
    names = _read_classes(classes, weights.num_classes) if classes is not None else ()
    if not names and weights.num_classes == 1000:
        names = official_wnids()
        notes.append("1,000 outputs are taken for ImageNet's classes, sorted by their WordNet ids")
    if image_size is not None and image_size < 1:
        raise UserError(f"the image size {image_size} must be 1 or more")
    weights = dataclasses.replace(weights, **replaced, classes=names, image_size=image_size or weights.image_size)
    return dataclasses.replace(converted, weights=weights, notes=tuple(notes))


def _checked(name: str, values: Sequence[float], channels: int) -> np.ndarray:
    array = np.array(values, np.float32)
    if array.shape != (channels,) or not np.isfinite(array).all() or (name == "std" and not (array > 0).all()):
        least = ", each above 0" if name == "std" else ""
        raise UserError(f"{name}={_numbers(values)} must be {channels} numbers{least}: of pixels in [0, 1]")
    return array


def _read_classes(path: str | Path, count: int) -> tuple[str, ...]:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the classes in {path}: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != count:
        raise UserError(f"{path} names {len(names)} classes, and the weights have {count}")
    return names


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in np.ravel(values))
