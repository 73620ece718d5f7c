"""Says in words and as rows of a table what compiled steps take."""

import collections
from collections.abc import Sequence

from resnet_jax.aot.cost import Cost
from resnet_jax.aot.topologies import GIB, Chip

#: Layers that are shown.
MOST_LAYERS = 10


def describe(name: str, cost: Cost, chip: Chip, devices: int, batch: int) -> list[str]:
    """Returns lines on one step.

    Args:
      name: of the step.
      cost: what it takes.
      chip, devices: what it runs on, and how many.
      batch: examples in it, over all devices.
    """
    lines = [
        f"{name}, of each of {devices} {chip.name}:",
        _line("peak memory", f"{cost.peak_bytes / GIB:.2f} GiB of {chip.memory / GIB:.0f} GiB: it fits"),
    ]
    if cost.flops is None or cost.memory_bytes is None or not cost.bound_seconds:
        lines.append(_line("arithmetic, bytes", "not known: this compiler gives no analysis of costs"))
    else:
        assert cost.flops_seconds is not None and cost.memory_seconds is not None
        lines += [
            _line("arithmetic", f"{cost.flops / 1e9:,.0f} GFLOP, {1e3 * cost.flops_seconds:.2f} ms at "
                                f"{chip.flops / 1e12:,.0f} TFLOP/s (bfloat16)"),
            _line("bytes from memory", f"{cost.memory_bytes / 1e9:.2f} GB, {1e3 * cost.memory_seconds:.2f} ms at "
                                       f"{chip.bandwidth / 1e9:,.0f} GB/s"),
            _line("roofline", f"bound by {cost.bound_by}: {batch / cost.bound_seconds:,.0f} images/s"),
        ]  # fmt: skip
    if cost.cycles and chip.clock:
        seconds = cost.cycles / chip.clock
        lines.append(_line("the compiler's estimate", f"{cost.cycles:,} cycles, {1e3 * seconds:.2f} ms, "
                                                      f"{batch / seconds:,.0f} images/s"))  # fmt: skip
    for times in cost.inner_loops:
        if times > 1:
            lines.append(_line("a loop inside", f"runs {times} times; arithmetic and bytes count it once"))
    lines += _collectives(cost, chip, devices)
    if chip.platform == "cuda":
        lines.append(_line("not known here", "which convolution algorithms autotuning chooses, and their workspace"))
    lines.append(_line("compiled in", f"{cost.compile_seconds:.0f} s, {cost.compile_cpu_seconds:.0f} s of all cores"))
    if cost.layers and cost.cycles:
        lines.append("  layers that cost most (a fused operation counts for the layer of its last one):")
        lines += [
            f"    {100 * cycles / cost.cycles:5.1f} %  {layer}" for layer, cycles in cost.layers[:MOST_LAYERS] if cycles
        ]
    return lines


def _collectives(cost: Cost, chip: Chip, devices: int) -> Sequence[str]:
    kinds: dict[tuple[str, str, str], list[int]] = collections.defaultdict(list)
    for one in cost.collectives:
        kinds[one.operation, one.carries, " and ".join(one.dtypes)].append(one.bytes)
    if not kinds:
        return [_line("collectives", "none")]
    lines = [
        _line("collectives", f"{len(sizes)} {operation} of {carries}, {dtypes}, {sum(sizes) / 1e6:.3f} MB")
        for (operation, carries, dtypes), sizes in kinds.items()
    ]
    hidden = [one for one in cost.collectives if one.overlapped]
    beside = f"{len(hidden)} of them beside other work" if hidden else "none of them beside other work"
    seconds = cost.link_seconds(chip, devices)
    return [*lines, _line("links", f"{1e3 * seconds:.2f} ms by rings at {chip.link / 1e9:.0f} GB/s; {beside}")]


def _line(what: str, text: str) -> str:
    return f"  {what:24s}{text}"
