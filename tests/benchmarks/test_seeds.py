"""The benchmark of several seeds at once."""

import json

import pytest

from benchmarks import seeds
from benchmarks.__main__ import main
from benchmarks.ours import name_and_size
from resnet_jax.errors import UserError


def test_a_net_and_the_side_of_its_images():
    assert name_and_size("cifar_resnet20@8") == ("cifar_resnet20", 8)
    assert name_and_size("cifar_resnet20", 16) == ("cifar_resnet20", 16)
    for text in ("a@", "a@0", "a@x"):
        with pytest.raises(UserError, match="behind @ stands the side of images"):
            name_and_size(text)


def test_the_ratio_is_one_by_one_by_at_once():
    """Two runs that take a step in 1.5 times the time of one: 4/3; the report's last line has the best."""
    base = {"model": "a", "pixels": 8, "least": 1.0, "most": 2.0, "images_per_second": 1.0}
    rows = [
        {**base, "seeds": 1, "packing": "alone", "ratio": 1.0, "step_seconds": 0.010},
        {**base, "seeds": 2, "packing": "vmap", "ratio": 4 / 3, "step_seconds": 0.015},
    ]
    text = seeds.report(rows, 128, "float32", False)
    assert "| a | 8 | 1 | alone | 10.0 | 1 | 1 - 2 | - |" in text
    assert "| a | 8 | 2 | vmap | 15.0 | 1 | 1 - 2 | 1.33 |" in text
    assert json.loads(seeds.report(rows, 128, "float32", True))["ratio"] == 4 / 3


def test_the_command(capsys):
    options = ["--model=cifar_resnet20@8", "--seeds=2", "--batch_size=8", "--seconds=0.01", "--rounds=1", "--json"]
    assert main(["seeds", "--packing=vmap", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["seeds"], row["packing"]) for row in found["rows"]] == [(1, "alone"), (2, "vmap")]
    alone, packed = found["rows"]
    # Of one round: rate times 2 seeds, over that of one.
    assert packed["ratio"] == pytest.approx(packed["images_per_second"] / alone["images_per_second"])
    assert main(["seeds", "--packing=tight"]) == 2
    assert "unknown packing 'tight'" in capsys.readouterr().err
