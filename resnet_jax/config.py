"""The fields of a run with their defaults, and what makes two runs the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from resnet_jax.errors import UserError

#: Fields that change how a run is carried out, but not what comes out of it, beyond rounding.
EXECUTION_FIELDS = frozenset(
    {
        "init_from",  # a place; init_hash says what lies there
        "detection.proposals_from",
        "data.data_dir",
        "data.workers",
        "model.scan",
        "model.fold_norm",
        "steps_per_dispatch",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "profile_steps",
    }
)


def base_config() -> ConfigDict:
    """Returns a config with every field of a run, at its default.

    The defaults never change, because `config_hash` leaves them out. The papers' recipes are in configs/.
    """
    placeholder = config_dict.placeholder
    return ConfigDict(
        {
            "seed": 0,
            "steps": 64_000,
            "steps_scale": 1.0,  # says that the schedule was shrunk by this factor; changes nothing by itself
            "batch_size": 128,  # over all devices
            "accumulate": 1,  # micro-batches of one step, for batches that do not fit the devices
            # "cross_entropy" of the softmax, or "binary_cross_entropy": each class against the rest, the mean of all.
            "loss": "cross_entropy",
            # What is trained for: "classification", "segmentation" or "detection" (docs/segmentation.md, detection.md).
            "task": "classification",
            "segmentation": {
                "auxiliary_weight": 0.4,  # of the loss of model.aux_head (Zhao et al. 2017, section 3.3)
                "class_weights": (),  # factor on the loss of each class's pixels; unset: 1
            },
            "detection": {
                # Whose losses count: "joint": of the RPN and of regions; "rpn" or "regions": those alone, in the four
                # steps of alternating training.
                "trained": "joint",
                # Weights, or a run, whose net proposes the regions, and what they are, filled in when the run begins;
                # unset: the net itself does.
                "proposals_from": placeholder(str),
                "proposals_hash": placeholder(str),
            },
            "dtype": "float32",  # of the computation: float32 or bfloat16; parameters and statistics are float32
            # Of products on a TPU or GPU: "default", "high" or "highest", as in jax.lax.Precision (docs/fidelity.md).
            "precision": "default",
            # Fine-tuning (docs/finetuning.md): the weights to start from, a folder of weights or of a run, and what
            # they are, filled in when the run begins. `model.name` "init_from", `data.normalization` "weights": theirs.
            "init_from": placeholder(str),
            "init_hash": placeholder(str),
            "finetune": _finetune(),
            # Evaluations without a new lowest error until the run ends, with the best weights; 0: off. Never on tests.
            "early_stopping": {"patience": 0},
            "model": _model(),
            "data": _data(),
            "regularization": _regularization(),
            "optimizer": _optimizer(),
            "schedule": _schedule(),
            "eval_every": 400,  # steps between evaluations
            "log_every": 100,  # steps that one training line of metrics.jsonl averages
            "checkpoint_every": 2000,
            "checkpoint_minutes": 0.0,  # 0, or: also at the first training line after so many minutes
            "keep_checkpoints": 2,  # the newest; the best is kept besides
            # What to do when a loss or an update is not finite, or a loss is more than `loss_jump` times what it was
            # on average and what guessing gives (0: any finite loss will do): "stop", or "rollback": go back to the
            # newest checkpoint and leave out the batch.
            "on_nan": "stop",
            "loss_jump": 10.0,
            "profile_steps": (),  # (first, last) step of a profiler trace
            "steps_per_dispatch": 0,  # 0: on GPU and TPU up to 100 for sets in memory, 1 for files; 1 on CPU
        }
    )


def _finetune() -> dict[str, Any]:
    """Fine-tuning (docs/finetuning.md): what of the weights in `init_from` is trained, and how fast."""
    return {
        "head": "auto",  # "new", "keep", or "auto": kept if the weights are of the same classes
        "frozen": "",  # parts that stay as they are, their batch-norm statistics too: "stem,stage1,stage2/*1"
        "linear_probe": False,  # everything but the head stays as it is
        "freeze_statistics": False,  # batch norms use and keep their running statistics
        "layer_decay": 1.0,  # factor on the learning rate for each stage from the head down
        "head_rate": 1.0,  # factor on the head's learning rate
    }


def _model() -> dict[str, Any]:
    """A net's name, and fields of it to override: unset ones are the net's own (resnet_jax/models)."""
    placeholder = config_dict.placeholder
    return {
        "name": "cifar_resnet20",
        "stage_sizes": placeholder(tuple),
        "widths": placeholder(tuple),
        "block": placeholder(str),
        "stem": placeholder(str),
        "groups": placeholder(int),
        "width_per_group": placeholder(int),
        "stem_width": placeholder(int),
        "unit_dropout": placeholder(float),
        "shortcut": placeholder(str),
        "activation": placeholder(str),
        "stride_on": placeholder(str),
        "zero_init_last": placeholder(bool),
        "init_mode": placeholder(str),
        "bn_group_size": placeholder(int),
        "shortcut_scale": placeholder(float),
        "residual_scale": placeholder(float),
        "gate_bias": placeholder(float),
        "shortcut_dropout": placeholder(float),
        "dropout": placeholder(float),
        "shortcut_zeros": placeholder(str),
        "stem_norm": placeholder(bool),
        "norm_epsilon": placeholder(float),
        "padding": placeholder(str),
        "stochastic_depth": placeholder(float),
        "stochastic_depth_per": placeholder(str),
        "remat": placeholder(bool),
        "scan": placeholder(bool),
        "fold_norm": placeholder(bool),
        "output_stride": placeholder(int),
        "head": placeholder(str),
        "head_width": placeholder(int),
        "aux_head": placeholder(bool),
        "hidden": placeholder(int),  # of VGG, as the next ones are of detectors; see models/
        "shared_stages": placeholder(int),
        "anchor_sizes": placeholder(tuple),
        "anchor_ratios": placeholder(tuple),
        "rpn_stride": placeholder(int),
        "rpn_features": placeholder(int),
        "rpn_anchors": placeholder(int),
        "inside_anchors": placeholder(bool),
        "rpn_threshold": placeholder(float),
        "train_proposals": placeholder(tuple),
        "test_proposals": placeholder(tuple),
        "smallest_proposal": placeholder(float),
        "regions": placeholder(int),
        "foreground": placeholder(float),
        "region_pool": placeholder(str),
        "region_size": placeholder(int),
        "context": placeholder(bool),
        "nms_threshold": placeholder(float),
        "least_score": placeholder(float),
        "detections": placeholder(int),
        "anchor_grid": placeholder(str),
        "region_beta": placeholder(float),
        # Of those on a pyramid; see models/detection/fpn.py.
        "finest_stage": placeholder(int),
        "fpn_features": placeholder(int),
        "head_features": placeholder(int),
    }


def _data() -> dict[str, Any]:
    """The set, and what is done to its images."""
    placeholder = config_dict.placeholder
    return {
        "name": "cifar10",
        "data_dir": placeholder(str),  # where the set lies (docs/data.md); unset: CIFAR is downloaded on first use
        "folder": placeholder(str),  # of image_folder: class folders, or train/ and val/ or test/ with such
        "held_out": 0,  # training examples to evaluate on instead of the test set (the paper: 5000)
        "held_out_share": 0.0,  # or: the share of each class, where there is no such set
        "eval_split": "auto",  # test, validation, held_out; "auto": the first of them that there is
        "normalization": "per_pixel_mean",  # or per_channel, imagenet, weights
        "mean": (),  # of each channel, filled in with init_from
        "std": (),
        "padding": 4,  # pixels on each side before a random crop
        "flip": True,
        # Off in both CIFAR recipes; 0.1 in the 2015 paper's for ImageNet ("the standard color augmentation").
        "colour_pca": 0.0,  # deviation of shifts along the colours' principal components
        "colour_jitter": 0.0,  # brightness, contrast, saturation: factors in 1 - it to 1 + it (fb.resnet.torch: 0.4)
        "random_erasing": 0.0,  # probability that an image loses a rectangle (Zhong et al. 2020: 0.5)
        "repeats": 1,  # times that an image stands in a row, each changed anew (Hoffer et al. 2020)
        # Cubuk et al. 2020; see data/rand_augment.py. Off in the papers' recipes: 0 operations.
        "rand_augment": {
            "operations": 0,  # 2 there
            "magnitude": 9.0,  # of 10, the ends of all ranges
            "deviation": 0.0,  # of the magnitude, drawn for each image and operation
            "probability": 1.0,  # that an operation that was drawn is carried out
            "variant": "paper",  # or "timm": the operations of timm's, which Wightman et al. 2021 used
        },
        # Of sets in memory, whose images have one size.
        "resize": 0,  # to so many pixels of a side; 0: as they are
        "rgb": False,  # repeat the channel of grey images three times
        # Of sets that are read from files (imagenet, image_folder), whose images have all sizes.
        # Pixels of a side that is tested on, and trained on but for `train_sizes`; 0: those of `init_from`.
        "image_size": 224,
        # Other sizes to train on, one after another; each but the first begins at its fraction of `steps`.
        "train_sizes": (),  # such as (128, 192, 224)
        "size_boundaries": (),  # such as (0.4, 0.8)
        # "scale": a crop after the shorter side is resized to one in `shorter_side` at random (2015, section
        # 3.4); "aspect": 8 to 100 % of the area at a ratio of 3/4 to 4/3 (Szegedy et al. 2014); "center": the crop
        # that is evaluated, or with another `shorter_side` than this, of the first of these.
        "crop": "scale",
        "shorter_side": (256, 480),
        "eval_shorter_side": 256,  # before the centre crop; 0: 8/7 of image_size
        "workers": 0,  # threads that decode; 0: one for each core
        # Of images with boxes, whose shorter side gets `image_size` pixels: boxes of a training image, at most.
        "most_objects": 128,
        # Of images with a mask, which has the class of each pixel (docs/segmentation.md).
        "classes": (),  # names of the classes, by label, where the set has none
        "mask_values": (),  # pixel value of each class in the masks; unset: its label. Others are ignored
        "instances": False,  # take instances/ for masks: 0 is the background, every other value the foreground
        "sbd": placeholder(str),  # the folder `dataset` of SBD, whose masks are added to PASCAL VOC's
        "scale": (0.5, 2.0),  # least and largest factor on the size of a training image ahead of its crop
        "scale_from": 0,  # the shorter side in pixels that the factor is of; 0: the image's own
    }


def _regularization() -> dict[str, Any]:
    """None of it is in the papers' recipes: 0 is off."""
    return {
        "label_smoothing": 0.0,  # share of a target that all classes have alike (Szegedy et al. 2016: 0.1)
        "mixup": 0.0,  # alpha of Zhang et al. 2018
        "cutmix": 0.0,  # alpha of Yun et al. 2019; with mixup on too, a batch gets either
        # Of binary cross-entropy: targets above it count as 1 and others as 0, so that both images of a mix are
        # there; 0: targets are as mixed (Wightman et al. 2021, section 3: 0.2).
        "target_threshold": 0.0,
        # Parameters and statistics are averaged as average = decay * average + (1 - decay) * new after each
        # step, and the average is what is evaluated.
        "ema_decay": 0.0,
    }


