"""CIFAR-100 with the recipe of CIFAR-10 (He et al. 2016, section 4.2).

    python -m resnet_jax train --config=configs/cifar100.py:preact_resnet164 --workdir=runs/cifar100_preact164

After the colon: any CIFAR net, with or without `cifar_` (python -m resnet_jax summary --list). The paper's test
errors in percent (quoted, 2016 table 3; medians of five runs, says section 3.1): resnet164 25.16,
preact_resnet164 24.33, resnet1001 27.82, preact_resnet1001 22.71.
"""

from ml_collections import ConfigDict

from configs.small_images import small_image_config


def get_config(net: str = "preact_resnet164") -> ConfigDict:
    """Returns the recipe for a CIFAR net."""
    config = small_image_config(net)
    config.data.name = "cifar100"
    config.model.bn_group_size = 64  # each of two GPUs normalised its half of a batch (2016, appendix)
    return config
