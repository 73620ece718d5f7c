"""`python -m resnet_jax compile`."""

import json

import jax
import pytest

from resnet_jax.aot import topologies
from resnet_jax.aot.topologies import CHIPS
from resnet_jax.cli import compile as verb
from resnet_jax.errors import UserError

DIGITS = "--config=configs/digits.py:resnet20"


@pytest.fixture
def two_devices(monkeypatch):
    """CPUs stand for the chips: their compiler is at hand everywhere."""
    monkeypatch.setattr(topologies, "find", lambda topology: (CHIPS["v5e"], jax.devices()[:2]))


def test_it_says_what_both_steps_take(two_devices, capsys):
    verb.main([DIGITS, "--topology=v5e:1x2"])
    output = capsys.readouterr().out
    assert "cifar_resnet20, float32, batch 64 on v5e:1x2: 32 for each of 2 devices; 1 step of a dispatch" in output
    for part in ("training step, of each of 2 v5e", "evaluation step", "peak memory", "roofline", "all-reduce"):
        assert part in output


def test_one_json_object(two_devices, capsys):
    verb.main([DIGITS, "--topology=v5e:1x2", "--json", "--noevaluation"])
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["devices"], found["batch_size"]) == ("cifar_resnet20", 2, 64)
    step = found["training_step"]
    assert step["peak_bytes"] > 0 and step["bound_seconds"] > 0 and step["collectives"]
    assert "evaluation_step" not in found


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([DIGITS], "needs --config and --topology"),
        (["--topology=v5e:2x2"], "needs --config and --topology"),
        ([DIGITS, "--topology=v7:2x2"], "unknown chip 'v7'"),
        ([DIGITS, "--topology=v5e:2x2", "more"], "takes no argument 'more'"),
        ([DIGITS, "--topology=v5e:2x2", "--config.data.nam=x"], "unknown config field 'data.nam'"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        verb.main(arguments)


def test_what_devices_cannot_share(two_devices):
    with pytest.raises(UserError, match="batch_size=63"):
        verb.main([DIGITS, "--topology=v5e:1x2", "--config.batch_size=63", "--config.model.bn_group_size=0"])


def test_a_step_that_does_not_fit(two_devices, monkeypatch):
    def fail(lowered):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.33G of 15.75G hbm. Exceeded"
        )

    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    with pytest.raises(UserError, match=r"16.33 GiB of a device's 15.75, 0.58 more; what helps: --config.model.remat"):
        verb.main([DIGITS, "--topology=v5e:1x2"])
