"""`predict` for nets that detect: names the objects, draws their boxes, and writes them as JSON."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from resnet_jax.atomic_write import write_file
from resnet_jax.cli.predict_images import answer_each, output_path, refuse_flags_of_classifiers
from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights


def answer_boxes(weights: "Weights", images: Sequence[str], values: flags.FlagValues) -> list[dict[str, Any]]:
    """Writes IMAGE.boxes.png and IMAGE.boxes.json and returns the objects of each image; text is printed at once.

    Raises:
      UserError: for flags that are for nets that classify, and if a file cannot be written.
    """
    refuse_flags_of_classifiers(weights.model, values)
    if values["top"].present:
        raise UserError(f"--top is for nets that classify or segment, not for {weights.model}; --least is for this one")
    if not 0 <= values.least <= 1:
        raise UserError(f"--least={values.least} must be a score from 0 to 1")

    from resnet_jax.evaluation.predict_boxes import BoxPredictor

    predictor, written = BoxPredictor(weights, values.refine), set[Path]()
    return answer_each(images, values, lambda image: _answer(predictor, image, values, written), _lines)


def _answer(predictor: Any, image: str, values: flags.FlagValues, written: set[Path]) -> dict[str, Any]:
    from resnet_jax.data.image_files import read_image
    from resnet_jax.evaluation.predict import classes_of
    from resnet_jax.report.draw_boxes import draw_boxes
    from resnet_jax.report.overlay import write_png

    decoded, classes = read_image(image), classes_of(predictor.weights)
    found = [one for one in predictor(decoded.pixels) if one.score >= values.least]
    texts = [f"{classes[one.label].name} {one.score:.2f}" for one in found]
    picture = draw_boxes(decoded.pixels, [one.corners for one in found], [one.label for one in found], texts)
    path = write_png(output_path(image, values.out, "boxes", written), picture)
    answer = {
        "image": image,
        **({"note": decoded.note} if decoded.note else {}),
        "size": {"height": decoded.pixels.shape[0], "width": decoded.pixels.shape[1]},
        "objects": [
            {"label": one.label, "class": classes[one.label].id, "name": classes[one.label].name, "score": one.score,
             "box": [round(value, 2) for value in one.corners]}
            for one in found
        ],
        "picture": str(path),
    }  # fmt: skip
    write_file(path.with_suffix(".json"), json.dumps(answer, indent=2) + "\n")
    return answer


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for name, count in Counter(one["name"] for one in answer["objects"]).most_common():
        best = max(one["score"] for one in answer["objects"] if one["name"] == name)
        yield f"{count:3d}  {name}, the best with a score of {best:.2f}"
    if not answer["objects"]:
        yield "no object"
    yield f"boxes over the image: {answer['picture']}, and as JSON beside it"
