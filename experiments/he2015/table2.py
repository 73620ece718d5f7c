"""Table 2: plain and residual nets of 18 and 34 layers on ImageNet; shortcuts of option A, so no extra parameters."""

from experiments.experiment import RECOMPUTE_BN, Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table2",
    title="Depth hurts plain nets and helps residual ones: ImageNet validation, ten crops",
    columns=("top1",),
    metric="ten_crop",
    recompute_bn=RECOMPUTE_BN,
    rows=(
        Row("plain18", "plain-18", "imagenet:plain18", paper=(27.94,), group="plain"),
        Row("plain34", "plain-34", "imagenet:plain34", paper=(28.54,), group="plain", against="plain18"),
        Row("resnet18", "ResNet-18", "imagenet:resnet18_A", paper=(27.88,), group="residual", against="plain18"),
        Row("resnet34", "ResNet-34", "imagenet:resnet34_A", paper=(25.03,), group="residual", against="plain34"),
    ),
)
