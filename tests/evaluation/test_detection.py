"""A detector is tested by the steps of the 2015 paper's table 9: by commands, and against the net asked in parts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.__main__ import main
from resnet_jax.config import to_dict
from resnet_jax.data.detection.batches import BoxLoader
from resnet_jax.data.imagenet.loaders import Unreadable
from resnet_jax.errors import UserError
from resnet_jax.evaluation.detection import evaluate_detection
from resnet_jax.evaluation.find_objects import Member, Shown, find_objects
from resnet_jax.evaluation.open_run import OpenRun
from resnet_jax.models.detection.detector import View
from resnet_jax.models.detection.regions import Boxes
from resnet_jax.models.registry import create_model
from resnet_jax.training.trainer import make_trainer
from tests.models.detection import definitions
from tests.models.detection.test_refinement import voted
from tests.training.test_detection import config, folder  # noqa: F401


@pytest.fixture(scope="module")
def run(folder: Path) -> OpenRun:  # noqa: F811
    """A run that is not trained, whose classes and boxes differ by more than those of random weights."""
    small = config.__wrapped__(folder)
    small.model.least_score = 0.01
    trainer = make_trainer(small, devices=jax.devices()[:1])
    state = trainer.random_init()
    params = dict(state.params)
    for name, factor in (("head", 60.0), ("head_boxes", 600.0)):
        params[name] = {kind: factor * values for kind, values in params[name].items()}
    return OpenRun(Path("run"), trainer, dataclasses.replace(state, params=params))


@pytest.fixture(scope="module")
def net(run: OpenRun) -> Any:
    """The net with its variables: `net(part, ...)` calls a part of it, compiled."""
    return parts_of(run.trainer.model, run.variables)


def parts_of(model: Any, variables: Any) -> Any:
    return jax.jit(lambda part, *arguments: model.apply(variables, arguments, part=part), static_argnums=0)


@pytest.fixture(scope="module")
def shown(run: OpenRun) -> list[Shown]:
    """Four test images at shorter sides of 32, 48 and 64 pixels; the net is trained at 48."""
    (batches, _), *_ = run.trainer.pipeline.test_pyramids((32, 48, 64))  # type: ignore[union-attr]
    return [Shown(**run.trainer.pipeline.eval_batch(run.trainer.pipeline.test, batch)[0]) for batch in batches]


def test_a_net_alone_finds_what_it_finds_by_itself_and_so_does_an_ensemble_of_it(run: OpenRun, shown: list) -> None:
    model, variables = run.trainer.model, run.variables
    base = shown[1]
    own = jax.jit(lambda: model.apply(variables, base._asdict()))()
    assert own.valid.sum() > 20
    for members in (1, 2):
        found = jax.jit(lambda count: find_objects([Member(model, variables, base)] * count), static_argnums=0)(members)
        np.testing.assert_array_equal(found.valid, own.valid)
        np.testing.assert_array_equal(found.labels, own.labels)
        np.testing.assert_allclose(found.scores, own.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, own.boxes, atol=1e-3)


def test_an_ensemble_proposes_the_union_and_averages_scores_and_boxes(run: OpenRun, net: Any, shown: list) -> None:
    """With a second net that has other weights: everything kept is a mean of what both say of one region."""
    model, base = run.trainer.model, shown[1]
    other = jax.tree.map(lambda x: x * 0.9, run.variables)
    parts = [net, parts_of(model, other)]
    proposed = [one("propose_regions", *base) for one in parts]
    union = Boxes(*(np.concatenate([p[1][k] for p in proposed], axis=1) for k in (0, 1)))
    said = [one("predict_regions", [View(features, np.ones((4, 2), np.float32))], union, base.sizes)
            for one, (features, _) in zip(parts, proposed, strict=True)]  # fmt: skip
    found = jax.jit(lambda: find_objects([Member(model, run.variables, base), Member(model, other, base)]))()
    for i in range(4):
        scores, boxes = (np.mean([getattr(one, name)[i] for one in said], axis=0) for name in ("scores", "boxes"))
        expected = chosen(boxes, scores, np.asarray(union.valid[i]), 0.3, None)
        assert_found(found, i, expected)


def chosen(boxes: Any, scores: Any, valid: Any, threshold: float, voting: float | None) -> list[tuple[float, Any, int]]:
    """What is kept of the predictions (regions, classes) of an image, by plain loops: (score, box, label)."""
    every = []
    for label in range(3):
        there = valid & (scores[:, label] >= 0.01) & ((boxes[:, label, 2:] - boxes[:, label, :2]).min(axis=1) > 0)
        own, of = boxes[there, label], scores[there, label]
        kept = definitions.greedy_nms(own, of, threshold)
        final = own[kept] if voting is None else voted(own[kept], own, of, voting)
        every += [(float(score), box, label) for score, box in zip(of[kept], final, strict=True)]
    return sorted(every, key=lambda one: -one[0])[:20]


def assert_found(found: Any, image: int, expected: list[tuple[float, Any, int]]) -> None:
    there = np.asarray(found.valid[image])
    assert there.sum() == len(expected) > 3
    np.testing.assert_allclose(found.scores[image][there], [score for score, *_ in expected], atol=1e-5)
    np.testing.assert_allclose(found.boxes[image][there], [box for _, box, _ in expected], atol=1e-2)
    assert np.asarray(found.labels[image])[there].tolist() == [label for *_, label in expected]


def test_box_refinement(run: OpenRun, net: Any, shown: list) -> None:
    """The box of each region's best class is seen as a region; NMS at 0.3 of both rounds, then voting from 0.5 on."""
    base = shown[1]
    features, regions = net("propose_regions", *base)
    views = [View(features, np.ones((4, 2), np.float32))]
    first = net("predict_regions", views, regions, base.sizes)
    best = np.argmax(first.scores, axis=-1)
    again = np.take_along_axis(np.asarray(first.boxes), best[..., None, None], axis=2)[:, :, 0]
    there = np.asarray(first.valid) & ((again[..., 2:] - again[..., :2]).min(axis=-1) > 0)
    second = net("predict_regions", views, Boxes(again, there), base.sizes)
    found = jax.jit(lambda: find_objects([Member(run.trainer.model, run.variables, base)], refine=True))()
    for i in range(4):
        boxes, scores, valid = (np.concatenate([getattr(one, name)[i] for one in (first, second)])
                                for name in ("boxes", "scores", "valid"))  # fmt: skip
        assert_found(found, i, chosen(boxes, scores, valid, 0.3, 0.5))


