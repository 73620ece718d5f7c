"""Weights of other projects, from a file or the hub, with what our data say of their classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.data.imagenet.wnids import official_wnids
from resnet_jax.errors import UserError
from resnet_jax.interop import hub
from resnet_jax.interop.convert import Converted, convert
from resnet_jax.interop.files import read_tensors


def import_weights(source: str | Path, model: str | None = None, *, fields: Mapping[str, str] | None = None,
                   num_classes: int | None = None, mean: Sequence[float] | None = None,
                   std: Sequence[float] | None = None, image_size: int | None = None,
                   classes: str | Path | None = None) -> Converted:  # fmt: skip
    """Converts a file; see `interop.convert.convert`.

    Args:
      source: a file, a folder of Orbax's or transformers', or `hf:OWNER/NAME[@REVISION][:FILE]`.
      model, fields, num_classes: see there.
      mean, std: of pixels in [0, 1], instead of what is known of the layout.
      image_size: side of the images in pixels, instead of the net's own.
      classes: a text file with a name for each output, a line each. Unset: the WordNet ids of ImageNet for 1,000.

    Raises:
      UserError: see there; for a file of classes, means or deviations that do not fit; if the hub cannot be reached.
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
