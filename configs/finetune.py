"""Fine-tuning on images of your own, from weights trained on others.

    python -m resnet_jax train --config=configs/finetune.py --config.init_from=WEIGHTS --config.data.folder=PATH \
        --workdir=runs/mine

WEIGHTS is a folder of weights or of a run. PATH is a folder with a folder of images for each class; a fifth of
each class is held out and evaluated on. For a set of tensorflow-datasets, give --config.data.name=tfds:NAME
instead of the folder; for a small set in memory, --config.data.name=digits --config.data.resize=32. 1,000 steps
of 32 images are ten epochs of 3,200 images. docs/finetuning.md has all options, and what has been measured.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config


def get_config() -> ConfigDict:
    """Returns SGD at a tenth of the papers' rate, with the net, normalisation and image size of the weights."""
    config = base_config()
    config.model.name = "init_from"
    config.data.name = "image_folder"
    config.data.normalization = "weights"
    config.data.held_out_share = 0.2
    config.data.image_size = 0  # the size of the weights
    config.data.eval_shorter_side = 0
    config.data.crop = "aspect"
    config.data.padding = 0  # crops are of the image itself
    config.data.rgb = True
    config.steps = 1000
    config.batch_size = 32
    config.optimizer.learning_rate = 0.01
    config.eval_every = 100
    config.log_every = 20
    config.checkpoint_every = 200
    return config
