"""torchvision's VGG nets, made narrow: how fixtures/vgg.json was recorded; needs PyTorch and torchvision.

python -m tests.interop.vgg_nets
"""

import json
from pathlib import Path

from tests.interop import made

FIXTURE = Path(__file__).parent / "fixtures" / "vgg.json"
SIZE, CLASSES, HIDDEN = 224, 5, 10

#: An eighth to a sixty-fourth of the published widths.
WIDTHS = {64: 4, 128: 6, 256: 8, 512: 9, "M": "M"}


def record() -> None:
    """Writes logits and the names of the tensors of narrow nets, and a hash of the names of the published ones."""
    import torch
    from torchvision.models import vgg

    found: dict[str, object] = {}
    for name, letter, norm in (("vgg16", "D", False), ("vgg19", "E", False), ("vgg16_bn", "D", True),
                               ("vgg11", "A", False)):  # fmt: skip
        with torch.device("meta"):
            published = {
                key: tuple(value.shape) for key, value in getattr(vgg, name)(weights=None).state_dict().items()
            }
        net = vgg.VGG(vgg.make_layers([WIDTHS[width] for width in vgg.cfgs[letter]], norm), CLASSES)
        net.classifier[0] = torch.nn.Linear(7 * 7 * WIDTHS[512], HIDDEN)
        net.classifier[3], net.classifier[6] = torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
        shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        net.load_state_dict({key: torch.from_numpy(value) for key, value in made.state_dict(shapes).items()})
        images = torch.from_numpy(made.images(SIZE).transpose(0, 3, 1, 2).copy()).double()
        with torch.no_grad():
            logits = net.double().eval()(images)
        found[name] = {
            "published": made.names_hash(published), "shapes": {key: list(shape) for key, shape in shapes.items()},
            "logits": [[made.short(value) for value in row] for row in logits.tolist()],
        }  # fmt: skip
    FIXTURE.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    record()
