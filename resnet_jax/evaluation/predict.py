"""Predicts classes of single images, and embeds them as vectors."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import normalize
from resnet_jax.data.image_files import DecodedImage, read_image
from resnet_jax.data.imagenet.crops import center_box
from resnet_jax.data.imagenet.decode import crop_resize
from resnet_jax.data.imagenet.test_crops import Crops
from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.evaluation.scoring import softmax
from resnet_jax.interop.weights import Weights
from resnet_jax.models.features import feature_info, forward_with_embeddings

#: A file, or pixels: uint8 (height, width, 3), RGB, or (height, width), grey.
ImageLike = str | Path | np.ndarray

#: Side in pixels up to which a net of which nothing else is known is shown images whole; larger ones see the centre
#: crop, 224 of 256.
LARGEST_WHOLE = 64

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


def check_classifier(weights: Weights, what: str) -> None:
    """Raises UserError for weights without a classifier; `what`: their path."""
    if not weights.num_classes:
        raise UserError(f"{what} has no classifier, so there are no classes to name; --embed=FILE.npz writes features")


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
    """Reads, crops and resizes an image as the net's test images: see `data.image_files` and `fit_image`.

    Raises:
      UserError: if it cannot be read, or is no array of pixels; and for weights of other channels than 1 and 3.
    """
    if weights.channels not in (1, 3):
        raise UserError(f"the weights take images of {weights.channels} channels, and images here have 1 or 3")
    if isinstance(image, np.ndarray):
        decoded = DecodedImage(_to_channels(image, weights.channels))
    else:
        decoded = read_image(image, grey=weights.channels == 1)
    return Prepared(fit_image(decoded.pixels, weights.image_size, weights.shorter_side), decoded.note)


def fit_image(pixels: np.ndarray, size: int, shorter_side: int | None = None) -> np.ndarray:
    """Crops and resizes an image for a net of `size` pixels, as its test set was.

    Args:
      pixels: uint8, (height, width, 3) or (height, width).
      size: of a side.
      shorter_side: see `interop.weights.Weights`. With 0, and of nets for 64 pixels or less of which nothing is known,
        the largest centred square is shown; of other nets of which nothing is known, it is 256/224 of the size.

    Returns:
      uint8, (size, size, 3) or (size, size, 1).
    """
    height, width = pixels.shape[:2]
    if shorter_side is None:
        shorter_side = round(size * 256 / 224) if size > LARGEST_WHOLE else 0
    if shorter_side:
        (shown,) = Crops(size, shorter_side).views(pixels, (1, 1))
    else:
        shown = crop_resize(pixels, center_box(height, width, size, size), (height, width), size)
    return shown[..., None] if shown.ndim == 2 else shown


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
        return softmax(logits) if self.weights.num_classes else logits[:, :0], embeddings

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
      UserError: for an image that cannot be read, and for weights without a classifier.
    """
    check_classifier(weights, weights.model)
    found = [probabilities for probabilities, _ in Predictor(weights).batches(images)]
    return np.concatenate(found) if found else np.zeros((0, weights.num_classes))


def embedding_size(weights: Weights) -> int:
    """Returns how many numbers `embed` gives of an image."""
    if weights.num_classes:
        return weights.variables["params"]["head"]["kernel"].shape[0]
    return feature_info(weights.create_model())[-1].channels


def embed(weights: Weights, images: Sequence[ImageLike], unit_length: bool = False) -> np.ndarray:
    """Returns vectors of images, float32 (n, d): the last stage's features, averaged over all positions.

    Args:
      weights, images: see `predict`.
      unit_length: whether to divide each by its Euclidean length, so that dot products are cosines.

    Raises:
      UserError: for an image that cannot be read.
    """
    found = [embeddings for _, embeddings in Predictor(weights).batches(images)]
    vectors = np.concatenate(found) if found else np.zeros((0, embedding_size(weights)), np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1) if unit_length else vectors  # zeros stay zeros