def _optimizer() -> dict[str, Any]:
    """The update's rule."""
    return {
        "name": "sgd",  # or for very large batches lars (You et al. 2017) or lamb (You et al. 2020)
        "learning_rate": 0.1,
        # The rate is for this batch size and scales with the batch (Goyal et al. 2017); 0: it does not scale.
        "base_batch_size": 0,
        "momentum": 0.9,  # beta_1 of lamb
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay_scope": "all",  # every parameter, or "kernels" alone
        "trust_coefficient": 0.001,  # of lars
    }


def _schedule() -> dict[str, Any]:
    """The learning rate over the steps."""
    return {
        # "steps": the rate is multiplied by `factor` at these fractions of `steps`: 32k and 48k of 64k.
        # "cosine": half a cosine from the rate to 0 (Loshchilov and Hutter 2017, equation 5), without them.
        # "poly": the rate times (1 - step / steps) ** `power` (Liu et al. 2015, "ParseNet").
        "name": "steps",
        "boundaries": (0.5, 0.75),
        "factor": 0.1,
        "power": 0.9,
        # "steps": `warmup_rate` for `warmup_steps`; "error": until the training error is below
        # `warmup_error` percent (the paper's rule for 110 layers: "about 400 iterations"); "linear": from
        # `warmup_rate` up to the rate in `warmup_steps` (Goyal et al. 2017).
        "warmup": "none",
        "warmup_rate": 0.01,
        "warmup_steps": 400,
        "warmup_error": 80.0,
    }


