"""Table 7: Faster R-CNN on PASCAL VOC, VGG-16 against ResNet-101."""

from experiments.experiment import Experiment, Row

#: Labels of VOC 2012's test set are not public: its numbers can only be had from the set's server.
SERVER = "trained on VOC 2007 with its test set and VOC 2012, tested by the server of VOC 2012"

EXPERIMENT = Experiment(
    name="he2015.table7",
    title="Detection on PASCAL VOC: mean average precision",
    columns=("ap50",),
    metric="test_ap50_11_point",
    rows=(
        Row("vgg16", "VGG-16", "faster_rcnn:vgg16", paper=(73.2,), group="07+12, VOC 2007 test"),
        Row("resnet101", "ResNet-101", "faster_rcnn:resnet101", paper=(76.4,), group="07+12, VOC 2007 test",
            against="vgg16"),
        Row("vgg16_12", "VGG-16", paper=(70.4,), group="07++12, VOC 2012 test", note=SERVER),
        Row("resnet101_12", "ResNet-101", paper=(73.8,), group="07++12, VOC 2012 test", note=SERVER),
    ),
    note="More is better. On VOC 2007 the precision is averaged at 11 points of recall, as its devkit does. Runs begin "
    "with weights of ImageNet: run --rows=resnet101 --set init_from=WEIGHTS data.data_dir=VOCdevkit. They are trained "
    "jointly, the paper's in four alternating steps.",
)  # fmt: skip
