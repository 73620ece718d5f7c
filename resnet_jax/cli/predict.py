"""`predict`: names the classes that a trained net sees in images, and shows where.

Nets that segment or detect are answered by `predict_masks` and `predict_boxes`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from resnet_jax.cli.flags import JSON, parse, verb_flags
from resnet_jax.cli.predict_boxes import answer_boxes
from resnet_jax.cli.predict_images import output_path, print_answer
from resnet_jax.cli.predict_masks import answer_masks
from resnet_jax.errors import UserError, writing

if TYPE_CHECKING:
    import numpy as np

    from resnet_jax.evaluation.predict import Class
    from resnet_jax.interop.weights import Weights

USAGE = (
    "predict --weights=DIR IMAGE... [--top=5] [--json] [--explain [--class=NAME] [--out=DIR]] [--embed=FILE.npz]; "
    "IMAGE may be - for the standard input"
)


def main(arguments: Sequence[str]) -> None:
    """Prints the most probable classes of each image, or an error for one that cannot be read."""
    values = verb_flags(
        ("string", "weights", None, "folder of weights, or of a run"),
        ("integer", "top", 5, "how many classes to name"), JSON,
        ("bool", "explain", False, "write IMAGE.cam.png: where in the image the net sees the class (Grad-CAM)"),
        ("string", "class", None, "class to explain: id, name or label; unset: the first"),
        ("string", "out", None, "folder for the pictures that --explain, or a net that segments or detects, writes; "
         "unset: beside the images"),
        ("float", "least", 0.5, "least score of the objects that are drawn and named, of a net that detects"),
        ("bool", "refine", False, "see each box as a region again, of a net that detects (docs/detection.md)"),
        ("string", "embed", None, "write `images`, their names, and `embeddings` (n, features) to this .npz"),
    )  # fmt: skip
    images = parse(values, USAGE, arguments)
    wanted = values["class"].value
    if not images or not values.weights:
        raise UserError(f"predict needs --weights and at least one IMAGE; usage: {USAGE}")
    if values.top < 1:
        raise UserError(f"--top={values.top} must be 1 or more")
    if not values.explain and wanted is not None:
        raise UserError("--class and --out are for --explain")
    if values.embed is not None and Path(values.embed).suffix != ".npz":
        raise UserError(f"--embed={values.embed} must end in .npz")

    from resnet_jax.evaluation.predict import check_classifier, find_class
    from resnet_jax.training.load_weights import load_weights

    weights = load_weights(values.weights)
    net: Any = weights.create_model()
    if values.refine and net.task != "detection":
        raise UserError(f"--refine is for nets that detect, not for {weights.model}")
    if values["least"].present and net.task != "detection":
        raise UserError(f"--least is for nets that detect, not for {weights.model}")
    if net.task == "segmentation":
        answers = answer_masks(weights, images, values)
    elif net.task == "detection":
        answers = answer_boxes(weights, images, values)
    else:
        if not values.explain and values.out is not None:
            raise UserError("--class and --out are for --explain")
        if values.embed is None or values.explain:
            check_classifier(weights, values.weights)
        answers = _answer(weights, images, values, None if wanted is None else find_class(weights, wanted))
    if values.json:
        print(json.dumps({"model": weights.model, "images": answers}))
    failed = [answer["error"] for answer in answers if "error" in answer]
    if len(failed) == 1 == len(images):
        raise UserError(failed[0])
    if failed:
        raise UserError(f"{len(failed)} of {len(images)} images were not answered")


def _answer(weights: "Weights", images: Sequence[str], values: flags.FlagValues, explained: "Class | None") -> list:
    """Returns the answer for each image; text is printed at once."""
    import numpy as np

    from resnet_jax.evaluation.predict import BATCH, Predictor, classes_of, prepare_image

    predictor, classes = Predictor(weights), classes_of(weights)
    names, vectors, written = [], [], set[Path]()
    answers: list[dict[str, Any]] = []
    for start in range(0, len(images), BATCH):
        group: list[dict[str, Any]] = []
        shown: list[np.ndarray] = []
        for image in images[start : start + BATCH]:
            try:
                pixels, note = prepare_image(weights, image)
                group.append({"image": image, "row": len(shown)} | ({"note": note} if note else {}))
                shown.append(pixels)
            except UserError as error:
                group.append({"image": image, "error": str(error)})
        if shown:
            pixels = np.stack(shown)
            probabilities, embeddings = predictor(pixels)
            tops = np.argsort(-probabilities, axis=1, kind="stable")[:, : values.top]
            if values.explain:
                labels = tops[:, 0] if explained is None else np.full(len(tops), explained.label)
                maps = _maps(weights, pixels, labels)
        for answer in group:
            row = answer.pop("row", None)
            if row is not None:
                answer["top"] = [
                    {"label": c.label, "class": c.id, "name": c.name, "probability": float(probabilities[row, c.label])}
                    for c in (classes[label] for label in tops[row])
                ]
                if values.explain:
                    path = output_path(answer["image"], values.out, "cam", written)
                    answer["explained"] = classes[labels[row]].name
                    answer["overlay"] = str(_write_overlay(path, pixels[row], maps[row]))
                names.append(answer["image"])
                vectors.append(embeddings[row])
            if not values.json:
                print_answer(answer, len(images) > 1, _lines)
        answers += group
    if values.embed is not None and vectors:
        _write_embeddings(Path(values.embed).expanduser(), names, np.stack(vectors))
    return answers


def _maps(weights: "Weights", pixels: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    import jax.numpy as jnp
    import numpy as np

    from resnet_jax.analysis.cam import grad_cam
    from resnet_jax.data.augment import normalize

    images = normalize(*map(jnp.asarray, (pixels, weights.mean, weights.std)))
    return np.asarray(grad_cam(weights.create_model(), weights.variables, images, labels))


def _write_overlay(path: Path, pixels: "np.ndarray", heat: "np.ndarray") -> Path:
    from resnet_jax.report.overlay import overlay, write_png

    return write_png(path, overlay(pixels, heat))


def _write_embeddings(path: Path, names: Sequence[str], embeddings: "np.ndarray") -> None:
    import numpy as np

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=np.array(names), embeddings=embeddings)


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for one in answer["top"]:
        known = "" if one["name"] == one["class"] else f" ({one['class']})"
        yield f"{100 * one['probability']:5.1f} %  {one['name']}{known}"
    if "overlay" in answer:
        yield f"where it sees {answer['explained']}: {answer['overlay']}"
