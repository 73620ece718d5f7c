"""A detector is trained, stopped and resumed, shared by devices, tested and asked for boxes, as users do it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import resnet_jax
from resnet_jax.__main__ import main
from resnet_jax.aot.programs import lower_steps
from resnet_jax.config import base_config, model_overrides
from resnet_jax.errors import Stopped, UserError
from resnet_jax.interop.weights import Weights, save_weights
from resnet_jax.models.registry import create_model
from resnet_jax.training.loop import fit
from resnet_jax.training.trainer import make_trainer
from tests.data.detection import made
from tests.models.detection import definitions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight wide images of coloured rectangles, trained and tested on alike."""
    names = [f"image{i}" for i in range(8)]
    shown = {name: made.rectangles(i) for i, name in enumerate(names)}
    return made.write_voc(tmp_path_factory.mktemp("boxes"), {"train": names, "test": names}, shown)


@pytest.fixture
def config(folder: Path) -> ConfigDict:
    config = base_config()
    config.task = "detection"
    config.model.name = "faster_rcnn_cifar_resnet20"
    config.model.stage_sizes, config.model.widths = (1, 1, 1), (8, 16, 16)
    config.model.anchor_sizes, config.model.anchor_ratios = (13,), (1.0,)
    config.model.rpn_features, config.model.rpn_stride = 16, 2
    config.model.train_proposals, config.model.test_proposals = (100, 30), (60, 20)
    config.model.regions, config.model.rpn_anchors, config.model.region_size = 24, 32, 4
    config.model.foreground, config.model.region_pool = 0.5, "align"
    config.model.inside_anchors, config.model.detections = False, 20
    config.data.name, config.data.folder, config.data.image_size = "voc", str(folder), 48
    config.data.normalization, config.data.most_objects = "imagenet", 4
    config.batch_size, config.optimizer.learning_rate = 4, 0.02
    config.steps = config.eval_every = config.checkpoint_every = 6
    config.log_every = 1
    return config


@pytest.fixture
def pyramid(config: ConfigDict) -> ConfigDict:
    """A pyramid of strides 2, 4 and 8 on the same net."""
    model = config.model
    model.name, model.region_pool, model.fpn_features, model.head_features = (
        "faster_rcnn_fpn_cifar_resnet20",
        None,
        8,
        32,
    )
    model.anchor_sizes = (8, 13, 20)
    return config


def weights_of(workdir: Path) -> dict[str, Any]:
    return jax.device_get(resnet_jax.load_weights(workdir).variables)


