"""What computes a run is part of it: the same layers on the same devices, or a refusal that says how to go on."""

import jax
import pytest

from resnet_jax.errors import Stopped, UserError
from resnet_jax.kernels import build
from resnet_jax.training.computation import go_on
from resnet_jax.training.loop import fit
from tests.training.interruptions import Signals
from tests.training.test_early_stopping import Notes

HERE = {"devices": {"platform": "cpu", "devices": 1}, "layers": "kernels-12", "jaxlib": "1"}


@pytest.mark.long
def test_a_run_does_not_change_its_layers_unasked(kernels, tiny_config, tmp_path, monkeypatch):
    """It begins with compiled layers and goes on without a compiler."""
    config, one = tiny_config(log_every=1), jax.devices()[:1]
    with pytest.raises(Stopped):
        fit(config, tmp_path / "run", Signals(3, 15), devices=one)
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.library.cache_clear()
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"up to step 4 .*\(layers: kernels-\w+ there, XLA here\).*--force=layers"):
        fit(config, tmp_path / "run", devices=one)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    notes = Notes()
    result = fit(config, tmp_path / "run", notes, devices=one, force=["layers"])
    assert any("since step 4 the run has other layers" in note for note in notes.said)
    assert [(part["step"], part["layers"][:7]) for part in result.computed] == [(0, "kernels"), (4, "XLA")]
    assert fit(config, tmp_path / "run", devices=one) == result, "as it is on disk"


def test_what_may_change():
    began = go_on((), 0, HERE)
    assert began == [{"step": 0, **HERE}]
    assert go_on(began, 50, HERE) == began
    with pytest.raises(UserError, match=r"jaxlib: 1 there, 2 here.*--force=jaxlib"):
        go_on(began, 50, HERE | {"jaxlib": "2"})
    with pytest.raises(UserError, match="--force=layers"):
        go_on(began, 50, HERE | {"jaxlib": "2", "layers": "XLA"}, force=["jaxlib"])
    moved = {"devices": {"platform": "cpu", "devices": 4}, "layers": "XLA", "jaxlib": "1"}
    found = go_on(began, 50, moved)
    assert found == [*began, {"step": 50, **moved}]
    # Back before anything was computed there.
    assert go_on(found, 50, HERE) == [*began, {"step": 50, **HERE}]
    # Checkpoints of early versions do not say what computed them.
    assert go_on((), 50, HERE) == [{"step": 50, **HERE}]
