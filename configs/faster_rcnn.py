r"""Faster R-CNN with VGG-16 and ResNet-101 on PASCAL VOC and COCO, as in tables 7 to 9 of the 2015 paper.

    python -m resnet_jax train --config=configs/faster_rcnn.py:resnet101 --config.data.data_dir=VOCdevkit \
        --config.init_from=WEIGHTS --workdir=runs/voc

After the colon, with commas between: the net (resnet50, resnet101, vgg16), the images (voc, voc07, coco), and for the
alternating training of Ren et al. 2015, section 3.2, one of its steps (step1, step2, step3, step4). WEIGHTS are of that
net trained on ImageNet, of `convert` or a run.

- voc: trained on VOC 2007 and 2012 ("07+12"), tested on VOC 2007; the folder has VOC2007/ and VOC2012/. 80k steps at
  0.001 and 30k at 0.0001.
- voc07: the same of VOC2007/ alone: 50k steps and 20k, as in py-faster-rcnn.
- coco: 240k steps of 8 images at 0.001 and 80k at 0.0001, and anchors of 64 pixels besides (2015, appendix A).

Published mAP and AP in percent, quoted (tables 7 and 8): vgg16 73.2 on VOC 2007, 41.5 at an IoU of 0.5 and 21.2 on
COCO; resnet101 76.4, 48.4 and 27.2. No number here is ours: neither the images nor ImageNet weights were at hand.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import UserError, unknown_name

#: Steps at the first rate, and all of them, of the images of one kind.
SETS = {"voc": (80_000, 110_000), "voc07": (50_000, 70_000), "coco": (240_000, 320_000)}

#: What stays as the weights have it, and what sees regions alone, as patterns of `finetune.frozen`. VGG is tuned from
#: conv3_1 (Ren et al. 2015). Of the ResNets conv1 and conv2_x are fixed, too, and all batch norms (2015, appendix A).
FIXED = {"vgg16": "stage1,stage2", "resnet50": "stem,stage1,*/bn*", "resnet101": "stem,stage1,*/bn*"}
REGIONS = {"vgg16": "fc*,head*", "resnet50": "stage4,head*", "resnet101": "stage4,head*"}
SHARED = {"vgg16": "stage*", "resnet50": "stem,stage1,stage2,stage3", "resnet101": "stem,stage1,stage2,stage3"}

STEPS = ("step1", "step2", "step3", "step4")


def get_config(what: str = "resnet101") -> ConfigDict:
    """Returns the recipe.

    Args:
      what: a net, and what else differs from joint training on VOC 07+12; see the module.

    Raises:
      UserError: for a word that is none of them, and for two of a kind.
    """
    words = [word.strip() for word in what.split(",")]
    kinds = (("resnet101", *(net for net in FIXED if net != "resnet101")), tuple(SETS), ("joint", *STEPS))
    for word in words:
        if not any(word in kind for kind in kinds):
            raise unknown_name("net, images or step", word, [one for kind in kinds for one in kind])
    chosen = []
    for kind in kinds:
        found = [word for word in words if word in kind]
        if len(found) > 1:
            raise UserError(f"{what} has {' and '.join(found)}: give one of them")
        chosen.append(found[0] if found else kind[0])
    net, images, training = chosen
    config = base_config()
    config.task = "detection"
    config.model.name = f"faster_rcnn_{net}"
    config.data.name = "coco" if images == "coco" else "voc"
    config.data.normalization = "imagenet"
    config.data.image_size = 600
    config.finetune.frozen = FIXED[net]
    first, config.steps = SETS[images]
    config.schedule.boundaries = (first / config.steps,)
    config.batch_size = 2  # py-faster-rcnn's `iter_size`
    if images == "coco":
        config.batch_size = 8
        config.model.anchor_sizes = (64, 128, 256, 512)
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_scope = "kernels"
    config.eval_every = config.checkpoint_every = 10_000
    config.log_every = 20
    if training in STEPS:
        _alternate(config, net, images, training)
    return config


def _alternate(config: ConfigDict, net: str, images: str, step: str) -> None:
    """Sets one of the four steps: the RPN, the regions on its proposals, and both again on fixed shared features.

    On VOC the RPN takes 60k steps at 0.001 and 20k at 0.0001 (Ren et al. 2015), with one image each, and the regions
    30k and 10k with two images of 64 regions each (py-faster-rcnn). On COCO either takes what the 2015 paper gives: 8
    images for the RPN, and 16 for the regions.
    """
    rpn = step in ("step1", "step3")
    config.detection.trained = "rpn" if rpn else "regions"
    others = REGIONS[net] if rpn else "rpn"
    config.finetune.frozen = f"{FIXED[net]},{others}"
    if step in ("step3", "step4"):
        norms = ",*/bn*" if net != "vgg16" else ""
        config.finetune.frozen = f"{SHARED[net]},{others}{norms}"
    if images == "coco":
        config.batch_size = 8 if rpn else 16
        return
    config.steps = 80_000 if rpn else 40_000
    config.schedule.boundaries = (0.75,)
    config.batch_size = 1 if rpn else 2
    config.model.regions = 64
