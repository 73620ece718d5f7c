"""Table 4: nets of pre-activation units beside the best of their time, on CIFAR-10 and CIFAR-100."""

from experiments.experiment import Experiment, Row
from experiments.he2016.common import WARMUP

#: What the paper marks with a dagger was trained by the authors' Torch code (github.com/KaimingHe/resnet-1k-layers), a
#: file beside github.com/facebookarchive/fb.resnet.torch, whose recipe it takes: 200 epochs, drops behind epochs 80 and
#: 121 (train.lua), 64 images on two GPUs.
RESNET_1K_LAYERS = {
    "batch_size": 64,
    "steps": 200 * 50_000 // 64,
    "schedule.warmup": "none",
    "schedule.boundaries": (80 / 200, 121 / 200),
    "optimizer.nesterov": True,
    "optimizer.decay_scope": "all",
    "model.init_mode": "fan_out",
    "model.bn_group_size": 32,
    "data.normalization": "per_channel",
}

TEN, HUNDRED = "CIFAR-10", "CIFAR-100"


def _quoted(name: str, label: str, group: str, error: float) -> Row:
    return Row(f"{group.lower().replace('-', '')}_{name}", label, "", paper=(None, error, None, None), group=group,
               quoted=True)  # fmt: skip


EXPERIMENT = Experiment(
    name="he2016.table4",
    title="Very deep nets of pre-activation units: CIFAR-10 and CIFAR-100",
    columns=("params", "error", "mean", "std"),
    protocol="median",
    seeds=5,
    rows=(
        _quoted("nin", "NIN", TEN, 8.81),
        _quoted("dsn", "DSN", TEN, 8.22),
        _quoted("fitnet", "FitNet", TEN, 8.39),
        _quoted("highway", "Highway", TEN, 7.72),
        _quoted("all_cnn", "All-CNN", TEN, 7.25),
        _quoted("elu", "ELU", TEN, 6.55),
        _quoted("fitresnet", "FitResNet, LSUV", TEN, 5.84),
        Row(
            "cifar10_resnet110_original", "ResNet-110", "cifar10:resnet110", WARMUP, (1.7, 6.61, None, None), group=TEN
        ),
        Row(
            "cifar10_resnet1202_original",
            "ResNet-1202",
            "cifar10:resnet1202",
            {},
            (19.4, 7.93, None, None),
            "a single run of the 2015 paper",
            group=TEN,
        ),
        Row(
            "cifar10_resnet164",
            "pre-activation ResNet-164",
            "cifar10:preact_resnet164",
            WARMUP,
            (1.7, 5.46, None, None),
            group=TEN,
        ),
        Row(
            "cifar10_resnet1001",
            "pre-activation ResNet-1001",
            "cifar10:preact_resnet1001",
            WARMUP,
            (10.2, 4.92, 4.89, 0.14),
            group=TEN,
            against="cifar10_resnet164",
        ),
        Row(
            "cifar10_resnet1001_batch64",
            "pre-activation ResNet-1001, batch 64",
            "cifar10:preact_resnet1001",
            RESNET_1K_LAYERS,
            (10.2, 4.62, 4.69, 0.20),
            "the authors' Torch code",
            group=TEN,
            against="cifar10_resnet1001",
        ),
        _quoted("nin", "NIN", HUNDRED, 35.68),
        _quoted("dsn", "DSN", HUNDRED, 34.57),
        _quoted("fitnet", "FitNet", HUNDRED, 35.04),
        _quoted("highway", "Highway", HUNDRED, 32.39),
        _quoted("all_cnn", "All-CNN", HUNDRED, 33.71),
        _quoted("elu", "ELU", HUNDRED, 24.28),
        _quoted("fitnet_lsuv", "FitNet, LSUV", HUNDRED, 27.66),
        Row(
            "cifar100_resnet164_original",
            "ResNet-164",
            "cifar100:resnet164",
            WARMUP,
            (1.7, 25.16, None, None),
            group=HUNDRED,
        ),
        Row(
            "cifar100_resnet1001_original",
            "ResNet-1001",
            "cifar100:resnet1001",
            WARMUP,
            (10.2, 27.82, None, None),
            group=HUNDRED,
        ),
        Row(
            "cifar100_resnet164",
            "pre-activation ResNet-164",
            "cifar100:preact_resnet164",
            WARMUP,
            (1.7, 24.33, None, None),
            group=HUNDRED,
        ),
        Row(
            "cifar100_resnet1001",
            "pre-activation ResNet-1001",
            "cifar100:preact_resnet1001",
            WARMUP,
            (10.2, 22.71, 22.68, 0.22),
            group=HUNDRED,
            against="cifar100_resnet164",
        ),
    ),
    note="The paper prints parameters for CIFAR-10; a classifier of 100 classes has a few more.",
)
