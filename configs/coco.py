"""COCO: Faster R-CNN as in the 2015 paper, and on a feature pyramid, from ImageNet weights.

    python -m resnet_jax train --config=configs/coco.py:faster_rcnn_fpn_resnet50 --config.data.folder=COCO \
        --config.init_from=WEIGHTS --workdir=runs/coco

COCO has annotations/instances_train2017.json, instances_val2017.json, train2017/ and val2017/. After the colon:
faster_rcnn_fpn_resnet18, 34, 50, 101 or faster_rcnn_resnet50, 101. WEIGHTS is a ResNet trained on ImageNet, of
`convert` or a run. What it keeps: the stem, the first stage, and batch norm with scale and shift.

With a pyramid it is the 1x schedule of Detectron: 90,000 steps of 16 images, rate 0.02, divided by 10 at 60,000 and
80,000, after 1,000 steps in which it rises from a thousandth of that. Quoted for ResNet-50, box AP on val2017:
torchvision 37.0 (26 epochs, about twice as long), detectron2's 1x 37.9. The other nets have the paper's schedule: 8
images, rate 0.001 for 240,000 steps and 0.0001 for 80,000; quoted for ResNet-101 on val: AP50 48.4, AP 27.2.

The classes of a pyramid are COCO's ids from 1 to 90, as torchvision has them, so that its weights can be evaluated:

    python -m resnet_jax evaluate --weights=WEIGHTS --config=configs/coco.py:faster_rcnn_fpn_resnet50 \
        --config.data.folder=COCO

No number here is ours: the images were not at hand.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.data.detection.coco_names import CLASSES
from resnet_jax.errors import unknown_name

PYRAMIDS = tuple(f"faster_rcnn_fpn_resnet{depth}" for depth in (18, 34, 50, 101))
PAPERS = tuple(f"faster_rcnn_resnet{depth}" for depth in (50, 101))


def get_config(net: str = "faster_rcnn_fpn_resnet50") -> ConfigDict:
    """Returns the recipe for a net.

    Raises:
      UserError: if `net` is none of those above.
    """
    if net not in PYRAMIDS + PAPERS:
        raise unknown_name("net for COCO", net, PYRAMIDS + PAPERS)
    config = base_config()
    config.task = "detection"
    config.model.name = net
    config.data.name = "coco"
    config.data.normalization = "imagenet"
    config.data.classes = ()
    config.optimizer.weight_decay = 1e-4
    config.finetune.frozen = "stem,stage1,*/bn*"
    config.schedule.factor = 0.1
    if net in PYRAMIDS:
        config.data.classes = CLASSES
        config.data.image_size = 800
        config.batch_size = 16
        config.steps = 90_000
        config.optimizer.learning_rate = 0.02
        config.schedule.boundaries = (60 / 90, 80 / 90)
        config.schedule.warmup = "linear"
        config.schedule.warmup_rate = 2e-5
        config.schedule.warmup_steps = 1_000
    else:
        config.model.anchor_sizes = (64, 128, 256, 512)
        config.data.image_size = 600
        config.batch_size = 8
        config.steps = 320_000
        config.optimizer.learning_rate = 0.001
        config.schedule.boundaries = (240 / 320,)
    config.eval_every = 10_000
    config.checkpoint_every = 5_000
    return config
