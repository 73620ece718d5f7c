"""Figure 4: training of plain and residual nets of 18 and 34 layers on ImageNet; the runs are those of table 2."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.figure4",
    title="Plain and residual nets of 18 and 34 layers on ImageNet",
    rows=(
        Row("plain18", "plain-18", "imagenet:plain18", group="plain nets"),
        Row("plain34", "plain-34", "imagenet:plain34", group="plain nets", against="plain18"),
        Row("resnet18", "ResNet-18", "imagenet:resnet18_A", group="residual nets"),
        Row("resnet34", "ResNet-34", "imagenet:resnet34_A", group="residual nets", against="resnet18"),
    ),
    note="Thin: training error. Bold: validation error of centre crops.",
    form="thin_curves",
)
