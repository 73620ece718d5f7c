"""Table 4: single nets at their best, fully convolutional at five scales."""

from experiments.experiment import RECOMPUTE_BN, Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table4",
    title="Single nets at their best: ImageNet validation, five scales",
    columns=("top1", "top5"),
    metric="multi_scale",
    recompute_bn=RECOMPUTE_BN,
    rows=(
        Row("vgg_ilsvrc14", "VGG (ILSVRC'14)", paper=(None, 8.43), quoted=True, note="on the test set"),
        Row("googlenet", "GoogLeNet (ILSVRC'14)", paper=(None, 7.89), quoted=True),
        Row("vgg_v5", "VGG (v5)", paper=(24.4, 7.1), quoted=True),
        Row("prelu_net", "PReLU-net", paper=(21.59, 5.71), quoted=True),
        Row("bn_inception", "BN-inception", paper=(21.99, 5.81), quoted=True),
        Row("resnet34_B", "ResNet-34 B", "imagenet:resnet34_B", paper=(21.84, 5.71)),
        Row("resnet34_C", "ResNet-34 C", "imagenet:resnet34_C", paper=(21.53, 5.60)),
        Row("resnet50", "ResNet-50", "imagenet:resnet50", paper=(20.74, 5.25)),
        Row("resnet101", "ResNet-101", "imagenet:resnet101", paper=(19.87, 4.60)),
        Row("resnet152", "ResNet-152", "imagenet:resnet152", paper=(19.38, 4.49)),
    ),
    note="Scores are averaged over images whose shorter side is 224, 256, 384, 480 and 640 pixels.",
)
