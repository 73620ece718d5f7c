"""PASCAL VOC 2012 segmentation from ImageNet weights: FCN and DeepLabv3 as torchvision and mmsegmentation train them.

    python -m resnet_jax train --config=configs/voc.py:deeplabv3_resnet50 --config.data.data_dir=VOCdevkit/VOC2012 \
        --config.data.sbd=benchmark_RELEASE/dataset --config.init_from=WEIGHTS --workdir=runs/voc

After the colon: fcn_resnet50, fcn_resnet101, deeplabv3_resnet50, deeplabv3_resnet101. WEIGHTS is a ResNet trained on
ImageNet, of `convert` or a run; its bottlenecks stride in their 3x3 convolutions here, as torchvision's do. Without
--config.data.sbd 1,464 images are trained on, with it 10,582.

The recipe is mmsegmentation's for 20,000 iterations: 16 crops of 512 pixels, at 0.5 to 2 times the size, rate 0.01 that
falls as a polynomial of power 0.9, decay 5e-4, auxiliary loss 0.4. Its mean IoU on `val` in percent (quoted, VOC12 +
aug, single scale): fcn_resnet50 67.1, fcn_resnet101 71.2, deeplabv3_resnet50 76.2, deeplabv3_resnet101 78.7. Its nets
have a stem of three 3x3 convolutions and an FCN head of two of 512; ours are torchvision's. torchvision trains on
COCO's images with VOC's labels: 32 crops of 480 pixels, a rate of 0.02 and decay 1e-4, the same power (quoted: 60.5,
63.7, 66.4, 67.4).

No number here is ours: neither the images nor ImageNet weights were at hand.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown_name
from resnet_jax.models.registry import list_models


def get_config(net: str = "fcn_resnet50") -> ConfigDict:
    """Returns the recipe for a net.

    Raises:
      UserError: if `net` is not the name of a net that segments.
    """
    names = list_models("segmentation")
    if net not in names:
        raise unknown_name("net for segmentation", net, names)
    config = base_config()
    config.task = "segmentation"
    config.model.name = net
    config.data.name = "voc2012"
    config.data.normalization = "imagenet"
    config.data.image_size = 512
    config.data.colour_jitter = 0.4  # mmsegmentation's changes contrast and saturation by 0.5, and brightness
    config.batch_size = 16
    config.steps = 20_000
    config.schedule.name = "poly"
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 5e-4
    config.eval_every = 2_000
    config.checkpoint_every = 2_000
    return config
