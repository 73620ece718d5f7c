"""Layer responses against NumPy, and which layers they are of."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis.responses import layer_responses, read_responses, response_layers, run_responses
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import open_run
from resnet_jax.models import VGG, ResNet
from tests.models import reference as ref


def make(**fields):
    net = ResNet(
        **{"stage_sizes": (1, 1), "widths": (4, 6), "stem": "cifar", "num_classes": 5, "shortcut": "A"} | fields
    )
    x = ref.images(7, 8, 8, 3)
    return net, ref.random_variables(net, x), x


def test_against_numpy():
    """The stem's and the first unit's, composed by hand; the images do not fill the batches."""
    net, variables, x = make()
    found = {entry["layer"]: entry["std"] for entry in layer_responses(net, variables, x, batch_size=3)}
    w = ref.Weights(variables)
    stem = w.bn("stem/bn", w.conv("stem/conv", x))
    bn1 = w.bn("stage1/block1/bn1", w.conv("stage1/block1/conv1", ref.relu(stem)))
    bn2 = w.bn("stage1/block1/bn2", w.conv("stage1/block1/conv2", ref.relu(bn1)))
    assert list(found) == [
        "stem/bn", "stage1/block1/bn1", "stage1/block1/bn2", "stage2/block1/bn1", "stage2/block1/bn2"
    ]  # fmt: skip
    for path, value in (("stem/bn", stem), ("stage1/block1/bn1", bn1), ("stage1/block1/bn2", bn2)):
        assert found[path] == pytest.approx(value.std(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_batches_do_not_matter(batch_size):
    net, variables, x = make()
    whole, split = (layer_responses(net, variables, x, batch_size=size) for size in (7, batch_size))
    np.testing.assert_allclose([e["std"] for e in split], [e["std"] for e in whole], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"activation": "full_preactivation"}, ["bn1", "conv2"]),  # conv2 is what is added
        ({"activation": "bn_after_addition"}, ["bn1", "conv2"]),
        ({"activation": "relu_before_addition"}, ["bn1", "bn2"]),
        ({"block": "bottleneck", "shortcut": "B"}, ["bn2"]),  # the one 3x3 layer of three
        ({"block": "single"}, ["bn1"]),
        ({"shortcut": "exclusive_gating"}, ["bn1", "bn2"]),
    ],
)
def test_layers(fields, expected):
    net, variables, x = make(**fields)
    units = [f"stage{i}/block1/{name}" for i in (1, 2) for name in expected]
    assert response_layers(net, variables, x.shape[1:]) == ["stem/bn", *units]


def test_a_net_without_batch_norm():
    net = VGG(stage_sizes=(1, 2), widths=(4, 6), hidden=7, num_classes=5)
    x = ref.images(2, 8, 8, 3)
    found = layer_responses(net, ref.random_variables(net, x), x)
    assert [entry["layer"] for entry in found] == ["stage1/conv1", "stage2/conv1", "stage2/conv2"]


def test_of_a_run(residual):
    """The images are the test set's, normalised as in training; the file says so."""
    path = run_responses(residual)
    assert path == residual / "responses.json"
    run = open_run(residual)
    assert json.loads(path.read_text())["settings"] == {"step": run.step, "split": "test"}
    found = read_responses(path)
    weights = ref.Weights(jax.tree.map(np.asarray, run.variables))

    def of_the_stem(resident, count):
        images, _ = run.trainer.pipeline.eval_batch(resident, jnp.arange(count))
        response = weights.bn("stem/bn", weights.conv("stem/conv", np.asarray(images)))
        return {"layer": "stem/bn", "std": pytest.approx(response.std(), rel=1e-5)}

    assert len(found) == 1 + 2 * 6
    assert found[0] == of_the_stem(run.trainer.pipeline.test, 360)
    run_responses(residual, split="train")
    assert read_responses(path)[0] == of_the_stem(run.trainer.pipeline.train, 1437)
    assert read_responses(path)[0]["std"] != pytest.approx(found[0]["std"], rel=1e-4), "the splits tell apart"
    assert json.loads(path.read_text())["settings"]["split"] == "train"
    path.write_text(json.dumps(found))  # as earlier versions wrote it
    assert read_responses(path) == found
    with pytest.raises(UserError, match="unknown split 'tests'; did you mean test"):
        run_responses(residual, split="tests")
