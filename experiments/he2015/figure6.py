"""Figure 6: training on CIFAR-10; the runs of residual nets are those of table 6.

Each net is compared with the shallowest of its kind: what depth alone does.
"""

from experiments.experiment import Experiment, Row

PLAIN, RESIDUAL, DEEPEST = "plain nets", "residual nets", "110 and 1202 layers"

EXPERIMENT = Experiment(
    name="he2015.figure6",
    title="Plain and residual nets, made deeper: CIFAR-10",
    rows=(
        Row("plain20", "plain-20", "cifar10:plain20", group=PLAIN),
        Row("plain32", "plain-32", "cifar10:plain32", group=PLAIN, against="plain20"),
        Row("plain44", "plain-44", "cifar10:plain44", group=PLAIN, against="plain20"),
        Row("plain56", "plain-56", "cifar10:plain56", group=PLAIN, against="plain20"),
        Row(
            "plain110",
            "plain-110",
            "cifar10:plain110",
            group=PLAIN,
            against="plain20",
            above=60.0,
            note="the paper leaves its curve out",
        ),
        Row("resnet20", "ResNet-20", "cifar10:resnet20", group=RESIDUAL),
        Row("resnet32", "ResNet-32", "cifar10:resnet32", group=RESIDUAL, against="resnet20"),
        Row("resnet44", "ResNet-44", "cifar10:resnet44", group=RESIDUAL, against="resnet20"),
        Row("resnet56", "ResNet-56", "cifar10:resnet56", group=RESIDUAL, against="resnet20"),
        Row("resnet110", "ResNet-110", "cifar10:resnet110", group=RESIDUAL, against="resnet20"),
        Row("resnet110_again", "ResNet-110", "cifar10:resnet110", group=DEEPEST),
        Row("resnet1202", "ResNet-1202", "cifar10:resnet1202", group=DEEPEST, against="resnet110_again"),
    ),
    note="Dashed: training error. Bold: test error.",
    form="curves",
)
