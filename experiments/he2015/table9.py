"""Table 9: what box refinement, global context, testing at several scales and an ensemble add on COCO."""

from experiments.experiment import Experiment, Row

#: The net of table 8, and the one that sees the whole image beside each region.
NET, CONTEXT = "faster_rcnn:resnet101,coco", {"model.context": True}

EXPERIMENT = Experiment(
    name="he2015.table9",
    title="Improvements on COCO: average precision",
    columns=("ap50", "ap", "test_dev_ap50", "test_dev_ap"),
    metric="test_ap",
    evaluated_on="validation",
    rows=(
        Row("vgg16", "Faster R-CNN (VGG-16)", "faster_rcnn:vgg16,coco", paper=(41.5, 21.2, None, None)),
        Row("resnet101", "Faster R-CNN (ResNet-101)", NET, paper=(48.4, 27.2, None, None)),
        Row("box_refinement", "+ box refinement", NET, paper=(49.9, 29.9, None, None), metric="box_refinement",
            against="resnet101"),
        Row("context", "+ context", NET, CONTEXT, paper=(51.1, 30.0, 53.3, 32.2), metric="box_refinement",
            against="box_refinement"),
        Row("multi_scale", "+ multi-scale testing", NET, CONTEXT, paper=(53.8, 32.5, 55.7, 34.9),
            metric="refined_multi_scale", against="context"),
        Row("ensemble", "ensemble", paper=(None, None, 59.0, 37.4), note="three nets, on test-dev alone"),
    ),
    note="More is better. Each row adds to the one above it. Box refinement and several scales are ways of testing the "
    "same run. The paper's numbers on test-dev are of nets trained on the validation images, too; ours are on "
    "validation alone, as the labels of test-dev are not public.",
)  # fmt: skip
