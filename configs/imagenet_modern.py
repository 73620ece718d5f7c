r"""ResNet-50 on ImageNet by later recipes; those of the two papers are in imagenet.py.

    python -m resnet_jax train --config=configs/imagenet_modern.py:resnet50_rsb_a3 \
        --config.data.data_dir=IMAGENET --workdir=runs/resnet50_rsb_a3

After the colon comes a recipe. Its paper reports this top-1 accuracy in percent of the centre crop of 224 pixels
(quoted):

| name | recipe | top-1, quoted |
|:--|:--|--:|
| resnet50_goyal      | Goyal et al. 2017 at their reference batch of 256, 90 epochs | 76.40 (table 1) |
| resnet50_goyal_8192 | the same at 8,192: 32 times the rate, 5 epochs of warm-up    | 76.26 (table 1) |
| resnet50_rsb_a2     | Wightman, Touvron and Jegou 2021, procedure A2, 300 epochs   | 79.8            |
| resnet50_rsb_a3     | the same, procedure A3, 100 epochs of 160 pixels             | 78.1            |

Goyal et al. print errors, 23.60 +- 0.12 and 23.74 +- 0.09: means and deviations of five runs, each the median over its
last five epochs (section 5.1). docs/fidelity.md says how these and the recipes' numbers were checked.

None of these runs has been made here. A run reports the error of that crop, 100 minus the accuracy. Other nets take a
recipe by --config.model.name=resnet101.

The command is the one above with another name; docs/tutorials/many_devices.md has it for each kind of machine, and
launch/ the files for SLURM and Kubernetes. batch_size is over all devices. Add, for memory and speed:

| where | resnet50_goyal | resnet50_goyal_8192 | resnet50_rsb_a2, resnet50_rsb_a3 |
|:--|:--|:--|:--|
| 1 GPU       | --config.dtype=bfloat16 | also --config.accumulate=16 | --config.accumulate=4 |
| 8 GPUs      | the same                | also --config.accumulate=2  | nothing |
| TPU v4-8    | the same                | also --config.accumulate=8  | --config.accumulate=2 |
| TPU v4-32   | (a batch too small)     | also --config.accumulate=2  | nothing |
| TPU v4-128  | (a batch too small)     | --config.dtype=bfloat16     | nothing |

Hours, ESTIMATED and not measured: the images of all epochs, divided by an assumed 2,500 images/s of 224 pixels
for each GPU (an A100 in bfloat16; timm's benchmark gave a user 2,600 there, its issue 1491) and an assumed 1,500
for each TPU v4 chip. Images of 160 pixels cost (160 / 224)^2 of that, and all devices are fully used. The host
has to keep up (docs/input_pipeline.md); RandAugment's share of the step is not known.

| recipe | 1 GPU | 8 GPUs | TPU v4-8 (4 chips) | TPU v4-32 (16 chips) | TPU v4-128 (64 chips) |
|:--|--:|--:|--:|--:|--:|
| resnet50_goyal, resnet50_goyal_8192 | 13 | 1.6 | 5.3 | 1.3 | 0.33 |
| resnet50_rsb_a2                     | 43 | 5.3 | 18  | 4.4 | 1.1  |
| resnet50_rsb_a3                     | 7.3 | 0.9 | 3.0 | 0.8 | 0.19 |

Quoted times: goyal_8192 takes one hour on 256 GPUs (the paper's abstract), P100s (section 4.3). From memory, not
checked: A2 takes 55 hours and A3 15 hours on 4 V100.

docs/fidelity.md says what differs from the papers' own runs.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.data.imagenet.wnids import COUNTS
from resnet_jax.errors import unknown_name


def get_config(recipe: str = "resnet50_rsb_a3") -> ConfigDict:
    """Returns one of `RECIPES`.

    Raises:
      UserError: for another name.
    """
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    config = base_config()
    config.model.update({"name": "resnet50", "stride_on": "3x3", "zero_init_last": True, "init_mode": "fan_out"})
    config.data.update({"name": "imagenet", "padding": 0, "crop": "aspect", "normalization": "imagenet"})
    config.optimizer.decay_scope = "kernels"
    RECIPES[recipe](config)
    return config


def _length(config: ConfigDict, batch_size: int, epochs: int, warmup_epochs: int = 5) -> None:
    """Sets the run's length, and what is counted in epochs."""
    epoch = COUNTS["train"] / batch_size
    config.batch_size = batch_size
    config.steps = round(epochs * epoch)
    config.eval_every = config.checkpoint_every = round(epoch)
    config.schedule.warmup_steps = round(warmup_epochs * epoch)


def _goyal(config: ConfigDict, batch_size: int) -> None:
    """Sets Goyal et al. 2017, sections 2.2, 3 and 5.1: the rate follows the batch, statistics are over 32 examples."""
    _length(config, batch_size, 90)
    config.model.bn_group_size = 32
    config.optimizer.nesterov = True
    config.optimizer.base_batch_size = 256  # for which the rate is 0.1
    config.schedule.boundaries = (30 / 90, 60 / 90, 80 / 90)
    if batch_size > 256:
        config.schedule.warmup = "linear"
        config.schedule.warmup_rate = 0.1


def _rsb(config: ConfigDict, epochs: int) -> None:
    """Sets what A2 and A3 of Wightman et al. 2021, table 2, share."""
    _length(config, 2048, epochs)
    config.dtype = "bfloat16"
    config.loss = "binary_cross_entropy"
    config.model.bn_group_size = 512  # a batch on four GPUs
    config.optimizer.update({"name": "lamb", "weight_decay": 0.02})
    config.schedule.update({"name": "cosine", "warmup": "linear", "warmup_rate": 1e-4})
    config.regularization.update({"mixup": 0.1, "cutmix": 1.0, "target_threshold": 0.2})
    config.data.rand_augment.update({"operations": 2, "deviation": 0.5, "probability": 0.5, "variant": "timm"})
    config.data.eval_shorter_side = 235  # a crop of 0.95


def _rsb_a2(config: ConfigDict) -> None:
    _rsb(config, 300)
    config.optimizer.learning_rate = 5e-3
    config.data.rand_augment.magnitude = 7.0
    config.data.repeats = 3
    config.model.update({"stochastic_depth": 0.05, "stochastic_depth_per": "example"})


def _rsb_a3(config: ConfigDict) -> None:
    _rsb(config, 100)
    config.optimizer.learning_rate = 8e-3
    config.data.rand_augment.magnitude = 6.0
    config.data.train_sizes = (160,)


RECIPES = {
    "resnet50_goyal": lambda config: _goyal(config, 256),
    "resnet50_goyal_8192": lambda config: _goyal(config, 8192),
    "resnet50_rsb_a2": _rsb_a2,
    "resnet50_rsb_a3": _rsb_a3,
}
