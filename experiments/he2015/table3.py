"""Table 3: nets on ImageNet by ten crops; ResNet-50 and deeper use option B."""

from experiments.experiment import RECOMPUTE_BN, Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table3",
    title="Shortcut options and depth: ImageNet validation, ten crops",
    columns=("top1", "top5"),
    metric="ten_crop",
    recompute_bn=RECOMPUTE_BN,
    rows=(
        Row("vgg16", "VGG-16", "imagenet:vgg16", paper=(28.07, 9.33), quoted=True, note="the paper's own test"),
        Row("googlenet", "GoogLeNet", paper=(None, 9.15), quoted=True),
        Row("prelu_net", "PReLU-net", paper=(24.27, 7.38), quoted=True),
        Row("plain34", "plain-34", "imagenet:plain34", paper=(28.54, 10.02)),
        Row("resnet34_A", "ResNet-34 A", "imagenet:resnet34_A", paper=(25.03, 7.76), against="plain34"),
        Row("resnet34_B", "ResNet-34 B", "imagenet:resnet34_B", paper=(24.52, 7.46), against="resnet34_A"),
        Row("resnet34_C", "ResNet-34 C", "imagenet:resnet34_C", paper=(24.19, 7.40), against="resnet34_B"),
        Row("resnet50", "ResNet-50", "imagenet:resnet50", paper=(22.85, 6.71), against="resnet34_B"),
        Row("resnet101", "ResNet-101", "imagenet:resnet101", paper=(21.75, 6.05), against="resnet50"),
        Row("resnet152", "ResNet-152", "imagenet:resnet152", paper=(21.43, 5.71), against="resnet101"),
    ),
)
