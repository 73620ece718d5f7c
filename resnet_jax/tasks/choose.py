"""From a config to its task."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from resnet_jax.tasks.classification import Classification
from resnet_jax.tasks.detection import Detection
from resnet_jax.tasks.segmentation import Segmentation
from resnet_jax.tasks.task import Task

#: Values of `config.task`.
TASKS = ("classification", "segmentation", "detection")


def make_task(config: ConfigDict, num_classes: int, classes: Sequence[str] = ()) -> Task:
    """Returns what `config.task` names, for a set of so many classes; `classes` are their names, if they have any."""
    return task_type(config.task).from_config(config, num_classes, classes)


def task_type(name: str) -> type[Classification] | type[Segmentation] | type[Detection]:
    """Returns the class of a task, which says what its metrics are called, and whether lower ones are better."""
    if name == "segmentation":
        return Segmentation
    if name == "detection":
        return Detection
    assert name == "classification", name
    return Classification
