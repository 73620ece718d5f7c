"""torchvision's Faster R-CNN on the same net, weights and images as ours, trained by the same schedule."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.peers import pytorch
from resnet_jax.data.detection.batches import Batch
from resnet_jax.errors import UserError
from resnet_jax.tasks.average_precision import Found


def import_torchvision() -> Any:
    """Returns the module `torchvision`.

    Raises:
      UserError: if it is not installed.
    """
    pytorch.import_torch()
    try:
        import torchvision
    except ImportError:
        raise UserError("torchvision is needed: python -m pip install -r benchmarks/requirements-peers.txt") from None
    return torchvision


class TorchvisionDetector:
    """A `torchvision.models.detection.FasterRCNN` whose backbone and box head are the stages of a residual net.

    Its stem, first stage and batch norms stay as they are, as in `configs/bccd.py`.
    """

    def __init__(self, net: Any, variables: dict, mean: Sequence[float], std: Sequence[float], momentum: float,
                 decay: float) -> None:  # fmt: skip
        """Builds it.

        Args:
          net: our detector, a `models.detection.faster_rcnn.FasterRCNN`, whose fields are taken.
          variables: of the classifier that both start from.
          mean, std: of pixels in [0, 1].
          momentum, decay: of SGD; the decay is on kernels alone.
        """
        self._torch, torchvision = pytorch.import_torch(), import_torchvision()
        torch = self._torch
        torch.manual_seed(0)
        names = ("stage_sizes", "widths", "block", "stem", "shortcut", "stride_on")
        classes = variables["params"]["head"]["bias"].shape[0]
        whole = pytorch.build(torch, {name: getattr(net, name) for name in names} | {"num_classes": classes})
        pytorch.load(torch, whole, *variables.values())
        shared = torch.nn.Sequential(whole.stem, *(getattr(whole, f"stage{i + 1}") for i in range(net.shared)))
        shared.out_channels = net.widths[net.shared - 1]
        self.model = _faster_rcnn(torch, torchvision, net, shared, whole.stage3, mean, std)
        for part in (whole.stem, whole.stage1):
            part.requires_grad_(False)
        self._norms = [module for module in self.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in self._norms:
            norm.requires_grad_(False)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
                  {"params": [p for p in trained if p.ndim == 1]}]  # fmt: skip
        self._optimizer = torch.optim.SGD(groups, 1.0, momentum)

    def step(self, batch: Batch, rate: float) -> float:
        """Takes a training step and returns its loss."""
        self.model.train()
        for norm in self._norms:
            norm.eval()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch, targets = self._torch, []
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True):
            there = labels >= 0
            targets.append({"boxes": torch.from_numpy(boxes[there]),
                            "labels": torch.from_numpy(labels[there].astype(np.int64) + 1)})  # fmt: skip
        loss = sum(self.model(self._images(batch), targets).values())
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def find(self, batch: Batch) -> Iterator[Found]:
        """Yields what is found in each image, in pixels of the files."""
        self.model.eval()
        with self._torch.no_grad():
            outputs = self.model(self._images(batch))
        for one, scale in zip(outputs, batch.scales, strict=True):
            boxes = one["boxes"].numpy() / scale[[1, 0, 1, 0]]
            yield Found(boxes, one["scores"].numpy(), one["labels"].numpy() - 1)

    def _images(self, batch: Batch) -> list:
        return [self._torch.from_numpy(np.ascontiguousarray(image[:height, :width].transpose(2, 0, 1))).float() / 255
                for image, (height, width) in zip(batch.images, batch.sizes, strict=True)]  # fmt: skip


def _faster_rcnn(torch: Any, torchvision: Any, net: Any, shared: Any, stage: Any, mean: Sequence[float],
                 std: Sequence[float]) -> Any:  # fmt: skip
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.rpn import AnchorGenerator

    nn = torch.nn
    Module: Any = nn.Module
    features, shapes = shared.out_channels, len(net.anchor_sizes) * len(net.anchor_ratios)

    def normal(layer: Any, deviation: float) -> Any:
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
        return layer

    class Head(Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = normal(nn.Conv2d(features, net.rpn_features, 3, net.rpn_stride, 1), 0.01)
            self.objectness = normal(nn.Conv2d(net.rpn_features, shapes, 1), 0.01)
            self.boxes = normal(nn.Conv2d(net.rpn_features, 4 * shapes, 1), 0.01)

        def forward(self, levels: list) -> tuple[list, list]:
            hidden = [torch.relu(self.conv(level)) for level in levels]
            return [self.objectness(x) for x in hidden], [self.boxes(x) for x in hidden]

    class Anchors(AnchorGenerator):
        def forward(self, images: Any, levels: list) -> Any:
            return super().forward(images, [x[:, :, :: net.rpn_stride, :: net.rpn_stride] for x in levels])

    class Regions(Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage = stage

        def forward(self, x: Any) -> Any:
            return self.stage(x).mean((2, 3))

    class Predictor(Module):
        def __init__(self) -> None:
            super().__init__()
            outputs = net.num_classes + 1
            self.classes = normal(nn.Linear(net.widths[-1], outputs), 0.01)
            self.boxes = normal(nn.Linear(net.widths[-1], 4 * outputs), 0.001)

        def forward(self, x: Any) -> tuple:
            return self.classes(x), self.boxes(x)

    sizes, ratios = (tuple(net.anchor_sizes),), (tuple(net.anchor_ratios),)
    pool = torchvision.ops.MultiScaleRoIAlign(["0"], net.region_size, 2)
    model: Callable[..., Any] = FasterRCNN
    found = model(
        shared, image_mean=list(mean), image_std=list(std), rpn_anchor_generator=Anchors(sizes, ratios),
        rpn_head=Head(), rpn_pre_nms_top_n_train=net.train_proposals[0],
        rpn_post_nms_top_n_train=net.train_proposals[1],
        rpn_pre_nms_top_n_test=net.test_proposals[0], rpn_post_nms_top_n_test=net.test_proposals[1],
        rpn_nms_thresh=net.rpn_threshold, rpn_batch_size_per_image=net.rpn_anchors, box_roi_pool=pool,
        box_head=Regions(), box_predictor=Predictor(), box_score_thresh=net.least_score,
        box_nms_thresh=net.nms_threshold, box_detections_per_img=net.detections, box_batch_size_per_image=net.regions,
        box_positive_fraction=net.foreground,
    )  # fmt: skip
    found.rpn.min_size = net.smallest_proposal
    found.transform.size_divisible = 1
    found.transform.resize = lambda image, target: (image, target)  # the images are of the size that they are to have
    return found