def features_of(model: Any, variables: Any, one: Shown) -> Any:
    return jax.jit(lambda images: model.apply(variables, (images, False), part="image_features"))(one.images)


def vectors(model: nn.Module, variables: Any, *arguments: Any) -> np.ndarray:
    """The vectors (batch, regions, features) that the classes of regions are made of."""

    def predict(arguments: Any) -> Any:
        found: list[Any] = []

        def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.module.path == ("head",):
                found.append(args[0])
            return next_call(*args, **kwargs)

        with nn.intercept_methods(record):
            model.apply(variables, arguments, part="predict_regions")
        return found[0]

    return np.asarray(jax.jit(predict)(arguments))


def test_multi_scale_is_the_maximum_over_the_two_nearest_sizes(run: OpenRun, net: Any, shown: list) -> None:
    """Regions are proposed at one size; the features of each are seen at the two at which it is nearest to 32 x 32."""
    model, variables, base = run.trainer.model, run.variables, shown[1]
    views = [View(features_of(model, variables, one), np.float32(one.sizes / base.sizes)) for one in shown]
    boxes = np.stack([definitions.random_boxes(np.random.default_rng(i), 30, 48) for i in range(4)])
    regions = Boxes(boxes, np.ones((4, 30), bool))
    alone = [vectors(model, variables, [view], regions, base.sizes) for view in views]
    merged = vectors(model, variables, views, regions, base.sizes)
    seen = set()
    for i in range(4):
        for k, (x1, y1, x2, y2) in enumerate(boxes[i]):
            pixels = np.array([(x2 - x1) * (y2 - y1) * view.scales[i].prod() for view in views])
            if pixels[0] > 0:
                one, other = sorted(np.argsort(np.abs(pixels - 32**2))[:2].tolist())
                seen.add((one, other))
                np.testing.assert_allclose(merged[i, k], np.maximum(alone[one][i, k], alone[other][i, k]), atol=1e-5)
    assert seen == {(0, 1), (1, 2)}
    _, regions = net("propose_regions", *base)
    predictions = net("predict_regions", views, regions, base.sizes)
    found = jax.jit(lambda: find_objects([Member(model, variables, base, shown)]))()
    for i in range(4):
        boxes, scores, valid = (np.asarray(getattr(predictions, name)[i]) for name in ("boxes", "scores", "valid"))
        assert_found(found, i, chosen(boxes, scores, valid, 0.3, None))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("faster_rcnn_fpn_cifar_resnet20", {"stage_sizes": (1, 1, 1), "widths": (4, 4, 8), "fpn_features": 4,
                                            "head_features": 8, "anchor_sizes": (8, 13, 20)}),
        ("faster_rcnn_vgg16", {"stage_sizes": (1, 1), "widths": (4, 6), "hidden": 8, "anchor_sizes": (13,)}),
    ],
)  # fmt: skip
def test_pyramids_and_vgg_are_tested_at_several_sizes_too(name: str, fields: dict, shown: list) -> None:
    """At two sizes: of each region's features the larger ones; boxes are found by all of a test at once."""
    fields = {
        "num_classes": 3,
        "rpn_features": 8,
        "test_proposals": (60, 20),
        "least_score": 0.0,
        "smallest_proposal": 1.0,
    } | fields
    model, (smaller, larger, _) = create_model(name, **fields), shown
    variables = jax.jit(lambda: model.init(jax.random.key(0), larger._asdict()))()
    views = [View(features_of(model, variables, one), np.float32(one.sizes / larger.sizes))
             for one in (smaller, larger)]  # fmt: skip
    boxes = np.stack([definitions.random_boxes(np.random.default_rng(i), 30, 48) for i in range(4)])
    regions = Boxes(boxes, np.ones((4, 30), bool))
    alone = [vectors(model, variables, [view], regions, larger.sizes) for view in views]
    assert not np.allclose(*alone)
    merged = vectors(model, variables, views, regions, larger.sizes)
    np.testing.assert_allclose(merged, np.maximum(*alone), atol=1e-5)
    found = jax.jit(lambda given: find_objects([Member(model, given, larger, (smaller, larger))], refine=True))(
        variables
    )
    assert found.valid.any() and np.isfinite(found.scores).all()


