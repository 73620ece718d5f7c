"""`predict` for nets that segment: writes the class of every pixel, and the image with its classes coloured."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from resnet_jax.cli.predict_images import answer_each, output_path, refuse_flags_of_classifiers

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights


def answer_masks(weights: "Weights", images: Sequence[str], values: flags.FlagValues) -> list[dict[str, Any]]:
    """Writes IMAGE.mask.png and IMAGE.overlay.png and returns the shares of the classes; text is printed at once.

    Raises:
      UserError: for flags that are for nets that classify, and if a file cannot be written.
    """
    refuse_flags_of_classifiers(weights.model, values)

    from resnet_jax.evaluation.predict_masks import MaskPredictor

    predictor, written = MaskPredictor(weights), set[Path]()
    return answer_each(images, values, lambda image: _answer(predictor, image, values, written), _lines)


def _answer(predictor: Any, image: str, values: flags.FlagValues, written: set[Path]) -> dict[str, Any]:
    import numpy as np

    from resnet_jax.data.image_files import read_image
    from resnet_jax.evaluation.predict import classes_of
    from resnet_jax.evaluation.predict_masks import LARGEST
    from resnet_jax.report.overlay import colour_classes, write_mask, write_png

    decoded = read_image(image)
    labels = predictor(decoded.pixels)
    classes = classes_of(predictor.weights)
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    mask = write_mask(output_path(image, values.out, "mask", written), labels)
    overlay = write_png(output_path(image, values.out, "overlay", written), colour_classes(decoded.pixels, labels))
    shrunk = f"shown to the net at {LARGEST} pixels of its longer side" if max(labels.shape) > LARGEST else ""
    note = "; ".join(part for part in (decoded.note, shrunk) if part)
    return {
        "image": image,
        **({"note": note} if note else {}),
        "classes": [
            {"label": c.label, "class": c.id, "name": c.name, "share": float(counts[c.label] / labels.size)}
            for c in sorted(classes, key=lambda c: -counts[c.label])[: values.top]
            if counts[c.label]
        ],
        "mask": str(mask),
        "overlay": str(overlay),
    }


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for one in answer["classes"]:
        yield f"{100 * one['share']:5.1f} % of pixels  {one['name']}"
    yield f"classes by pixel: {answer['mask']}; over the image: {answer['overlay']}"
