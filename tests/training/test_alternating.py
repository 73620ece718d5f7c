"""The four steps of alternating training (Ren et al. 2015, section 3.2), each a run of a tiny net."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

import resnet_jax
from benchmarks.local_processes import Job
from resnet_jax.config import base_config, config_hash, to_dict
from resnet_jax.data.detection.pipeline import BoxPipeline
from resnet_jax.errors import Stopped, UserError
from resnet_jax.evaluation.detection import evaluate_detection
from resnet_jax.evaluation.open_run import open_run
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.interop.weights import Weights, save_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training import loop
from resnet_jax.training.init_from import resolve
from resnet_jax.training.loop import fit
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.trainer import make_trainer
from tests.data.detection import made

#: What is trained in each step, and what is frozen, as in configs/faster_rcnn.py for VGG; here conv1 alone is fixed.
STEPS = {
    "step1": ("rpn", "stage1,fc*,head*"),
    "step2": ("regions", "stage1,rpn"),
    "step3": ("rpn", "stage*,fc*,head*"),
    "step4": ("regions", "stage*,rpn"),
}
NET = {"stage_sizes": (1, 1), "widths": (4, 6), "hidden": 8}
DEVICES = jax.devices()[:1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = {f"image{i}": made.rectangles(i) for i in range(4)}
    return made.write_voc(tmp_path_factory.mktemp("boxes"), {"train": [*shown], "test": [*shown]}, shown)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a classifier, in place of ImageNet's."""
    variables = create_model("vgg16", **NET, num_classes=2).init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))
    half = np.full(3, 0.5, np.float32)
    weights = Weights(
        "vgg16", NET | {"num_classes": 2}, jax.device_get({"batch_stats": {}, **variables}), 16, half, half
    )
    return save_weights(weights, tmp_path_factory.mktemp("pretrained"))


def config_of(folder: Path, step: str, init_from: Path, proposals_from: Path | None = None) -> ConfigDict:
    config = base_config()
    config.task, config.model.name = "detection", "faster_rcnn_vgg16"
    for field, value in NET.items():
        config.model[field] = value
    config.model.anchor_sizes, config.model.anchor_ratios, config.model.rpn_features = (13,), (1.0,), 8
    config.model.train_proposals, config.model.test_proposals = (60, 20), (60, 10)
    config.model.regions, config.model.rpn_anchors = 8, 16
    config.model.region_size, config.model.inside_anchors, config.model.detections = 4, False, 5
    config.model.smallest_proposal = 2.0
    config.data.name, config.data.data_dir, config.data.image_size = "voc", str(folder), 32
    config.data.normalization, config.data.most_objects = "imagenet", 4
    config.batch_size, config.optimizer.learning_rate = 2, 0.05
    config.optimizer.weight_decay = 0.1  # that would be seen
    config.steps = config.eval_every = 3
    config.log_every, config.checkpoint_every = 1, 3
    config.detection.trained, config.finetune.frozen = STEPS[step]
    config.init_from = str(init_from)
    config.detection.proposals_from = str(proposals_from) if proposals_from else None
    return config


