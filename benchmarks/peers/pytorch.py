"""PyTorch's training step of the same net, with our weights: eager or compiled, in either memory format."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks.peers import Implementation, Task
from resnet_jax.errors import UserError

#: Memory formats; `+compile` may follow.
FORMATS = ("contiguous", "channels_last")


def import_torch() -> Any:
    """Returns the module `torch`.

    Raises:
      UserError: if it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            "PyTorch is not installed: python -m pip install -r benchmarks/requirements-peers.txt"
        ) from None
    return torch


def implementations(task: Task, variants: Sequence[str] = ()) -> list[Implementation]:
    """Returns one for each variant, `contiguous`, `channels_last`, or either with `+compile`.

    By default it is what a user would try: on a GPU compiled with channels last, on a CPU both formats.

    Raises:
      UserError: without PyTorch, or for an unknown variant.
    """
    torch = import_torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for variant in variants or (["channels_last+compile"] if device.type == "cuda" else FORMATS):
        layout, _, compiled = variant.partition("+")
        if layout not in FORMATS or compiled not in ("", "compile"):
            raise UserError(f"unknown variant {variant!r} of --peer=torch; known: {', '.join(FORMATS)}, each +compile")
        found.append(_implementation(torch, task, device, variant, layout, bool(compiled)))
    return found


def _implementation(torch: Any, task: Task, device: Any, variant: str, layout: str, compiled: bool) -> Implementation:
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True

    def loaded() -> Any:
        net = build(torch, task.fields)
        load(torch, net, *task.variables.values())
        return net.to(device).to(memory_format=memory_format)

    net, tested = loaded(), loaded().eval()
    images = [
        torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        .to(device)
        .contiguous(memory_format=memory_format)
        for x in task.images
    ]
    labels = [torch.from_numpy(y.astype(np.int64)).to(device) for y in task.labels]
    optimizer = torch.optim.SGD(
        net.parameters(), task.learning_rate, momentum=task.momentum, weight_decay=task.weight_decay
    )
    criterion = torch.nn.CrossEntropyLoss()
    run, run_tested = (torch.compile(net), torch.compile(tested)) if compiled else (net, tested)

    def low_precision() -> Any:
        if task.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    step = [0]

    def losses(count: int) -> list[float]:
        net.train()
        found = []
        for _ in range(count):
            at = step[0] % len(images)
            optimizer.zero_grad(set_to_none=True)
            with low_precision():
                loss = criterion(run(images[at]).float(), labels[at])
            loss.backward()
            optimizer.step()
            step[0] += 1
            found.append(loss.detach())
        return [float(x) for x in torch.stack(found).cpu()]

    def evaluate(count: int) -> list[float]:
        found = []
        with torch.no_grad():
            for i in range(count):
                with low_precision():
                    logits = run_tested(images[i % len(images)])
                found.append(criterion(logits.float(), labels[i % len(images)]))
        return [float(x) for x in torch.stack(found).cpu()]

    def step_from(params: dict) -> tuple[float, dict]:
        load(torch, net, params)
        return losses(1)[0], read(net, params)

    return Implementation(f"torch {variant}", losses, evaluate, step_from)


