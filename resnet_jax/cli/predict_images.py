"""What `predict` does alike for nets of every task: answers image by image, prints each answer, names its files."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from resnet_jax.errors import UserError, printable


def refuse_flags_of_classifiers(model: str, values: flags.FlagValues) -> None:
    """Raises UserError for flags that are for nets that classify; `model` is the name of the net."""
    if values.explain or values.embed is not None or values["class"].value is not None:
        raise UserError(f"--explain, --class and --embed are for nets that classify, not for {model}")


def answer_each(images: Sequence[str], values: flags.FlagValues, answer: Callable[[str], dict[str, Any]],
                lines: Callable[[dict[str, Any]], Iterable[str]]) -> list[dict[str, Any]]:  # fmt: skip
    """Returns the answer for each image, or its error, and prints each at once, unless JSON is wanted.

    Args:
      images: paths, or "-".
      values: the command's flags.
      answer: of one image; UserError if it cannot be read.
      lines: what is printed of an answer below the image's name.
    """
    answers = []
    for image in images:
        try:
            found = answer(image)
        except UserError as error:
            found = {"image": image, "error": str(error)}
        answers.append(found)
        if not values.json:
            print_answer(found, len(images) > 1, lines)
    return answers


def print_answer(answer: dict[str, Any], many: bool, lines: Callable[[dict[str, Any]], Iterable[str]]) -> None:
    """Prints the name of an image and `lines` of its answer; with `many` images also an error.

    A single image's error is raised as the command's.
    """
    if "error" in answer:
        if many:
            print(f"error: {printable(answer['error'])}", file=sys.stderr, flush=True)
        return
    print(printable(answer["image"] + (f" ({answer['note']})" if "note" in answer else "")))
    for line in lines(answer):
        print(f"  {printable(line)}")
    print(end="", flush=True)


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
