"""The examples run, on nets that cost nothing."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from resnet_jax.interop.weights import save_weights
from resnet_jax.training.loop import fit
from tests.evaluation.nets import small_weights

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_none_is_left_out_and_each_is_short():
    assert {path.stem for path in EXAMPLES.glob("*.py")} >= {
        "detection_features", "segmentation_features", "retrieval", "predict_and_explain",
    }  # fmt: skip
    assert all(len(path.read_text().splitlines()) < 60 for path in EXAMPLES.glob("*.py"))


def test_detection(capsys, tmp_path):
    weights = small_weights("resnet18", 32, stage_sizes=(1, 1, 1, 1), widths=(4, 6, 8, 10), shortcut="B")
    found = load("detection_features").main(str(save_weights(weights, tmp_path)))
    assert "C5: stride 32, 10 channels, (1, 4, 6, 10)" in capsys.readouterr().out
    assert [p.shape for p in found] == [(1, 32, 48, 64), (1, 16, 24, 64), (1, 8, 12, 64), (1, 4, 6, 64)]


def test_segmentation(capsys):
    assert load("segmentation_features").main().shape == (1, 64, 64, 21)
    out = capsys.readouterr().out
    assert "C5: stride 8, dilation 4" in out and "strided (1, 2, 2, 64) dilated (1, 8, 8, 64)" in out


def test_retrieval(tmp_path, tiny_config):
    """Even a net of six steps finds digits better than the one in ten of chance, by four deviations."""
    fit(tiny_config(), tmp_path / "run")
    assert load("retrieval").main(str(tmp_path / "run"), queries=32, gallery=320) > 30


def test_predict_and_explain(tmp_path):
    folder = str(save_weights(small_weights(), tmp_path / "w"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    name = load("predict_and_explain").main(folder, str(tmp_path / "x.png"), str(tmp_path / "out.png"))
    assert name in ("cat", "dog", "cow") and Image.open(tmp_path / "out.png").size == (224, 224)
