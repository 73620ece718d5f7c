"""Figure 1, right: ResNet-1001 with original and with pre-activation units on CIFAR-10; the runs are table 3's."""

from experiments.experiment import Experiment, Row
from experiments.he2016.common import WARMUP

EXPERIMENT = Experiment(
    name="he2016.figure1",
    title="Pre-activation makes ResNet-1001 easier to train: CIFAR-10",
    rows=(
        Row("original", "original unit", "cifar10:resnet1001", WARMUP, group="ResNet-1001"),
        Row("proposed", "proposed unit", "cifar10:preact_resnet1001", WARMUP, group="ResNet-1001", against="original"),
    ),
    note="Dashed: training loss. Bold: test error.",
    form="loss_and_error",
)
