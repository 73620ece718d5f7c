"""A net that segments, through the loop and the commands: one tiny net on squares of two colours."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from resnet_jax.__main__ import main
from resnet_jax.aot.programs import lower_steps
from resnet_jax.config import base_config
from resnet_jax.data.shapes import step_shapes
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import open_run
from resnet_jax.evaluation.segmentation import evaluate_segmentation
from resnet_jax.report.run_data import load_run
from resnet_jax.report.table import runs_grid
from resnet_jax.tasks.segmentation import Segmentation
from resnet_jax.training.load_weights import load_weights
from resnet_jax.training.loop import fit
from resnet_jax.training.trainer import make_trainer
from tests.cli.conftest import no_launcher  # noqa: F401
from tests.data.segmentation.made import shapes_folder
from tests.training.interruptions import DiesAt, Killed
from tests.training.kills import lines
from tests.training.test_init_from import a_folder_of_weights


def make_config(folder, **fields):
    """An FCN of two units with an auxiliary head, on crops of 32 pixels."""
    config = base_config()
    config.update_from_flattened_dict({
        "task": "segmentation", "model.name": "cifar_resnet20", "model.head": "fcn", "model.head_width": 8,
        "model.aux_head": True, "data.name": "image_masks", "data.folder": str(folder),
        "data.normalization": "imagenet", "data.image_size": 32, "data.workers": 1, "schedule.name": "poly",
        "steps": 8, "batch_size": 8, "log_every": 2, "eval_every": 4, "checkpoint_every": 4,
    })  # fmt: skip
    config.model.stage_sizes, config.model.widths = (1, 1), (8, 16)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shapes_folder(tmp_path_factory.mktemp("shapes") / "set")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A finished run on one device, its config and its result."""
    config, workdir = make_config(folder), tmp_path_factory.mktemp("runs") / "whole"
    return workdir, config, fit(config, workdir, devices=jax.devices()[:1])


def test_a_killed_run_goes_on_bitwise(run, tmp_path):
    """Batches, crops, colours and dropout are functions of (seed, step)."""
    whole, config, result = run
    with pytest.raises(Killed):
        fit(config, tmp_path / "killed", DiesAt(6), devices=jax.devices()[:1])
    again = fit(config, tmp_path / "killed", devices=jax.devices()[:1])
    assert again.metrics == result.metrics and lines(tmp_path / "killed") == lines(whole)


