"""Opens trained runs for analysis, and reads and writes the JSON files of analyses in their folders."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from resnet_jax.atomic_write import atomic_write
from resnet_jax.config import model_overrides
from resnet_jax.data.sampling import padded_batches
from resnet_jax.errors import UserError, writing
from resnet_jax.evaluation.open_run import OpenRun, open_run
from resnet_jax.models.registry import create_model


def open_analysed(workdir: str | Path, data_dir: str | None = None) -> OpenRun:
    """Opens a run, see `open_run`, and warns of each newer checkpoint that cannot be read."""
    run = open_run(workdir, data_dir)
    for sentence in run.passed_over:
        warnings.warn(f"{sentence}; the one before it is analysed", stacklevel=2)
    return run


def drawn_batches(
    examples: int, images: int, batch_size: int, devices: int, of: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draws images of a split, the same for every net, and returns them as batches of (indices, mask).

    Args:
      examples: in the split.
      images: how many to draw; 0 for all.
      batch_size: at most; fewer images make a smaller batch.
      devices: by which a batch must be divisible.
      of: the split in words, for the error.

    Raises:
      UserError: if there are fewer.
    """
    if not 0 <= images <= examples:
        raise UserError(f"images={images} must be between 1 and the {examples} of the {of} set, or 0")
    # Drawn at random, since a set may be sorted by class.
    order = np.random.Generator(np.random.Philox(0)).permutation(examples)
    chosen = np.sort(order[: images or examples]).astype(np.int32)
    size = min(batch_size, -(-len(chosen) // devices) * devices)
    return [(chosen[indices], mask) for indices, mask in padded_batches(len(chosen), size)]


def net_name(config: ConfigDict) -> str:
    """Returns the name of a run's net in figures: "plain-56", "ResNet-56", "preact ResNet-110", "VGG-16"."""
    name = config.model.name.removeprefix("cifar_")
    kind, found, rest = name.rpartition("resnet")
    if found:
        return f"{kind.replace('_', ' ')}ResNet-{rest}"
    return name.replace("plain", "plain-").replace("vgg", "VGG-")


def evaluated_on(config: ConfigDict) -> str:
    """Returns what a run's config says that it is evaluated on, in words: "test", "validation" or "held-out"."""
    if config.data.held_out:
        return "held-out"
    return "test" if config.data.eval_split == "auto" else config.data.eval_split.replace("_", "-")


def is_plain(config: ConfigDict) -> bool:
    """Returns whether a run's net has no shortcuts."""
    return getattr(create_model(config.model.name, **model_overrides(config)), "shortcut", "none") == "none"


def write_json(path: Path, value: Any) -> Path:
    """Writes a JSON file atomically and returns its path; raises UserError if that fails."""
    with writing(path):
        atomic_write(path, json.dumps(value, allow_nan=False) + "\n")
    return path


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote; raises UserError if there is no such file, or it is damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no {path}; the analysis that writes it has not been run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings of an analysis in its JSON file; none, where the file holds none."""
    found = read_json(path)
    settings = found.get("settings") if isinstance(found, dict) else None
    return settings if isinstance(settings, dict) else {}


def resume(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the finished part of a long analysis, a JSON object with a field `settings`; None if there is none.

    Raises:
      UserError: naming the settings that differ: a changed flag must not overwrite hours of work.
    """
    if not path.exists():
        return None
    found = read_json(path)
    there = found.get("settings", {}) if isinstance(found, dict) else {}
    if there != settings:
        names = [name for name in {**there, **settings} if there.get(name) != settings.get(name)]
        fields = "; ".join(f"{name}: {there.get(name)} there, {settings.get(name)} here" for name in names)
        raise UserError(f"{path} was made with other settings ({fields}); move it away to make it anew")
    return found
