"""Whether a speed has been lost is asked of this machine's own reference."""

import json

import pytest

from benchmarks import regression
from benchmarks.docs_tables import machine
from resnet_jax.errors import UserError

FOUND = {"a": 2.0, "b": 1.0}


@pytest.fixture(autouse=True)
def reference(tmp_path, monkeypatch):
    monkeypatch.setattr(regression, "REFERENCE", tmp_path / "reference.json")
    return tmp_path / "reference.json"


def test_each_machine_has_its_own(reference):
    with pytest.raises(UserError, match="no reference for two cores, only for none: .*--record adds it"):
        regression.reference_of("two cores")
    regression.write_reference(FOUND, "two cores")
    regression.write_reference({"a": 9.0, "b": 9.0}, "a GPU")
    assert list(json.loads(reference.read_text())) == ["two cores", "a GPU"]
    assert "| a | 2.00 | 2.00 |" in regression.report(FOUND, "two cores")
    with pytest.raises(UserError, match="no reference for four cores, only for two cores, a GPU"):
        regression.report(FOUND, "four cores")


@pytest.mark.parametrize(("now", "slower"), [(1.72, False), (1.68, True)])
def test_fifteen_in_a_hundred_less_is_slower(now, slower):
    regression.write_reference(FOUND, "here")
    if slower:
        with pytest.raises(UserError, match="slower than the reference: a 1.68, was 2.00$"):
            regression.report({**FOUND, "a": now}, "here")
    else:
        regression.report({**FOUND, "a": now}, "here")


def test_other_ratios_are_refused():
    regression.write_reference(FOUND, "here")
    with pytest.raises(UserError, match="has other ratios"):
        regression.report({"a": 2.0}, "here")


def test_this_machine_has_a_name():
    assert " of " in machine() or " x " in machine()
