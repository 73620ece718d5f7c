"""The CIFAR recipe of He et al. 2015, section 4.2, on any set of small images; cifar10.py and others begin with it."""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown_name
from resnet_jax.models.blocks import BLOCKS
from resnet_jax.models.registry import VARIANTS

#: Depth from which the 2015 paper warms up: 0.1 is "slightly too large to start converging" (section 4.2).
WARMUP_DEPTH = 110


def small_image_config(net: str) -> ConfigDict:
    """The recipe for a CIFAR net, on whatever set of small images.

    Args:
      net: its name, `resnet20` or `cifar_resnet20`.

    Raises:
      UserError: if it is not the name of a CIFAR net.
    """
    names = {name.removeprefix("cifar_"): name for name in VARIANTS if name.startswith("cifar_")}
    short = net.removeprefix("cifar_")
    if short not in names:
        raise unknown_name("CIFAR net", net, names)
    config = base_config()
    config.model.name = names[short]
    config.optimizer.decay_scope = "kernels"  # docs/fidelity.md has the sources
    variant = VARIANTS[names[short]]
    if 2 + sum(variant.fields["stage_sizes"]) * len(BLOCKS[variant.fields["block"]]) >= WARMUP_DEPTH:
        # 2015: until the training error is below 80 %; 2016 (appendix): for 400 iterations.
        config.schedule.warmup = "steps" if variant.source.startswith("2016") else "error"
    return config
