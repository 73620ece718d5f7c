"""What a compiled step takes: memory, arithmetic, bytes, the roofline's bound, collectives, the costliest layers."""

import collections
import dataclasses
from typing import Any

from resnet_jax.aot.hlo import COLLECTIVES, Instruction, Program, layer_of
from resnet_jax.aot.programs import Compiled, OutOfMemory
from resnet_jax.aot.topologies import GIB, Chip

#: What is not of the net's layers: augmentation, loss, update.
OTHER = "(augmentation, loss, update)"


@dataclasses.dataclass(frozen=True)
class Collective:
    """Holds one exchange between devices.

    Attributes:
      operation: such as "all-reduce".
      bytes: of one device.
      carries: "gradients", "batch statistics", "metrics", or "sums", joined and without a name, as for GPUs.
      dtypes: of the arrays.
      overlapped: cycles of other work that are scheduled between its start and its end; 0 where nothing runs beside it.
    """

    operation: str
    bytes: int
    carries: str
    dtypes: tuple[str, ...]
    overlapped: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """Holds what one step takes of each device. None stands for what the compiler does not say.

    Attributes:
      peak_bytes: of memory: arguments, results that are not written over them, temporaries and the program.
      flops: operations.
      memory_bytes: read from memory and written to it.
      cycles: estimated, without what runs beside: asynchronous copies and collectives.
      flops_seconds, memory_seconds: the roofline's two times.
      collectives: of one step.
      layers: (name, cycles), the costliest first.
      inner_loops: how often loops inside a step run; their operations count once in `flops` and `memory_bytes`.
      compile_seconds, compile_cpu_seconds: see `Compiled`.
    """

    peak_bytes: int
    flops: float | None
    memory_bytes: float | None
    cycles: int | None
    flops_seconds: float | None
    memory_seconds: float | None
    collectives: tuple[Collective, ...]
    layers: tuple[tuple[str, int], ...]
    inner_loops: tuple[int, ...]
    compile_seconds: float
    compile_cpu_seconds: float

    @property
    def bound_seconds(self) -> float | None:
        """Returns the least seconds that a step takes by the roofline."""
        if self.flops_seconds is None or self.memory_seconds is None:
            return None
        return max(self.flops_seconds, self.memory_seconds)

    @property
    def bound_by(self) -> str | None:
        """Returns what binds: "arithmetic" or "memory"."""
        if self.flops_seconds is None or self.memory_seconds is None:
            return None
        return "arithmetic" if self.flops_seconds > self.memory_seconds else "memory"

    def link_seconds(self, chip: Chip, devices: int) -> float:
        """Returns the seconds of the collectives by rings over the chips' links, with nothing beside them."""
        return ring_seconds(devices, sum(one.bytes for one in self.collectives), chip.link)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and properties as JSON's types."""
        return dataclasses.asdict(self) | {"bound_seconds": self.bound_seconds, "bound_by": self.bound_by}


def ring_seconds(devices: int, size: float, bandwidth: float) -> float:
    """Returns the seconds of a ring all-reduce of `size` bytes: each device sends 2 (n - 1) / n of them."""
    return 2 * (devices - 1) / devices * size / bandwidth


def cost_of(compiled: Compiled, chip: Chip, steps: int = 1) -> Cost:
    """Reads off a compiled program what one step of it takes.

    Args:
      compiled: the program.
      chip: what it is for.
      steps: that one dispatch makes, as a loop if there are several.

    Raises:
      OutOfMemory: if it does not fit the chip. XLA's compiler for TPUs refuses it by itself, that for GPUs does not.
    """
    memory: Any = compiled.program.memory_analysis()
    peak = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)  # fmt: skip
    if peak > chip.memory:
        raise OutOfMemory(peak / GIB, chip.memory / GIB)
    analysis = compiled.program.cost_analysis() or {}
    if isinstance(analysis, list):
        analysis = analysis[0]
    flops, memory_bytes = analysis.get("flops"), analysis.get("bytes accessed")
    program = Program.parse(compiled.program.as_text() or "")
    body = _step(program, steps)
    by_layer: collections.Counter[str] = collections.Counter()
    for instruction, times in program.run(body):
        by_layer[layer_of(instruction.op_name) or OTHER] += times * instruction.cycles
    cycles = sum(by_layer.values())
    return Cost(
        peak_bytes=peak,
        flops=flops,
        memory_bytes=memory_bytes,
        cycles=cycles or None,
        flops_seconds=flops / chip.flops if flops else None,
        memory_seconds=memory_bytes / chip.bandwidth if memory_bytes else None,
        collectives=_collectives(program, body),
        layers=tuple(by_layer.most_common()) if cycles else (),
        inner_loops=tuple(program.loops(body)),
        compile_seconds=compiled.seconds,
        compile_cpu_seconds=compiled.cpu_seconds,
    )


def _step(program: Program, steps: int) -> str:
    """Returns the name of the computation that is one step: a loop's body, if a dispatch makes several."""
    if steps == 1:
        return program.entry
    return program.body_of_longest_loop()


def _collectives(program: Program, body: str) -> tuple[Collective, ...]:
    lines = [(one, times) for one, times in program.run(body)]
    users: dict[str, list[Instruction]] = collections.defaultdict(list)
    for one, _ in lines:
        if one.operation == "get-tuple-element":
            users[one.rest.split(")")[0].lstrip("%")].append(one)
    found = []
    for place, (one, times) in enumerate(lines):
        operation = one.operation.removesuffix("-start")
        if operation not in COLLECTIVES:
            continue
        names = [one.op_name, *(user.op_name for user in users[one.name])]
        overlapped = _overlapped(lines, place) if one.operation.endswith("-start") else 0
        dtypes = tuple(sorted({dtype for dtype, _ in one.arrays}))
        found += [Collective(operation, one.bytes, _carried(one.arrays, names), dtypes, overlapped)] * times
    return tuple(found)


def _carried(arrays: list[tuple[str, tuple[int, ...]]], names: list[str]) -> str:
    if any(len([side for side in shape if side > 1]) >= 2 for _, shape in arrays):
        return "gradients"  # of kernels, which others may have been joined to
    if not any(names):
        return "sums"
    return "batch statistics" if any(layer_of(name) for name in names) else "metrics"


def _overlapped(lines: list[tuple[Instruction, int]], start: int) -> int:
    """Returns the cycles of what is scheduled between a collective's start and its end."""
    cycles = 0
    for one, times in lines[start + 1 :]:
        if one.operation.endswith("-done") and f"%{lines[start][0].name})" in one.rest:
            return cycles
        cycles += times * one.cycles
    return 0
