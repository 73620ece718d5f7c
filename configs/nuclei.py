"""Nuclei in microscope images, nucleus against background: an FCN on the CIFAR ResNet-20.

    python -m resnet_jax convert --from=resnet20-12fca82f.th --out=weights/resnet20
    python -m resnet_jax train --config=configs/nuclei.py --config.data.folder=PATH \
        --config.init_from=weights/resnet20 --workdir=runs/nuclei

PATH has train/ and val/, each with images/ and instances/: 16-bit maps in which 0 is the background and every nucleus
has a number. The set is that of the 2018 Data Science Bowl (Caicedo et al. 2019). Without --config.init_from the net
starts from random weights.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = base_config()
    config.task = "segmentation"
    config.model.name = "cifar_resnet20"
    config.model.head = "fcn"
    config.model.head_width = 64
    config.data.name = "image_masks"
    config.data.instances = True
    config.data.classes = ("background", "nucleus")
    config.data.normalization = "imagenet"
    config.data.image_size = 128
    config.data.scale = (0.75, 1.5)
    config.data.colour_jitter = 0.4
    config.batch_size = 8
    config.steps = 450
    config.schedule.name = "poly"
    config.optimizer.learning_rate = 0.05
    config.log_every = 25
    config.eval_every = 225
    config.checkpoint_every = 225
    return config
