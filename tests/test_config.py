"""The config: the paper's recipe, what makes two runs the same, and its way through JSON."""

import importlib
import json
from pathlib import Path

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
    for name in ("digits", "cifar10", "cifar100", "imagenet", "imagenet_modern", "finetune", "voc", "nuclei"):
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


@pytest.mark.parametrize("net", ["plain20", "plain56", "resnet20", "resnet56"])
def test_committed_records_keep_their_hashes(net):
    """A record holds every field. A default that changed would no longer be the record's, and show in its hash."""
    folder = Path(__file__).parents[1] / "results/digits_ablation" / net
    recorded = json.loads((folder / "config.json").read_text())
    assert config_hash(from_dict(recorded)) == json.loads((folder / "result.json").read_text())["config_hash"]
    today = flatten(to_dict(importlib.import_module("configs.digits").get_config(net)))
    assert {field: today[field] for field in flatten(recorded)} == flatten(recorded)


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
