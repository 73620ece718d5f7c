"""The nets of other projects with a forward pass that gives each stage; needs PyTorch and those projects.

The 6n+2 net is written here from the 2015 paper, section 4.2, in the names of the CIFAR repositories.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.interop import made

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


class Block(nn.Module):
    """A basic unit; `option` is A (half on each side), A_end or B."""

    def __init__(self, inputs: int, width: int, stride: int, option: str, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.option, self.stride, self.added, self.shortcut_name = option, stride, width - inputs, shortcut
        if option == "B" and (stride != 1 or inputs != width):
            projection = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.add_module(shortcut, projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, self.shortcut_name):
            x = getattr(self, self.shortcut_name)(x)
        elif self.added:
            before = self.added // 2 if self.option == "A" else 0
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.added - before))
        return torch.relu(residual + x)


class CifarNet(nn.Module):
    """The 6n+2 net."""

    def __init__(self, n: int, option: str = "A", head: str = "linear", shortcut: str = "shortcut"):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for k, width in enumerate((16, 32, 64), start=1):
            units = []
            for i in range(n):
                units.append(Block(inputs, width, 2 if i == 0 and k > 1 else 1, option, shortcut))
                inputs = width
            self.add_module(f"layer{k}", nn.Sequential(*units))
        self.head_name = head
        self.add_module(head, nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head_name)(x.mean((2, 3)))


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def _transformers(kind: str) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    basic = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    return ResNetForImageClassification(ResNetConfig(num_labels=1000, **(basic if kind == "basic" else {})))


#: By the fixture's name: what makes the net, and its modules that end in the stem and each stage.
_LAYERS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
_TIMM_V2 = ("stem", "stages.0", "stages.1", "stages.2", "stages.3")
_HF = ("resnet.embedder", *(f"resnet.encoder.stages.{k}" for k in range(4)))
_CIFAR = ("layer1", "layer2", "layer3")
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], int]] = {
    "torchvision_resnet18": (lambda: _torchvision("resnet18"), _LAYERS, 64),
    "torchvision_resnet34": (lambda: _torchvision("resnet34"), _LAYERS, 64),
    "torchvision_resnet50": (lambda: _torchvision("resnet50"), _LAYERS, 64),
    "timm_resnet50": (lambda: _timm("resnet50"), _LAYERS, 64),
    "timm_resnetv2_18": (lambda: _timm("resnetv2_18"), _TIMM_V2, 64),
    "timm_resnetv2_50": (lambda: _timm("resnetv2_50"), _TIMM_V2, 64),
    "transformers_basic": (lambda: _transformers("basic"), _HF, 64),
    "transformers_bottleneck": (lambda: _transformers("bottleneck"), _HF, 64),
    "cifar_akamaster": (lambda: CifarNet(3), _CIFAR, 32),
    "cifar_end": (lambda: CifarNet(3, "A_end"), _CIFAR, 32),
    "cifar_downsample": (lambda: CifarNet(3, "B", "fc", "downsample"), _CIFAR, 32),
    "cifar_shortcut": (lambda: CifarNet(3, "B"), _CIFAR, 32),
    "cifar_fc_shortcut": (lambda: CifarNet(3, "B", "fc"), _CIFAR, 32),
}


def filled(net: nn.Module) -> dict[str, np.ndarray]:
    """Gives a net the weights of `made`, and returns them."""
    tensors = made.state_dict({name: tuple(value.shape) for name, value in net.state_dict().items()})
    net.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return tensors


def features(net: nn.Module, modules: tuple[str, ...], images: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of the modules, (count, height, width, channels), by our names of the stages; and the logits."""
    found: dict[str, np.ndarray] = {}
    stages = STAGES if len(modules) == 5 else STAGES[1:]

    def keep(stage: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            value = getattr(output, "last_hidden_state", output)
            found[stage] = value.detach().numpy().transpose(0, 2, 3, 1)

        return hook

    hooks = [
        net.get_submodule(name).register_forward_hook(keep(stage)) for stage, name in zip(stages, modules, strict=False)
    ]
    with torch.no_grad():
        output = net.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    found["logits"] = getattr(output, "logits", output).numpy()
    return found
