"""What a run knows of its data set, kept in its folder so that its weights can be used where the set is not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.errors import UserError
from resnet_jax.training.trainer import Trainer

FACTS = "data.json"


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """Of a data set.

    Attributes:
      num_classes: of the set.
      image_shape: (height, width, channels) that is trained on.
      classes: their names, by label; empty if the set has none.
      mean, std: what images are normalised by, of pixels in [0, 1]; see `augment.normalization`.
    """

    num_classes: int
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray


def facts_of(trainer: Trainer) -> DataFacts:
    """The facts of the set that a trainer has opened."""
    statistics = trainer.pipeline.test
    return DataFacts(
        trainer.num_classes, tuple(trainer.pipeline.image_shape), trainer.classes,
        np.asarray(statistics["mean"]), np.asarray(statistics["std"]),
    )  # fmt: skip


def facts_to_json(facts: DataFacts) -> dict[str, Any]:
    """As JSON holds them; float32 comes back as it was."""
    return dataclasses.asdict(facts) | {"mean": facts.mean.tolist(), "std": facts.std.tolist()}


def read_facts(workdir: str | Path) -> DataFacts | None:
    """The facts in a run's folder; None where an earlier version left none.

    Raises:
      UserError: if they are damaged.
    """
    path = Path(workdir).expanduser() / FACTS
    try:
        record = json.loads(path.read_text())
        return DataFacts(
            int(record["num_classes"]), tuple(record["image_shape"]), tuple(record["classes"]),
            np.array(record["mean"], np.float32), np.array(record["std"], np.float32),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
