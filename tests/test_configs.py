"""Every config with every name that it takes, and later recipes through the front door."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from configs import coco, faster_rcnn, imagenet_modern
from resnet_jax.__main__ import main
from resnet_jax.config import flatten, model_overrides
from resnet_jax.errors import UserError
from resnet_jax.models.registry import create_model, list_models
from resnet_jax.training.alternating import check_losses
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.finetune import check_parts, is_frozen
from resnet_jax.training.optimizer import base_rate
from tests.cli.conftest import no_launcher  # noqa: F401
from tests.data.imagenet.conftest import tiny_folder  # noqa: F401

SMALL = [name for name in list_models() if name.startswith("cifar_")]
NAMES = {
    "digits": SMALL,
    "cifar10": SMALL,
    "cifar100": SMALL,
    "imagenet": [name for name in list_models("classification") if name not in SMALL],
    "imagenet_modern": list(imagenet_modern.RECIPES),
    "voc": list_models("segmentation"),
    "coco": coco.NETS,
}


@pytest.mark.parametrize("file", NAMES)
def test_every_name_builds(file):
    get_config = importlib.import_module(f"configs.{file}").get_config
    for name in NAMES[file]:
        config = get_config(name)
        config.init_from = "WEIGHTS" if config.finetune.frozen else None
        validate_config(config)
        create_model(config.model.name, **model_overrides(config))
        assert flatten(config).keys() == flatten(get_config()).keys()
    with pytest.raises(UserError, match="unknown"):
        get_config("resnet51")


# Quoted: Goyal et al. 2017, sections 2.2, 3 and 5.1; Wightman et al. 2021, table 2.
GOYAL = {
    "optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": True, "optimizer.weight_decay": 1e-4,
    "optimizer.decay_scope": "kernels", "schedule.boundaries": (30 / 90, 60 / 90, 80 / 90), "schedule.factor": 0.1,
    "model.stride_on": "3x3", "model.zero_init_last": True, "model.bn_group_size": 32, "data.crop": "aspect",
    "data.colour_pca": 0.0, "regularization.label_smoothing": 0.0, "loss": "cross_entropy",
}  # fmt: skip
RSB = {
    "batch_size": 2048, "optimizer.name": "lamb", "optimizer.weight_decay": 0.02, "optimizer.base_batch_size": 0,
    "schedule.name": "cosine", "schedule.warmup": "linear", "loss": "binary_cross_entropy",
    "regularization.mixup": 0.1, "regularization.cutmix": 1.0, "regularization.label_smoothing": 0.0,
    "regularization.ema_decay": 0.0, "data.random_erasing": 0.0, "data.rand_augment.deviation": 0.5,
    "data.image_size": 224, "data.eval_shorter_side": 235, "data.crop": "aspect", "model.stride_on": "3x3",
}  # fmt: skip
QUOTED = {
    "resnet50_goyal": (90, 0.1, GOYAL | {"batch_size": 256, "schedule.warmup": "none"}),
    "resnet50_goyal_8192": (
        90, 3.2, GOYAL | {"batch_size": 8192, "schedule.warmup": "linear", "schedule.warmup_rate": 0.1}
    ),
    "resnet50_rsb_a2": (
        300, 5e-3, RSB | {"data.rand_augment.magnitude": 7.0, "data.repeats": 3, "model.stochastic_depth": 0.05,
                          "data.train_sizes": ()}
    ),
    "resnet50_rsb_a3": (
        100, 8e-3, RSB | {"data.rand_augment.magnitude": 6.0, "data.repeats": 1, "model.stochastic_depth": None,
                          "data.train_sizes": (160,)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("recipe", imagenet_modern.RECIPES)
def test_recipes_have_their_papers_numbers(recipe):
    epochs, rate, fields = QUOTED[recipe]
    config = imagenet_modern.get_config(recipe)
    flat = flatten(config)
    assert {name: flat[name] for name in fields} == fields
    assert config.steps * config.batch_size / 1_281_167 == pytest.approx(epochs, abs=0.01)
    assert base_rate(config) == pytest.approx(rate)
    if config.schedule.warmup != "none":
        assert config.schedule.warmup_steps * config.batch_size / 1_281_167 == pytest.approx(5, abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["resnet50_goyal_8192", "resnet50_rsb_a2", "resnet50_rsb_a3"])
def test_recipes_train_from_the_command_line(recipe, tiny_folder, tmp_path, capsys):  # noqa: F811
    fields = {
        "data.name": "image_folder", "data.data_dir": tiny_folder, "data.workers": 2, "data.image_size": 32,
        "data.eval_shorter_side": 34, "steps": 2, "batch_size": 8, "eval_every": 2, "checkpoint_every": 2,
        "log_every": 1, "model.stage_sizes": "(1,1)", "model.widths": "(4,8)", "model.bn_group_size": 8,
    }  # fmt: skip
    if "a3" in recipe:
        fields |= {"data.train_sizes": "(16,)"}
    arguments = [f"--config.{name}={value}" for name, value in fields.items()]
    workdir = tmp_path / "run"
    assert main(["train", f"--config=configs/imagenet_modern.py:{recipe}", f"--workdir={workdir}", *arguments]) == 0
    result = json.loads((workdir / "result.json").read_text())
    assert result["steps"] == 2 and 0 <= result["metrics"]["test_error"] <= 100
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < (2 if "rsb" in recipe else 20) for loss in losses)


@pytest.mark.parametrize("net", ["resnet50", "resnet101", "vgg16"])
def test_every_step_of_every_detector_leaves_out_what_has_no_loss(net):
    """As a run of the step is refused otherwise. Shared layers are fixed in the last two. By shapes of shallow nets."""
    tuned = {}
    for step in ("joint", "step1", "step2", "step3", "step4"):
        config = faster_rcnn.get_config(f"{net},{step},coco")
        config.init_from = "weights"
        validate_config(config)
        shallow = {} if net == "vgg16" else {"stage_sizes": (1, 1, 1, 1)}
        model = create_model(config.model.name, **model_overrides(config), **shallow, num_classes=80)
        check_losses(config, model, (64, 64, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
        check_parts(config, params)
        names = traverse_util.flatten_dict(params, sep="/")
        tuned[step] = {name.split("/")[0] for name in names if not is_frozen(config.finetune, name)}
        assert not any("/bn" in name for name in names if not is_frozen(config.finetune, name))
    shared, regions = ({"stage3", "stage4", "stage5"}, {"fc1", "fc2"}) if net == "vgg16" else (
        {"stage2", "stage3"}, {"stage4"})  # fmt: skip
    regions = regions | {"head", "head_boxes"}
    assert tuned == {
        "joint": shared | {"rpn"} | regions, "step1": shared | {"rpn"}, "step2": shared | regions, "step3": {"rpn"},
        "step4": regions,
    }  # fmt: skip


def test_detectors_rates_are_those_of_the_papers():
    """Ren et al. 2015, section 3.1.3, py-faster-rcnn, and 2015, appendix A: (steps, drop, images, rate)."""
    expected = {
        "voc": (110_000, 80_000, 2), "voc07": (70_000, 50_000, 2), "coco": (320_000, 240_000, 8),
        "voc,step1": (80_000, 60_000, 1), "voc,step2": (40_000, 30_000, 2), "coco,step4": (320_000, 240_000, 16),
    }  # fmt: skip
    for words, (steps, drop, images) in expected.items():
        config = faster_rcnn.get_config(f"vgg16,{words}")
        assert (config.steps, config.schedule.boundaries, config.batch_size) == (steps, (drop / steps,), images)
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (0.001, 5e-4)
    assert faster_rcnn.get_config("step2").model.regions == 64
    assert faster_rcnn.get_config("coco").model.anchor_sizes == (64, 128, 256, 512)
    for words, said in (("resnet51", "unknown net, images or step"), ("vgg16,resnet50", "give one of them")):
        with pytest.raises(UserError, match=said):
            faster_rcnn.get_config(words)
