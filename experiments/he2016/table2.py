"""Table 2: where activation stands in a unit (figure 4), in ResNet-110 and ResNet-164 on CIFAR-10."""

from experiments.experiment import Experiment, Row
from experiments.he2016.common import UNITS, WARMUP

#: Error of ResNet-110 and ResNet-164 for each unit.
ERRORS = {
    "original": (6.61, 5.93),
    "bn_after_addition": (8.17, 6.50),
    "relu_before_addition": (7.84, 6.14),
    "relu_only_preactivation": (6.71, 5.91),
    "full_preactivation": (6.37, 5.46),
}


def _row(unit: str, depth: int, error: float) -> Row:
    """Returns a row, of a named net if there is one, so that tables 3 and 4 share its runs."""
    named = unit in ("original", "full_preactivation")
    config = f"cifar10:preact_resnet{depth}" if unit == "full_preactivation" else f"cifar10:resnet{depth}"
    return Row(
        f"{unit}_resnet{depth}",
        UNITS[unit],
        config,
        WARMUP | ({} if named else {"model.activation": unit}),
        (error,),
        group=f"ResNet-{depth}",
        against="" if unit == "original" else f"original_resnet{depth}",
    )


EXPERIMENT = Experiment(
    name="he2016.table2",
    title="Where activation stands in a unit: CIFAR-10",
    columns=("error",),
    protocol="median",
    seeds=5,
    rows=tuple(
        _row(unit, depth, errors[column]) for column, depth in enumerate((110, 164)) for unit, errors in ERRORS.items()
    ),
)
