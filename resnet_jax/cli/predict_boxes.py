"""`predict` for nets that detect: names the objects, draws their boxes, and writes them as JSON."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from resnet_jax.atomic_write import write_file
from resnet_jax.cli.predict_masks import output_path
from resnet_jax.errors import UserError

if TYPE_CHECKING:
    from resnet_jax.interop.weights import Weights


def answer_boxes(weights: "Weights", images: Sequence[str], values: flags.FlagValues) -> list[dict[str, Any]]:
    """Writes IMAGE.boxes.png and IMAGE.boxes.json and returns the objects of each image; text is printed at once.

    Raises:
      UserError: for flags that are for nets that classify, and if a file cannot be written.
    """
    if values.explain or values.embed is not None or values["class"].value is not None:
        raise UserError(f"--explain, --class and --embed are for nets that classify, not for {weights.model}")
    if not 0 <= values.least <= 1:
        raise UserError(f"--least={values.least} must be a score from 0 to 1")

    from resnet_jax.evaluation.predict_boxes import BoxPredictor

    predictor, written = BoxPredictor(weights), set[Path]()
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


def _print(answer: dict[str, Any], many: bool) -> None:
    if "error" in answer:
        if many:  # a single one is raised as the command's error
            print(f"error: {answer['error']}", file=sys.stderr, flush=True)
        return
    print(answer["image"] + (f" ({answer['note']})" if "note" in answer else ""))
    for name, count in Counter(one["name"] for one in answer["objects"]).most_common():
        best = max(one["score"] for one in answer["objects"] if one["name"] == name)
        print(f"  {count:3d}  {name}, the best with a score of {best:.2f}")
    if not answer["objects"]:
        print("  no object")
    print(f"  boxes over the image: {answer['picture']}, and as JSON beside it", flush=True)
