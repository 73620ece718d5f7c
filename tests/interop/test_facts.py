"""Facts beside weights, as timm and transformers write them, are used; nothing is claimed that nobody said."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.errors import UserError
from resnet_jax.evaluation.predict import classes_of, prepare_image
from resnet_jax.interop.weights import read_weights, save_weights
from resnet_jax.training.init_from import digest
from resnet_jax.training.load_weights import import_weights, load_weights
from tests.interop import files_made

CASE = Path(__file__).parents[2] / ".." / "shared" / "cases" / "timm_config_json" / "config.json"

SMALL = {"stage_sizes": (1, 1), "widths": (4, 8), "num_classes": 3}
PETS = ["Abyssinian", "Bengal", "Boxer"]
CFG = {"input_size": [3, 160, 160], "crop_pct": 0.95, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.5],
       "interpolation": "bicubic", "first_conv": "conv1", "classifier": "fc", "pool_size": [5, 5]}  # fmt: skip
TIMM = {"architecture": "resnet18", "num_classes": 3, "label_names": PETS, "pretrained_cfg": CFG}
HF = {"model_type": "resnet", "id2label": {"0": "cat", "1": "dog", "2": "cow"}, "hidden_act": "relu"}
PROCESSOR = {
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"shortest_edge": 224}, "crop_pct": 0.875,
}  # fmt: skip


def folder_of(path, layout="torchvision", net="resnet18", config=None, preprocessor=None, **fields):
    path.mkdir(exist_ok=True)
    tensors = files_made.tensors_of(layout, net, **SMALL | fields)
    (path / "model.safetensors").write_bytes(safetensors.numpy.save(tensors))
    for name, value in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        if value is not None:
            (path / name).write_text(json.dumps(value))
    return path


def test_timms_config(tmp_path):
    converted = import_weights(folder_of(tmp_path / "m", config=TIMM))
    weights = converted.weights
    np.testing.assert_array_equal((weights.mean, weights.std), np.float32([(0.5, 0.4, 0.3), (0.5, 0.25, 0.5)]))
    assert (weights.image_size, weights.shorter_side, weights.classes) == (160, 168, tuple(PETS))
    notes = " ".join(converted.notes)
    assert "by config.json" in notes and "no file says" not in notes and "bicubic" in notes
    again = read_weights(save_weights(weights, tmp_path / "w"))
    assert (again.shorter_side, again.classes, digest(again)) == (168, tuple(PETS), digest(weights))
    # The middle 160 of 168 pixels, not of 183: a ramp over 168 pixels is cut by 4 on each side.
    ramp = np.repeat(np.arange(168, dtype=np.uint8)[None, :, None], 168, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    np.testing.assert_array_equal(prepare_image(weights, tmp_path / "x.png").pixels, ramp[4:164, 4:164])


def test_timms_older_config_and_what_is_given_by_hand(tmp_path):
    old = {"architecture": "resnet18", "num_classes": 3, **CFG}
    folder = folder_of(tmp_path / "m", config=old)
    assert import_weights(folder).weights.image_size == 160
    given = import_weights(folder, mean=(0, 0, 0), std=(1, 1, 1), image_size=64).weights
    assert given.image_size == 64 and given.shorter_side is None
    np.testing.assert_array_equal((given.mean, given.std), (np.zeros(3), np.ones(3)))


def test_transformers_configs(tmp_path):
    folder = folder_of(tmp_path / "m", "transformers", config=HF, preprocessor=PROCESSOR)
    weights = import_weights(folder).weights
    np.testing.assert_array_equal((weights.mean, weights.std), np.float32([(0.1, 0.2, 0.3), (0.4, 0.5, 0.6)]))
    assert (weights.image_size, weights.shorter_side) == (224, 256)
    assert [one.name for one in classes_of(weights)] == ["cat", "dog", "cow"]
    generic = HF | {"id2label": {str(k): f"LABEL_{k}" for k in range(3)}}
    assert import_weights(folder_of(tmp_path / "m", "transformers", config=generic)).weights.classes == ()


def test_imagenets_words_stand_for_its_ids(tmp_path):
    labels = {str(k): f"{name}, another word" for k, name in enumerate(class_names())}
    folder = folder_of(tmp_path / "m", "transformers", config=HF | {"id2label": labels}, num_classes=1000)
    assert import_weights(folder).weights.classes == official_wnids()


def test_transformers_model_without_a_classifier(tmp_path):
    folder = folder_of(tmp_path / "m", "transformers", config=HF)
    tensors = files_made.tensors_of("transformers", "resnet18", **SMALL)
    bare = {name.removeprefix("resnet."): value for name, value in tensors.items() if name.startswith("resnet.")}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(bare))
    weights = load_weights(folder)
    assert weights.num_classes == 0 and weights.source["layout"] == "transformers_model"


@pytest.mark.parametrize(
    "config, message",
    [
        (TIMM | {"architecture": "resnetaa50"}, "is resnetaa50 by config.json beside it: that net pools ahead"),
        (TIMM | {"model_args": {"aa_layer": "avg"}}, "has aa_layer=avg, which no net here has"),
        (TIMM | {"model_args": {"output_stride": 8}}, "has output_stride=8"),
        (TIMM | {"pretrained_cfg": CFG | {"mean": "grey"}}, "says mean=grey, which cannot be"),
        (TIMM | {"pretrained_cfg": CFG | {"std": [0, 1, 1]}}, "says std="),
        (TIMM | {"pretrained_cfg": CFG | {"mean": [0.5]}}, "mean=0.5 must be 3 numbers"),
        (TIMM | {"pretrained_cfg": CFG | {"input_size": [3, 10**9, 10**9]}}, "says input_size="),
        (TIMM | {"label_names": [1, 2, 3]}, "names of classes that are no list"),
    ],
)
def test_configs_that_cannot_be_followed(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        import_weights(folder_of(tmp_path / "m", config=config))


@pytest.mark.parametrize("text", ["", "[]", "[" * 50_000, '{"architecture": 3}', '{"some": "project"}', "\xff\xfe"])
def test_configs_of_others_are_passed_over(tmp_path, text):
    folder = folder_of(tmp_path / "m")
    (folder / "config.json").write_bytes(text.encode("latin1"))
    converted = import_weights(folder)
    assert converted.weights.image_size == 224 and "no file says so itself" in " ".join(converted.notes)


def test_names_of_another_number_of_classes_are_left_out(tmp_path):
    converted = import_weights(folder_of(tmp_path / "m", config=TIMM | {"label_names": PETS[:2]}))
    assert converted.weights.classes == () and "names 2 classes, not 3" in " ".join(converted.notes)


def test_a_stem_for_small_images_says_their_size(tmp_path):
    """A ResNet-18 for CIFAR: 32 pixels, and its set's own mean is not claimed to be ImageNet's."""
    converted = import_weights(folder_of(tmp_path / "m", net="resnet18", stem="cifar"))
    assert converted.weights.image_size == 32
    notes = " ".join(converted.notes)
    assert "no file says so itself; many nets for small images" in notes and "ImageNet" not in notes


@pytest.mark.skipif(not CASE.is_file(), reason="the reported cases are not here (../shared)")
def test_the_reported_config(tmp_path):
    weights = load_weights(folder_of(tmp_path / "m", config=json.loads(CASE.read_text())))
    assert (weights.image_size, weights.shorter_side, weights.classes) == (160, 168, tuple(PETS))
    np.testing.assert_array_equal((weights.mean, weights.std), np.full((2, 3), 0.5))
