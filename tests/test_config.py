"""The config: the paper's recipe, what makes two runs the same, and its way through JSON."""

import hashlib
import importlib
import json

import pytest

from configs.small_images import small_image_config
from resnet_jax.config import base_config, config_hash, differing_fields, flatten, from_dict, to_dict
from resnet_jax.errors import UserError
from resnet_jax.training.config_checks import validate_config


@pytest.mark.parametrize(
    ("net", "rule"),
    [("plain20", "none"), ("resnet56", "none"), ("resnet110", "error"), ("cifar_resnet1202", "error"),
     ("preact_resnet164", "steps"), ("preact_resnet1001", "steps")],
)  # fmt: skip
def test_deep_nets_warm_up(net, rule):
    assert small_image_config(net).schedule.warmup == rule


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
@pytest.mark.parametrize("net", ["plain20", "cifar_resnet56", "preact_resnet110"])
def test_every_config_file_takes_every_cifar_net(name, net):
    config = importlib.import_module(f"configs.{name}").get_config(net)
    assert config.data.name == name
    assert config.model.name == "cifar_" + net.removeprefix("cifar_")


def test_every_config_has_every_field_of_the_base():
    """A field that one file adds or lacks would break records and overrides."""
    for name in ("digits", "cifar10", "cifar100", "imagenet", "imagenet_modern", "finetune"):
        assert flatten(importlib.import_module(f"configs.{name}").get_config()).keys() == flatten(base_config()).keys()


def test_hash_tells_runs_apart_but_not_their_execution():
    config, other = base_config(), base_config()
    other.data.data_dir, other.steps_per_dispatch = "/elsewhere", 7
    assert config_hash(config) == config_hash(other)
    assert differing_fields(config, other) == {}
    for field, value in (("seed", 1), ("model.shortcut", "B"), ("schedule.boundaries", (0.5,)), ("log_every", 1)):
        other = base_config()
        other.update_from_flattened_dict({field: value})
        assert config_hash(config) != config_hash(other), field
        assert list(differing_fields(config, other)) == [field]


@pytest.mark.parametrize(
    ("name", "net", "expected"),
    [
        ("cifar10", "resnet20", "ae48e8676361"),
        ("cifar10", "resnet110", "987033e01803"),
        ("digits", "plain56", "28b361160258"),
    ],
)
def test_hashes_of_published_configs_stay(name, net, expected):
    """They name committed records. A new field with a neutral default changes none; a changed default must not pass."""
    assert config_hash(importlib.import_module(f"configs.{name}").get_config(net)) == expected
    everything = json.dumps(to_dict(base_config()), sort_keys=True)
    assert hashlib.sha256(everything.encode()).hexdigest()[:12] == "0cc45854de5b", (
        "a default changed, or a field is new"
    )


def test_unknown_and_missing_fields_are_said():
    """A config made in Python is not locked: a misspelt field would leave the default in force."""
    config = base_config()
    config.optimizer.learning_rat = 0.5
    with pytest.raises(UserError, match=r"unknown config field 'optimizer.learning_rat'; did you mean optimizer.learn"):
        validate_config(config)
    config = base_config()
    del config.batch_size
    with pytest.raises(UserError, match="lacks batch_size"):
        validate_config(config)


def test_round_trip_through_json():
    config = base_config()
    config.model.stage_sizes, config.model.bn_group_size, config.seed = (1, 2, 3), 64, 5
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert config_hash(again) == config_hash(config)
    assert again.model.stage_sizes == (1, 2, 3)


def test_a_record_with_unknown_fields_is_refused():
    record = to_dict(base_config()) | {"color": "blue"}
    with pytest.raises(UserError, match="color"):
        from_dict(record)
