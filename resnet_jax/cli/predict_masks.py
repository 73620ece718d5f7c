"""`predict` for nets that segment: writes the class of every pixel, and the image with its classes coloured."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights


def answer_masks(weights: "Weights", images: Sequence[str], values: flags.FlagValues) -> list[dict[str, Any]]:
    """Writes IMAGE.mask.png and IMAGE.overlay.png and returns the shares of the classes; text is printed at once.

    Raises:
      UserError: for flags that are for nets that classify, and if a file cannot be written.
    """
    if values.explain or values.embed is not None or values["class"].value is not None:
        raise UserError(f"--explain, --class and --embed are for nets that classify, not for {weights.model}")

    from resnet_jax.evaluation.predict_masks import MaskPredictor

    predictor, written = MaskPredictor(weights), set[Path]()
    answers = []
    for image in images:
        try:
            answer = _answer(predictor, image, values, written)
        except UserError as error:
            answer = {"image": image, "error": str(error)}
        answers.append(answer)
        if not values.json:
            _print(answer, many=len(images) > 1)
    return answers


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


def output_path(image: str, out: str | None, kind: str, written: set[Path]) -> Path:
    """Returns the path of a picture of an image, IMAGE.KIND.png, different for images of one name.

    Args:
      image: its path, or "-".
      out: the folder; None: that of the image.
      kind: what the picture is.
      written: paths that are taken; the new one is added.
    """
    name = "stdin" if image == "-" else Path(image).name
    folder = Path(out).expanduser() if out is not None else Path() if image == "-" else Path(image).expanduser().parent
    path, number = folder / f"{name}.{kind}.png", 1
    while path in written:
        number += 1
        path = folder / f"{name}.{number}.{kind}.png"
    written.add(path)
    return path


def _print(answer: dict[str, Any], many: bool) -> None:
    if "error" in answer:
        if many:  # a single one is raised as the command's error
            print(f"error: {answer['error']}", file=sys.stderr, flush=True)
        return
    print(answer["image"] + (f" ({answer['note']})" if "note" in answer else ""))
    for one in answer["classes"]:
        print(f"  {100 * one['share']:5.1f} % of pixels  {one['name']}")
    print(f"  classes by pixel: {answer['mask']}; over the image: {answer['overlay']}", flush=True)
