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


def names_of(root, **options):
    """The images to train on and those to evaluate on, and what is said of others."""
    opened = open_folder(root, **options)
    assert all(opened.train.load(i).data for i in range(len(opened.train)))
    return sorted(opened.train.names), sorted(opened.test.names), " | ".join(opened.remarks)


def test_what_systems_leave_is_no_image(tmp_path):
    """The case folder_appledouble, with what Windows, NAS boxes and notebooks leave: none of it counts."""
    names = ["._c0.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir/c0.jpg/x.jpg", ".ipynb_checkpoints/c0.jpg"]
    images = {f"{c}/{c}{i}.jpg": picture(i) for c in "cd" for i in range(3)}
    junk = {f"{c}/{name}": b"Mac OS X" for c in "cd" for name in names} | {"__MACOSX/c/._c0.jpg": b"", "._c": b""}
    train, test, remarks = names_of(fill(tmp_path, images | junk), share=0.3)
    assert sorted(train + test) == sorted(images) and not remarks


def test_parts_in_any_case(tmp_path):
    """The case folder_capital_train_val."""
    images = {f"{part}/{c}/{i}.jpg": picture(i) for part in ("Train", "VAL", "Test") for c in "ab" for i in range(2)}
    fill(tmp_path, images)
    for split, part in (("auto", "test"), ("validation", "validation")):
        opened = open_folder(tmp_path, split)
        assert (opened.evaluated_on, len(opened.train), len(opened.test)) == (part, 4, 4)
        assert opened.test.paths[0].parts[-3] == {"test": "Test", "validation": "VAL"}[part]


def test_classes_of_one_split_and_unlabelled_images(tmp_path):
    """A class that is not evaluated counts and is told; so does a flat test/, whose images have no labels (Kaggle)."""
    images = {f"train/{c}/{i}.jpg": picture(i) for c in "abc" for i in range(2)} | {"val/a/0.jpg": picture(0)}
    fill(tmp_path, images | {"test/0.jpg": picture(0), "extra/x.jpg": picture(0), "extra/deep/x.jpg": b""})
    (tmp_path / "val/d").mkdir()
    train, test, remarks = names_of(tmp_path)
    assert len(train) == 6 and test == ["a/0.jpg"]
    assert "test holds images, but no class folders, and is left out" in remarks
    assert "val has no image of 2 of the 3 classes: b, c" in remarks
    assert "folders beside train/ are left out: extra" in remarks
    with pytest.raises(UserError, match="eval_split=test, but .* has validation; .*test holds images, but no class"):
        open_folder(tmp_path, "test")


def test_a_class_may_be_called_train(tmp_path):
    images = {f"{c}/{i}.jpg": picture(i) for c in ("bus", "test", "train") for i in range(2)}
    assert tuple(open_folder(fill(tmp_path, images), share=0.5).train.classes) == ("bus", "test", "train")


def test_links_endings_and_names_of_all_kinds(tmp_path):
    """Linked classes and images are read; links that lead nowhere, and folders called x.jpg, are left out and told."""
    odd = [
        "UPPER.JPG",
        "two words.jpeg",
        "\u732b.png",
        "new\nline.jpg",
        "a.tar.gif",
        "x.webp",
        "x.TIF",
        "x.bmp",
        "x.jfif",
    ]
    root = fill(tmp_path / "set", {f"a/{name}": picture(0) for name in odd} | {"a/folder.jpg/x.jpg": picture(0)})
    other = fill(tmp_path / "elsewhere", {"0.jpg": picture(0), "1.jpg": picture(1)})
    (root / "b").symlink_to(other)
    (root / "a/link.jpg").symlink_to(other / "0.jpg")
    (root / "a/lost.jpg").symlink_to(other / "gone.jpg")
    (root / "A").mkdir()
    fill(root, {"A/0.jpg": picture(0), "A/\udce9.jpg": picture(0)})
    train, test, remarks = names_of(root, share=0.5)
    wanted = [*(f"a/{name}" for name in odd), "a/link.jpg", "b/0.jpg", "b/1.jpg", "A/0.jpg", "A/\udce9.jpg"]
    assert sorted(train + test) == sorted(wanted)
    assert "1 links in" in remarks and "a/lost.jpg" in remarks and "1 entries of" in remarks and "folder.jpg" in remarks
    assert "class folders 'A' and 'a' differ in case alone" in remarks


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "cannot be read: No such file"), (["x.jpg"], "no class folders"), (["a/x.jpg", "a/y.jpg"], "'a' alone"),
        (["a/x.jpg", "a/y.jpg", "b/notes.txt"], "class folder .*b holds no image"),
        (["a/x.jpg", "a/y.jpg", "b/deep/x.jpg"], "holds no image: its images lie in deep/, a folder too deep"),
        (["a/x.jpg", "a/y.jpg", "b/x.jpg"], "class 'b' has 1 image"), (["val/a/x.jpg"], "holds val/ but no train/"),
        (["TEST/a/x.jpg", "TEST/b/x.jpg"], "holds TEST/ but no train/: put the class folders of the training images"),
        (["pets/a/x.jpg", "pets/b/x.jpg"], "has pets/ alone, which holds the folders: give .*set/pets$"),
        (["pets/Train/a/x.jpg", "pets/Val/a/x.jpg", "__MACOSX/pets/._x.jpg"], "pets/ alone, .*: give .*set/pets$"),
        (["train/train/a/x.jpg", "train/train/b/x.jpg"], "has train/ alone, .*: move its folders up into train/"),
        (["train/x.jpg", "train/y.jpg", "test/z.jpg"], "has no class folders; images lie in a folder for each"),
        (["val/a/x.jpg", "valid/a/x.jpg", "train/a/x.jpg"], "holds both val/ and valid/; leave one of them"),
        (["a/x.jpg", "b/0001", "b/0002"], "class folder .*b holds no image: 0001 and the like do not count"),
        (["a/x.jpg", "b/.hidden.jpg"], "class folder .*b holds no image: remove it, or put its images there"),
        (["train/cat/x.jpg", "train/dog/x.jpg", "val/Cat/x.jpg"], "'Cat', .*: there it is 'cat', and here 'Cat'"),
        (["train/caf\u00e9/x.jpg", "train/b/x.jpg", "val/cafe\u0301/x.jpg"], r"there it is 'caf\\xe9', and here 'cafe"),
        (["train/a/x.jpg", "train/b/x.jpg", "val/a/notes.txt"], "val holds no image in its class folders"),
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
