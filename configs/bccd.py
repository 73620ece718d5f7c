"""Blood cells: a small Faster R-CNN on the 364 photographs of BCCD."""

from ml_collections import ConfigDict

from resnet_jax.config import base_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = base_config()
    config.task = "detection"
    config.model.name = "faster_rcnn_cifar_resnet20"
    config.data.name = "voc"
    config.data.normalization = "imagenet"
    config.data.image_size = 120
    config.data.most_objects = 32
    config.batch_size = 4
    config.steps = 1000
    config.optimizer.learning_rate = 0.01
    config.eval_every = 250
    config.log_every = 10
    config.checkpoint_every = 250
    return config
