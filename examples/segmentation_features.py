"""A dilated net (Chen et al. 2017) with a head that classifies every pixel: stride 8 instead of 32, the same weights.

python examples/segmentation_features.py
"""

import argparse
import sys

import jax
import jax.numpy as jnp

import resnet_jax
from resnet_jax.cli.run_command import run_command

CLASSES = 21


def main() -> jax.Array:
    """Prints strides and dilations; returns scores of each pixel, (1, 64, 64, 21), by a head that is not trained."""
    images = jnp.zeros((1, 64, 64, 3))
    fields = {"stage_sizes": (1, 1, 1, 1), "widths": (8, 16, 32, 64), "features_only": True}  # small, to be quick
    strided = resnet_jax.create_model("resnet18", **fields)
    dilated = resnet_jax.create_model("resnet18", **fields, output_stride=8)
    variables = jax.jit(strided.init)(jax.random.key(0), images)  # or load_weights(FOLDER).variables: they fit both
    for info in resnet_jax.feature_info(dilated):
        print(f"{info.name}: stride {info.stride}, dilation {info.dilation}")
    last = jax.jit(dilated.apply)(variables, images)[-1]
    print("strided", jax.eval_shape(strided.apply, variables, images)[-1].shape, "dilated", last.shape)
    head = jax.random.normal(jax.random.key(1), (last.shape[-1], CLASSES)) * 0.01
    return jax.image.resize(last @ head, (1, 64, 64, CLASSES), "linear")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = parser.parse_args()
    sys.exit(run_command(lambda: main(**vars(options))))
