"""What computes a run's steps: devices, layers, jaxlib. Sums of another order differ in the last digit, and grow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jaxlib

from resnet_jax.errors import UserError
from resnet_jax.kernels.build import in_use, library
from resnet_jax.training.result import hardware

#: What must stay as it was while the devices do. `--force` takes these names beside those of the config's fields.
FIXED = ("layers", "jaxlib")


def computation(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Returns what computes on these devices: "devices", "layers" ("XLA" or a compiled library's name), "jaxlib"."""
    found = hardware(devices)
    found.pop("convolutions", None)
    return {"devices": found, "layers": library() if in_use(devices) else "XLA", "jaxlib": jaxlib.__version__}


def go_on(
    earlier: Sequence[Mapping[str, Any]], step: int, now: Mapping[str, Any], force: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Returns what computed a run from which step on, with what computes it from `step` on.

    Other devices are another part of the run, which is recorded. On the same devices, layers and jaxlib must be those
    that were.

    Args:
      earlier: what a checkpoint says; empty where there is none, and in those of early versions.
      step: of the checkpoint.
      now: `computation`'s.
      force: names of `FIXED` that may differ.

    Raises:
      UserError: naming what differs.
    """
    parts = [dict(part) for part in earlier]
    last = parts[-1] if parts else {}
    changed = [name for name in now if last and last.get(name) != now[name]]
    refused = [name for name in changed if name in FIXED and name not in force]
    if refused and "devices" not in changed:
        differing = "; ".join(f"{name}: {last.get(name)} there, {now[name]} here" for name in refused)
        raise UserError(
            f"what computed the run up to step {step} is not what computes here ({differing}), so losses would differ "
            "in their last digits; put that back, and the same command goes on, or go on with what is here by "
            f"--force={','.join(refused)}"
        )
    if last and not changed:
        return parts
    return [*(part for part in parts if part["step"] < step), {"step": step, **now}]


def changes(parts: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence on the last change of what computes a run; empty if there was none."""
    if len(parts) < 2:
        return ""
    before, now = parts[-2], parts[-1]
    differing = [name for name in now if name != "step" and before.get(name) != now[name]]
    return f"since step {now['step']} the run has other {' and '.join(differing)}, which result.json records"
