"""Search by image: the nearest digits of the training set by the cosine of their embeddings.

python -m resnet_jax train --config=configs/digits.py:resnet20 --workdir=runs/digits_resnet20
python examples/retrieval.py runs/digits_resnet20
"""

import argparse
import sys

import numpy as np

import resnet_jax
from resnet_jax.cli.run_command import run_command
from resnet_jax.data.sources import load_digits


def main(weights_folder: str, queries: int = 100, gallery: int = 1437) -> float:
    """Returns the percentage of test digits whose nearest training digit shows the same figure."""
    weights, digits = resnet_jax.load_weights(weights_folder), load_digits()
    train, test = digits.train.images[:gallery], digits.test.images[:queries]
    vectors = resnet_jax.embed(weights, list(train), unit_length=True)
    wanted = resnet_jax.embed(weights, list(test), unit_length=True)
    nearest = np.argmax(wanted @ vectors.T, axis=1)
    right = 100 * float(np.mean(digits.train.labels[nearest] == digits.test.labels[:queries]))
    print(
        f"the nearest of {gallery:,} training digits shows the same figure for {right:.1f} % of {queries} test digits"
    )
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights_folder", metavar="WEIGHTS", help="a folder of weights or of a run, of digits")
    options = parser.parse_args()
    sys.exit(run_command(lambda: main(**vars(options))))
