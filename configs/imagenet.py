r"""ImageNet as in the two papers: 256 images a step, rate 0.1, divided by 10 twice.

    python -m resnet_jax prepare imagenet --source=TARS --out=IMAGENET
    python -m resnet_jax train --config=configs/imagenet.py:resnet50 --config.data.data_dir=IMAGENET \
        --workdir=runs/imagenet_resnet50

After the colon: any ImageNet net (python -m resnet_jax summary --list). A run reports the error of the centre
crop of 224 pixels from a shorter side of 256. Published top-1 / top-5 errors in percent to compare with, all
quoted:

| net | centre crop of 224 | ten crops (2015 table 3) | one crop of 320 (2016 table 5) |
|:--|--:|--:|--:|
| plain34          |            | 28.54 / 10.02 |            |
| resnet34_A       |            | 25.03 / 7.76  |            |
| resnet34_B       |            | 24.52 / 7.46  |            |
| resnet34_C       |            | 24.19 / 7.40  |            |
| resnet50         | 24.7 / 7.8 | 22.85 / 6.71  |            |
| resnet101        | 23.6 / 7.1 | 21.75 / 6.05  |            |
| resnet152        | 23.0 / 6.7 | 21.43 / 5.71  | 21.3 / 5.5 |
| preact_resnet152 |            |               | 21.1 / 5.5 |
| resnet200        |            |               | 21.8 / 6.0 |
| preact_resnet200 |            |               | 20.7 / 5.3 |

Centre crops of 224 are from the README of the authors' models (github.com/KaimingHe/deep-residual-networks). All
of them average batch norm's statistics over training images after training: evaluate --recompute_bn=50000. None
of these runs has been made here.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown_name
from resnet_jax.models.registry import VARIANTS, list_models

#: Images to train on, in ILSVRC 2012.
TRAIN_IMAGES = 1_281_167


def get_config(net: str = "resnet50") -> ConfigDict:
    """Returns the recipe of the paper that a net comes from.

    Raises:
      UserError: if `net` is not the name of an ImageNet net.
    """
    names = [name for name in list_models("classification") if not name.startswith("cifar_")]
    if net not in names:
        raise unknown_name("ImageNet net", net, names)
    config = base_config()
    config.model.name = net
    config.data.name = "imagenet"
    config.data.padding = 0  # crops are of the image itself
    config.batch_size = 256
    config.eval_every = 5_000  # about one epoch
    config.checkpoint_every = 5_000
    if net.startswith("vgg"):
        _vgg(config)
    elif VARIANTS[net].source.startswith("2016"):
        _he2016(config)
    else:
        _he2015(config)
    return config


def _residual(config: ConfigDict) -> None:
    """Sets what both papers share: 2016 has "the same data augmentation as in" 2015 and the same hyper-parameters."""
    config.data.colour_pca = 0.1  # "the standard color augmentation": Krizhevsky et al. 2012
    config.optimizer.decay_scope = "kernels"  # docs/fidelity.md has the sources
    config.model.bn_group_size = 32  # each of eight GPUs normalised its share of a batch (2016, appendix)


def _he2015(config: ConfigDict) -> None:
    """Sets 2015, section 3.4: up to 600k iterations, the rate divided by 10 "when the error plateaus".

    That is near 150k and 300k iterations, read off the plot of figure 4; no text has the numbers.
    """
    _residual(config)
    config.steps = 600_000
    config.schedule.boundaries = (0.25, 0.5)


def _he2016(config: ConfigDict) -> None:
    """Sets 2016, appendix: no warm-up, the rate divided by 10 at epochs 30 and 60; 90 epochs as in their code."""
    _residual(config)
    config.steps = round(90 * TRAIN_IMAGES / config.batch_size)
    config.schedule.boundaries = (1 / 3, 2 / 3)


def _vgg(config: ConfigDict) -> None:
    """Sets Simonyan and Zisserman 2014, section 3.1: 370k iterations, the rate divided by 10 three times on plateaus.

    The paper does not print when that was: here the drops cut the run into four equal parts.
    """
    config.steps = 370_000
    config.schedule.boundaries = (0.25, 0.5, 0.75)
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 5e-4
    config.data.colour_pca = 0.1  # "random RGB colour shift"
    config.data.shorter_side = (256, 512)  # its training scale S
