"""A trained net on images of one's own: probabilities of classes, and vectors to search by."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.augment import normalize
from resnet_jax.data.image_files import Picture, fit_image, read_image
from resnet_jax.data.imagenet.wnids import class_names, official_wnids
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.evaluation.scoring import softmax
from resnet_jax.interop.weights import Weights
from resnet_jax.models.features import forward_with_embeddings

#: A file, or pixels: uint8 (height, width, 3), RGB, or (height, width), grey.
ImageLike = str | Path | np.ndarray

#: Images that go through the net together.
BATCH = 32


class Class(NamedTuple):
    """An output of a net.

    Attributes:
      label: its place among the outputs.
      id: as the data set calls it, a WordNet id for ImageNet.
      name: as people call it; the id, where that is all there is.
    """

    label: int
    id: str
    name: str


def classes_of(weights: Weights) -> tuple[Class, ...]:
    """What the outputs mean; "class 3" where nobody knows."""
    human = dict(zip(official_wnids(), class_names(), strict=True))
    known = len(weights.classes) == weights.num_classes
    ids = weights.classes if known else [f"class {label}" for label in range(weights.num_classes)]
    return tuple(Class(label, one, human.get(one, one)) for label, one in enumerate(ids))


def find_class(weights: Weights, name: str) -> Class:
    """The class of this id, name (in small or capital letters) or, failing those, label.

    Raises:
      UserError: if there is none, with the nearest names.
    """
    classes = classes_of(weights)
    for matches in (lambda c: c.id == name, lambda c: c.name.lower() == name.lower(), lambda c: str(c.label) == name):
        if found := [one for one in classes if matches(one)]:
            return found[0]
    raise unknown_name("class", name, [one.name for one in classes])


class Prepared(NamedTuple):
    """An image as a net is shown it: uint8 pixels (size, size, channels), and what was left out, as other frames."""

    pixels: np.ndarray
    note: str = ""


def prepare_image(weights: Weights, image: ImageLike) -> Prepared:
    """An image as the net's tests show theirs: see `data.image_files`.

    Raises:
      UserError: if it cannot be read, or is no array of pixels.
    """
    if isinstance(image, np.ndarray):
        picture = Picture(_to_channels(image, weights.channels))
    else:
        picture = read_image(image, grey=weights.channels == 1)
    return Prepared(fit_image(picture, weights.image_size), picture.note)


def _to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)) or not image.size:
        raise UserError(
            f"an image must be uint8, (height, width, 3) or (height, width), not {image.dtype} {image.shape}"
        )
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L" if channels == 1 else "RGB"))


class Predictor:
    """A net that is compiled once for many batches.

    Attributes:
      weights: of the net.
    """

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
        """Probabilities, float64 (n, classes), and embeddings, float32 (n, d), of prepared images.

        Args:
          pixels: uint8 (n, size, size, channels), of `prepare_image`.

        Raises:
          UserError: if the net gives something else than numbers.
        """
        logits, embeddings = (np.asarray(array) for array in self._forward(self._variables, pixels))
        if not np.isfinite(logits).all():
            raise UserError(f"{self.weights.model} gives NaN or infinity: its weights are of no use")
        return softmax(logits), embeddings

    def batches(self, images: Iterable[ImageLike]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same of images of any number, in their order, `BATCH` at a time."""
        waiting: list[np.ndarray] = []
        first = True

        def flush() -> tuple[np.ndarray, np.ndarray]:
            # A last batch that does not fill is filled up, for the program is compiled for full ones by then.
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
    """Probabilities of the classes, float64 (n, classes), by one view of each image.

    Args:
      weights: of `load_weights`; `classes_of(weights)` says what the columns mean.
      images: files or pixels, of any sizes; each is shown as the net's test images were: see `prepare_image`.

    Raises:
      UserError: for an image that cannot be read.
    """
    found = [probabilities for probabilities, _ in Predictor(weights).batches(images)]
    return np.concatenate(found) if found else np.zeros((0, weights.num_classes))


def embed(weights: Weights, images: Sequence[ImageLike], unit_length: bool = False) -> np.ndarray:
    """Vectors of images, float32 (n, d): the last stage's features, averaged over all positions.

    Args:
      weights, images: see `predict`.
      unit_length: divide each by its Euclidean length, so that products are cosines.

    Raises:
      UserError: for an image that cannot be read.
    """
    found = [embeddings for _, embeddings in Predictor(weights).batches(images)]
    width = weights.variables["params"]["head"]["kernel"].shape[0]
    return unit(np.concatenate(found) if found else np.zeros((0, width), np.float32), unit_length)


def unit(embeddings: np.ndarray, wanted: bool = True) -> np.ndarray:
    """Rows divided by their Euclidean lengths, if that is wanted; a row of zeros stays one."""
    if not wanted:
        return embeddings
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths > 0, lengths, 1)
