r"""COCO: Faster R-CNN on a feature pyramid, from ImageNet weights, as Detectron and torchvision train it.

    python -m resnet_jax train --config=configs/coco.py:faster_rcnn_fpn_resnet50 --config.data.folder=COCO \\
        --config.init_from=WEIGHTS --workdir=runs/coco

COCO has annotations/instances_train2017.json, instances_val2017.json, train2017/ and val2017/. After the colon:
faster_rcnn_fpn_resnet18, 34, 50 or 101. WEIGHTS is a ResNet trained on ImageNet, of `convert` or a run. What it keeps:
the stem, the first stage, and batch norm with scale and shift. The 2015 paper's own detector is in
configs/faster_rcnn.py.

It is the 1x schedule of Detectron: 90,000 steps of 16 images, rate 0.02, divided by 10 at 60,000 and 80,000, after
1,000 steps in which it rises from a thousandth of that. Quoted for ResNet-50, box AP on val2017: torchvision 37.0 (26
epochs, twice as long), detectron2 37.9. The classes are COCO's ids from 1 to 90, as torchvision has them, so that its
weights can be evaluated:

    python -m resnet_jax evaluate --weights=WEIGHTS --config=configs/coco.py --config.data.folder=COCO

No number here is ours: the images were not at hand.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.data.detection.coco_names import CLASSES
from resnet_jax.errors import unknown_name

NETS = tuple(f"faster_rcnn_fpn_resnet{depth}" for depth in (18, 34, 50, 101))


def get_config(net: str = "faster_rcnn_fpn_resnet50") -> ConfigDict:
    """Returns the recipe for a net.

    Raises:
      UserError: if `net` is none of those above.
    """
    if net not in NETS:
        raise unknown_name("net for COCO", net, NETS)
    config = base_config()
    config.task = "detection"
    config.model.name = net
    config.data.name = "coco"
    config.data.normalization = "imagenet"
    config.data.classes = CLASSES
    config.data.image_size = 800
    config.batch_size = 16
    config.steps = 90_000
    config.optimizer.learning_rate = 0.02
    config.optimizer.weight_decay = 1e-4
    config.finetune.frozen = "stem,stage1,*/bn*"
    config.schedule.factor = 0.1
    config.schedule.boundaries = (60 / 90, 80 / 90)
    config.schedule.warmup = "linear"
    config.schedule.warmup_rate = 2e-5
    config.schedule.warmup_steps = 1_000
    config.eval_every = 10_000
    config.checkpoint_every = 5_000
    return config
