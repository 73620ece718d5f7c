"""Table 5: original and pre-activation units on ImageNet, one crop of the validation images."""

from typing import Any

from experiments.experiment import RECOMPUTE_BN, Experiment, Row

#: The model that the paper marks with a dagger is that of github.com/facebookarchive/fb.resnet.torch, with its recipe:
#: models/preresnet.lua, datasets/imagenet.lua, train.lua and the notes of its README.
FB_RESNET_TORCH = {
    "model.stride_on": "3x3",
    "model.init_mode": "fan_out",
    "data.crop": "aspect",
    "data.colour_jitter": 0.4,
    "data.normalization": "imagenet",
    "optimizer.nesterov": True,
    "optimizer.decay_scope": "all",
}

COLUMNS = ("train_crop", "test_crop", "top1", "top5")
SCALE, ASPECT = "scale augmentation", "scale and aspect ratio augmentation"


def _row(name: str, label: str, net: str, test_crop: int, top1: float, top5: float, note: str = SCALE,
         **fields: Any) -> Row:  # fmt: skip
    return Row(name, label, f"imagenet:{net}", paper=(224, test_crop, top1, top5), note=note, **fields)


EXPERIMENT = Experiment(
    name="he2016.table5",
    title="Original and pre-activation units on ImageNet: validation, one crop",
    columns=COLUMNS,
    metric="single_crop_320",
    recompute_bn=RECOMPUTE_BN,
    rows=(
        _row("resnet152_original_224", "ResNet-152, original", "resnet152", 224, 23.0, 6.7, metric="single_crop_224"),
        _row("resnet152_original", "ResNet-152, original", "resnet152", 320, 21.3, 5.5),
        _row("resnet152_preactivation", "ResNet-152, pre-activation", "preact_resnet152", 320, 21.1, 5.5,
             against="resnet152_original"),
        _row("resnet200_original", "ResNet-200, original", "resnet200", 320, 21.8, 6.0),
        _row("resnet200_preactivation", "ResNet-200, pre-activation", "preact_resnet200", 320, 20.7, 5.3,
             against="resnet200_original"),
        _row("resnet200_preactivation_aspect", "ResNet-200, pre-activation", "preact_resnet200", 320, 20.1, 4.8,
             changes=FB_RESNET_TORCH, note=f"{ASPECT}; the recipe of fb.resnet.torch",
             recompute_bn=0),  # that code tests with the running statistics
        Row("inception_v3", "Inception v3", paper=(299, 299, 21.2, 5.6), note=ASPECT, quoted=True),
    ),
    note="The nets of 152 layers with original units are those of the 2015 paper, trained by its recipe. Batch norm's "
    f"statistics are averaged over {RECOMPUTE_BN:,} training images after training, but in the recipe of "
    "fb.resnet.torch.",
)  # fmt: skip
