"""torchvision's ResNet-50, its stages' outputs with dilation: how `fixtures/torchvision_stages.json` was recorded.

    python -m tests.models.torchvision_stages  # where torch and torchvision are installed

Weights and images are made of their names on both sides; of each stage's output only a sample is kept.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).parent / "fixtures/torchvision_stages.json"
SIDE, SAMPLES = 64, 48

#: torchvision's `replace_stride_with_dilation` by our `output_stride`.
DILATED = {32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}


def random(name, shape):
    """float32 values that the name determines, of a size that keeps a deep net's activations moderate."""
    rng = np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")))
    kind = name.rpartition("/")[2]
    if kind in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    size = np.sqrt(1 / np.prod(shape[:-1])) if kind == "kernel" else 1.0 if kind == "images" else 0.2
    return (rng.standard_normal(shape) * size).astype(np.float32)


def images():
    return random("images", (1, SIDE, SIDE, 3))


def sample(stage, output):
    """Values at places that the stage's number determines, of (1, height, width, channels)."""
    places = np.random.Generator(np.random.Philox(stage)).integers(0, output.size, SAMPLES)
    return np.asarray(output, np.float64).reshape(-1)[places]


def our_name(name):
    """`layer2.0.conv1.weight` to `stage2/block1/conv1/kernel`; None for what is no weight of a stage or the stem."""
    if name.startswith("fc.") or name.endswith("num_batches_tracked"):
        return None
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"stage{m[1]}.block{int(m[2]) + 1}.", name)
    name = re.sub(r"^(conv|bn)1\.", r"stem.\1.", name).replace("downsample.0", "shortcut.conv")
    path, leaf = name.replace("downsample.1", "shortcut.bn").replace(".", "/").rsplit("/", 1)
    norm = "bn" in path.rsplit("/", 1)[1]
    kinds = {"weight": "scale" if norm else "kernel", "running_mean": "mean", "running_var": "var"}
    return f"{path}/{kinds.get(leaf, leaf)}"


def torch_outputs(output_stride):
    """The four stages' outputs of torchvision's net, float64 inside, (1, height, width, channels)."""
    import torch
    from torchvision.models import resnet50

    net = resnet50(replace_stride_with_dilation=DILATED[output_stride]).double().eval()
    state = {}
    for name, value in net.state_dict().items():
        ours = our_name(name)
        if ours is None:
            continue
        shape = tuple(value.shape)
        if len(shape) == 4:
            value = torch.from_numpy(random(ours, (*shape[2:], shape[1], shape[0])).transpose(3, 2, 0, 1).copy())
        else:
            value = torch.from_numpy(random(ours, shape))
        state[name] = value.double()
    missing = net.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith("fc.") or name.endswith("tracked") for name in missing), missing
    found = []
    with torch.no_grad():
        x = torch.from_numpy(images().transpose(0, 3, 1, 2).copy()).double()
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            found.append(x.numpy().transpose(0, 2, 3, 1))
    return found


def record():
    import torch
    import torchvision

    found = {
        str(stride): [
            {"shape": list(output.shape), "values": sample(i, output).round(6).tolist()}
            for i, output in enumerate(torch_outputs(stride))
        ]
        for stride in (16, 8)
    }
    versions = {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]}
    FIXTURE.write_text(json.dumps({"versions": versions, "outputs": found}) + "\n")


if __name__ == "__main__":
    record()
