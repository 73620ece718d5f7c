"""`convert`, `export` and `evaluate --weights` as they are typed."""

import json

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from resnet_jax.__main__ import main
from tests.interop import files_made, torch_made

FIELDS = {"stage_sizes": (1, 1), "widths": (4, 8), "num_classes": 10}


def test_a_file_goes_in_is_tested_and_goes_out(tmp_path, capsys):
    tensors = files_made.tensors_of("akamaster", "cifar_resnet20", **FIELDS)
    (tmp_path / "in.safetensors").write_bytes(safetensors.numpy.save(tensors))
    folder, out = tmp_path / "w", tmp_path / "out.safetensors"
    assert main(["convert", f"--from={tmp_path}/in.safetensors", f"--out={folder}", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["layout"] == "akamaster" and len(said["source"]["sha256"]) == 64 and said["num_classes"] == 10
    config = ["--config=configs/cifar10.py:resnet56", "--config.data.name=synthetic", "--config.data.padding=0"]
    given = "--config.data.normalization=weights"
    assert main(["evaluate", f"--weights={folder}", *config, given, "--json"]) == 0
    single = json.loads(capsys.readouterr().out)
    assert main(["evaluate", f"--weights={folder}", *config, given, "--protocol=single_view", "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)
    assert single["examples"] == 256 and tested["test_error"] == pytest.approx(single["test_error"])
    assert sorted(path.name for path in folder.iterdir()) == ["weights.json", "weights.safetensors"]
    assert main(["export", f"--weights={folder}", f"--out={out}"]) == 0
    back = safetensors.numpy.load_file(out)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_a_backbone_is_chosen_embeds_and_names_no_classes(tmp_path, capsys):
    """A teacher and a student without classifiers: `convert` asks which, and `predict` gives features."""
    tensors = files_made.tensors_of("torchvision", "cifar_resnet20", **FIELDS)
    bare = {name: array for name, array in tensors.items() if not name.startswith("fc.")}
    nets = {"teacher": bare, "student": {f"module.{name}": array for name, array in bare.items()}}
    path, folder = torch_made.save(tmp_path / "dino.pth", nets), tmp_path / "w"
    convert = ["convert", f"--from={path}", f"--out={folder}"]
    assert main(convert) == 2
    error = capsys.readouterr().err
    assert "student and teacher: say which by --key" in error and error.count("\n") == 1 and not folder.exists()
    assert main([*convert, "--key=teacher", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["num_classes"], said["image_size"]) == (0, 32)
    image = tmp_path / "x.png"
    Image.fromarray(np.zeros((40, 32, 3), np.uint8)).save(image)
    for more in ([], ["--explain", f"--embed={tmp_path}/x.npz"]):
        assert main(["predict", f"--weights={folder}", str(image), *more]) == 2
        assert "has no classifier, so there are no classes to name; --embed" in capsys.readouterr().err
    assert main(["predict", f"--weights={folder}", str(image), f"--embed={tmp_path}/x.npz"]) == 0
    assert np.load(tmp_path / "x.npz")["embeddings"].shape == (1, 8)
    out, config = capsys.readouterr().out, ["--config=configs/cifar10.py:resnet56", "--config.data.name=synthetic"]
    assert out.strip() == str(image)
    assert main(["evaluate", f"--weights={folder}", *config, "--config.data.padding=0"]) == 2
    assert "has no classifier: it cannot be tested" in capsys.readouterr().err
    assert main(["export", f"--weights={folder}", f"--out={tmp_path}/back.safetensors", "--format=torchvision"]) == 0
    back = safetensors.numpy.load_file(tmp_path / "back.safetensors")
    assert back.keys() == bare.keys()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["convert", "--out=x"], "needs --from and --out"),
        (["convert", "--from=x", "--out=y", "--mean=a,b,c"], "--mean=a,b,c must be numbers"),
        (["convert", "--from=nothing.pth", "--out=y"], "there is no file nothing.pth"),
        (["export", "--weights=x", "--out=y", "--format=onyx"], "unknown format 'onyx'"),
        (["evaluate", "--weights=x"], "--weights needs --config"),
        (["evaluate", "--weights=x", "--workdir=y"], "needs --workdir or --weights"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
