"""Scores by every protocol against NumPy: a net whose forward pass is written out, views cut by slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.errors import UserError
from resnet_jax.evaluation import protocols
from resnet_jax.evaluation.scoring import ensemble, jitted_forward, scores
from resnet_jax.models.registry import create_model
from resnet_jax.training.distributed import make_mesh
from tests.evaluation.tiny_net import TinyNet, numpy_scores


@pytest.fixture(scope="module")
def net():
    model = TinyNet()
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    variables = jax.tree.map(lambda v: 3 * v, variables)  # scores far from uniform, where averages differ
    return variables, jitted_forward(model, make_mesh(jax.devices()[:1]))


def photos(height, width, count=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 16)])
def test_ten_crops_on_padded_images(net, height, width):
    """CIFAR's: 32 pixels and 4 of padding, softmax of each crop averaged, and not the softmax of averaged logits.

    Crops have the image's own size, square or not, as those of training.
    """
    variables, forward = net
    x = photos(height, width)
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    crops = [padded[:, i : i + height, j : j + width] for i, j in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))]
    each = np.array([numpy_scores(variables, view) for crop in crops for view in (crop, crop[:, :, ::-1])])
    found = scores(forward, variables, protocols.ten_crop_padded(4).views(jnp.asarray(x)))
    np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-5)
    logits = np.log(each).mean(axis=0)
    assert np.abs(np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - found).max() > 1e-4
    np.testing.assert_allclose(found.sum(axis=1), 1)


def pillow(image, side):
    """(height, width, 3) resized by Pillow's antialiased bilinear filter, channel by channel in float32."""
    height, width, _ = image.shape
    new = (side, width * side // height) if height <= width else (height * side // width, side)
    parts = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., c]), "F").resize(new[::-1], Image.BILINEAR))
        for c in range(3)
    ]
    return np.stack(parts, axis=-1)


def test_multi_scale_is_the_mean_of_class_maps_over_scales_and_mirror_images(net):
    variables, forward = net
    x = photos(20, 15)
    each = []
    for side in (10, 15, 24):
        resized = np.stack([pillow(image, side) for image in x])
        each += [numpy_scores(variables, resized), numpy_scores(variables, resized[:, :, ::-1])]
    found = scores(forward, variables, protocols.multi_scale((10, 15, 24)).views(jnp.asarray(x)))
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-5)


def test_the_papers_sizes():
    """2015, section 3.4: crops of 224 from 256, five scales; 2016, section 5: one crop of 320 from 320."""
    chosen = {name: protocols.choose_for_photographs(name) for name in protocols.NAMES[1:]}
    sizes = {name: protocol.views.shapes(protocol.views.group(300, 400)) for name, protocol in chosen.items()}
    assert sizes == {
        "centre_crop": ((224, 224),),
        "ten_crop": ((224, 224),) * 5,
        "crop320": ((320, 320),),
        "multi_scale": ((224, 298), (256, 341), (384, 512), (480, 640), (640, 853)),
    }
    assert {name: protocol.mirrored for name, protocol in chosen.items()} == {
        "centre_crop": False, "ten_crop": True, "crop320": False, "multi_scale": True,
    }  # fmt: skip
    assert [chosen[name].views.side for name in ("centre_crop", "ten_crop", "crop320")] == [256, 256, 320]
    metrics = {name: protocol.metric for name, protocol in chosen.items()}
    assert metrics == {
        "centre_crop": "single_crop_224", "crop320": "single_crop_320", "ten_crop": "ten_crop",
        "multi_scale": "multi_scale",
    }  # fmt: skip


def test_an_ensemble_is_the_mean_of_scores():
    one, other = np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([[0.1, 0.9], [0.7, 0.3]])
    np.testing.assert_allclose(ensemble([one, other]), [[0.35, 0.65], [0.8, 0.2]])
    with pytest.raises(UserError, match="same images and classes"):
        ensemble([one, other[:1]])


def test_a_resnet_takes_larger_images():
    """Fully convolutional as it stands: a net of this package at 32 and at 40 x 56 pixels."""
    model = create_model("cifar_resnet20", stage_sizes=(1, 1, 1), widths=(4, 4, 4))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    forward = jitted_forward(model, make_mesh(jax.devices()[:1]))
    found = scores(forward, variables, protocols.multi_scale((32, 40)).views(jnp.asarray(photos(40, 56))))
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tencrop", {}, "unknown protocol 'tencrop'; did you mean ten_crop"),
        ("ten_crop", {"padding": 0}, "config.data.padding=0.*single_view"),
        ("centre_crop", {}, "centre crop is single_view"),
        ("crop320", {}, "choose single_view or ten_crop"),
        ("multi_scale", {}, "--scales=32,40"),
        ("ten_crop", {"scales": [32]}, "--scales is for --protocol=multi_scale"),
        ("multi_scale", {"scales": [32, 0]}, "--scales=32,0 must be pixels"),
        ("multi_scale", {"any_size": False}, "takes images of any size"),
    ],
)
def test_what_does_not_fit_is_said(name, fields, message):
    with pytest.raises(UserError, match=message):
        protocols.choose(name, **{"size": 32, "padding": 4, **fields})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("single_view", {}, "choose centre_crop"),
        ("multi_scale", {"crop": 64}, "nets trained on crops of 224 pixels.*--scales=64,80"),
        ("crop320", {"any_size": False}, "takes images of any size"),
        ("ten_crop", {"scales": [32]}, "--scales is for --protocol=multi_scale"),
    ],
)
def test_what_does_not_fit_photographs_is_said(name, fields, message):
    with pytest.raises(UserError, match=message):
        protocols.choose_for_photographs(name, **fields)