@pytest.fixture(scope="module")
def runs(folder: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four steps, one after another."""
    out = tmp_path_factory.mktemp("runs")
    fit(config_of(folder, "step1", pretrained), out / "step1", devices=DEVICES)
    fit(config_of(folder, "step2", pretrained, out / "step1"), out / "step2", devices=DEVICES)
    fit(config_of(folder, "step3", out / "step2"), out / "step3", devices=DEVICES)
    fit(config_of(folder, "step4", out / "step3"), out / "step4", devices=DEVICES)
    return out


def parameters(path: Path) -> Mapping[str, np.ndarray]:
    return traverse_util.flatten_dict(jax.device_get(resnet_jax.load_weights(path).variables["params"]), sep="/")


@pytest.mark.parametrize(
    ("step", "start", "tuned"),
    [
        ("step1", None, {"stage2", "rpn"}),
        ("step2", None, {"stage2", "fc1", "fc2", "head", "head_boxes"}),
        ("step3", "step2", {"rpn"}),
        ("step4", "step3", {"fc1", "fc2", "head", "head_boxes"}),
    ],
)
def test_each_step_trains_its_own_layers_and_no_bit_of_others(
    runs: Path, pretrained: Path, step: str, start: str | None, tuned: set[str]
) -> None:
    """Weight decay would move what no loss reaches."""
    before, after = parameters(runs / start if start else pretrained), parameters(runs / step)
    for name, value in after.items():
        part = name.split("/")[0]
        if part in tuned:
            assert name not in before or part == "head" or not np.array_equal(value, before[name]), name
        elif name in before and part != "head":
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    if start:
        assert before.keys() == after.keys()


def test_losses_that_count_are_recorded(runs: Path) -> None:
    for step, losses in (("step1", {"objectness", "proposal"}), ("step2", {"class", "box"})):
        text = (runs / step / "metrics.jsonl").read_text()
        found = {name for name in ("objectness", "proposal", "class", "box") if f'"train_{name}_loss"' in text}
        assert found == losses and ('"train_error"' in text) == (step == "step2")


@pytest.mark.long
def test_two_processes_take_the_regions_of_another_run(
    runs: Path, folder: Path, pretrained: Path, tmp_path: Path
) -> None:
    """They read its weights at once, and then the images in turn; losses are those of one process."""
    config = config_of(folder, "step2", pretrained, runs / "step1")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    (tmp_path / "step2.py").write_text(
        "import json\nfrom pathlib import Path\nfrom resnet_jax.config import from_dict\n\n"
        "def get_config():\n    return from_dict(json.loads(Path(__file__).with_name('config.json').read_text()))\n"
    )
    arguments = ["train", f"--config={tmp_path}/step2.py", f"--workdir={tmp_path}/run"]
    ended = Job(arguments, tmp_path / "logs", 2, 2, tmp_path / "cache").wait()
    assert [one.status for one in ended] == [0, 0], ended[0].output
    one, two = (
        [x["loss"] for x in RunRecord(run).lines() if "loss" in x] for run in (runs / "step2", tmp_path / "run")
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_regions_of_step_2_are_those_that_step_1_proposes(runs: Path, folder: Path, pretrained: Path) -> None:
    """Inside the step's batch: bit for bit what the other net proposes for the same images."""
    config, weights = resolve(config_of(folder, "step2", pretrained, runs / "step1"))
    trainer = make_trainer(config, DEVICES, weights)
    pipeline = trainer.pipeline
    assert isinstance(pipeline, BoxPipeline)
    inputs = jax.tree.map(lambda x: x[0], pipeline.train_inputs(0, 1))
    batch, _ = jax.jit(pipeline.train_batch)(pipeline.train, inputs, jax.random.key(0))
    other = resnet_jax.load_weights(runs / "step1")
    propose = jax.jit(lambda variables, *args: other.create_model().apply(
        variables, (*args, (60, 20)), part="propose_regions")[1])  # fmt: skip
    expected = propose(other.variables, batch["images"], batch["sizes"])
    assert expected.valid.sum() > 10 and expected.boxes.shape == (2, 20, 4)
    jax.tree.map(np.testing.assert_array_equal, batch["proposals"], expected)
    # They are what the step is trained on, and not the net's own.
    other_boxes = batch | {"proposals": jax.tree.map(jnp.zeros_like, expected)}
    state = trainer.init()
    losses = jax.jit(lambda variables, inputs: trainer.model.apply(
        variables, inputs, train=True, rngs={"dropout": jax.random.key(0)}).regions)  # fmt: skip
    one, two = (losses(state.variables, inputs) for inputs in (batch, other_boxes))
    assert int(one.valid.sum()) > int(two.valid.sum())  # of no proposals, the objects alone are left
    # What is held fixed on the devices is no more than proposals need.
    assert pipeline.train["proposer"]["params"].keys() == {"stage1", "stage2", "rpn"}


def test_protocols_test_step_2_on_what_step_1_proposes(runs: Path) -> None:
    """As in training. Its own RPN was never trained, and other numbers in it change nothing."""
    run = open_run(runs / "step2")
    rpn = jax.tree.map(lambda values: -3 * values, run.state.params["rpn"])
    other = dataclasses.replace(run, state=dataclasses.replace(run.state, params=run.state.params | {"rpn": rpn}))
    found = evaluate_detection([other]).result.metrics
    assert found["test_ap50"] > 0 and found == {name: evaluate(run).metrics[name] for name in found}


def test_step_2_stopped_and_resumed_is_bitwise_the_same(
    runs: Path, folder: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder, "step2", pretrained, runs / "step1")
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "reached", lambda self: True)
        with pytest.raises(Stopped, match="after step 1"):
            fit(config, tmp_path, devices=DEVICES)
    with pytest.raises(UserError, match="proposals_hash"):  # another net's proposals would be another run
        fit(config_of(folder, "step2", pretrained, runs / "step2"), tmp_path, devices=DEVICES)
    fit(config, tmp_path, devices=DEVICES)
    jax.tree.map(np.testing.assert_array_equal, dict(parameters(tmp_path)), dict(parameters(runs / "step2")))


def test_whose_proposals_they_are_is_what_the_run_is(runs: Path, folder: Path, pretrained: Path) -> None:
    """By what lies there, and not where; at the default no hash changes."""
    config = config_of(folder, "step2", pretrained)
    hashes = {config_hash(resolve(config_of(folder, "step2", pretrained, path))[0]) for path in (
        None, runs / "step1", runs / "step4")}  # fmt: skip
    assert len(hashes) == 3
    asked = config_hash(config)
    config.detection.proposals_from = "anywhere"
    assert config_hash(config) == asked


def test_a_net_of_other_images_cannot_propose(runs: Path, folder: Path, pretrained: Path, tmp_path: Path) -> None:
    """It would see colours that it was not trained on, and nobody would know."""
    config = config_of(folder, "step2", pretrained, runs / "step1")
    config.data.normalization = "per_pixel_mean"
    with pytest.raises(UserError, match="proposals_from=.* normalised by .*normalization must do for both"):
        fit(config, tmp_path / "run", devices=DEVICES)


@pytest.mark.parametrize(
    ("step", "frozen", "proposals_from", "words"),
    [
        ("step1", "stage1,head*", None, "no loss for fc1, fc2, .* add fc1,fc2 to config.finetune.frozen"),
        ("step2", "stage1", None, "no loss for rpn, "),
        ("step2", "stage1,rpn", "nowhere", "config.detection.proposals_from: .*nowhere"),
        ("step2", "stage1,rpn", "pretrained", "vgg16, which is a net for classification: a detector proposes"),
        ("step3", "stage*,fc*,head*", "pretrained", "proposals_from is for config.detection.trained=regions, not rpn"),
    ],
)
def test_refusals(folder: Path, pretrained: Path, tmp_path: Path, step: str, frozen: str, proposals_from: Any,
                  words: str) -> None:  # fmt: skip
    other = pretrained if proposals_from == "pretrained" else proposals_from
    config = config_of(folder, step, pretrained, other)
    config.finetune.frozen = frozen
    with pytest.raises(UserError, match=words):
        fit(config, tmp_path / "run", devices=DEVICES)
