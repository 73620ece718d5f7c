"""A folder of weights: what is written is what is read, and damage is said."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open

from resnet_jax.config import base_config
from resnet_jax.errors import UserError
from resnet_jax.interop.weights import Weights, read_weights, save_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.load_weights import weights_of_run
from resnet_jax.training.loop import fit

FIELDS = {"stage_sizes": (1, 1), "widths": (4, 8), "num_classes": 3}


def tiny() -> Weights:
    """A net of two units with random variables."""
    model = create_model("cifar_resnet20", **FIELDS)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    mean, std = rng.normal(size=(8, 8, 3)).astype(np.float32), rng.uniform(0.5, 2, 3).astype(np.float32)
    more = (("a", "b", "ç"), {"file": "x.th"}, 9, "torchvision")
    return Weights("cifar_resnet20", FIELDS, variables, 8, mean, std, *more)


def test_every_bit_comes_back(tmp_path):
    weights = tiny()
    found = read_weights(save_weights(weights, tmp_path / "w"))
    jax.tree.map(np.testing.assert_array_equal, found.variables, weights.variables)
    np.testing.assert_array_equal(found.mean, weights.mean)
    np.testing.assert_array_equal(found.std, weights.std)
    assert (found.shorter_side, found.resizing) == (9, "torchvision")
    assert (found.model, found.fields, found.image_size) == (weights.model, weights.fields, 8)
    assert (found.classes, found.source, found.num_classes) == (weights.classes, weights.source, 3)


def test_the_file_is_plain_safetensors_in_the_projects_names(tmp_path):
    save_weights(tiny(), tmp_path)
    with safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        assert {"params/stem/conv/kernel", "batch_stats/stage2/block1/bn2/var", "params/head/bias"} < set(file.keys())
        assert file.get_tensor("params/stem/conv/kernel").shape == (3, 3, 3, 4)


@pytest.mark.parametrize("damage", ["cut", "no tensors", "no json", "wrong json"])
def test_damage_is_said(tmp_path, damage):
    folder = save_weights(tiny(), tmp_path / "w")
    tensors, description = folder / "weights.safetensors", folder / "weights.json"
    if damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:1000])
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "no json":
        description.unlink()
    else:
        description.write_text(json.dumps({"model": "cifar_resnet20"}))
    with pytest.raises(UserError, match="holds no weights" if damage == "no json" else "damaged"):
        read_weights(folder)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*weights"):
        save_weights(tiny(), tmp_path / "file" / "w")


def test_a_run_gives_its_weights_without_its_data(tmp_path, monkeypatch):
    config = base_config()
    config.data.name, config.model.stage_sizes, config.model.widths = "digits", (1, 1), (4, 8)
    config.steps = config.eval_every = config.log_every = config.checkpoint_every = 2
    config.batch_size = 16
    fit(config, tmp_path / "run")
    monkeypatch.setattr("resnet_jax.data.pipeline.load_dataset", lambda *a, **k: pytest.fail("opened the data"))
    weights = weights_of_run(tmp_path / "run")
    from sklearn import datasets

    images = np.rint(datasets.load_digits().images[:1437] * (255 / 16))
    np.testing.assert_allclose(weights.mean[..., 0], images.mean(axis=0) / 255, rtol=1e-6)
    assert weights.classes == tuple("0123456789") and weights.source["steps"] == 2 and weights.channels == 1
    logits = weights.create_model().apply(weights.variables, np.zeros((2, 8, 8, 1), np.float32))
    assert logits.shape == (2, 10)
