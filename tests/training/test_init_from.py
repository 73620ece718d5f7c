"""Weights that a run starts from: taken over once, told apart by what they are, and not needed again."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from resnet_jax.config import config_hash, from_dict
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.interop.weights import Weights, read_weights, save_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.init_from import digest, resolve
from resnet_jax.training.loop import fit
from resnet_jax.training.run_folder import RunFolder
from resnet_jax.training.run_record import MACHINE_METRICS, RunRecord
from resnet_jax.training.trainer import make_trainer
from tests.training.interruptions import DiesAt, Killed

NET = {"stage_sizes": (1, 1, 1), "widths": (4, 8, 8), "bn_group_size": 64}


def a_folder_of_weights(folder, channels=3, classes=("a", "b", "c"), seed=0, **fields):
    """Random weights of the net of `tiny_config`."""
    fields = NET | {"num_classes": len(classes)} | fields
    model = create_model("cifar_resnet20", **fields)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, channels), np.float32)))
    rng = np.random.default_rng(seed)

    def values(path, shape):
        low = 0.5 if path[-1].key in ("var", "scale") else -0.5
        return rng.uniform(low, low + 1, shape.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(values, shapes)
    mean, std = np.full(channels, 0.4, np.float32), np.full(channels, 0.3, np.float32)
    return save_weights(Weights("cifar_resnet20", fields, variables, 8, mean, std, classes), folder)


def of(tiny_config, weights, **fields):
    """A run from weights, with all that it can take from them."""
    taken = {"model__name": "init_from", "model__stage_sizes": None, "model__widths": None}
    return tiny_config(**taken | {"init_from": str(weights), "data__normalization": "weights"} | fields)


def flat(tree):
    return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_all_but_a_new_head_is_that_of_the_weights(tiny_config, tmp_path):
    folder = a_folder_of_weights(tmp_path / "w", 3)
    weights = read_weights(folder)
    trainer = make_trainer(
        of(tiny_config, folder, data__rgb=True, data__resize=16, regularization__ema_decay=0.5), jax.devices()[:1]
    )
    assert (trainer.model.stage_sizes, trainer.model.widths, trainer.model.bn_group_size) == ((1, 1, 1), (4, 8, 8), 0)
    assert trainer.pipeline.image_shape == (16, 16, 3) and trainer.pipeline.num_classes == 10
    np.testing.assert_array_equal(trainer.pipeline.test["mean"], weights.mean)
    np.testing.assert_array_equal(trainer.pipeline.test["std"], weights.std)
    state = trainer.init()
    ours = {"params": dict(state.params), "batch_stats": state.batch_stats}
    jax.tree.map(np.testing.assert_array_equal, state.average, ours)
    head, there = ours["params"].pop("head"), dict(weights.variables["params"])
    there.pop("head")
    jax.tree.map(np.testing.assert_array_equal, ours, {**weights.variables, "params": there})
    assert head["kernel"].shape == (8, 10) and np.all(head["bias"] == 0)
    assert not any(np.any(x) for x in flat(state.opt_state).values())


@pytest.mark.parametrize(
    ("classes", "head", "kept"),
    [
        (tuple("0123456789"), "auto", True), (tuple("abcdefghij"), "auto", False), ((), "auto", False),
        (tuple("abcdefghij"), "keep", True), (tuple("0123456789"), "new", False),
    ],
)  # fmt: skip
def test_a_head_is_kept_for_the_same_classes_or_where_asked(tiny_config, tmp_path, classes, head, kept):
    folder = a_folder_of_weights(tmp_path / "w", 1, classes, num_classes=10)
    state = make_trainer(of(tiny_config, folder, finetune__head=head), jax.devices()[:1]).init()
    theirs = read_weights(folder).variables["params"]["head"]
    assert np.array_equal(state.params["head"]["kernel"], theirs["kernel"]) == kept


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__shortcut": "B"}, r"it lacks batch_stats/stage2/block1/shortcut/bn/mean, .*"),
        (
            {"model__shortcut": "B", "model__widths": (4, 6, 8)},
            r"it lacks .*; other shapes .*\(8,\) there, \(6,\) here",
        ),
        ({"model__stage_sizes": (1, 1), "model__widths": (4, 8)}, r"beyond the net batch_stats/stage3/block1/.* more$"),
        ({"finetune__head": "keep"}, "head=keep, but the weights have 3 classes and digits 10"),
        ({"init_from": "nowhere"}, "config.init_from: there is no file nowhere"),
    ],
)
def test_what_does_not_fit_is_said_at_once_and_nothing_is_written(tiny_config, tmp_path, fields, message):
    folder = a_folder_of_weights(tmp_path / "w", 1)
    with pytest.raises(UserError, match=message):
        fit(of(tiny_config, folder, **fields), tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()


def test_a_backbone_without_classifier_gets_a_new_one(tiny_config, tmp_path):
    folder = a_folder_of_weights(tmp_path / "w", 1, (), num_classes=0)
    state = make_trainer(of(tiny_config, folder), jax.devices()[:1]).init()
    theirs = dict(read_weights(folder).variables["params"])
    assert "head" not in theirs and state.params["head"]["kernel"].shape == (8, 10)
    jax.tree.map(np.testing.assert_array_equal, {k: v for k, v in state.params.items() if k != "head"}, theirs)
    with pytest.raises(UserError, match="head=keep, but the weights have no classifier and digits 10"):
        make_trainer(of(tiny_config, folder, finetune__head="keep"), jax.devices()[:1]).init()


def test_the_side_that_a_crop_is_taken_of_is_the_weights(tiny_config, tmp_path):
    weights = read_weights(a_folder_of_weights(tmp_path / "w", 1))
    wider = save_weights(dataclasses.replace(weights, image_size=160, shorter_side=168), tmp_path / "wider")
    sizes = {"data__image_size": 0, "data__eval_shorter_side": 0}
    assert resolve(of(tiny_config, wider, **sizes))[0].data.eval_shorter_side == 168
    other = resolve(of(tiny_config, wider, **sizes | {"data__image_size": 224}))[0]
    assert other.data.eval_shorter_side == 256
    assert digest(weights) != digest(read_weights(wider))


def test_grey_images_for_a_net_of_colours_are_said(tiny_config, tmp_path):
    folder = a_folder_of_weights(tmp_path / "w", 3)
    for kind in ("weights", "per_channel"):
        with pytest.raises(UserError, match="config.data.rgb=True makes RGB of grey images"):
            make_trainer(of(tiny_config, folder, data__normalization=kind), jax.devices()[:1])


def numbers(workdir):
    return [{k: v for k, v in line.items() if k not in MACHINE_METRICS} for line in RunRecord(workdir).lines()]


def test_a_run_goes_on_without_its_weights_bitwise(tiny_config, tmp_path):
    """Started, killed, its weights deleted, and started again; then also evaluated, and used as weights itself."""
    folder = a_folder_of_weights(tmp_path / "w", 1)
    config = of(tiny_config, folder, log_every=3, regularization__ema_decay=0.5, finetune__frozen="stem")
    whole = fit(config, tmp_path / "whole", devices=jax.devices()[:1])
    with pytest.raises(Killed):
        fit(config, tmp_path / "killed", DiesAt(3), devices=jax.devices()[:1])
    shutil.rmtree(folder)
    found = fit(config, tmp_path / "killed", devices=jax.devices()[:1])
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert (found.metrics, found.config_hash) == (whole.metrics, whole.config_hash)
    assert fit(config, tmp_path / "whole") == whole
    assert evaluate(tmp_path / "killed").test_error == pytest.approx(whole.metrics["test_error"])
    with pytest.raises(UserError, match="there is no file"):
        fit(config, tmp_path / "other", devices=jax.devices()[:1])
    again = of(tiny_config, tmp_path / "whole", finetune__head="auto")
    state = make_trainer(again, jax.devices()[:1]).init()  # the same classes: the head too, and the averages
    assert state.params["head"]["kernel"].shape == (8, 10) and np.any(state.params["head"]["bias"])


def test_other_weights_are_another_run_and_another_place_is_not(tiny_config, tmp_path):
    one = a_folder_of_weights(tmp_path / "one", 1)
    shutil.copytree(one, tmp_path / "copy")
    other = a_folder_of_weights(tmp_path / "other", 1, seed=1)
    a, b, c = (resolve(of(tiny_config, folder))[0] for folder in (one, tmp_path / "copy", other))
    assert config_hash(a) == config_hash(b) != config_hash(c)
    RunFolder(tmp_path / "run").open(a)
    shutil.copytree(other, one, dirs_exist_ok=True)
    with pytest.raises(UserError, match=f"another config .*init_hash: {a.init_hash} there, {c.init_hash} here"):
        fit(of(tiny_config, one), tmp_path / "run", devices=jax.devices()[:1])
    recorded = from_dict(json.loads((tmp_path / "run/config.json").read_text()))
    with pytest.raises(UserError, match="they have changed since"):
        make_trainer(recorded, jax.devices()[:1]).init()


def test_the_digest_sees_one_bit(tmp_path):
    weights = read_weights(a_folder_of_weights(tmp_path / "w", 1))
    before = digest(weights)
    bias = weights.variables["params"]["head"]["bias"]
    bias[0] = np.nextafter(bias[0], np.float32(9))
    assert digest(weights) != before
