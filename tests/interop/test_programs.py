"""Nets as files for other programs: each is loaded back and gives what the net gives."""

import subprocess
import sys

import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.interop.programs import PLATFORMS, export_onnx, export_stablehlo, pixels_to_logits, write_stablehlo
from tests.evaluation.nets import small_weights
from tests.kernels.direct import called

NETS = {
    "a mean image": {"mean": np.random.default_rng(0).uniform(size=(8, 8, 3)).astype(np.float32)},
    "ImageNet's stem, 1x1 shortcuts": {"name": "resnet50", "size": 32, "shortcut": "B"},
    "gates": {"shortcut": "exclusive_gating"},
    "pre-activation, grey": {"channels": 1, "activation": "full_preactivation"},
    "VGG": {"name": "vgg16", "hidden": 7},
}

ALONE = """
import sys, numpy as np
from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
for n in (1, 3):
    np.save(f"{sys.argv[2]}/{n}.npy", program.call(np.load(sys.argv[2] + "/pixels.npy")[:n]))
assert not {"resnet_jax", "flax"} & set(sys.modules)
"""


def pixels_of(weights, n=3):
    shape = (n, weights.image_size, weights.image_size, weights.channels)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def logits_of(weights, pixels):
    images = (np.float64(pixels) / 255 - weights.mean) / weights.std
    return np.asarray(weights.create_model().apply(weights.variables, np.float32(images)))


def close(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_stablehlo_runs_in_a_process_without_this_package(tmp_path):
    """From another folder, isolated, with JAX alone; any number of images."""
    weights = small_weights(**NETS["a mean image"])
    pixels = pixels_of(weights)
    facts = write_stablehlo(weights, tmp_path / "new" / "net.stablehlo")
    assert facts["takes"] == "uint8 pixels (n, 8, 8, 3)" and facts["gives"] == "logits (n, 3)"
    np.save(tmp_path / "pixels.npy", pixels)
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "new/net.stablehlo"), str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    for n in (1, 3):
        close(np.load(tmp_path / f"{n}.npy"), logits_of(weights, pixels)[:n])


@pytest.mark.parametrize("net", ["ImageNet's stem, 1x1 shortcuts", "VGG"])
def test_stablehlo_of_other_nets(net):
    from jax import export

    weights = small_weights(**NETS[net])
    program = export.deserialize(bytearray(export_stablehlo(weights)))
    assert program.platforms == PLATFORMS
    close(np.asarray(program.call(pixels_of(weights))), logits_of(weights, pixels_of(weights)))


def test_stablehlo_needs_no_compiled_convolutions(kernels):
    """Where training takes them, on one CPU device, in layers of 16 and 32 features."""
    from jax import export

    weights = small_weights(widths=(16, 32))
    pixels = pixels_of(weights, n=8)
    assert called(pixels_to_logits(weights), pixels)
    program = export.deserialize(bytearray(export_stablehlo(weights)))
    assert "resnet_jax." not in program.mlir_module()
    close(np.asarray(program.call(pixels)), logits_of(weights, pixels))


@pytest.mark.parametrize("net", NETS)
def test_onnx_in_onnxruntime(net, tmp_path):
    for package in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: requirements-onnx.txt")
    import onnxruntime

    weights = small_weights(**NETS[net])
    export_onnx(weights, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert taken.type == "tensor(uint8)" and taken.shape[1:] == [weights.image_size] * 2 + [weights.channels]
    for n in (3, 1):
        pixels = pixels_of(weights)[:n]
        close(session.run(None, {taken.name: pixels})[0], logits_of(weights, pixels))


def test_onnx_without_the_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="requirements-onnx.txt"):
        export_onnx(small_weights(), tmp_path / "net.onnx")


def test_a_file_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_jax.interop.programs.export_stablehlo", lambda weights: b"")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_stablehlo(small_weights(), tmp_path / "file" / "net")
