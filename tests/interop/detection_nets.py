"""torchvision's Faster R-CNN on a pyramid: how fixtures/detection.json was recorded; needs PyTorch and torchvision.

python -m tests.interop.detection_nets
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.interop import made

FIXTURE = Path(__file__).parent / "fixtures" / "detection.json"
#: Shorter side of images, and the largest that the longer one may have: in the proportion of 800 and 1,333.
SIDE, LONGEST = 160, 160 * 1333 / 800
#: Of the 100 detections of an image, those that the fixture keeps: which are the last ones may be a matter of rounding.
KEPT = 60
#: What batch norm adds to variances: in nets that are trained today, which `inputs` are shown to, and in the published
#: file, which `pictures` are.
TODAY, PUBLISHED = 1e-5, 0.0


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Tensors by name, of a net that finds some objects. Variances are small, so that what is added to them counts."""
    found = {}
    for name, tensor in made.state_dict(shapes).items():
        if name.endswith("running_var"):
            tensor = tensor * np.float32(1e-4)
        elif ("bn" in name or "downsample.1" in name) and name.endswith("weight"):
            tensor = np.abs(tensor) * np.float32(1e-2)
        elif "bbox_pred.weight" in name or "cls_logits.weight" in name:
            tensor = tensor * np.float32(0.1)
        elif "cls_score.weight" in name:
            tensor = tensor * np.float32(0.2)
        elif "cls_score.bias" in name:
            tensor[0] = 11.5  # the background's
        found[name] = tensor
    return found


def pictures() -> list[np.ndarray]:
    """uint8 pictures of blocks of colour; of the second one the longer side limits the size. Both are padded alike."""
    sizes = ((90, 148), (88, 150))
    coarse = [made.generator(f"picture {h}").integers(0, 256, (10, 16, 3)) for h, _ in sizes]
    blocks = [np.repeat(np.repeat(one, 10, axis=0), 10, axis=1).astype(np.uint8) for one in coarse]
    return [one[:height, :width] for one, (height, width) in zip(blocks, sizes, strict=True)]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Two normalised images with their (height, width), zero beyond it."""
    images, sizes = made.images(192), np.array([[192, 150], [100, 192]], np.int32)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[height:], image[:, width:] = 0, 0
    return images, sizes


def _net(epsilon: float) -> Any:
    from functools import partial

    from torchvision.models.detection import faster_rcnn
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.ops import FrozenBatchNorm2d

    body = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=partial(FrozenBatchNorm2d, eps=epsilon))
    layers = {f"layer{stage}": str(stage - 1) for stage in range(1, 5)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], 16)
    return faster_rcnn.FasterRCNN(
        backbone, min_size=SIDE, max_size=LONGEST, box_head=faster_rcnn.TwoMLPHead(16 * 7**2, 32),
        box_predictor=faster_rcnn.FastRCNNPredictor(32, 91),
    ).double().eval()  # fmt: skip


def _listed(found: Mapping[str, Any]) -> dict[str, list]:
    return {
        "boxes": [[round(value, 3) for value in box] for box in found["boxes"].tolist()][:KEPT],
        "scores": [made.short(value) for value in found["scores"].tolist()][:KEPT],
        "labels": found["labels"].tolist()[:KEPT],
    }  # fmt: skip


def record() -> None:
    """Writes what is found in `inputs`, which the net itself sees, and in `pictures`, which are resized."""
    import torch
    from torchvision.models.detection.image_list import ImageList

    nets = [_net(epsilon) for epsilon in (TODAY, PUBLISHED)]
    shapes = {key: tuple(value.shape) for key, value in nets[0].state_dict().items()}
    for net in nets:
        net.load_state_dict({key: torch.from_numpy(value) for key, value in state_dict(shapes).items()})
    images, sizes = inputs()
    tensors = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double()
    listed = ImageList(tensors, [tuple(size) for size in sizes.tolist()])
    shown = [torch.from_numpy(picture.transpose(2, 0, 1).copy()).double() / 255 for picture in pictures()]
    with torch.no_grad():
        features = nets[0].backbone(listed.tensors)
        proposals, _ = nets[0].rpn(listed, features)
        found, _ = nets[0].roi_heads(features, proposals, listed.image_sizes)
        seen = [nets[1]([picture])[0] for picture in shown]  # each by itself, as `predict` pads them
    recorded = {
        "shapes": {key: list(shape) for key, shape in shapes.items()}, "inputs": [_listed(one) for one in found],
        "pictures": [_listed(one) for one in seen],
    }  # fmt: skip
    FIXTURE.write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    record()
