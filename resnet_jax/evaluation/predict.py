"""Predicts classes of single images, and embeds them as vectors."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import normalize
from resnet_jax.data.image_files import DecodedImage, fit_image, read_image
from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.evaluation.scoring import softmax
from resnet_jax.interop.weights import Weights
from resnet_jax.models.features import forward_with_embeddings

#: A file, or pixels: uint8 (height, width, 3), RGB, or (height, width), grey.
ImageLike = str | Path | np.ndarray

#: Images that go through the net together.
BATCH = 32


#: Names of the classes of sets whose runs do not record them.
OF_DATASETS = {
    "digits": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


class Class(NamedTuple):
    """Describes an output of a net.

    Attributes:
      label: its index.
      id: the data set's name of it, a WordNet id for ImageNet.
      name: in plain words; the id where there is no other name.
    """

    label: int
    id: str
    name: str


def classes_of(weights: Weights) -> tuple[Class, ...]:
    """Returns the classes of the outputs; "class 3" where neither the weights nor their data set name them."""
    human = dict(zip(official_wnids(), class_names(), strict=True))
    ids = weights.classes or OF_DATASETS.get(weights.source.get("dataset", ""), ())
    if len(ids) != weights.num_classes:
        ids = tuple(f"class {label}" for label in range(weights.num_classes))
    return tuple(Class(label, one, human.get(one, one)) for label, one in enumerate(ids))


def find_class(weights: Weights, name: str) -> Class:
    """Finds a class by id, name (in any case) or label; raises UserError with the nearest names if there is none."""
    classes = classes_of(weights)
    for matches in (lambda c: c.id == name, lambda c: c.name.lower() == name.lower(), lambda c: str(c.label) == name):
        if found := [one for one in classes if matches(one)]:
            return found[0]
    raise unknown_name("class", name, [one.name for one in classes])


class Prepared(NamedTuple):
    """Holds an image for a net: uint8 pixels (size, size, channels), and a note on what was left out of the file."""

    pixels: np.ndarray
    note: str = ""


def prepare_image(weights: Weights, image: ImageLike) -> Prepared:
    """Crops and resizes an image as the net's test images: see `data.image_files`.

    Raises:
      UserError: if it cannot be read, or is no array of pixels.
    """
    if isinstance(image, np.ndarray):
        decoded = DecodedImage(_to_channels(image, weights.channels))
    else:
        decoded = read_image(image, grey=weights.channels == 1)
    return Prepared(fit_image(decoded, weights.image_size), decoded.note)


def _to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)) or not image.size:
        raise UserError(
            f"an image must be uint8, (height, width, 3) or (height, width), not {image.dtype} {image.shape}"
        )
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L" if channels == 1 else "RGB"))


class Predictor:
    """Predicts by a net that is compiled once for many batches."""

    def __init__(self, weights: Weights) -> None:
        """Puts the weights on the device."""
        self.weights = weights
        model = weights.create_model()
        mean, std = jnp.asarray(weights.mean), jnp.asarray(weights.std)
        self._variables = jax.device_put(weights.variables)

        def forward(variables: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
            return forward_with_embeddings(model, variables, normalize(pixels, mean, std))

        self._forward = jax.jit(forward)

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns probabilities, float64 (n, classes), and embeddings, float32 (n, d), of prepared images.

        Args:
          pixels: uint8 (n, size, size, channels), of `prepare_image`.

        Raises:
          UserError: if the net's outputs are not finite.
        """
        logits, embeddings = (np.asarray(array) for array in self._forward(self._variables, pixels))
        if not np.isfinite(logits).all():
            raise UserError(f"{self.weights.model} gives NaN or infinity: its weights are of no use")
        return softmax(logits), embeddings

    def batches(self, images: Iterable[ImageLike]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the same for any number of images, in order, `BATCH` at a time."""
        waiting: list[np.ndarray] = []
        first = True

        def flush() -> tuple[np.ndarray, np.ndarray]:
            # A last batch is padded: the program is compiled for full batches by then.
            rows = len(waiting) if first else BATCH
            pixels = np.stack(waiting + [waiting[0]] * (rows - len(waiting)))
            probabilities, embeddings = self(pixels)
            return probabilities[: len(waiting)], embeddings[: len(waiting)]

        for image in images:
            waiting.append(prepare_image(self.weights, image).pixels)
            if len(waiting) == BATCH:
                yield flush()
                waiting, first = [], False
        if waiting:
            yield flush()


def predict(weights: Weights, images: Sequence[ImageLike]) -> np.ndarray:
    """Returns the probabilities of the classes, float64 (n, classes), from one view of each image.

    Args:
      weights: of `load_weights`; `classes_of(weights)` names the columns.
      images: files or pixels, of any sizes; see `prepare_image`.

    Raises:
      UserError: for an image that cannot be read.
    """
    found = [probabilities for probabilities, _ in Predictor(weights).batches(images)]
    return np.concatenate(found) if found else np.zeros((0, weights.num_classes))


def embed(weights: Weights, images: Sequence[ImageLike], unit_length: bool = False) -> np.ndarray:
    """Returns vectors of images, float32 (n, d): the last stage's features, averaged over all positions.

    Args:
      weights, images: see `predict`.
      unit_length: whether to divide each by its Euclidean length, so that dot products are cosines.

    Raises:
      UserError: for an image that cannot be read.
    """
    found = [embeddings for _, embeddings in Predictor(weights).batches(images)]
    width = weights.variables["params"]["head"]["kernel"].shape[0]
    vectors = np.concatenate(found) if found else np.zeros((0, width), np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1) if unit_length else vectors  # zeros stay zeros
