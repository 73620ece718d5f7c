"""Table 4: nets of pre-activation units beside the best of their time, on CIFAR-10 and CIFAR-100."""

from collections.abc import Mapping
from typing import Any

from experiments.experiment import Experiment, Row
from experiments.he2016.common import SETS, WARMUP

#: What the paper marks with a dagger was trained by the authors' Torch code (github.com/KaimingHe/resnet-1k-layers), a
#: file beside github.com/facebookarchive/fb.resnet.torch, whose recipe it takes: 200 epochs, drops after epochs 80 and
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


#: Errors of other works, which the paper quotes.
QUOTED = {
    "cifar10": {
        "NIN": 8.81, "DSN": 8.22, "FitNet": 8.39, "Highway": 7.72, "All-CNN": 7.25, "ELU": 6.55,
        "FitResNet, LSUV": 5.84,
    },
    "cifar100": {
        "NIN": 35.68, "DSN": 34.57, "FitNet": 35.04, "Highway": 32.39, "All-CNN": 33.71, "ELU": 24.28,
        "FitNet, LSUV": 27.66,
    },
}  # fmt: skip


def _quoted(data: str) -> list[Row]:
    def name(label: str) -> str:
        return {"FitResNet, LSUV": "fitresnet"}.get(label, label.lower().replace(", ", "_").replace("-", "_"))

    return [
        Row(f"{data}_{name(label)}", label, paper=(None, error, None, None), group=SETS[data], quoted=True)
        for label, error in QUOTED[data].items()
    ]


def _row(
    name: str, label: str, net: str, params: float, *errors: float | None,
    changes: Mapping[str, Any] = WARMUP, note: str = "", seeds: int = 0, against: str = "",
) -> Row:  # fmt: skip
    """Returns a row of ours; `errors` are the median and, where the paper prints them, mean and standard deviation."""
    data = name.partition("_")[0]
    paper = (params, *errors, *[None] * (3 - len(errors)))
    return Row(name, label, f"{data}:{net}", changes, paper, note, SETS[data], seeds=seeds, against=against)


EXPERIMENT = Experiment(
    name="he2016.table4",
    title="Very deep nets of pre-activation units: CIFAR-10 and CIFAR-100",
    columns=("params", "error", "mean", "std"),
    protocol="median",
    seeds=5,
    rows=(
        *_quoted("cifar10"),
        _row("cifar10_resnet110_original", "ResNet-110", "resnet110", 1.7, 6.61),
        _row("cifar10_resnet1202_original", "ResNet-1202", "resnet1202", 19.4, 7.93, changes={},
             note="a single run of the 2015 paper", seeds=1),
        _row("cifar10_resnet164", "pre-activation ResNet-164", "preact_resnet164", 1.7, 5.46),
        _row("cifar10_resnet1001", "pre-activation ResNet-1001", "preact_resnet1001", 10.2, 4.92, 4.89, 0.14,
             against="cifar10_resnet164"),
        _row("cifar10_resnet1001_batch64", "pre-activation ResNet-1001, batch 64", "preact_resnet1001",
             10.2, 4.62, 4.69, 0.20, changes=RESNET_1K_LAYERS, note="the authors' Torch code",
             against="cifar10_resnet1001"),
        *_quoted("cifar100"),
        _row("cifar100_resnet164_original", "ResNet-164", "resnet164", 1.7, 25.16),
        _row("cifar100_resnet1001_original", "ResNet-1001", "resnet1001", 10.2, 27.82),
        _row("cifar100_resnet164", "pre-activation ResNet-164", "preact_resnet164", 1.7, 24.33),
        _row("cifar100_resnet1001", "pre-activation ResNet-1001", "preact_resnet1001", 10.2, 22.71, 22.68, 0.22,
             against="cifar100_resnet164"),
    ),
    note="The paper prints parameters for CIFAR-10; a classifier of 100 classes has a few more.",
)  # fmt: skip