def test_context_is_the_whole_image_as_a_region(run: OpenRun, shown: list) -> None:
    """The vector of the image without its padding stands beside that of each region; all other weights fit."""
    model, variables, base = run.trainer.model, run.variables, shown[1]
    wide = model.clone(context=True)
    fresh = jax.jit(lambda: wide.init(jax.random.key(0), base._asdict()))()
    heads = {name: fresh["params"][name] for name in ("head", "head_boxes")}
    features = heads["head"]["kernel"].shape[0] // 2
    assert features == variables["params"]["head"]["kernel"].shape[0]
    both = variables | {"params": variables["params"] | heads}
    assert jax.tree.structure(both) == jax.tree.structure(fresh)
    sizes = np.array([[48, 64], [40, 64], [48, 50], [30, 30]], np.int32)
    whole = np.array([[0, 0, width, height] for height, width in sizes], np.float32)[:, None]
    boxes = np.concatenate([whole, np.tile(np.float32([[5, 6, 30, 25]]), (4, 1, 1))], axis=1)
    views = [View(features_of(model, variables, base), np.ones((4, 2), np.float32))]
    regions = Boxes(boxes, np.ones((4, 2), bool))
    alone = vectors(model, variables, views, regions, sizes)
    found = vectors(wide, both, views, regions, sizes)
    np.testing.assert_allclose(found[..., :features], alone, atol=1e-5)
    np.testing.assert_allclose(found[..., features:], np.tile(alone[:, :1], (1, 2, 1)), atol=1e-5)


def other(run: OpenRun, **pipeline: Any) -> OpenRun:
    changed = dataclasses.replace(run.trainer.pipeline, **pipeline)  # type: ignore[type-var]
    return dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, pipeline=changed))


@pytest.mark.parametrize(
    ("protocol", "scales", "words"),
    [
        ("multi_crop", (), "did you mean multi_scale"),
        ("box_refinement", (48, 64), "--scales is for multi_scale"),
        ("multi_scale", (48,), "two or more"),
        ("multi_scale", (48, 48), "two or more"),
        ("refined_multi_scale", (1, 48), "of 2 pixels at least"),
        ("multi_scale", (-48, 48), "of 2 pixels at least"),
    ],
)
def test_refusals(run: OpenRun, protocol: str, scales: tuple, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate_detection([run], protocol, scales)


def test_refused_ensembles(run: OpenRun, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UserError, match="has the classes cat, dog, owl and the first run blue, green, red"):
        evaluate_detection([run, other(run, classes=("cat", "dog", "owl"))])
    fewer = BoxLoader("test", run.trainer.pipeline.test_loader.images[:3], 48, 4, Unreadable(), 1)  # type: ignore
    with pytest.raises(UserError, match="other test images"):
        evaluate_detection([run, other(run, test_loader=fewer)])
    for task in ("detection", "classification"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "config.json").write_text(json.dumps(to_dict(run.config) | {"task": task}))
    detector = tmp_path / "detection"
    for arguments, words in (
        ([f"--workdir={detector},{tmp_path / 'classification'}"], "for one task, not for detection and classification"),
        ([f"--workdir={detector}", "--recompute_bn=8"], "--recompute_bn is for nets that classify"),
        ([f"--workdir={detector}", "--protocol=multi_scale", "--scales=0.5,1"], "whole pixels"),
    ):
        assert main(["evaluate", *arguments]) == 2
        assert words in capsys.readouterr().err