def test_four_devices_agree_with_one(run, tmp_path):
    whole, config, result = run
    four = fit(config, tmp_path / "four", devices=jax.devices()[:4])
    losses = [[line["loss"] for line in lines(path) if "loss" in line] for path in (whole, tmp_path / "four")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    assert four.metrics["test_loss"] == pytest.approx(result.metrics["test_loss"], rel=0.02)


def test_micro_batches_with_fewer_labelled_pixels_count_as_much_as_others(folder):
    """That is said: the mean of the halves' losses is not that of the whole, here in NumPy."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 8, 8, 2)).astype(np.float32), rng.integers(0, 2, (4, 8, 8))
    labels[:2, 1:] = 255
    shifted = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, (labels % 255)[..., None], -1)[..., 0]
    whole, halves = shifted[labels < 255].mean(), [shifted[i][labels[i] < 255].mean() for i in (slice(2), slice(2, 4))]
    task = Segmentation(2)
    assert task.loss(logits, None, labels)[0] == pytest.approx(whole, rel=1e-5)
    assert [float(task.loss(logits[i], None, labels[i])[0]) for i in (slice(2), slice(2, 4))] == pytest.approx(halves)
    assert abs(np.mean(halves) - whole) > 0.01 * whole
    notes = " ".join(make_trainer(make_config(folder, accumulate=2), jax.devices()[:1]).notes())
    assert "over its own pixels" in notes and "does not depend" not in notes


def test_the_record_has_the_tasks_metrics(run):
    workdir, _, result = run
    recorded = json.loads((workdir / "result.json").read_text())
    tested = [line["test_mean_iou"] for line in lines(workdir) if "test_mean_iou" in line]
    assert recorded["task"] == "segmentation" and recorded["evaluated_on"] == "validation"
    assert recorded["metrics"]["best_test_mean_iou"] == max(tested), "more is better"
    assert (
        recorded["metrics"]["test_mean_iou"]
        == tested[-1]
        == np.mean([value for name, value in recorded["metrics"].items() if name.startswith("test_iou_")])
    )
    grid = runs_grid([load_run("FCN", "", workdir)])
    cells = dict(zip(grid.headings, grid.texts()[0], strict=True))
    assert cells["test mean IoU (%)"] == f"{tested[-1]:.2f}"
    assert cells["training pixel accuracy (%)"] == f"{result.metrics['train_pixel_accuracy']:.2f}"


@pytest.mark.long
def test_it_overfits_ten_images(tmp_path):
    folder = shapes_folder(tmp_path / "set", train=10, val=10)
    for kind in ("images", "masks"):
        for k in range(10):
            data = (folder / f"train/{kind}/{k}.png").read_bytes()
            (folder / f"val/{kind}/{k}.png").write_bytes(data)
    fields = {
        "model.aux_head": False, "steps": 150, "batch_size": 10, "data.scale": (1.0, 1.0), "data.flip": False,
        "log_every": 50, "eval_every": 150, "checkpoint_every": 150, "optimizer.learning_rate": 0.2,
    }  # fmt: skip
    result = fit(make_config(folder, **fields), tmp_path / "run", devices=jax.devices()[:1])
    assert result.metrics["test_mean_iou"] > 85, result.metrics
    assert result.metrics["test_pixel_accuracy"] > 98


class Pixels(nn.Module):
    """A linear map of each pixel, which padding cannot change."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="head")(x)


def test_each_pixel_counts_once_whatever_is_padded(folder, tmp_path):
    """Against a count by hand over the files, at three sizes and with batches that are filled up."""
    config = make_config(shapes_folder(tmp_path / "set", 2, 7, ((32, 32), (17, 40), (24, 31), (30, 30), (40, 16))))
    trainer = make_trainer(config, jax.devices()[:4], model=Pixels())
    state = trainer.init()
    batches = [
        jax.device_get(trainer.eval_step(state.variables, trainer.pipeline.test, *batch))
        for batch in trainer.pipeline.test_inputs()
    ]
    assert len(batches) <= 3
    head = jax.device_get(state.params)["head"]
    expected = np.zeros((3, 4), int)
    for k in range(7):
        image, labels = (np.asarray(Image.open(tmp_path / f"set/val/{kind}/{k}.png")) for kind in ("images", "masks"))
        pixels = (image / np.float32(255) - trainer.pipeline.test["mean"]) / trainer.pipeline.test["std"]
        guesses = (np.asarray(pixels) @ head["kernel"] + head["bias"]).argmax(-1)
        np.add.at(expected, (labels[labels != 255], guesses[labels != 255]), 1)
    assert np.array_equal(sum(batch["confusion"] for batch in batches), expected)


def test_the_shapes_are_those_of_a_pipeline(folder):
    """So `compile` lowers the program that a run has, without the set."""
    config = make_config(folder, data__classes=("ground", "bright", "dark"))
    trainer = make_trainer(config, jax.devices()[:2])
    pipeline, shapes = trainer.pipeline, step_shapes(config, trainer.mesh)

    def of(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert of(shapes.train) == of(pipeline.train)
    assert of(shapes.train_inputs(1)) == of(pipeline.train_inputs(0, 1))
    inputs, mask = next(pipeline.test_inputs())
    expected = {name: (value.shape[1:], value.dtype) for name, value in inputs.items()}
    found = {name: (value.shape[1:], value.dtype) for name, value in shapes.eval_inputs()[0].items()}
    assert found == expected and shapes.eval_inputs()[1].dtype == mask.dtype, "of square images"
    for name in ("num_classes", "image_shape", "batch_size", "size_changes", "steps_per_dispatch"):
        assert getattr(shapes, name) == getattr(pipeline, name), name
    lowered = lower_steps(config, jax.devices()[:2])
    assert "stablehlo.convolution" in lowered.train.as_text() and lowered.steps == 1
    config.data.classes = ()
    with pytest.raises(UserError, match="--num_classes=N"):
        step_shapes(config, trainer.mesh)


def test_mirrored_and_multi_scale_testing(run):
    """With the image's own size alone, the protocols are the plain mean over it and its mirror image."""
    opened = open_run(run[0])
    whole, confusion = evaluate_segmentation(opened)
    assert whole.metrics["test_mean_iou"] == pytest.approx(run[2].metrics["test_mean_iou"])
    assert confusion.sum() == 31 * (32 + 40 + 32), "all but the ignored line of each"
    mirrored, _ = evaluate_segmentation(opened, "mirrored")
    same, counts = evaluate_segmentation(opened, "multi_scale", (1.0,))
    assert mirrored.metrics == same.metrics != whole.metrics
    scaled, counts = evaluate_segmentation(opened, "multi_scale", (0.5, 1.0))
    assert scaled.metrics != same.metrics and counts.sum() == confusion.sum()
    for wrong, words in (
        ({"protocol": "ten_crop"}, "unknown protocol 'ten_crop'"),
        ({"protocol": "mirrored", "scales": (1.0,)}, "--scales is for --protocol=multi_scale, not for mirrored"),
        ({"protocol": "multi_scale", "scales": (0.0,)}, "--scales=0.0 must be factors"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate_segmentation(opened, **wrong)


def test_images_that_cannot_be_read_are_counted_and_no_result_if_none_can(run, folder, tmp_path):
    """The masks can be read, so grey images would have an mIoU."""
    shutil.copytree(folder, tmp_path / "set")
    first, *others = sorted((tmp_path / "set/val/images").iterdir())
    first.write_bytes(b"no image")
    opened = open_run(run[0], str(tmp_path / "set"))
    result, counts = evaluate_segmentation(opened)
    assert (result.unreadable, result.examples) == (1, 3) and counts.sum() == 31 * (32 + 40 + 32)
    for path in others:
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 3 validation images can be read: .*0"):
        evaluate_segmentation(opened)


@pytest.mark.long
def test_the_commands(run, folder, tmp_path, capsys):
    workdir, _, result = run
    photo = str(folder / "val/images/1.png")
    assert main(["predict", f"--weights={workdir}", photo, f"--out={tmp_path / 'seen'}", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out.splitlines()[-1])["images"]
    labels = np.asarray(Image.open(answer["mask"]))
    assert labels.shape == (32, 40) == Image.open(answer["overlay"]).size[::-1]
    assert {one["name"]: one["share"] for one in answer["classes"]} == {
        name: np.mean(labels == k) for k, name in enumerate(("ground", "bright", "dark")) if np.any(labels == k)
    }
    # As the net itself says, at the image's own size.
    weights = load_weights(workdir)
    pixels = (np.asarray(Image.open(photo))[None] / np.float32(255) - weights.mean) / weights.std
    logits = weights.create_model().apply(weights.variables, pixels, train=False)
    assert np.mean(np.argmax(logits[0], axis=-1) == labels) > 0.999

    assert main(["evaluate", f"--workdir={workdir}"]) == 0
    assert f"whole image mean IoU {result.metrics['test_mean_iou']:.2f} %" in capsys.readouterr().out
    assert main(["evaluate", f"--workdir={workdir}", "--protocol=mirrored", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads((workdir / "evaluations/mirrored.json").read_text())
    assert len((workdir / "evaluations/mirrored_classes.csv").read_text().splitlines()) == 4
    assert Image.open(workdir / "evaluations/mirrored.png").size[0] > 400

    program = tmp_path / "net.stablehlo"
    assert main(["export", f"--weights={workdir}", "--format=stablehlo", f"--out={program}"]) == 0
    exported = jax.export.deserialize(bytearray(program.read_bytes()))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    images = (pixels / np.float32(255) - weights.mean) / weights.std
    expected = weights.create_model().apply(weights.variables, images, train=False)
    np.testing.assert_allclose(exported.call(pixels), expected, rtol=1e-3, atol=1e-4)
    for refused in (["predict", f"--weights={workdir}", photo, "--explain"],
                    ["evaluate", f"--workdir={workdir},{workdir}", "--protocol=mirrored"]):  # fmt: skip
        assert main(refused) == 2


def test_classification_weights_start_a_net_that_segments(folder, tmp_path):
    weights = a_folder_of_weights(
        tmp_path / "w", stage_sizes=(1, 1), widths=(8, 16), classes=("ground", "bright", "dark")
    )
    config = make_config(folder, init_from=str(weights), data__normalization="weights")
    trainer = make_trainer(config, jax.devices()[:1])
    state, given = trainer.init(), load_weights(weights).variables
    for part in ("stem", "stage1", "stage2"):
        same = jax.tree.map(np.array_equal, jax.device_get(state.params[part]), given["params"][part])
        assert all(jax.tree.leaves(same)), part
    assert set(state.params) - set(given["params"]) == {"decoder", "aux", "aux_head"}
    assert jnp.ndim(state.params["head"]["kernel"]) == 4, "a new head, though the classes are the same"
    config.finetune.head = "keep"
    with pytest.raises(UserError, match="is a net for classification"):
        make_trainer(config, jax.devices()[:1])


def test_a_net_that_segments_goes_on_on_the_same_classes(run, folder):
    config = make_config(folder, init_from=str(run[0]), data__normalization="weights")
    state = make_trainer(config, jax.devices()[:1]).init()
    given = load_weights(run[0]).variables["params"]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(state.params), given)))


def test_a_net_that_segments_goes_on_on_other_classes(run, tmp_path):
    """The decoder is taken, and the layers that name the classes are new; another decoder is new, too."""
    others = shapes_folder(tmp_path / "set")
    (others / "classes.txt").write_text("ground\nlight\nshade\n")
    for head, new in (("fcn", {"head", "aux_head"}), ("deeplabv3", {"head", "aux_head", "decoder"})):
        config = make_config(others, init_from=str(run[0]), data__normalization="weights", model__head=head)
        trainer = make_trainer(config, jax.devices()[:1])
        state, given = jax.device_get(trainer.init().params), load_weights(run[0]).variables["params"]
        assert set(trainer.new_parts) == new
        for part in state:
            same = jax.tree.map(np.array_equal, state[part], given[part]) if part not in new else True
            assert all(jax.tree.leaves(same)), part
        assert not np.array_equal(state["head"]["kernel"], given["head"]["kernel"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.head": None, "model.head_width": None, "model.aux_head": None}, "is a net for classification"),
        ({"model.head_width": 0}, "head_width=0"),
        ({"model.head": "unet"}, "unknown head 'unet'"),
        ({"data.name": "cifar10", "data.folder": None}, "data.name=cifar10 is not for config.task=segmentation"),
        ({"task": "classification"}, "data.name=image_masks is not for config.task=classification"),
        ({"task": "detection"}, "data.name=image_masks is not for config.task=detection"),
        ({"task": "boxes"}, "config.task='boxes' must be one of"),
        ({"regularization.mixup": 0.2}, "mixup=0.2 is for config.task=classification"),
        ({"data.scale": (2.0, 1.0)}, "the least and the largest factor"),
        ({"segmentation.class_weights": (1.0,)}, "class_weights has 1 numbers, for 3 classes"),
        ({"data.normalization": "per_channel"}, "per_channel is for sets in memory"),
    ],
)
def test_mistakes(folder, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        fit(make_config(folder, **fields), tmp_path / "run", devices=jax.devices()[:1])
