"""Table 8: Faster R-CNN on COCO, VGG-16 against ResNet-101."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table8",
    title="Detection on COCO validation: average precision",
    columns=("ap50", "ap"),
    metric="test_ap",
    evaluated_on="validation",
    rows=(
        Row("vgg16", "VGG-16", "faster_rcnn:vgg16,coco", paper=(41.5, 21.2)),
        Row("resnet101", "ResNet-101", "faster_rcnn:resnet101,coco", paper=(48.4, 27.2), against="vgg16"),
    ),
    note="More is better. Runs begin with weights of ImageNet: run --rows=resnet101 --set init_from=WEIGHTS "
    "data.data_dir=COCO. They are trained jointly, the paper's in four alternating steps.",
)
