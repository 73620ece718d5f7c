"""Figure 3: training ResNet-110 with four shortcuts on CIFAR-10; the runs are those of table 1."""

import dataclasses

from experiments.experiment import Experiment, Row
from experiments.he2016 import table1

#: Panel by panel: its heading, and the row of table 1 that is drawn beside the original.
PANELS = {
    "(a) constant scaling (0.5, 0.5)": "constant_scaling_0.5_0.5",
    "(b) exclusive gating (bias -6)": "exclusive_gating_-6",
    "(c) shortcut-only gating (bias 0)": "shortcut_only_gating_0",
    "(d) 1x1 convolution": "conv1x1_shortcut",
}


def _panel(heading: str, name: str) -> tuple[Row, Row]:
    rows = {row.name: row for row in table1.EXPERIMENT.rows}
    original = f"original_beside_{name}"
    return (
        dataclasses.replace(rows["original"], name=original, label="110, original", paper=(), group=heading),
        dataclasses.replace(
            rows[name], label=f"110, {heading[4:]}", paper=(), note="", group=heading, against=original
        ),
    )


EXPERIMENT = Experiment(
    name="he2016.figure3",
    title="Other shortcuts than the identity: ResNet-110 on CIFAR-10",
    rows=tuple(row for heading, name in PANELS.items() for row in _panel(heading, name)),
    note="Dashed: training loss. Bold: test error.",
    form="loss_and_error",
)
