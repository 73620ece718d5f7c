"""Values that a config must not have, with what is said of them."""

import math

import pytest

from resnet_jax.config import base_config, from_dict, to_dict
from resnet_jax.errors import UserError
from resnet_jax.training.config_checks import validate_config

STREAMED = {"data.name": "image_folder"}
MASKS = {"task": "segmentation", "data.name": "image_masks", "data.folder": "x"}
BY_ERROR = {"schedule.warmup": "error"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "mse"}, "config.loss='mse' must be one of cross_entropy, binary_cross_entropy"),
        ({"optimizer.name": "adam"}, "must be one of sgd, lars, lamb"),
        ({"schedule.name": "linear"}, "must be one of steps, cosine, poly"),
        ({"data.repeats": 0}, "config.data.repeats=0 must be 1 or more"),
        ({"data.most_objects": 0}, "config.data.most_objects=0 must be 1 or more"),
        ({"data.colour_jitter": -0.1}, "config.data.colour_jitter=-0.1 must be 0 or more"),
        ({"data.colour_jitter": 1.1}, "config.data.colour_jitter=1.1 must be at most 1, where factors begin at 0"),
        ({"data.rand_augment.operations": -1}, "must be 0 or more"),
        ({"data.rand_augment.magnitude": 10.5}, "magnitude=10.5 must be at most 10, the end of each range"),
        ({"data.rand_augment.magnitude": -1.0}, "must be 0 or more"),
        ({"data.rand_augment.deviation": -0.5}, "must be 0 or more"),
        ({"data.rand_augment.probability": 1.5}, "a probability, at most 1"),
        ({"data.rand_augment.variant": "tf"}, "must be one of paper, timm"),
        ({"regularization.target_threshold": 0.2}, "target_threshold=0.2 is for config.loss=binary_cross_entropy"),
        ({"loss": "binary_cross_entropy", "regularization.target_threshold": 1.0}, "must be below 1"),
        ({"data.train_sizes": (16,)}, "is for imagenet and image_folder, not cifar10"),
        (STREAMED | {"data.train_sizes": (16, 0)}, r"train_sizes=\(16, 0\) must be whole numbers"),
        (STREAMED | {"data.train_sizes": (16.5,)}, "must be whole numbers"),
        (STREAMED | {"data.train_sizes": (16, 32)}, r"size_boundaries=\(\) must be one fewer than"),
        (STREAMED | {"data.size_boundaries": (0.5,)}, "must be one fewer than"),
        (STREAMED | {"data.train_sizes": (8, 16, 32), "data.size_boundaries": (0.5, 0.5)}, "increasing fractions"),
        (STREAMED | {"data.train_sizes": (8, 16), "data.size_boundaries": (1.0,)}, "increasing fractions"),
        (STREAMED | {"data.train_sizes": (8, 300), "data.size_boundaries": (0.5,)}, "train_sizes=300 is more than"),
        (STREAMED | {"data.image_size": 300}, "image_size=300 is more than the shorter side of 256"),
        (MASKS | {"data.resize": 64}, "data.resize=64 is for config.task=classification"),
        ({"data.image_size": 64}, "image_size=64 is for imagenet and image_folder, not cifar10.*data.resize=64"),
        ({"init_from": "x", "data.image_size": 64}, "image_size=64 is for imagenet and image_folder, not cifar10"),
        ({"optimizer.name": "lamb", "optimizer.nesterov": True}, "nesterov=True is for .*name=sgd or lars, not lamb"),
        ({"optimizer.trust_coefficient": 0.01}, "is for config.optimizer.name=lars, not sgd"),
        ({"schedule.power": 2.0}, "is for config.schedule.name=poly, not steps"),
        ({"data.mean": (0.5, 0.5, 0.5)}, "is for config.data.normalization=weights, not per_pixel_mean"),
        ({"schedule.boundaries": None}, r"config.schedule.boundaries=None must be of type tuple, as \(0.5, 0.75\)"),
        ({"batch_size": None}, "config.batch_size=None must be of type int, as 128 is"),
        ({"steps": 2**31}, "config.steps=2147483648 must be below"),
        ({"loss_jump": 0.5}, "config.loss_jump=0.5 must be 0, for any finite loss, or 1 or more"),
        ({"steps_scale": 0.0}, "config.steps_scale=0.0 must be above 0"),
        ({"optimizer.momentum": 1.0}, "config.optimizer.momentum=1.0 must be below 1"),
        (BY_ERROR | {"schedule.warmup_error": 0.0}, "warmup_error=0.0 must be above 0 and at most 100"),
        (BY_ERROR | {"schedule.warmup_error": 101.0}, "warmup_error=101.0 must be above 0 and at most 100"),
        (MASKS | {"data.scale": (0.5, math.inf)}, r"scale=\(0.5, inf\) must be the least and the largest factor"),
        (MASKS | {"segmentation.class_weights": (1.0, math.nan)}, "class_weights=.* must be finite numbers"),
        (MASKS | {"segmentation.class_weights": (1.0, math.inf)}, "class_weights=.* must be finite numbers"),
        (MASKS | {"segmentation.class_weights": (0.0, 0.0)}, "class_weights=.* not all 0"),
    ],
)
def test_wrong_values_are_named(fields, message):
    config = base_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        validate_config(config)


@pytest.mark.parametrize(
    "fields",
    [
        {"loss_jump": 0.0},
        {"loss_jump": 1.0},
        {"optimizer.momentum": 0.0},
        {"optimizer.name": "lars", "optimizer.nesterov": True, "optimizer.trust_coefficient": 0.01},
        {"init_from": "x", "data.image_size": 0},
        {
            "init_from": "x",
            "init_hash": "0",
            "data.image_size": 64,
            "data.normalization": "weights",
            "data.std": (1.0,),
        },
        BY_ERROR | {"schedule.warmup_error": 100.0},
        {"schedule.warmup": "linear", "schedule.warmup_error": 0.0},  # which only the warm-up by error reads
        MASKS | {"segmentation.class_weights": (0.0, 1.0), "data.normalization": "imagenet"},
    ],
)
def test_values_at_the_border_are_taken(fields):
    config = base_config()
    config.update_from_flattened_dict(fields)
    validate_config(config)


@pytest.mark.parametrize(
    "fields",
    [
        {"data.train_sizes": (128, 160, 224), "data.size_boundaries": (0.4, 0.8)},
        {"data.train_sizes": (320,), "data.crop": "aspect"},
        {"data.train_sizes": (160,), "data.image_size": 256},
    ],
)
def test_sizes_that_fit_are_taken_and_come_back_from_json(fields):
    config = base_config()
    config.update_from_flattened_dict(STREAMED | fields | {"data.rand_augment.magnitude": 7.0})
    validate_config(config)
    again = from_dict(to_dict(config))
    assert again.data.train_sizes == fields["data.train_sizes"]
    assert again.to_dict() == config.to_dict()
