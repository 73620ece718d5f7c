"""What a net sees in an image, and where: `python -m resnet_jax predict --explain` in Python.

python examples/predict_and_explain.py WEIGHTS IMAGE OUT.png
"""

import argparse
import sys

import numpy as np

import resnet_jax
from resnet_jax.cli.run_command import run_command
from resnet_jax.report.overlay import overlay, write_png


def main(weights_folder: str, image: str, out: str) -> str:
    """Prints the three most probable classes, draws where the first one is seen, and returns its name."""
    weights = resnet_jax.load_weights(weights_folder)
    probabilities = resnet_jax.predict(weights, [image])[0]
    best = [resnet_jax.classes_of(weights)[label] for label in np.argsort(-probabilities)[:3]]
    for one in best:
        print(f"{100 * probabilities[one.label]:5.1f} %  {one.name}")

    pixels = resnet_jax.prepare_image(weights, image).pixels
    normalised = (pixels[None].astype(np.float32) / 255 - weights.mean) / weights.std
    labels = np.array([best[0].label])
    maps = resnet_jax.grad_cam(weights.create_model(), weights.variables, normalised, labels)
    write_png(out, overlay(pixels, np.asarray(maps[0])))
    return best[0].name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights_folder", metavar="WEIGHTS", help="a folder of weights or of a run")
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument("out", metavar="OUT.png", help="the picture to write")
    options = parser.parse_args()
    sys.exit(run_command(lambda: main(**vars(options))))
