"""`predict`, as scripts and people read it."""

import json

import numpy as np
import pytest
from PIL import Image

from resnet_jax.__main__ import main
from resnet_jax.data.imagenet.wnids import official_wnids
from resnet_jax.interop.weights import save_weights
from tests.evaluation.nets import small_weights


@pytest.fixture
def weights(tmp_path):
    """A folder of weights whose classes are ImageNet's first three."""
    return str(save_weights(small_weights(classes=official_wnids()[:3]), tmp_path / "weights"))


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return str(tmp_path / "x.png")


def expected(image):
    """Probabilities by the definition of softmax."""
    weights = small_weights(classes=official_wnids()[:3])
    pixels = np.asarray(Image.open(image), np.float64)
    logits = weights.create_model().apply(weights.variables, np.float32((pixels[None] / 255 - weights.mean) / 0.25))
    powers = np.exp(np.float64(logits[0]))
    return powers / powers.sum()


def test_json_has_classes_names_and_probabilities(capsys, weights, image):
    assert main(["predict", f"--weights={weights}", image, "--json", "--top=2"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (answer,) = found["images"]
    assert found["model"] == "cifar_resnet20" and answer["image"] == image
    best = np.argsort(-expected(image))[:2]
    names = ["tench", "goldfish", "great white shark"]
    assert [(one["label"], one["class"], one["name"]) for one in answer["top"]] == [
        (label, official_wnids()[label], names[label]) for label in best
    ]
    np.testing.assert_allclose([one["probability"] for one in answer["top"]], expected(image)[best], rtol=1e-4)


def test_a_bad_image_among_good_ones_is_said_and_the_status_is_2(capsys, weights, image, tmp_path):
    assert main(["predict", f"--weights={weights}", image, str(tmp_path), "no.jpg", image]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert lines == [image, image] and " %  tench (n01440764)" in out
    assert err.splitlines() == [
        f"error: {tmp_path} is a folder; give the images in it, as {tmp_path}/*",
        "error: there is no file no.jpg", "error: 2 of 4 images were not answered",
    ]  # fmt: skip


def test_explain_writes_what_it_says(capsys, weights, image, tmp_path):
    out = tmp_path / "maps"
    command = [
        "predict",
        f"--weights={weights}",
        image,
        image,
        "--explain",
        "--class=Goldfish",
        f"--out={out}",
        "--json",
    ]
    assert main(command) == 0
    answers = json.loads(capsys.readouterr().out)["images"]
    assert [one["overlay"] for one in answers] == [str(out / "x.png.cam.png"), str(out / "x.png.2.cam.png")]
    assert {one["explained"] for one in answers} == {"goldfish"}
    assert Image.open(answers[0]["overlay"]).size == (224, 224)
    assert main(["predict", f"--weights={weights}", image, "--explain"]) == 0
    assert "where it sees" in capsys.readouterr().out and (tmp_path / "x.png.cam.png").is_file()


def test_embeddings_go_with_the_names_of_those_that_could_be_read(capsys, weights, image, tmp_path):
    assert main(["predict", f"--weights={weights}", image, "no.jpg", image, f"--embed={tmp_path / 'v.npz'}"]) == 2
    found = np.load(tmp_path / "v.npz")
    assert found["images"].tolist() == [image, image] and found["embeddings"].shape == (2, 6)


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "predict needs --weights and at least one IMAGE"),
    (["IMAGE"], "predict needs --weights"),
    (["--weights=/none", "IMAGE"], "there is no file /none"),
    (["--weights=W", "none.png"], "there is no file none.png"),
    (["--weights=W", "IMAGE", "--top=0"], "--top=0 must be 1 or more"),
    (["--weights=W", "IMAGE", "--class=tench"], "--class and --out are for --explain"),
    (["--weights=W", "IMAGE", "--explain", "--class=tensh"], "unknown class 'tensh'; did you mean tench?"),
    (["--weights=W", "IMAGE", "--least=0.2"], "--least is for nets that detect"),
    (["--weights=W", "IMAGE", "--embed=v.npy"], "--embed=v.npy must end in .npz"),
    (["--weights=W", "IMAGE", "--embed=IMAGE/v.npz"], "cannot write"),
])  # fmt: skip
def test_mistakes_are_one_line(capsys, weights, image, arguments, message):
    assert main(["predict", *(a.replace("=W", f"={weights}").replace("IMAGE", image) for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err
