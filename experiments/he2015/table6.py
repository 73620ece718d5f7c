"""Table 6: nets of 20 to 1202 layers on CIFAR-10."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table6",
    title="Depth on CIFAR-10",
    columns=("layers", "params", "error", "mean", "std"),
    protocol="best",
    rows=(
        Row("maxout", "Maxout", paper=(None, None, 9.38, None, None), quoted=True),
        Row("nin", "NIN", paper=(None, None, 8.81, None, None), quoted=True),
        Row("dsn", "DSN", paper=(None, None, 8.22, None, None), quoted=True),
        Row("fitnet", "FitNet", paper=(19, 2.5, 8.39, None, None), quoted=True),
        Row("highway19", "Highway", paper=(19, 2.3, 7.54, 7.72, 0.16), quoted=True),
        Row("highway32", "Highway", paper=(32, 1.25, 8.80, None, None), quoted=True),
        Row("resnet20", "ResNet-20", "cifar10:resnet20", paper=(20, 0.27, 8.75, None, None)),
        Row("resnet32", "ResNet-32", "cifar10:resnet32", paper=(32, 0.46, 7.51, None, None), against="resnet20"),
        Row("resnet44", "ResNet-44", "cifar10:resnet44", paper=(44, 0.66, 7.17, None, None), against="resnet32"),
        Row("resnet56", "ResNet-56", "cifar10:resnet56", paper=(56, 0.85, 6.97, None, None), against="resnet44"),
        Row(
            "resnet110",
            "ResNet-110",
            "cifar10:resnet110",
            paper=(110, 1.7, 6.43, 6.61, 0.16),
            note="best of five runs, with their mean and standard deviation",
            seeds=5,
            against="resnet56",
        ),
        Row("resnet1202", "ResNet-1202", "cifar10:resnet1202", paper=(1202, 19.4, 7.93, None, None), seeds=1),
    ),
    note="All are trained on all 50,000 images, and the error is the one after the last step.",
)
