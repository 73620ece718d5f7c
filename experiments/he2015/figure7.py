"""Figure 7: how strongly each 3x3 layer responds, after batch norm and before the nonlinearity or addition."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.figure7",
    title="Residual nets respond less, layer by layer: CIFAR-10",
    rows=(
        Row("plain20", "plain-20", "cifar10:plain20"),
        Row("plain56", "plain-56", "cifar10:plain56"),
        Row("resnet20", "ResNet-20", "cifar10:resnet20"),
        Row("resnet56", "ResNet-56", "cifar10:resnet56"),
        Row("resnet110", "ResNet-110", "cifar10:resnet110"),
    ),
    note="Standard deviation of each 3x3 layer's response, in the order of layers and ranked.",
    form="responses",
)
