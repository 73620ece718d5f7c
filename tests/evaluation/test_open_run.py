"""Weights tested on the data of a config: the published errors of the reference weights, and what does not fit."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from configs.cifar10 import get_config
from resnet_jax.errors import UserError
from resnet_jax.evaluation.evaluate_runs import evaluate_runs as run_tests
from resnet_jax.evaluation.open_run import open_weights
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.interop.weights import save_weights
from resnet_jax.training.load_weights import import_weights, load_weights, weights_of_run
from resnet_jax.training.loop import fit

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference weights and CIFAR-10 are not here (../shared)")
@pytest.mark.parametrize("file, error", [("resnet20-12fca82f.th", 8.27), ("resnet32-d509ac18.th", 7.37)])
def test_the_reference_weights_have_their_published_error(tmp_path, file, error):
    folder = save_weights(import_weights(SHARED / "reference_weights" / file).weights, tmp_path / "w")
    config = get_config("resnet20")
    config.data.data_dir, config.data.normalization = str(SHARED / "tensorflow_datasets"), "weights"
    found = evaluate(open_weights(folder, config))
    assert (found.test_error, found.examples) == (error, 10_000)  # 827 and 737 of 10,000 images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run on digits: its config and its folder."""
    from configs.digits import get_config as digits

    config = digits("resnet20")
    config.model.stage_sizes, config.model.widths = (1, 1, 1), (4, 8, 8)
    config.steps = config.eval_every = config.log_every = config.checkpoint_every = 4
    folder = tmp_path_factory.mktemp("run")
    fit(config, folder)
    return config, folder


def test_weights_of_a_run_are_tested_as_the_run_is(trained, tmp_path):
    config, folder = trained
    exported = save_weights(weights_of_run(folder), tmp_path / "w")
    for kind in (config.data.normalization, "weights"):
        changed = config.copy_and_resolve_references()
        changed.data.normalization, changed.model.name = kind, "cifar_resnet110"
        warned = []
        run = open_weights(exported, changed, warned.append)
        assert dataclasses.asdict(evaluate(run)) == dataclasses.asdict(evaluate(folder)) and not warned
    alone = run_tests([folder], "ten_crop")
    both = run_tests([run, run], "ten_crop")  # an ensemble of a net with itself
    np.testing.assert_allclose(both.scores, alone.scores, atol=1e-6)


def test_dtype_and_precision_are_the_configs(trained):
    config, folder = trained
    config = config.copy_and_resolve_references()
    config.dtype, config.precision = "bfloat16", "highest"
    model = open_weights(folder, config).trainer.model
    assert (model.dtype, model.precision) == ("bfloat16", "highest")


def test_another_normalisation_is_doubted_and_counts(trained):
    config, folder = trained
    config = config.copy_and_resolve_references()
    config.data.normalization = "per_channel"
    warned = []
    run = open_weights(folder, config, warned.append)
    assert len(warned) == 1 and "--config.data.normalization=weights" in warned[0]
    assert evaluate(run).test_loss != evaluate(folder).test_loss


def test_classes_of_other_names_are_doubted(trained, tmp_path):
    """As of weights whose classes were named in another order than those of the data."""
    config, folder = trained
    weights = load_weights(folder)
    assert weights.classes == tuple("0123456789")
    for classes, said in ((("0", "2", "1", *"3456789"), ["output 1 of .* is '2', and class 1 of digits is '1'"]),
                          (weights.classes, []), ((), [])):  # fmt: skip
        place = tmp_path / f"{len(classes)} names, {len(said)} sentences"
        named = save_weights(dataclasses.replace(weights, classes=classes), place)
        warned = []
        open_weights(named, config, warned.append)
        assert len(warned) == len(said) and all(map(re.search, said, warned)), warned


def test_what_does_not_fit_is_said(trained, tmp_path):
    config, folder = trained
    weights = load_weights(folder)
    config = config.copy_and_resolve_references()
    config.data.name = "synthetic"
    with pytest.raises(UserError, match="images of 1 channel"):
        open_weights(folder, config)
    config.data.name, config.data.normalization = "digits", "weights"
    large = dataclasses.replace(weights, mean=np.zeros((9, 9, 1), np.float32))
    with pytest.raises(UserError, match=r"mean image of \(9, 9, 1\)"):
        open_weights(save_weights(large, tmp_path / "large"), config)
    head = {"kernel": np.zeros((8, 3), np.float32), "bias": np.zeros(3, np.float32)}
    three = dataclasses.replace(
        weights, fields={**weights.fields, "num_classes": 3},
        variables={**weights.variables, "params": {**weights.variables["params"], "head": head}},
    )  # fmt: skip
    with pytest.raises(UserError, match="3 classes and digits has 10"):
        open_weights(save_weights(three, tmp_path / "three"), config)
    with pytest.raises(UserError, match="of cifar_resnet20, not of resnet50"):
        load_weights(folder, "resnet50")
