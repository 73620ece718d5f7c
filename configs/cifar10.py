"""CIFAR-10 as in He et al. 2015, section 4.2: 64k iterations at a batch of 128, rate 0.1, divided by 10 at 32k and 48k.

    python -m resnet_jax train --config=configs/cifar10.py:resnet20 --workdir=runs/cifar10_resnet20

After the colon: any CIFAR net, with or without `cifar_` (python -m resnet_jax summary --list). The paper's test
errors in percent (quoted, 2015 table 6): resnet20 8.75, resnet32 7.51, resnet44 7.17, resnet56 6.97,
resnet110 6.43 (mean 6.61), resnet1202 7.93.
"""

from ml_collections import ConfigDict

from configs.small_images import small_image_config


def get_config(net: str = "resnet20") -> ConfigDict:
    """Returns the recipe for a CIFAR net."""
    config = small_image_config(net)
    config.data.name = "cifar10"
    config.model.bn_group_size = 64  # each of two GPUs normalised its half of a batch (2016, appendix)
    return config