@pytest.mark.long
def test_overfits_and_is_asked_for_boxes(config: ConfigDict, folder: Path, tmp_path: Path, capsys: Any) -> None:
    """An AP50 above 95 % on eight images in seconds; the verbs find the same boxes and write them."""
    config.steps = config.eval_every = config.checkpoint_every = 160
    config.log_every = 40
    config.schedule.warmup, config.schedule.warmup_steps, config.schedule.warmup_rate = "linear", 20, 0.001
    result = fit(config, tmp_path / "run", devices=jax.devices()[:1])
    assert result.metrics["test_ap50"] > 95, result.metrics
    assert main(["evaluate", f"--workdir={tmp_path / 'run'}", "--json", "--num_processes=1"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["test_ap50"] == pytest.approx(result.metrics["test_ap50"])
    assert {"test_ap50_red", "test_ap50_green", "test_ap50_blue"} <= again.keys()

    check_protocols(tmp_path / "run", result.metrics["test_ap50"], capsys)
    image = folder / "JPEGImages" / "image3.png"
    answers = []
    for flags in (["--refine"], []):
        assert (
            main(["predict", f"--weights={tmp_path / 'run'}", str(image), f"--out={tmp_path}", "--json", *flags]) == 0
        )
        answers += json.loads(capsys.readouterr().out)["images"]
    refined, answer = answers
    assert refined["objects"][0]["name"] == answer["objects"][0]["name"]
    assert refined["objects"][0]["box"] != answer["objects"][0]["box"]
    assert json.loads((tmp_path / "image3.png.boxes.json").read_text()) == answer
    assert (tmp_path / "image3.png.boxes.png").stat().st_size > 500
    best = answer["objects"][0]
    boxes = [box for name, box in made.rectangles(3) if name == best["name"]]
    assert max(definitions.iou(np.array(best["box"]), np.array(box)) for box in boxes) > 0.5


def check_protocols(workdir: Path, ap50: float, capsys: Any) -> None:
    """In two rounds and at other sizes the net finds most; an ensemble of it with itself finds what it finds."""
    protocol = ["--protocol=refined_multi_scale", "--scales=64,40", "--num_processes=1"]
    assert main(["evaluate", f"--workdir={workdir}", *protocol]) == 0
    record, classes = written(workdir, "refined_multi_scale")
    assert f"AP50 {record['metrics']['test_ap50']:.2f} %; written to" in capsys.readouterr().out
    assert record["shorter_sides"] == [40, 64] and record["examples"] == 8 and record["step"] == 160
    assert [(one["class"], int(one["objects"]) > 0) for one in classes] == [(c, True) for c in ("blue", "green", "red")]
    own = np.mean([float(one["ap50_percent"]) for one in classes])
    assert record["metrics"]["test_ap50"] == pytest.approx(own, abs=1e-3) and own > 60

    assert main(["evaluate", f"--workdir={workdir},{workdir}", "--json", "--num_processes=1"]) == 0
    record, _ = written(workdir, "ensemble")
    assert json.loads(capsys.readouterr().out) == record and record["step"] == [160, 160]
    assert record["protocol"] == "whole_image" and record["metrics"]["test_ap50"] == pytest.approx(ap50, abs=0.5)


def written(workdir: Path, name: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    folder = workdir / "evaluations"
    for ending in ("png", "svg"):
        assert (folder / f"{name}.{ending}").stat().st_size > 5000
    with (folder / f"{name}_classes.csv").open() as file:
        return json.loads((folder / f"{name}.json").read_text()), list(csv.DictReader(file))


def test_resumed_bitwise(config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after three steps, the run goes on as if it had not been."""
    config.checkpoint_every = 3
    fit(config, tmp_path / "whole", devices=jax.devices()[:1])
    from resnet_jax.training import loop

    stop_after = {"steps": 3}

    def reached(self: Any) -> bool:
        stop_after["steps"] -= 1
        return stop_after["steps"] == 0

    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "reached", reached)
        with pytest.raises(Stopped, match="after step 3"):
            fit(config, tmp_path / "stopped", devices=jax.devices()[:1])
    fit(config, tmp_path / "stopped", devices=jax.devices()[:1])
    for one, other in zip(*(jax.tree.leaves(weights_of(tmp_path / n)) for n in ("whole", "stopped")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_four_devices_agree_with_one(config: ConfigDict, tmp_path: Path) -> None:
    """Batches are shared by images; the same anchors and regions are drawn."""
    config.steps = config.eval_every = config.checkpoint_every = 2
    for count in (1, 4):
        fit(config, tmp_path / str(count), devices=jax.devices()[:count])
    lines = [[json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in "14"]
    for one, other in zip(*lines, strict=True):
        for name in ("loss", "train_class_loss", "train_proposal_loss", "train_error", "test_ap50"):
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.long
def test_starts_from_the_weights_of_a_classifier(config: ConfigDict, tmp_path: Path, tiny_config: Callable) -> None:
    """All layers but the classifier are taken; batch norms with scale and shift stay as they are, if so asked.

    Also with global context, whose vector stands beside that of each region.
    """
    classifier = tiny_config(steps=2, eval_every=2, data__name="synthetic", data__normalization="imagenet")
    fit(classifier, tmp_path / "classifier", devices=jax.devices()[:1])
    config.model.widths, config.init_from = None, str(tmp_path / "classifier")
    config.model.stage_sizes, config.model.name = None, "init_from"
    config.finetune.frozen, config.steps, config.eval_every, config.model.context = "*/bn*", 2, 2, True
    fit(config, tmp_path / "detector", devices=jax.devices()[:1])
    before, after = weights_of(tmp_path / "classifier"), weights_of(tmp_path / "detector")
    for part in ("stem", "stage1", "stage2", "stage3"):
        path = (part, "block1") if part != "stem" else (part,)
        old, new = before["params"], after["params"]
        for key in path:
            old, new = old[key], new[key]
        norms = [key for key in old if key.startswith("bn")]
        for key in norms:
            jax.tree.map(np.testing.assert_array_equal, old[key], new[key])
        kernel = "conv" if part == "stem" else "conv1"
        change = np.abs(old[kernel]["kernel"] - new[kernel]["kernel"]).max()
        assert 0 < change < 0.1, part
    jax.tree.map(np.testing.assert_array_equal, before["batch_stats"], after["batch_stats"])
    assert after["params"]["head"]["kernel"].shape[0] == 2 * before["params"]["head"]["kernel"].shape[0]


@pytest.mark.long
def test_a_pyramid_learns_from_the_weights_of_a_classifier(
    pyramid: ConfigDict, folder: Path, tmp_path: Path, tiny_config: Callable, capsys: Any
) -> None:
    """All stages are the classifier's; the losses fall, and `predict` finds boxes."""
    classifier = tiny_config(steps=2, eval_every=2, data__name="synthetic", data__normalization="imagenet")
    fit(classifier, tmp_path / "classifier", devices=jax.devices()[:1])
    pyramid.model.widths, pyramid.model.stage_sizes = None, None
    pyramid.init_from, pyramid.finetune.frozen = str(tmp_path / "classifier"), "stem"
    pyramid.steps = pyramid.eval_every = pyramid.checkpoint_every = 24
    fit(pyramid, tmp_path / "run", devices=jax.devices()[:1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    before, after = weights_of(tmp_path / "classifier")["params"], weights_of(tmp_path / "run")["params"]
    jax.tree.map(np.testing.assert_array_equal, before["stem"], after["stem"])
    assert (
        0
        < np.abs(before["stage3"]["block1"]["conv1"]["kernel"] - after["stage3"]["block1"]["conv1"]["kernel"]).max()
        < 0.2
    )
    assert after.keys() >= {"fpn", "rpn", "region_head", "head", "head_boxes"}

    image = folder / "JPEGImages" / "image3.png"
    assert (
        main(["predict", f"--weights={tmp_path / 'run'}", str(image), f"--out={tmp_path}", "--least=0", "--json"]) == 0
    )
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    assert answer["objects"]
    assert main(["predict", f"--weights={tmp_path / 'run'}", str(image), "--top=3"]) == 2
    assert "--top is for nets that classify or segment" in capsys.readouterr().err


def test_a_detector_goes_on_with_other_classes(pyramid: ConfigDict, tmp_path: Path) -> None:
    """What names no class is taken: stages, pyramid, RPN and layers of regions, as far as their shapes are the same."""
    fields = model_overrides(pyramid) | {"num_classes": 7}
    net = create_model("faster_rcnn_fpn_cifar_resnet20", **fields)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((1, 48, 80, 3), np.float32)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), shapes)
    half, one = np.full(3, 0.5, np.float32), np.ones(3, np.float32)
    weights = Weights("faster_rcnn_fpn_cifar_resnet20", fields, variables, 48, half, one, tuple("abcdefg"))
    pyramid.init_from = str(save_weights(weights, tmp_path / "weights"))

    trainer = make_trainer(pyramid, jax.devices()[:1])
    params = jax.device_get(trainer.init().params)
    for part in params.keys() - {"head", "head_boxes"}:
        jax.tree.map(np.testing.assert_array_equal, params[part], variables["params"][part])
    assert params["head"]["bias"].shape == (4,) and params["head_boxes"]["bias"].shape == (16,)
    assert any(note.endswith("but for new head, head_boxes") for note in trainer.notes())

    for field, value, new in (("anchor_ratios", (0.5, 1.0), "rpn"), ("head_features", 16, "region_head")):
        pyramid.model[field] = value
        assert new in make_trainer(pyramid, jax.devices()[:1]).new_parts


@pytest.mark.long
def test_compiled_from_shapes_and_exported(config: ConfigDict, tmp_path: Path) -> None:
    """Without the set, for the widest images; what is exported gives the boxes that the net gives, without its code."""
    config.data.folder = None
    programs = lower_steps(config, jax.devices()[:1], num_classes=3)
    assert programs.shapes.train_inputs(1).images.shape == (1, 4, 48, 80, 3)
    assert programs.shapes.eval_inputs()[0].boxes.shape == (4, 4, 4)
    net = create_model("faster_rcnn_cifar_resnet20", **model_overrides(config), num_classes=3)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 48, 80, 3)).astype(np.uint8)
    variables = jax.device_get(net.init(jax.random.key(0), np.zeros((1, 48, 80, 3), np.float32)))
    weights = Weights("faster_rcnn_cifar_resnet20", model_overrides(config) | {"num_classes": 3, "least_score": 0.0},
                      variables, 48, np.full(3, 0.5, np.float32), np.ones(3, np.float32))  # fmt: skip
    program = jax.export.deserialize(bytearray(resnet_jax.export_stablehlo(weights)))
    found = program.call(pixels, np.array([[48, 64]], np.int32))
    images = np.where(np.arange(80)[:, None] < 64, pixels / np.float32(255) - 0.5, 0)
    own = weights.create_model()
    expected = own.apply(variables, {"images": images, "sizes": np.array([[48, 64]], np.int32)})
    assert expected.valid.sum() > 5
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": base_config().model}, "faster_rcnn"),
        ({"data.folder": "/nowhere"}, "no folder"),
        ({"data.name": "digits"}, "voc, coco"),
        ({"steps_per_dispatch": 4}, "must be 0 or 1"),
        ({"data.repeats": 2}, "repeats"),
        ({"loss": "binary_cross_entropy"}, "config.task=classification"),
        ({"data.classes": ("purple",)}, "purple"),
        ({"model.region_pool": "mean"}, "region_pool"),
        ({"model.anchor_sizes": (0,)}, "above 0"),
        ({"model.anchor_grid": "square"}, "anchor_grid"),
        ({"model.name": "faster_rcnn_fpn_cifar_resnet20"}, "shared out among 3"),
        ({"model.shared_stages": 5}, "shared_stages=5 must be from 1 to"),
        ({"model.anchor_sizes": ()}, "must be numbers, one at least"),
        ({"model.anchor_sizes": ("64",)}, r"anchor_sizes=\('64',\) must be numbers"),
        ({"model.anchor_ratios": ()}, "must be numbers, one at least"),
        ({"model.test_proposals": (5,)}, "must be whole numbers, ahead of NMS and behind it"),
        ({"model.train_proposals": (50.5, 5)}, r"train_proposals=\(50.5, 5\) must be whole numbers"),
        ({"model.smallest_proposal": -1.0}, "smallest_proposal=-1.0 must be 0 or more"),
        ({"model.foreground": 2.0}, "foreground=2.0 must be from 0 to 1"),
        ({"model.nms_threshold": -0.1}, "nms_threshold=-0.1 must be from 0 to 1"),
        ({"model.name": "faster_rcnn_fpn_cifar_resnet20", "model.finest_stage": 4}, "finest_stage"),
        ({"model.shared_stages": 3}, "shared_stages"),
    ],
)
def test_refusals(config: ConfigDict, tmp_path: Path, fields: dict, words: str) -> None:
    for name, value in fields.items():
        config.update_from_flattened_dict({name: value}) if "." in name else config.__setattr__(name, value)
    with pytest.raises(UserError, match=words):
        fit(config, tmp_path / "run", devices=jax.devices()[:1])
