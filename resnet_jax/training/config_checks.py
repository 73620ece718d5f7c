"""Checks a config before anything is read or built from it."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.config import base_config, flatten
from resnet_jax.data.detection import BOX_SETS
from resnet_jax.data.held_out_split import EVAL_SPLITS
from resnet_jax.data.imagenet import STREAMED, TFDS
from resnet_jax.data.imagenet.crops import CROPS
from resnet_jax.data.rand_augment import MOST, VARIANTS
from resnet_jax.data.segmentation import SETS
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.models.layers import PRECISIONS
from resnet_jax.tasks.choose import TASKS
from resnet_jax.tasks.detection import TRAINED

#: The values that a field can have.
CHOICES = {
    "task": TASKS,
    "dtype": ("float32", "bfloat16"),
    "precision": PRECISIONS,
    "loss": ("cross_entropy", "binary_cross_entropy"),
    "optimizer.name": ("sgd", "lars", "lamb"),
    "optimizer.decay_scope": ("all", "kernels"),
    "schedule.name": ("steps", "cosine", "poly"),
    "schedule.warmup": ("none", "steps", "error", "linear"),
    "data.crop": CROPS,
    "data.eval_split": EVAL_SPLITS,
    "data.rand_augment.variant": tuple(VARIANTS),
    "on_nan": ("stop", "rollback"),
    "detection.trained": TRAINED,
    "finetune.head": ("auto", "new", "keep"),
}

#: Fields that would have no effect but with some values of another one.
ONLY_WITH = {
    "regularization.target_threshold": ("loss", ("binary_cross_entropy",)),
    "optimizer.nesterov": ("optimizer.name", ("sgd", "lars")),
    "optimizer.trust_coefficient": ("optimizer.name", ("lars",)),
    "schedule.power": ("schedule.name", ("poly",)),
    "data.mean": ("data.normalization", ("weights",)),
    "data.std": ("data.normalization", ("weights",)),
}

#: Numbers that must be 1 or more. All others but a net's fields must be 0 or more.
FROM_ONE = frozenset({
    "steps", "batch_size", "accumulate", "eval_every", "log_every", "checkpoint_every", "keep_checkpoints",
    "data.repeats", "data.most_objects",
})  # fmt: skip

#: The largest.
MOST_OF = {
    "data.colour_jitter": (1, "at most 1, where factors begin at 0"),
    "data.random_erasing": (1, "a probability, at most 1"),
    "data.rand_augment.probability": (1, "a probability, at most 1"),
    "data.rand_augment.magnitude": (MOST, f"at most {MOST}, the end of each range"),
}


#: Numbers that must be below 1. At 1, an average takes in nothing new, and momentum forgets nothing.
BELOW_ONE = (
    "regularization.label_smoothing", "regularization.ema_decay", "regularization.target_threshold",
    "optimizer.momentum",
)  # fmt: skip


def validate_config(config: ConfigDict) -> None:
    """Checks each field by itself, and those that depend on each other.

    Raises:
      UserError: naming the field, its value, and what would be right.
    """
    flat, known = flatten(config), flatten(base_config())
    for field in flat:
        if field not in known:
            raise unknown_name("config field", field, known)
    if missing := sorted(known.keys() - flat.keys()):
        raise UserError(f"the config lacks {', '.join(missing)}; begin with resnet_jax.base_config()")
    for field, own in known.items():  # None is accepted for a field of any type
        if flat[field] is None and own is not None:
            raise UserError(f"config.{field}=None must be of type {type(own).__name__}, as {own!r} is")
    _check_numbers(flat)
    for field, choices in CHOICES.items():
        if flat[field] not in choices:
            raise UserError(f"config.{field}={flat[field]!r} must be one of {', '.join(choices)}")
    for field in ("stage_sizes", "widths"):
        values = flat[f"model.{field}"]
        if values is not None and not _whole(values):
            raise UserError(f"config.model.{field}={values} must be whole numbers of 1 or more")
    if flat["batch_size"] % flat["accumulate"]:
        raise UserError(
            f"config.accumulate={flat['accumulate']} does not divide config.batch_size={flat['batch_size']}"
        )
    micro_batch, group = flat["batch_size"] // flat["accumulate"], flat["model.bn_group_size"]
    if group and micro_batch % group:
        of = f"config.batch_size={flat['batch_size']}"
        of += f" in config.accumulate={flat['accumulate']} micro-batches" if flat["accumulate"] > 1 else ""
        raise UserError(f"config.model.bn_group_size={group} does not divide {of}; choose a divisor of {micro_batch}, "
                        "or 0 for the statistics of the whole batch")  # fmt: skip
    profile = tuple(flat["profile_steps"])
    if profile and not (len(profile) == 2 and _whole(profile) and profile[0] <= profile[1]):
        raise UserError(f"config.profile_steps={profile} must be the first and the last step of a trace, as 10,20")
    for field, (choice, values) in ONLY_WITH.items():
        if flat[field] != known[field] and flat[choice] not in values:
            raise UserError(f"config.{field}={flat[field]} is for config.{choice}={' or '.join(values)}, not "
                            f"{flat[choice]}")  # fmt: skip
    _check_fractions(flat, "schedule.boundaries")
    _check_task(flat)
    _check_sizes(flat)
    _check_finetuning(flat)


def _check_numbers(flat: Mapping[str, Any]) -> None:
    for field, value in flat.items():
        if not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise UserError(f"config.{field}={value} must be a finite number")
        least = 1 if field in FROM_ONE else 0
        if value < least and not field.startswith("model."):
            raise UserError(f"config.{field}={value} must be {least} or more")
    for field in BELOW_ONE:
        if flat[field] >= 1:
            raise UserError(f"config.{field}={flat[field]} must be below 1")
    for field, (most, words) in MOST_OF.items():
        if flat[field] > most:
            raise UserError(f"config.{field}={flat[field]} must be {words}")
    if flat["steps_scale"] == 0:
        raise UserError("config.steps_scale=0.0 must be above 0; it is the factor that a schedule was shrunk by")
    if 0 < flat["loss_jump"] < 1:  # a loss as it is on average would be a jump
        raise UserError(f"config.loss_jump={flat['loss_jump']} must be 0, for any finite loss, or 1 or more")
    warmup_error = flat["schedule.warmup_error"]
    if flat["schedule.warmup"] == "error" and not 0 < warmup_error <= 100:
        raise UserError(f"config.schedule.warmup_error={warmup_error} must be above 0 and at most 100, in percent; "
                        "the warm-up would never end, or not begin")  # fmt: skip
    if flat["seed"] >= 2**32:
        raise UserError(f"config.seed={flat['seed']} must be below 2**32")  # JAX's keys take no more bits
    if flat["steps"] >= 2**31:
        raise UserError(f"config.steps={flat['steps']} must be below 2**31")  # they are counted in int32


def _check_sizes(flat: Mapping[str, Any]) -> None:
    """Sizes of images that are cropped, for sets that are read from files."""
    sides = tuple(flat["data.shorter_side"])
    if not (len(sides) == 2 and _whole(sides) and sides[0] <= sides[1]):
        raise UserError(f"config.data.shorter_side={sides} must be the least and the largest, in pixels, as 256,480")
    sizes, size = tuple(flat["data.train_sizes"]), flat["data.image_size"]
    if not _whole(sizes):
        raise UserError(f"config.data.train_sizes={sizes} must be whole numbers of 1 or more")
    _check_fractions(flat, "data.size_boundaries")
    if len(flat["data.size_boundaries"]) != max(0, len(sizes) - 1):
        raise UserError(
            f"config.data.size_boundaries={tuple(flat['data.size_boundaries'])} must be one fewer than "
            f"config.data.train_sizes={sizes}: where each but the first begins"
        )
    if flat["data.name"] not in STREAMED and not flat["data.name"].startswith(TFDS):
        if sizes:
            raise UserError(f"config.data.train_sizes={sizes} is for {' and '.join(STREAMED)}, not {flat['data.name']}")
        # Once the weights are known, it may be theirs.
        chosen = flat["init_hash"] is None and size not in (0, base_config().data.image_size)
        if flat["task"] == "classification" and chosen:
            raise UserError(f"config.data.image_size={size} is for {' and '.join(STREAMED)}, not {flat['data.name']}, "
                            f"whose images have one size; config.data.resize={size} changes it")  # fmt: skip
        return
    trained = max(sizes or (size,)) if flat["data.crop"] != "aspect" else 0
    for field, pixels, least in (
        ("train_sizes" if sizes else "image_size", trained, sides[0]),
        ("image_size", size, flat["data.eval_shorter_side"] or size),
    ):
        if least < pixels:
            raise UserError(f"config.data.{field}={pixels} is more than the shorter side of {least} "
                            "that it is cropped from (config.data.shorter_side, eval_shorter_side)")  # fmt: skip


def _check_finetuning(flat: Mapping[str, Any]) -> None:
    """Checks the fields of fine-tuning, and those of the data that go with it."""
    if not 0 < flat["finetune.layer_decay"] <= 1:
        raise UserError(f"config.finetune.layer_decay={flat['finetune.layer_decay']} must be above 0 and at most 1")
    if flat["finetune.head_rate"] <= 0:
        raise UserError(f"config.finetune.head_rate={flat['finetune.head_rate']} must be above 0")
    if not 0 <= flat["data.held_out_share"] < 1:
        raise UserError(f"config.data.held_out_share={flat['data.held_out_share']} must be from 0 to below 1")
    if flat["data.held_out"] and flat["data.held_out_share"]:
        raise UserError("config.data.held_out is a number and held_out_share a share of the same: set one of them")
    if flat["data.folder"] is not None and flat["data.name"] not in (*FOLDERS, *BOX_SETS):
        raise UserError(
            f"config.data.folder is for config.data.name={', '.join((*FOLDERS, *BOX_SETS))}, not {flat['data.name']}"
        )
    if flat["init_from"] is not None:
        return
    if flat["model.name"] == "init_from":
        raise UserError("set config.init_from to the weights to start from, or config.model.name to a net's name")
    if flat["data.normalization"] == "weights":
        raise UserError("config.data.normalization=weights needs config.init_from, the weights to start from")
    if flat["data.image_size"] == 0:
        raise UserError("config.data.image_size=0 is that of the weights: it needs config.init_from")
    if flat["finetune.linear_probe"] or flat["finetune.frozen"] or flat["finetune.head"] == "keep":
        raise UserError("config.finetune.frozen, linear_probe and head=keep need config.init_from: the weights")


#: Sets that lie in a folder of the user's own.
FOLDERS = ("image_folder", "image_masks")

#: Fields that one task alone knows. Those of classification mix images or move their pixels without the mask.
OF_TASK = {
    "segmentation": ("segmentation.auxiliary_weight", "segmentation.class_weights", "data.mask_values",
                     "data.instances", "data.sbd", "data.scale", "data.scale_from"),
    "detection": ("detection.trained", "detection.proposals_from"),
    "classification": ("loss", "regularization.label_smoothing", "regularization.mixup", "regularization.cutmix",
                       "data.held_out", "data.random_erasing", "data.rand_augment.operations", "data.resize"),
}  # fmt: skip


def _check_task(flat: Mapping[str, Any]) -> None:
    """Checks that the set and the fields are those of the task."""
    task, name, defaults = flat["task"], flat["data.name"], flatten(base_config())
    for of, sets in (("segmentation", SETS), ("detection", BOX_SETS)):
        if (name in sets) != (task == of):
            raise UserError(f"config.data.name={name} is not for config.task={task}; sets for {of} are "
                            f"{', '.join(sets)}")  # fmt: skip
    for other, fields in OF_TASK.items():
        for field in fields:
            if other != task and flat[field] != defaults[field]:
                raise UserError(f"config.{field}={flat[field]} is for config.task={other}, not {task}")
    if flat["data.classes"] and task == "classification":
        raise UserError(f"config.data.classes={flat['data.classes']} is for segmentation and detection")
    if flat["data.repeats"] > 1 and task == "detection":
        raise UserError(f"config.data.repeats={flat['data.repeats']} is not for config.task=detection")
    if flat["detection.proposals_from"] is not None and flat["detection.trained"] != "regions":
        raise UserError(
            f"config.detection.proposals_from is for config.detection.trained=regions, not {flat['detection.trained']}"
        )
    scale = tuple(flat["data.scale"])
    if not (len(scale) == 2 and all(map(_finite, scale)) and 0 < scale[0] <= scale[1]):
        raise UserError(f"config.data.scale={scale} must be the least and the largest factor, as 0.5,2.0")
    weights = tuple(flat["segmentation.class_weights"])
    if not all(_finite(v) and v >= 0 for v in weights) or (weights and not any(weights)):
        raise UserError(f"config.segmentation.class_weights={weights} must be finite numbers of 0 or more, not all 0")


def _check_fractions(flat: Mapping[str, Any], field: str) -> None:
    values = tuple(flat[field])
    numbers = all(isinstance(v, float | int) for v in values)
    if not numbers or not all(0 < v < 1 for v in values) or any(b <= a for a, b in itertools.pairwise(values)):
        raise UserError(f"config.{field}={values} must be increasing fractions of the steps, between 0 and 1")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _whole(values: Any) -> bool:
    return all(type(v) is int and v > 0 for v in values)
