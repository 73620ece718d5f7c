"""VGG as a detector: a region that is the whole image is seen as the classifier sees the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import VGG, create_model
from resnet_jax.models.detection.roi import roi_max_pool
from tests.models import reference as ref

SMALL = {"stage_sizes": (1, 2), "widths": (4, 6), "hidden": 8}


def detector(**fields):
    fields = SMALL | {"num_classes": 3, "test_proposals": (60, 20), "detections": 10, "rpn_features": 8} | fields
    return create_model("faster_rcnn_vgg16", anchor_sizes=(12,), **fields)


def test_a_region_that_is_the_whole_image_is_what_the_classifier_sees():
    """Of 14x14 features, RoI pooling to 7x7 is the last max-pool. Weights of the classifier fit by their names."""
    classifier, images = VGG(**SMALL, num_classes=0), ref.images(2, 28, 28, 3)
    variables = ref.random_variables(classifier, images)
    net = detector()
    names = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    assert names.keys() == {"stage1", "stage2", "fc1", "fc2", "rpn", "head", "head_boxes"}
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        name: jax.tree.map(jnp.shape, names[name]) for name in variables["params"]
    }
    (features,) = net.apply(variables, images, False, method="image_features")
    assert (features.shape, *net.strides, net.region_size) == ((2, 14, 14, 6), 2, 7)
    whole = np.array([[0, 0, 26, 26]], np.float32)  # positions 0 to 13
    pooled = jax.vmap(lambda one: roi_max_pool(one, whole, size=7, scale=1 / net.strides[0]))(features)[:, 0]
    seen = net.apply(variables, pooled, False, method="see_regions")
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen, classifier.apply(variables, images), rtol=1e-5)


def test_hidden_layers_drop_out_in_training_alone():
    """With weights and inputs of one, nothing else than dropout gives a zero."""
    variables = {"params": {"fc1": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)},
                            "fc2": {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}}}  # fmt: skip
    net, rngs = detector(region_size=2), {"dropout": jax.random.key(0)}
    pooled = jnp.ones((20, 2, 2, 2))
    tested, trained = (np.asarray(net.apply(variables, pooled, train, method="see_regions", rngs=rngs))
                       for train in (False, True))  # fmt: skip
    assert (tested == 73).all() and 0.3 < (trained == 0).mean() < 0.7


def test_the_published_net_sees_images_at_a_stride_of_16():
    """By shapes alone: conv5 is seen at a stride of 16, and fc1 is that of images of 224 pixels."""
    net = create_model("faster_rcnn_vgg16")
    images = jax.ShapeDtypeStruct((1, 600, 800, 3), jnp.float32)
    found, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    assert found.boxes.shape == (1, 100, 4)
    params = variables["params"]
    assert params["fc1"]["kernel"].shape == (25088, 4096) and params["head"]["kernel"].shape == (4096, 21)
    assert params["rpn"]["objectness"]["kernel"].shape == (1, 1, 512, 9)
    (features,) = jax.eval_shape(lambda v, x: net.apply(v, x, False, method="image_features"), variables, images)
    assert features.shape == (1, 38, 50, 512) and net.strides == (16,)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 600), (600, 16), (31, 33)])
def test_positions_reach_to_the_borders_of_every_image(height, width):
    """As Caffe's max-pools, which round up: of 600 pixels 38 positions, and one of an image below the stride."""
    net, images = create_model("faster_rcnn_vgg16"), jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    found, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    (features,) = jax.eval_shape(lambda v, x: net.apply(v, x, False, method="image_features"), variables, images)
    assert features.shape == (1, -(-height // 16), -(-width // 16), 512) and found.boxes.shape == (1, 100, 4)
