"""The recipes of rows and configs against their sources: what is read here is paper, section, field, value.

Sources: "2015" is arXiv 1512.03385, "2016" is arXiv 1603.05027, "README 2015" is that of
github.com/KaimingHe/deep-residual-networks, "resnet-1k-layers" and "fb.resnet.torch" are repositories of the authors
and of Facebook, "Goyal" is arXiv 1706.02677, "VGG" is arXiv 1409.1556.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.experiment import RECOMPUTE_BN, asked_metric, row_config
from experiments.registry import load
from resnet_jax.config import flatten
from resnet_jax.models.registry import create_model
from resnet_jax.training.optimizer import make_optimizer, make_schedule

EPOCH = 1_281_167 / 256

#: What both papers' nets share, on both sets.
SHARED = [
    ("2015 3.4, 4.2; 2016 appendix", "optimizer.name", "sgd"),
    ("2015 3.4, 4.2", "optimizer.learning_rate", 0.1),
    ("2015 3.4, 4.2", "optimizer.momentum", 0.9),
    ("2015 3.4, 4.2", "optimizer.weight_decay", 1e-4),
    ("Goyal 5.1: no decay on batch norm, following 2015; fb.resnet.torch README", "optimizer.decay_scope", "kernels"),
    ("Caffe's momentum; README 2015", "optimizer.nesterov", False),
    ("2015 3.4, 4.2", "schedule.factor", 0.1),
    ("2015 3.4: per-pixel mean", "data.normalization", "per_pixel_mean"),
    ("2015 3.4, 4.2", "data.flip", True),
    ("neither paper has it", "data.colour_jitter", 0.0),
    ("Caffe's filler: fan-in, the nets' default", "model.init_mode", None),
]
CIFAR = [
    *SHARED,
    ("2015 4.2", "batch_size", 128),
    ("2015 4.2: two GPUs; 2016 appendix: 64 each", "model.bn_group_size", 64),
    ("2015 4.2", "steps", 64_000),
    ("2015 4.2: at 32k and 48k", "schedule.boundaries", (32_000 / 64_000, 48_000 / 64_000)),
    ("2015 4.2: 4 pixels", "data.padding", 4),
    ("2016 appendix: only translation and flipping", "data.colour_pca", 0.0),
]
IMAGENET = [
    *SHARED,
    ("2015 3.4; README 2015", "batch_size", 256),
    ("README 2015; 2016 appendix: 32 each", "model.bn_group_size", 32),
    ("2015 3.4", "data.shorter_side", (256, 480)),
    ("2015 3.4", "data.image_size", 224),
    ("2015 3.4, single view of the authors' README", "data.eval_shorter_side", 256),
    ("2015 3.4: AlexNet's; 2016 appendix: the same as 2015", "data.colour_pca", 0.1),
    ("2015 3.4, 2016 appendix", "schedule.warmup", "none"),
]
HE2015_IMAGENET = [
    *IMAGENET,
    ("2015 3.4: up to 600k", "steps", 600_000),
    ("2015 figure 4, read off the plot", "schedule.boundaries", (150 / 600, 300 / 600)),
    ("2015 table 1: the first 1x1 strides", "model.stride_on", None),
    ("2015 3.4", "data.crop", "scale"),
]
HE2016_IMAGENET = [
    *IMAGENET,
    ("2016 appendix: epochs 30 and 60; 90 in fb.resnet.torch", "steps", round(90 * EPOCH)),
    ("2016 appendix", "schedule.boundaries", (30 / 90, 60 / 90)),
    ("2016 table 5", "data.crop", "scale"),
]
WARMED = [("2016 appendix", "schedule.warmup", "steps"), ("2016 appendix", "schedule.warmup_steps", 400),
          ("2016 appendix", "schedule.warmup_rate", 0.01)]  # fmt: skip

#: resnet-1k-layers: models/resnet-pre-act.lua beside fb.resnet.torch's train.lua and datasets/cifar10.lua.
RESNET_1K_LAYERS = [
    ("README, usage: -batchSize 64", "batch_size", 64),
    ("README, usage: -nGPU 2", "model.bn_group_size", 32),
    ("README, usage: -nEpochs 200", "steps", 156_250),
    ("train.lua: behind epochs 80 and 121", "schedule.boundaries", (80 / 200, 121 / 200)),
    ("train.lua", "schedule.warmup", "none"),
    ("opts.lua", "optimizer.learning_rate", 0.1),
    ("opts.lua", "optimizer.momentum", 0.9),
    ("train.lua", "optimizer.nesterov", True),
    ("opts.lua", "optimizer.weight_decay", 1e-4),
    ("train.lua: optim.sgd over all parameters", "optimizer.decay_scope", "all"),
    ("resnet-pre-act.lua: kW * kH * nOutputPlane", "model.init_mode", "fan_out"),
    ("cifar10.lua: ColorNormalize", "data.normalization", "per_channel"),
    ("cifar10.lua: RandomCrop(32, 4)", "data.padding", 4),
]
FB_RESNET_TORCH = [
    ("TRAINING.md", "batch_size", 256),
    ("TRAINING.md: 8 GPUs", "model.bn_group_size", 32),
    ("opts.lua", "steps", round(90 * EPOCH)),
    ("train.lua: each 30 epochs", "schedule.boundaries", (30 / 90, 60 / 90)),
    ("train.lua", "optimizer.nesterov", True),
    ("README, notes", "optimizer.decay_scope", "all"),
    ("models/preresnet.lua; README, notes", "model.stride_on", "3x3"),
    ("models/preresnet.lua", "model.init_mode", "fan_out"),
    ("imagenet.lua: RandomSizedCrop", "data.crop", "aspect"),
    ("imagenet.lua: ColorJitter", "data.colour_jitter", 0.4),
    ("imagenet.lua: Lighting", "data.colour_pca", 0.1),
    ("imagenet.lua: ColorNormalize", "data.normalization", "imagenet"),
]
VGG = [
    ("VGG 3.1", "batch_size", 256),
    ("VGG 3.1", "steps", 370_000),
    ("VGG 3.1", "optimizer.learning_rate", 0.01),
    ("VGG 3.1", "optimizer.weight_decay", 5e-4),
    ("VGG 3.1: random RGB colour shift", "data.colour_pca", 0.1),
    ("VGG 3.1: S from [256, 512]", "data.shorter_side", (256, 512)),
]

#: (table or figure, row, its recipe)
ROWS = [
    ("he2015.figure6", "plain20", [*CIFAR, ("2015 4.2", "schedule.warmup", "none")]),
    ("he2015.table6", "resnet56", [*CIFAR, ("2015 4.2", "schedule.warmup", "none")]),
    ("he2015.table6", "resnet110", [*CIFAR, ("2015 4.2: until below 80 %", "schedule.warmup", "error"),
                                    ("2015 4.2", "schedule.warmup_error", 80.0)]),
    ("he2015.table2", "plain34", HE2015_IMAGENET),
    ("he2015.table4", "resnet152", HE2015_IMAGENET),
    ("he2016.table5", "resnet152_original", HE2015_IMAGENET),
    ("he2016.table1", "exclusive_gating_-6", [*CIFAR, *WARMED, ("2016 table 1", "model.gate_bias", -6.0)]),
    ("he2016.table2", "original_resnet164", [*CIFAR, *WARMED]),
    ("he2016.table3", "cifar100_resnet1001_preactivation_unit", [*CIFAR, *WARMED]),
    ("he2016.table4", "cifar10_resnet110_original", [*CIFAR, *WARMED]),
    ("he2016.table4", "cifar10_resnet1001", [*CIFAR, *WARMED]),
    ("he2016.table4", "cifar10_resnet1001_batch64", RESNET_1K_LAYERS),
    ("he2016.table5", "resnet200_original", HE2016_IMAGENET),
    ("he2016.table5", "resnet200_preactivation", HE2016_IMAGENET),
    ("he2016.table5", "resnet200_preactivation_aspect", FB_RESNET_TORCH),
    ("he2015.table3", "vgg16", VGG),
]  # fmt: skip


@pytest.mark.parametrize(("table", "name", "recipe"), ROWS, ids=[f"{table}-{name}" for table, name, _ in ROWS])
def test_a_row_has_its_papers_recipe(table, name, recipe):
    (row,) = (row for row in load(table).rows if row.name == name)
    fields = flatten(row_config(row))
    differing = {source: (field, fields[field], value) for source, field, value in recipe if fields[field] != value}
    assert differing == {}


def test_every_runnable_row_of_a_set_decays_weights_alone_but_those_of_torch_code():
    """And has its paper's groups: what a new row could forget."""
    torch_code = {"cifar10_resnet1001_batch64", "resnet200_preactivation_aspect"}
    for table in ("he2015.table2", "he2015.table3", "he2015.table4", "he2015.table6", "he2015.figure6",
                  *(f"he2016.table{i}" for i in range(1, 6))):  # fmt: skip
        for row in load(table).rows:
            if row.config and ":vgg" not in row.config and row.name not in torch_code:
                config = row_config(row)
                groups = 32 if config.data.name == "imagenet" else 64
                assert (config.optimizer.decay_scope, config.model.bn_group_size) == ("kernels", groups), row.name


