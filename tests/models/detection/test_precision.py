"""`precision` is that of every product of a detector, from the stem to the boxes, and of the pooling between them."""

import re

import jax
import jax.numpy as jnp
import pytest

from resnet_jax.models.registry import create_model

SMALL = {"num_classes": 2, "rpn_features": 4, "test_proposals": (8, 4), "region_pool": "align", "detections": 4}
NETS = {
    "faster_rcnn_cifar_resnet20": {"stage_sizes": (1, 1, 1), "widths": (2, 2, 2)},
    "faster_rcnn_fpn_cifar_resnet20": {"stage_sizes": (1, 1, 1), "widths": (2, 2, 2), "fpn_features": 2,
                                       "head_features": 2},
    "faster_rcnn_vgg16": {"stage_sizes": (1, 1), "widths": (2, 2), "hidden": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_precision_is_that_of_all_products(name: str) -> None:
    net, images = create_model(name, precision="highest", **SMALL, **NETS[name]), jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    program = jax.jit(net.apply).trace(variables, images).lower(lowering_platforms=("tpu",)).as_text()
    products = [line for line in program.split("\n") if re.search(r"stablehlo\.(dot_general|convolution)", line)]
    assert len(products) > 8 and all("HIGHEST" in line for line in products), products
