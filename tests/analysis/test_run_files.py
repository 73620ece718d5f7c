"""Opening a run, and the JSON files beside it."""

import json

import pytest

from configs.cifar10 import get_config
from resnet_jax.analysis.run_files import is_plain, net_name, open_analysed, read_json, resume, write_json
from resnet_jax.errors import UserError
from resnet_jax.training.run_folder import RunFolder


def test_a_run_opens_at_its_last_step(residual):
    run = open_analysed(residual)
    assert run.step == 6
    assert set(run.variables) == {"params", "batch_stats"}


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(residual):
    for path in (residual / "checkpoints/6").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint 6 cannot be read .*; the one before it is analysed"):
        assert open_analysed(residual).step == 3


def test_what_cannot_be_opened(tmp_path, tiny_config):
    with pytest.raises(UserError, match="holds no run"):
        open_analysed(tmp_path)
    RunFolder(tmp_path).open(tiny_config())
    with pytest.raises(UserError, match="no checkpoint yet"):
        open_analysed(tmp_path)


@pytest.mark.parametrize(
    ("net", "name", "plain"),
    [
        ("plain56", "plain-56", True),
        ("resnet110", "ResNet-110", False),
        ("preact_resnet164", "preact ResNet-164", False),
    ],
)
def test_names(net, name, plain):
    config = get_config(net)
    assert (net_name(config), is_plain(config)) == (name, plain)
    config.model.shortcut = "none"
    assert is_plain(config)


@pytest.mark.parametrize(("net", "name"), [("vgg16", "VGG-16"), ("resnext50_32x4d", "resnext50_32x4d")])
def test_a_net_of_another_family_is_not_called_a_resnet(net, name):
    config = get_config("plain56")
    config.model.name = net
    assert net_name(config) == name


def test_json(tmp_path):
    path = write_json(tmp_path / "a.json", {"x": [1, None]})
    assert read_json(path) == {"x": [1, None]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(UserError, match="there is no"):
        read_json(tmp_path / "b.json")
    path.write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        read_json(path)
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "no" / "a.json", 1)


def test_resume_is_for_the_same_settings(tmp_path):
    path = tmp_path / "a.json"
    assert resume(path, {"points": 3}) is None
    path.write_text(json.dumps({"settings": {"points": 3}, "loss": []}))
    assert resume(path, {"points": 3})["loss"] == []
    with pytest.raises(UserError, match=r"points: 3 there, 5 here"):
        resume(path, {"points": 5})
