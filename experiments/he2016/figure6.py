"""Figure 6: training with BN after addition and with pre-activation on CIFAR-10; the runs are those of table 2."""

import dataclasses

from experiments.experiment import Experiment, Row
from experiments.he2016 import table2

LEFT, RIGHT = "BN after addition, ResNet-110", "full pre-activation, ResNet-164"


def _row(name: str, label: str, group: str) -> Row:
    row = next(row for row in table2.EXPERIMENT.rows if row.name == name)
    return dataclasses.replace(row, label=label, paper=(), group=group)


EXPERIMENT = Experiment(
    name="he2016.figure6",
    title="Where activation stands in a unit: training on CIFAR-10",
    rows=(
        _row("original_resnet110", "110, original", LEFT),
        _row("bn_after_addition_resnet110", "110, BN after addition", LEFT),
        _row("original_resnet164", "164, original", RIGHT),
        _row("full_preactivation_resnet164", "164, proposed", RIGHT),
    ),
    note="Dashed: training loss. Bold: test error.",
    form="loss_and_error",
)
