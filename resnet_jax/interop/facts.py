"""Reads facts that lie beside weights: timm's and transformers' config.json, and preprocessor_config.json."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnet_jax.errors import UserError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

#: Bytes of a file of facts, and pixels of a side, beyond which it is none.
LARGEST_FILE, LARGEST_SIDE = 2**23, 2**14


@dataclasses.dataclass(frozen=True)
class Facts:
    """Holds what is said about weights beside them; what is not said is empty or None.

    Attributes:
      architecture: timm's name of the net, or transformers' type.
      mean, std: of pixels in [0, 1], by channel.
      image_size: side of the crop in pixels.
      shorter_side: of the image that the crop is taken of.
      classes: names of the outputs.
      num_classes: outputs of the classifier.
      said_in: names of the files that said it.
      notes: sentences on what cannot be followed.
    """

    architecture: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    shorter_side: int | None = None
    classes: tuple[str, ...] = ()
    num_classes: int | None = None
    said_in: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> Mapping[str, Any]:
    """Returns a JSON file's object; empty if there is none that can be read."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_timm(config: Mapping[str, Any]) -> bool:
    """Returns whether a config is that of a folder of timm's."""
    return isinstance(config.get("architecture"), str)


def facts_of(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Facts:
    """Returns the facts in the two files.

    Args:
      config: `config.json`, timm's or transformers'; empty without.
      preprocessor: `preprocessor_config.json`, of transformers; empty without.

    Raises:
      UserError: for a fact of another type or outside of its range, naming it.
    """
    if is_timm(config):
        return _of_timm(config)
    return _of_transformers(config, preprocessor)


def _of_timm(config: Mapping[str, Any]) -> Facts:
    own = config.get("pretrained_cfg")
    own = own if isinstance(own, dict) else config  # before timm 0.8 they lie at the top
    ask = _Reader(CONFIG, own)
    size = ask("input_size", _sides)
    share = ask("crop_pct", _share)
    notes = []
    if (kind := ask("interpolation", _text)) not in (None, "bilinear"):
        notes.append(f"it was tested with {kind} resizing; here images are resized by areas or linearly")
    tested = ask("test_input_size", _sides)
    if tested is not None and tested != size:
        notes.append(f"{CONFIG} names {tested} pixels for tests: --image_size={tested} takes them")
    label_names = config.get("label_names", own.get("label_names"))
    return Facts(
        architecture=config["architecture"], mean=ask("mean", _numbers), std=ask("std", _deviations), image_size=size,
        shorter_side=math.floor(size / share) if size and share else None,
        classes=_names(CONFIG, label_names), num_classes=_Reader(CONFIG, config)("num_classes", _count),
        said_in=(CONFIG,), notes=tuple(notes),
    )  # fmt: skip


def _of_transformers(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Facts:
    ask = _Reader(PREPROCESSOR, preprocessor)
    normalised, rescaled = preprocessor.get("do_normalize", True), preprocessor.get("do_rescale", True)
    mean, std = (ask("image_mean", _numbers), ask("image_std", _deviations)) if normalised else (None, None)
    notes = []
    if preprocessor and not (normalised and rescaled):
        notes.append(f"{PREPROCESSOR} leaves out do_normalize or do_rescale: give --mean and --std")
        mean = std = None
    size, share = ask("size", _sides), ask("crop_pct", _share)
    crop = ask("crop_size", _sides) if preprocessor.get("do_center_crop") else None
    shorter_side = math.floor(size / share) if size and share and size < 384 else size if crop else None
    names = config.get("id2label")
    generic = isinstance(names, dict) and all(re.fullmatch(r"LABEL_\d+", str(value)) for value in names.values())
    said_in = tuple(name for name, found in ((CONFIG, config), (PREPROCESSOR, preprocessor)) if found)
    return Facts(
        architecture=_text(config.get("model_type", "")) or "", mean=mean, std=std, image_size=crop or size,
        shorter_side=shorter_side, classes=() if generic else _names(CONFIG, names),
        num_classes=None, said_in=said_in, notes=tuple(notes),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads facts of a file, each by what it must be."""

    file: str
    found: Mapping[str, Any]

    def __call__(self, name: str, read: Callable[[Any], Any]) -> Any:
        if self.found.get(name) is None:
            return None
        value = read(self.found[name])
        if value is None:
            raise UserError(f"{self.file} beside the weights says {name}={str(self.found[name])[:60]}, which cannot be")
        return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6  # NaN is not


def _numbers(value: Any) -> tuple[float, ...] | None:
    right = isinstance(value, list) and 0 < len(value) <= 16 and all(_number(one) for one in value)
    return tuple(map(float, value)) if right else None


def _deviations(value: Any) -> tuple[float, ...] | None:
    found = _numbers(value)
    return found if found and min(found) > 0 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6 else None


def _share(value: Any) -> float | None:
    return float(value) if _number(value) and 0.1 <= value <= 1 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) < 200 else None


def _sides(value: Any) -> int | None:
    """Returns the side in pixels of [channels, height, width], {"shortest_edge": n}, {"height": n} or n."""
    if isinstance(value, list) and len(value) == 3:
        value = value[1] if value[1] == value[2] else None
    elif isinstance(value, dict):
        value = value.get("shortest_edge", value.get("height"))
    return value if _count(value) and value <= LARGEST_SIDE else None


def _names(file: str, value: Any) -> tuple[str, ...]:
    """Returns the names of the outputs, in a list or by their numbers; nothing if there are none."""
    if not value:
        return ()
    if isinstance(value, dict):
        numbered = {int(key): name for key, name in value.items() if str(key).isdecimal()}
        value = [numbered.get(number) for number in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{file} beside the weights has names of classes that are no list, nor numbered from 0")
    return tuple(value)
