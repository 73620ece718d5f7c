"""Table 3: original and pre-activation units by depth, on CIFAR-10 and CIFAR-100."""

from experiments.experiment import Experiment, Row
from experiments.he2016.common import SETS, WARMUP

#: Error with original and with pre-activation units, by set and net.
ERRORS = {
    "cifar10": {
        "resnet110_1layer_skip": (9.90, 8.91),
        "resnet110": (6.61, 6.37),
        "resnet164": (5.93, 5.46),
        "resnet1001": (7.61, 4.92),
    },
    "cifar100": {
        "resnet164": (25.16, 24.33),
        "resnet1001": (27.82, 22.71),
    },
}
LABELS = {
    "resnet110_1layer_skip": "ResNet-110, each unit one layer",
    "resnet110": "ResNet-110",
    "resnet164": "ResNet-164",
    "resnet1001": "ResNet-1001",
}


def _row(data: str, net: str, unit: str, error: float) -> Row:
    model = net.removesuffix("_skip")
    original = unit == "original_unit"
    return Row(
        f"{data}_{net}_{unit}",
        f"{LABELS[net]}, {'original' if original else 'pre-activation'}",
        f"{data}:{model}" if original else f"{data}:preact_{model}",
        WARMUP,
        (error,),
        group=SETS[data],
        against="" if original else f"{data}_{net}_original_unit",
    )


EXPERIMENT = Experiment(
    name="he2016.table3",
    title="Original and pre-activation units, by depth: CIFAR-10 and CIFAR-100",
    columns=("error",),
    protocol="median",
    seeds=5,
    rows=tuple(
        _row(data, net, unit, error)
        for data, nets in ERRORS.items()
        for net, errors in nets.items()
        for unit, error in zip(("original_unit", "preactivation_unit"), errors, strict=True)
    ),
)
