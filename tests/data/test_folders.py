"""Plain folders of images by class: how they are parted, and what is said of those that are not right."""

import hashlib
import json

import jax
import numpy as np
import pytest

from configs.finetune import get_config
from resnet_jax.data.folders import open_folder
from resnet_jax.data.held_out_split import choose_split, stratified_split
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.training.loop import fit
from resnet_jax.training.trainer import make_trainer
from tests.data.imagenet.conftest import fill, picture
from tests.training.test_init_from import a_folder_of_weights


@pytest.fixture
def flat(tmp_path):
    """Ten cats, five dogs, with what else lies about in such folders."""
    images = {f"cat/c{i}.jpg": picture(i) for i in range(10)} | {
        f"dog/d{i}.PNG": picture(i, form="PNG") for i in range(5)
    }
    return fill(
        tmp_path / "pets", images | {"README.txt": b"", "cat/notes.txt": b"", ".git/x": b"", "dog/.DS_Store": b""}
    )


def test_the_lowest_hashes_of_each_class_are_held_out(flat):
    opened = open_folder(flat, share=0.2)
    assert (opened.evaluated_on, tuple(opened.train.classes)) == ("held_out", ("cat", "dog"))
    expected = set()
    for names, count in (([f"cat/c{i}.jpg" for i in range(10)], 2), ([f"dog/d{i}.PNG" for i in range(5)], 1)):
        expected |= set(sorted(names, key=lambda n: hashlib.sha256(n.encode()).hexdigest())[:count])
    assert set(opened.test.names) == expected
    everything = {f"cat/c{i}.jpg" for i in range(10)} | {f"dog/d{i}.PNG" for i in range(5)}
    assert set(opened.train.names) == everything - expected
    for part in (opened.train, opened.test):
        for i in range(len(part)):
            name, label, data = part.load(i)
            assert label == ["cat", "dog"].index(name.split("/")[0]) and data == (flat / name).read_bytes()
    assert len(opened.remarks) == 1 and "2 entries" in opened.remarks[0] and ".txt" in opened.remarks[0]


def test_another_image_moves_at_most_one_of_its_class(flat):
    before = open_folder(flat, share=0.3)
    for i in range(10, 30):
        fill(flat, {f"cat/c{i}.jpg": picture(i)})
        after = open_folder(flat, share=0.3)
        moved = set(before.test.names) - set(after.test.names)
        assert len(moved) <= 1 and not any(name.startswith("dog") for name in moved)
        before = after


def test_every_class_is_on_both_sides():
    labels = [0] * 2 + [1] * 3
    for share in (0.01, 0.99):
        kept, held = stratified_split(list("abcde"), labels, share, ("x", "y"))
        assert sorted([*kept, *held]) == [0, 1, 2, 3, 4]
        assert {labels[i] for i in kept} == {labels[i] for i in held} == {0, 1}


def test_which_split_is_evaluated_on():
    cases = [
        (({"test", "validation"}, "auto", True), "test"), (({"validation"}, "auto", True), "validation"),
        ((set(), "auto", True), "held_out"), (({"test"}, "held_out", True), "held_out"),
        (({"test", "validation"}, "validation", False), "validation"),
    ]  # fmt: skip
    assert [choose_split("x", *case) for case, _ in cases] == [expected for _, expected in cases]
    wrong = [
        (({"test"}, "validation", True), "x has test"), ((set(), "auto", False), "held_out_share=0.2"),
        (({"test"}, "held_out", False), "needs config.data.held_out_share"),
    ]  # fmt: skip
    for case, message in wrong:
        with pytest.raises(UserError, match=message):
            choose_split("x", *case)


def test_folders_that_are_parted_already(tmp_path):
    images = {f"train/{c}/{i}.jpg": picture(i) for c in "ab" for i in range(3)}
    root = fill(tmp_path / "set", images | {"valid/b/x.jpg": picture(9)})
    opened = open_folder(root, share=0.5)
    assert (opened.evaluated_on, list(opened.test.labels), len(opened.train)) == ("validation", [1], 6)
    fill(root, {"test/a/y.jpg": picture(8), "test/c/z.jpg": picture(8)})
    with pytest.raises(UserError, match="test has images of 'c', which .*train has not"):
        open_folder(root)
    assert open_folder(root, "validation").test.names == ["b/x.jpg"]
    assert open_folder(root, "held_out", 0.3).evaluated_on == "held_out"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "cannot be read: No such file"), (["x.jpg"], "no class folders"), (["a/x.jpg", "a/y.jpg"], "'a' alone"),
        (["a/x.jpg", "a/y.jpg", "b/notes.txt"], "class folder .*b holds no image"),
        (["a/x.jpg", "a/y.jpg", "b/deep/x.jpg"], "holds no image: its images lie in deep/, a folder too deep"),
        (["a/x.jpg", "a/y.jpg", "b/x.jpg"], "class 'b' has 1 image"), (["val/a/x.jpg"], "holds val/ but no train/"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path, files, message):
    fill(tmp_path / "set", {name: picture(0) for name in files})
    with pytest.raises(UserError, match=message) as raised:
        open_folder(tmp_path / "set", share=0.2)
    assert "\n" not in str(raised.value)


def test_a_file_and_a_locked_folder_are_said(flat):
    with pytest.raises(UserError, match="is a file"):
        open_folder(flat / "README.txt")


def test_the_everyday_case(flat, tmp_path):
    """A folder and weights: net, size, normalisation and classes come out, and the run can be evaluated elsewhere."""
    weights = a_folder_of_weights(tmp_path / "w", 3, seed=3)
    config = get_config()
    config.init_from, config.data.folder = str(weights), str(flat)
    config.update({"steps": 2, "batch_size": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2})
    result = fit(config, tmp_path / "run", devices=jax.devices()[:1])
    assert (result.dataset, result.evaluated_on, result.model) == ("image_folder", "held_out", "cifar_resnet20")
    facts = json.loads((tmp_path / "run/data.json").read_text())
    assert facts["classes"] == ["cat", "dog"] and facts["image_shape"] == [8, 8, 3]
    np.testing.assert_allclose(facts["mean"], 0.4)
    flat.rename(tmp_path / "moved")
    found = evaluate(tmp_path / "run", str(tmp_path / "moved"))
    assert (found.examples, found.evaluated_on) == (3, "held_out")
    assert found.test_error == pytest.approx(result.metrics["test_error"])
    with pytest.raises(UserError, match="image_folder needs --config.data.folder=PATH"):
        config.data.folder = None
        make_trainer(config, jax.devices()[:1])
