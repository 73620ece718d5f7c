"""Writes fixtures/activations.json, what other projects' nets compute; needs PyTorch, torchvision, timm, transformers.

    python -m tests.interop.record_fixtures [REFERENCE_WEIGHTS]

With the folder of the CIFAR reference weights as an argument, their logits are recorded as well.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
import transformers

from tests.interop import made, torch_nets

FIXTURE = Path(__file__).parent / "fixtures" / "activations.json"


def record() -> dict[str, object]:
    """Every net's features."""
    nets = {}
    for name, (make, modules, size) in torch_nets.NETS.items():
        net = make()
        tensors = torch_nets.filled(net)
        found = torch_nets.features(net, modules, made.images(size))
        names = made.names_hash({key: value.shape for key, value in tensors.items()})
        nets[name] = {"names": names, "size": size, **{key: made.summary(value) for key, value in found.items()}}
        print(name)
    return nets


def reference_logits(folder: Path) -> dict[str, list[list[float]]]:
    """Logits of the CIFAR reference weights for the pictures of `made`."""
    pixels = made.picture_bytes().astype(np.float32) / 255
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())
    found = {}
    for path in sorted(folder.glob("*.th")):
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        net = torch_nets.CifarNet((int(path.name[6:8]) - 2) // 6)
        net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        with torch.no_grad():
            found[path.name] = [[made.short(v) for v in row] for row in net.eval()(images).tolist()]
    return found


if __name__ == "__main__":
    torch.set_num_threads(2)
    versions = {module.__name__: module.__version__ for module in (torch, torchvision, timm, transformers)}
    old = json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {}
    reference = reference_logits(Path(sys.argv[1])) if sys.argv[1:] else old.get("reference", {})
    FIXTURE.write_text(json.dumps({"versions": versions, "nets": record(), "reference": reference}) + "\n")