def model_overrides(config: ConfigDict) -> dict[str, Any]:
    """The fields of the net that the config sets, without its name."""
    return {k: v for k, v in config.model.items() if k != "name" and v is not None}


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """`{"data.name": "cifar10", ...}`, sorted by name."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return dict(sorted(flat.items()))


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON holds it: nested dicts, lists for tuples."""
    return json.loads(config.to_json())


def from_dict(record: Mapping[str, Any]) -> ConfigDict:
    """The config that `to_dict` wrote; fields that the record lacks, as older ones may, take their defaults.

    Raises:
      UserError: for a field that no config has.
      TypeError, ValueError, OverflowError: for a value of another type than the field has.
    """
    config = base_config()
    known = flatten(config)
    for field, value in flatten(record).items():
        if field not in known:
            raise UserError(f"the recorded config has a field {field!r} that this version does not know")
        config.update_from_flattened_dict({field: tuple(value) if isinstance(value, list) else value})
    return config


def config_hash(config: ConfigDict) -> str:
    """12 hexadecimal digits that are the same for two configs that describe the same run, its seed included.

    Fields that have their default do not enter, so that a field added later leaves the hashes of earlier runs as they
    are. A default itself must therefore never change; a test pins them.
    """
    defaults = flatten(to_dict(base_config()))
    fields = {k: v for k, v in flatten(to_dict(config)).items() if k not in EXECUTION_FIELDS and v != defaults[k]}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def differing_fields(one: ConfigDict, other: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configs describe different runs, with both values."""
    a, b = flatten(to_dict(one)), flatten(to_dict(other))
    names = sorted((a.keys() | b.keys()) - EXECUTION_FIELDS)
    return {k: (a.get(k), b.get(k)) for k in names if a.get(k) != b.get(k)}
