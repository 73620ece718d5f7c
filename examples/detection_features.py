"""C2 to C5 of an ImageNet classifier, the inputs of a feature pyramid (Lin et al. 2017).

python examples/detection_features.py [WEIGHTS]
"""

import argparse
import sys

import jax
import jax.numpy as jnp

import resnet_jax
from resnet_jax.cli.run_command import run_command


def pyramid(outputs: tuple[jax.Array, ...], channels: int, key: jax.Array) -> list[jax.Array]:
    """Returns P2 to P5 without their 3x3 convolutions: 1x1 to equal channels, added up coarse to fine (figure 3)."""
    merged: list[jax.Array] = []
    for output, one in zip(reversed(outputs), jax.random.split(key, len(outputs)), strict=True):
        lateral = output @ (jax.random.normal(one, (output.shape[-1], channels)) / output.shape[-1] ** 0.5)
        if merged:
            batch, height, width, _ = lateral.shape
            lateral += jax.image.resize(merged[0], (batch, height, width, channels), "nearest")
        merged.insert(0, lateral)
    return merged


def main(weights_folder: str | None = None) -> list[jax.Array]:
    """Prints the output of each stage; without weights, of a small net that starts at random."""
    images = jnp.zeros((1, 128, 192, 3))  # any size that the strides divide
    if weights_folder:
        weights = resnet_jax.load_weights(weights_folder)
        model, variables = weights.create_model(features_only=True), weights.variables
    else:
        model = resnet_jax.create_model("resnet18", stage_sizes=(1, 1, 1, 1), features_only=True)
        variables = model.init(jax.random.key(0), images)
    outputs = model.apply(variables, images)
    for info, output in zip(resnet_jax.feature_info(model), outputs, strict=True):
        print(f"{info.name}: stride {info.stride}, {info.channels} channels, {output.shape}")
    return pyramid(outputs, 64, jax.random.key(1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights_folder", nargs="?", metavar="WEIGHTS", help="a folder of weights or of a run")
    options = parser.parse_args()
    sys.exit(run_command(lambda: main(**vars(options))))
