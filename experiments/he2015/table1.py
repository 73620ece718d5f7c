"""Table 1: the ImageNet nets, with what figure 3 says of plain-34 and VGG-19. Computed from the nets themselves."""

from experiments.experiment import Experiment, Row


def _row(net: str, label: str, layers: int, gigaflops: float, group: str, note: str = "") -> Row:
    return Row(net, label, f"imagenet:{net}", paper=(layers, None, gigaflops), group=group, note=note)


EXPERIMENT = Experiment(
    name="he2015.table1",
    title="Architectures for ImageNet: depth, size and cost",
    columns=("layers", "params", "flops"),
    metric="",
    seeds=0,
    rows=(
        _row("resnet18", "ResNet-18", 18, 1.8, "residual nets"),
        _row("resnet34", "ResNet-34", 34, 3.6, "residual nets"),
        _row("resnet50", "ResNet-50", 50, 3.8, "residual nets"),
        _row("resnet101", "ResNet-101", 101, 7.6, "residual nets"),
        _row("resnet152", "ResNet-152", 152, 11.3, "residual nets"),
        _row("plain34", "plain-34", 34, 3.6, "nets they are compared with", "figure 3"),
        _row("vgg16", "VGG-16", 16, 15.3, "nets they are compared with", "section 3.3 and 4.1"),
        _row("vgg19", "VGG-19", 19, 19.6, "nets they are compared with", "figure 3"),
    ),
    note="Multiply-adds of one 224x224 image, in convolutions and fully connected layers. The paper does not print "
    "numbers of parameters for these nets. Ours have batch norm's; shortcuts are option B.",
)
