"""Loads weights from wherever they are: a folder of weights, a run, or a file."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.config import config_hash, model_overrides
from resnet_jax.data.detection import coco_names
from resnet_jax.data.imagenet import STREAMED
from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.data.label_files import read_class_names
from resnet_jax.data.segmentation import voc
from resnet_jax.errors import UserError
from resnet_jax.interop import hub
from resnet_jax.interop.convert import Converted, convert
from resnet_jax.interop.facts import facts_of
from resnet_jax.interop.files import is_hub_folder, read_tensors
from resnet_jax.interop.weights import Weights, is_weights_folder, read_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.checkpoint import Restored, read_newest
from resnet_jax.training.distributed import make_mesh, replicated
from resnet_jax.training.run_record import CHECKPOINTS, DATASET_INFO, RunRecord
from resnet_jax.training.step import init_state


def load_weights(path: str | Path, model: str | None = None, key: str | None = None) -> Weights:
    """Loads trained weights: `load_weights(path).create_model().apply(weights.variables, images)`.

    Args:
      path: a folder that `convert` or `save_weights` wrote, the folder of a run, or what `import_weights`
        takes: a file of PyTorch's, safetensors, Flax's, or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model: the net that they must be of; unset: any.
      key: which net, if a file holds several, as "teacher".

    Raises:
      UserError: if it is none of these, of another net, or damaged.
    """
    folder = Path(path).expanduser()
    if is_weights_folder(folder):
        weights = read_weights(folder)
    elif (folder / "config.json").is_file() and not is_hub_folder(folder):
        weights = weights_of_run(folder)
    elif folder.is_dir() and not any(folder.iterdir()):
        raise UserError(f"{path} holds neither weights (weights.json) nor a run (config.json)")
    else:
        return import_weights(path, model, key=key).weights
    if model is not None and weights.model != model:
        raise UserError(f"{path} holds weights of {weights.model}, not of {model}")
    return weights


def weights_of_run(workdir: str | Path) -> Weights:
    """Loads the weights of a run's newest checkpoint that can be read, as they are evaluated, without its data set.

    Raises:
      UserError: if the folder holds no run, a run without a checkpoint, or one of a version that kept no data.json.
    """
    folder = RunRecord(workdir)
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
    like = jax.eval_shape(lambda: init_state(model, config, info.image_shape))
    restored = read_newest(directory, like, replicated(make_mesh()))
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet; train it first")
    for sentence in passed_over(folder, restored):
        warnings.warn(f"{sentence}; the weights of step {int(restored.state.step)} are taken", stacklevel=2)
    source = {
        "run": folder.workdir.name, "config_hash": config_hash(config), "dataset": config.data.name,
        "steps": int(restored.state.step),
    }  # fmt: skip
    variables = jax.device_get(restored.state.tested_variables)
    side = info.shorter_side
    if side is None and config.data.name in STREAMED:  # records of earlier versions have it in the config alone
        side = config.data.eval_shorter_side
    return Weights(
        config.model.name, fields, variables, info.image_shape[0], info.mean, info.std, info.classes, source, side
    )  # fmt: skip


def passed_over(record: RunRecord, restored: Restored) -> tuple[str, ...]:
    """Returns a sentence for each checkpoint of a run that should have been read instead of the one that was."""
    kept = result.kept_step if (result := record.result()) else None
    lost = kept not in (None, int(restored.state.step))
    note = f"the run kept the weights of step {kept}, whose checkpoint is lost"
    return (*restored.damaged, *([note] if lost else []))


def import_weights(source: str | Path, model: str | None = None, *, fields: Mapping[str, str] | None = None,
                   num_classes: int | None = None, mean: Sequence[float] | None = None,
                   std: Sequence[float] | None = None, image_size: int | None = None,
                   classes: str | Path | None = None, key: str | None = None) -> Converted:  # fmt: skip
    """Converts a file, with the facts that lie beside it; see `interop.convert.convert` and `interop.facts`.

    Args:
      source: a file, a folder of Orbax's, timm's or transformers', or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model, fields, num_classes, key: as `interop.convert.convert` takes them.
      mean, std: of pixels in [0, 1], instead of what is said beside the file or known of the layout.
      image_size: side of the images in pixels, instead of what is said beside the file, or the net's own.
      classes: a text file with a name for each output; see `label_files.read_class_names`. Unset: what is said beside
        the file; otherwise the WordNet ids of ImageNet for 1,000.

    Raises:
      UserError: as `interop.convert.convert` does; also for a file of classes, means or deviations that do
        not fit, and if the hub cannot be reached.
    """
    found = hub.fetch(str(source)) if str(source).startswith(hub.PREFIX) else None
    file = read_tensors(found.path if found else source)
    converted = convert(file, model, fields=fields, num_classes=num_classes, key=key)
    facts = facts_of(file.config, file.preprocessor)
    weights, notes = converted.weights, [*converted.notes, *facts.notes]
    if found:
        about = dict(weights.source) | {"hub": found.repo, "revision": found.revision, "file": found.file}
        weights = dataclasses.replace(weights, source=about)
        notes.append(f"{found.file} of {found.repo} at revision {found.revision}, cached at {found.path}")
    said = " and ".join(facts.said_in)
    if mean is None and std is None and facts.mean and facts.std:
        mean, std = facts.mean, facts.std
        notes.append(f"images are normalised by mean {_numbers(mean)} and deviation {_numbers(std)}, by {said}")
    elif mean is None or std is None:
        small = converted.structure.fields.get("stem") == "cifar"
        more = "; many nets for small images are trained with those of their own set: --mean, --std" if small else ""
        notes.append(
            f"images are taken to be normalised by mean {_numbers(weights.mean if mean is None else mean)} and "
            f"deviation {_numbers(weights.std if std is None else std)}: no file says so itself{more}"
        )
    replaced: dict[str, Any] = {
        name: _checked(name, values, weights.channels) for name, values in (("mean", mean), ("std", std))
        if values is not None
    }  # fmt: skip
    names, sentences = _class_names(classes, facts.classes, weights.num_classes, said)
    net: Any = weights.create_model()
    if not names and net.task == "segmentation" and weights.num_classes == len(voc.CLASSES):
        names = voc.CLASSES
        notes.append("21 outputs of a net that segments are taken for PASCAL VOC's classes")
    if not names and net.task == "detection" and weights.num_classes == len(coco_names.CLASSES):
        names = coco_names.CLASSES
        notes.append("91 outputs of a detector are taken for the background and COCO's classes by their ids")
    if image_size is not None and image_size < 1:
        raise UserError(f"the image size {image_size} must be 1 or more")
    if image_size is None and facts.image_size:
        image_size = facts.image_size
        side = f", of a shorter side of {facts.shorter_side}" if facts.shorter_side else ""
        notes.append(f"images are crops of {image_size} pixels{side}, by {said}")
        replaced["shorter_side"] = facts.shorter_side
    weights = dataclasses.replace(weights, **replaced, classes=names, image_size=image_size or weights.image_size)
    return dataclasses.replace(converted, weights=weights, notes=(*notes, *sentences))


def _class_names(file: str | Path | None, said: Sequence[str], count: int, said_in: str
                 ) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """Returns names of the outputs, best first those of a file that was given, and sentences on where they are from."""
    if file is not None:
        return read_class_names(file, count), ()
    # Photographs are told apart by WordNet's ids here: words that are ImageNet's stand for them.
    firsts = [one.split(",")[0].strip().lower() for one in said]
    same = sum(a == b.split(",")[0].lower() for a, b in zip(firsts, class_names(), strict=False))
    if said and len(said) == count and not (count == 1000 and same > 900):
        return tuple(said), (f"{count} names of classes, by {said_in}",)
    sentences = [f"{said_in} names {len(said)} classes, not {count}: left out"] if len(said) not in (0, count) else []
    if count != 1000:
        return (), tuple(sentences)
    sentences.append("1,000 outputs are taken for ImageNet's classes, sorted by their WordNet ids")
    return official_wnids(), tuple(sentences)


def _checked(name: str, values: Sequence[float], channels: int) -> np.ndarray:
    array = np.array(values, np.float32)
    if array.shape != (channels,) or not np.isfinite(array).all() or (name == "std" and not (array > 0).all()):
        least = ", each above 0" if name == "std" else ""
        raise UserError(f"{name}={_numbers(values)} must be {channels} numbers{least}: of pixels in [0, 1]")
    return array


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in np.ravel(values))
