"""Table 1: what is on the shortcut, in all units of ResNet-110 on CIFAR-10 (sections 3.1 and 3.2, figure 2)."""

from typing import Any

from experiments.experiment import Experiment, Row
from experiments.he2016.common import WARMUP

#: The paper prints "fail" for errors above this.
FAILS = 20.0


def _row(name: str, label: str, error: float | None, note: str = "", **model: Any) -> Row:
    """Returns a row of ResNet-110 with some fields changed; without an error, the paper says that it fails."""
    changes = WARMUP | {f"model.{field}": value for field, value in model.items()}
    above = FAILS if error is None else None
    against = "" if name == "original" else "original"
    return Row(name, label, "cifar10:resnet110", changes, (error,), note, above=above, against=against)


def _scaling(on_shortcut: float, on_residual: float, error: float | None, note: str) -> Row:
    return _row(
        f"constant_scaling_{on_shortcut:g}_{on_residual:g}",
        f"constant scaling: shortcut {on_shortcut:g}, residual {on_residual:g}",
        error,
        note,
        shortcut="constant_scaling",
        shortcut_scale=on_shortcut,
        residual_scale=on_residual,
    )


def _gating(shortcut: str, bias: float, error: float | None, note: str = "") -> Row:
    label = f"{shortcut.replace('_only_', '-only ').replace('_', ' ')}: bias {bias:g}"
    return _row(f"{shortcut}_{bias:g}", label, error, note, shortcut=shortcut, gate_bias=bias)


EXPERIMENT = Experiment(
    name="he2016.table1",
    title="What is on the shortcut: ResNet-110 on CIFAR-10",
    columns=("error",),
    protocol="median",
    seeds=5,
    rows=(
        _row("original", "original: identity", 6.61),
        _scaling(0.0, 1.0, None, "a plain net"),
        _scaling(0.5, 1.0, None, ""),
        _scaling(0.5, 0.5, 12.35, "frozen gating"),
        _gating("exclusive_gating", -5.0, None, "the paper: with any bias from 0 to -5"),
        _gating("exclusive_gating", -6.0, 8.70),
        _gating("exclusive_gating", -7.0, 9.81),
        _gating("shortcut_only_gating", 0.0, 12.86),
        _gating("shortcut_only_gating", -6.0, 6.91),
        _row("conv1x1_shortcut", "1x1 convolution", 12.22, shortcut="conv1x1"),
        _row("dropout_shortcut", "dropout 0.5", None, shortcut="dropout", shortcut_dropout=0.5),
    ),
)
