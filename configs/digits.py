"""scikit-learn's digits: real images (8x8, grey) that need no download. A laptop's CPU trains ResNet-20 in seconds.

    python -m resnet_jax train --config=configs/digits.py:resnet20 --workdir=runs/digits_resnet20

After the colon: any CIFAR net, with or without `cifar_` (python -m resnet_jax summary --list). `make ablation` runs
plain20, plain56, resnet20 and resnet56; the README has their errors.
"""

from ml_collections import ConfigDict

from configs.small_images import small_image_config


def get_config(net: str = "resnet20") -> ConfigDict:
    """Returns the CIFAR recipe scaled down to 1,437 images: 24 epochs, half the batch and rate, crops of one pixel.

    Every net gets the same warm-up: in so few steps, 56 layers need it as 110 layers do in 64k.
    """
    config = small_image_config(net)
    config.data.name = "digits"
    config.data.padding = 1
    config.data.flip = False  # a mirrored 2 or 7 is not a digit
    config.batch_size = 64
    config.steps = 540
    config.optimizer.learning_rate = 0.05
    config.schedule.warmup = "steps"
    config.schedule.warmup_rate = 0.01
    config.schedule.warmup_steps = 40
    config.log_every = 9
    config.eval_every = 27
    config.checkpoint_every = 54
    return config
