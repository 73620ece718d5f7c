"""Table 5: ensembles, scored by the test server of ImageNet."""

from experiments.experiment import Experiment, Row

EXPERIMENT = Experiment(
    name="he2015.table5",
    title="Ensembles: ImageNet test server",
    columns=("top5",),
    metric="ensemble",
    rows=(
        Row("vgg", "VGG (ILSVRC'14)", paper=(7.32,), quoted=True),
        Row("googlenet", "GoogLeNet (ILSVRC'14)", paper=(6.66,), quoted=True),
        Row("vgg_v5", "VGG (v5)", paper=(6.8,), quoted=True),
        Row("prelu_net", "PReLU-net", paper=(4.94,), quoted=True),
        Row("bn_inception", "BN-inception", paper=(4.82,), quoted=True),
        Row("resnet_ensemble", "ResNet (ILSVRC'15)", paper=(3.57,), note="six nets, two of them of 152 layers"),
    ),
    note="The ensemble's scores are the average of six nets' of different depth, two of them of 152 layers; the paper "
    "does not name the others. Labels of the test set are not public, so that ours can only be a validation error: "
    "`python -m resnet_jax evaluate --workdir=A,B,C --protocol=multi_scale` averages nets of table 4.",
)