def build(torch: Any, fields: dict, bn_group_size: int = 0) -> Any:
    """Returns the net as a `torch.nn.Module` with our paths as names: `stage2.block1.conv1.weight`.

    With `bn_group_size`, so many examples share batch statistics in training, as on a GPU of their own.
    """
    nn, functional = torch.nn, torch.nn.functional
    Module: Any = nn.Module
    BatchNorm: Any = nn.BatchNorm2d

    class Norm(BatchNorm):
        def forward(self, x: Any) -> Any:
            if not (self.training and bn_group_size):
                return super().forward(x)
            return torch.cat([super(Norm, self).forward(part) for part in x.split(bn_group_size)])

    def conv(inputs: int, outputs: int, size: int, strides: int) -> Any:
        return nn.Conv2d(inputs, outputs, size, strides, (size - 1) // 2, bias=False)

    class Projection(Module):
        def __init__(self, inputs: int, outputs: int, strides: int) -> None:
            super().__init__()
            self.conv, self.bn = conv(inputs, outputs, 1, strides), Norm(outputs)

        def forward(self, x: Any) -> Any:
            return self.bn(self.conv(x))

    class Unit(Module):
        def __init__(self, inputs: int, width: int, strides: int) -> None:
            super().__init__()
            bottleneck = fields["block"] == "bottleneck"
            layers = ((1, 1), (3, 1), (1, 4)) if bottleneck else ((3, 1), (3, 1))
            strided = 1 if bottleneck and fields["stride_on"] == "3x3" else 0
            self.count, self.strides, features = len(layers), strides, inputs
            for i, (size, multiple) in enumerate(layers):
                outputs = width * multiple
                setattr(self, f"conv{i + 1}", conv(features, outputs, size, strides if i == strided else 1))
                setattr(self, f"bn{i + 1}", Norm(outputs))
                features = outputs
            self.kind, self.missing = fields["shortcut"], features - inputs
            if self.kind == "C" or (self.kind == "B" and (strides > 1 or self.missing)):
                self.shortcut = Projection(inputs, features, strides)

        def forward(self, x: Any) -> Any:
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                if i < self.count:
                    y = functional.relu(y, inplace=True)
            if hasattr(self, "shortcut"):
                y = y + self.shortcut(x)
            elif self.kind != "none":
                if self.strides > 1 or self.missing:
                    half = self.missing // 2
                    x = functional.pad(
                        x[:, :, :: self.strides, :: self.strides], (0, 0, 0, 0, half, self.missing - half)
                    )
                y = y + x
            return functional.relu(y, inplace=True)

    class Stem(Module):
        def __init__(self) -> None:
            super().__init__()
            self.imagenet, width = fields["stem"] == "imagenet", fields["widths"][0]
            self.conv = conv(fields.get("channels", 3), width, *((7, 2) if self.imagenet else (3, 1)))
            self.bn = Norm(width)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.bn(self.conv(x)), inplace=True)
            return functional.max_pool2d(x, 3, 2, 1) if self.imagenet else x

    class Net(Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, features = Stem(), fields["widths"][0]
            for i, (size, width) in enumerate(zip(fields["stage_sizes"], fields["widths"], strict=True)):
                stage = nn.Sequential()
                for k in range(size):
                    stage.add_module(f"block{k + 1}", Unit(features, width, 2 if i and k == 0 else 1))
                    features = width * (4 if fields["block"] == "bottleneck" else 1)
                setattr(self, f"stage{i + 1}", stage)
            self.head = nn.Linear(features, fields["num_classes"])

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            for i in range(len(fields["stage_sizes"])):
                x = getattr(self, f"stage{i + 1}")(x)
            return self.head(x.mean((2, 3)))

    return Net()


#: PyTorch's names of our leaves.
NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def load(torch: Any, net: Any, *trees: dict) -> None:
    """Copies our parameters or statistics into the net, which keeps what is not given."""
    state = {}
    for tree in trees:
        for path, value in flatten_dict(tree).items():
            array = np.asarray(value)
            if path[-1] == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            state[_name(path)] = torch.from_numpy(np.array(array, order="C"))
    missing, unexpected = net.load_state_dict(state, strict=False)
    left = [key for key in missing if not key.endswith("num_batches_tracked")] if len(trees) > 1 else []
    assert not unexpected and not left, (unexpected, left)


def read(net: Any, like: dict) -> dict:
    """Returns the net's parameters in a tree like ours."""
    state, found = net.state_dict(), {}
    for path in flatten_dict(like):
        array = state[_name(path)].detach().cpu().numpy().copy()
        if path[-1] == "kernel":
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        found[path] = array
    return unflatten_dict(found)


def _name(path: tuple[str, ...]) -> str:
    return ".".join((*path[:-1], NAMES[path[-1]]))
