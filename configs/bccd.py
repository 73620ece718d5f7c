"""Blood cells: a small Faster R-CNN on the CIFAR ResNet-20, on the 364 photographs of BCCD.

    python -m resnet_jax convert --from=resnet20-12fca82f.th --out=weights/resnet20
    python -m resnet_jax train --config=configs/bccd.py --config.data.folder=PATH \
        --config.init_from=weights/resnet20 --workdir=runs/bccd

PATH has BCCD (github.com/Shenggan/BCCD_Dataset) in PASCAL VOC's layout: red and white cells and platelets, 292
photographs to train on and 72 to test. Stages 1 and 2 see the photograph, and stage 3 sees each region: the structure
of the 2015 paper's appendix A in small. configs/bccd.py:scratch starts from random weights.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown_name


def get_config(start: str = "pretrained") -> ConfigDict:
    """Returns the recipe.

    Args:
      start: "pretrained", which needs `init_from` and keeps the stem, the first stage and all batch norms as they are,
        or "scratch".

    Raises:
      UserError: if it is neither.
    """
    if start not in ("pretrained", "scratch"):
        raise unknown_name("start", start, ("pretrained", "scratch"))
    config = base_config()
    config.task = "detection"
    config.model.name = "faster_rcnn_cifar_resnet20"
    # Of 640x480 pixels, 160x120 are left: platelets have 10 of them, red cells 25 and white cells 30 to 60.
    config.model.anchor_sizes = (10, 25, 48)
    config.model.anchor_ratios = (1.0,)
    config.model.inside_anchors = False  # many cells are cut off by the border
    config.model.rpn_stride = 2
    config.model.regions = 64
    config.model.foreground = 0.5
    config.model.region_pool = "align"
    config.model.region_size = 8
    config.data.name = "voc"
    config.data.normalization = "imagenet"
    config.data.image_size = 120
    config.data.most_objects = 32
    config.batch_size = 4
    config.steps = 1600
    config.optimizer.learning_rate = 0.02
    config.optimizer.decay_scope = "kernels"
    config.schedule.name = "cosine"
    config.schedule.warmup = "linear"
    config.schedule.warmup_rate = 0.002
    config.schedule.warmup_steps = 100
    config.log_every = 20
    config.eval_every = 200
    config.checkpoint_every = 200
    if start == "pretrained":
        config.finetune.frozen = "stem,stage1,*/bn*"
    return config
