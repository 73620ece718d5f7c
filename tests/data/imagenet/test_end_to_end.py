"""ImageNet from its files to its errors, with a narrow net at 32 pixels; `make imagenet-check` takes whole ones."""

import pytest

from resnet_jax.__main__ import main
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, prepare
from tests.data.imagenet.end_to_end import evaluated, killed_and_resumed
from tests.evaluation.conftest import no_launcher  # noqa: F401, a fixture

NARROW = ("model.stage_sizes=(1,)", "model.widths=(8,)")


def here(workdir, *arguments):
    """In this process, where JAX is awake."""
    assert main(list(arguments)) == 0


@pytest.mark.long
def test_prepared_trained_killed_and_tested_by_every_protocol(sample, tmp_path):
    data = tmp_path / "data"
    prepare(open_originals(sample, allow_partial=True), data, Recipe(per_shard=64), 1, lambda *a: None)
    killed = killed_and_resumed(data, "resnet18", tmp_path, 32, 8, NARROW)
    evaluated([killed, tmp_path / "whole"], 32, "32", command=here)
