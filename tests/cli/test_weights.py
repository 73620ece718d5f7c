"""`convert`, `export` and `evaluate --weights` as they are typed."""

import json

import numpy as np
import pytest
import safetensors.numpy

from resnet_jax.__main__ import main
from tests.interop import files_made

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
