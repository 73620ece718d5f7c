"""torchvision's nets that segment: how fixtures/segmentation.json was recorded; needs PyTorch and torchvision.

python -m tests.interop.segmentation_nets
"""

import json
from pathlib import Path

from tests.interop import made

FIXTURE = Path(__file__).parent / "fixtures" / "segmentation.json"
SIZE = 65
NETS = ("fcn_resnet50", "deeplabv3_resnet50")


def record() -> None:
    """Writes the logits of both heads, and the names of the tensors, of each net."""
    import torch
    import torchvision

    found = {}
    for name in NETS:
        make = getattr(torchvision.models.segmentation, name)
        net = make(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).double().eval()
        shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        net.load_state_dict({key: torch.from_numpy(value) for key, value in made.state_dict(shapes).items()})
        with torch.no_grad():
            outputs = net(torch.from_numpy(made.images(SIZE).transpose(0, 3, 1, 2).copy()).double())
        maps = {key: made.summary(value.numpy().transpose(0, 2, 3, 1)) for key, value in outputs.items()}
        found[name] = {"shapes": {key: list(shape) for key, shape in shapes.items()}, **maps}
    FIXTURE.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    record()