def test_imagenet_tables_average_batch_norms_statistics_but_for_the_row_of_torch_code():
    """README 2015: "strictly computed using average (not moving average)"; fb.resnet.torch has running averages."""
    asked = {
        (table, row.name): asked_metric(load(table), row)[1]
        for table in ("he2015.table2", "he2015.table3", "he2015.table4", "he2016.table5")
        for row in load(table).rows
        if row.config
    }
    torch_code = asked.pop(("he2016.table5", "resnet200_preactivation_aspect"))
    assert torch_code == 0 and set(asked.values()) == {RECOMPUTE_BN} and len(asked) >= 20


def test_resnet_200_has_the_depths_of_its_footnote():
    """2016, footnote of section 5: 16 units more than ResNet-152 on 28x28; fb.resnet.torch: {3, 24, 36, 3}."""
    assert create_model("preact_resnet200").stage_sizes == (3, 24, 36, 3)


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_rate_falls_where_the_paper_says(name):
    config = importlib.import_module(f"configs.{name}").get_config("resnet20" if name == "cifar10" else "resnet50")
    schedule, (first, second) = (
        make_schedule(config),
        {"cifar10": (32_000, 48_000), "imagenet": (150_000, 300_000)}[name],
    )
    rates = [float(schedule(step)) for step in (0, first - 1, first, second - 1, second, config.steps - 1)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def gate_after(steps, decay_scope):
    """Bias and kernel of a gate that no gradient reaches, after so many of its row's updates."""
    (row,) = (row for row in load("he2016.table1").rows if row.name == "exclusive_gating_-6")
    config = row_config(row)
    config.optimizer.decay_scope, config.schedule.warmup = decay_scope, "none"
    optimizer, schedule = make_optimizer(config.optimizer), make_schedule(config)
    params = {"gate": {"bias": jnp.full(1, config.model.gate_bias), "kernel": jnp.ones(1)}}

    def step(number, carry):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return jax.tree.map(lambda p, u: p - schedule(number) * u, params, updates), state

    params, _ = jax.jit(lambda p: jax.lax.fori_loop(0, steps, step, (p, optimizer.init(p))))(params)
    return float(params["gate"]["bias"][0]), float(params["gate"]["kernel"][0])


@pytest.mark.parametrize("steps", [5_000, 10_000, 32_000])
def test_the_gates_bias_stays_where_the_paper_puts_it(steps):
    """2016 table 1 starts gates at -6; decayed, they would stand half open when the rate first falls.

    A decay of 1e-4 at a rate of 0.1, which momentum 0.9 makes ten times as long, takes a factor of exp(-1e-4) a step.
    """
    bias, kernel = gate_after(steps, "kernels")
    assert bias == -6.0
    assert kernel == pytest.approx(np.exp(-1e-4 * steps), rel=0.01)
    assert gate_after(steps, "all")[0] == pytest.approx(-6 * np.exp(-1e-4 * steps), rel=0.01)
    if steps == 32_000:
        assert gate_after(steps, "all")[0] == pytest.approx(-0.25, abs=0.01)
