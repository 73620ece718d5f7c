"""Reads the text of a program that XLA has compiled and scheduled."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator

#: Bytes of one number.
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
         "s64": 8, "u64": 8}  # fmt: skip

#: Operations that move arrays between devices; as `-start` and `-done` they run beside others.
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# The name, the type, which may be a tuple's, the operation, and the rest of a line.
_LINE = re.compile(r"\s+(?:ROOT )?%(\S+) = (.+?) ([a-z][a-z0-9-]*)\((.*)")
_ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Holds one line of a computation.

    Attributes:
      name: in the text.
      type: of what it gives, such as "f32[8,128]{1,0}" or a tuple of these.
      operation: such as "fusion".
      rest: of the line: operands and attributes.
    """

    name: str
    type: str
    operation: str
    rest: str

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """Returns (dtype, shape) of each array that it gives."""
        return [(t, tuple(int(n) for n in s.split(",") if n)) for t, s in _ARRAY.findall(self.type)]

    @property
    def bytes(self) -> int:
        """Returns the bytes of all arrays that it gives."""
        return sum(SIZES.get(dtype, 4) * math.prod(shape) for dtype, shape in self.arrays)

    @property
    def op_name(self) -> str:
        """Returns where it comes from: JAX's functions and Flax's modules, joined by "/"; empty if unknown."""
        return self._attribute(r'op_name="([^"]*)"') or ""

    @property
    def cycles(self) -> int:
        """Returns what the TPU's compiler estimates for it, 0 where it does not."""
        return int(self._attribute(r'"estimated_cycles":"(\d+)"') or 0)

    def _attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.rest)
        return found and found.group(1)


def instructions(text: str) -> list[Instruction]:
    """Reads the instructions in a program's text, whatever computations they are in."""
    return [Instruction(*match.groups()) for line in text.splitlines() if (match := _LINE.match(line))]


@dataclasses.dataclass(frozen=True)
class Program:
    """Holds a program's computations, their lines in the order in which they run.

    Attributes:
      computations: by name.
      entry: the name of the one that runs first.
    """

    computations: dict[str, list[Instruction]]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Reads the text of a compiled program, as `jax.stages.Compiled.as_text` gives it."""
        computations: dict[str, list[Instruction]] = {}
        entry = name = ""
        for line in text.splitlines():
            if line.endswith("{") and not line.startswith((" ", "HloModule")):
                name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
                computations[name] = []
                entry = name if line.startswith("ENTRY") else entry
            elif name:
                computations[name] += instructions(line)
        return cls(computations, entry)

    def run(self, name: str | None = None) -> Iterator[tuple[Instruction, int]]:
        """Yields (instruction, how often it runs) of a computation, by default the entry, and of what it calls.

        A fusion is one instruction.
        """
        for instruction in self.computations[name or self.entry]:
            yield instruction, 1
            for called, times in self._called(instruction):
                for inner, count in self.run(called):
                    yield inner, times * count

    def loops(self, name: str | None = None) -> list[int]:
        """Returns how often the body of each loop in a computation runs, once the loop is entered."""
        return [self._called(one)[0][1] for one, _ in self.run(name) if one.operation == "while"]

    def body_of_longest_loop(self) -> str:
        """Returns the computation that is most of the entry's loops' text."""
        bodies = [self._called(one)[0][0] for one in self.computations[self.entry] if one.operation == "while"]
        return max(bodies, key=lambda name: len(self.computations[name]))

    def everything(self) -> Iterator[Instruction]:
        """Yields every line, those inside fusions too."""
        for computation in self.computations.values():
            yield from computation

    def _called(self, instruction: Instruction) -> list[tuple[str, int]]:
        if instruction.operation == "while":
            body, condition = (re.search(rf"{key}=%([^,\s]+)", instruction.rest) for key in ("body", "condition"))
            assert body and condition, "a loop has both"
            return [(body.group(1), self._trip_count(condition.group(1)))]
        if instruction.operation == "conditional":
            names = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
            found = names.group(1) if names else " ".join(re.findall(r"(?:true|false)_computation=(%[^,\s]+)",
                                                                     instruction.rest))  # fmt: skip
            # One branch runs; which one is not known.
            return [(name.lstrip("%"), 1) for name in re.split(r"[,\s]+", found) if name][:1]
        if instruction.operation == "call":
            name = re.search(r"to_apply=%([^,\s]+)", instruction.rest)
            return [(name.group(1), 1)] if name else []
        return []

    def _trip_count(self, condition: str) -> int:
        """Returns the number that a loop's condition compares its counter with; 1 where there is none."""
        bounds = [re.match(r"(\d+)\)", one.rest) for one in self.computations[condition] if one.operation == "constant"]
        numbers = [int(bound.group(1)) for bound in bounds if bound]
        return max(numbers, default=1)


# What JAX puts between the names of modules for control flow and rematerialisation.
_BETWEEN = re.compile(r"(?<![^/])(?:while/(?:body|cond)|cond/branch_\d+_fun|checkpoint|rematted_computation)/")


@functools.lru_cache(maxsize=65536)
def layer_of(op_name: str) -> str | None:
    """Returns the layer of the net that an operation belongs to, as "stage1/block2/conv1"; None if to none."""
    # Flax names modules inside the net's own, which JAX wraps in the transformations that it made of it.
    match = re.search(r"jvp\([A-Za-z]\w*\)\)?/(.*)", op_name) or re.search(r"/[A-Z]\w*/(.*)", op_name)
    if match is None:
        return None
    # A detector's own name comes again where it runs the stages of a net: modules have names in lower case.
    parts = [part for part in _BETWEEN.sub("", match.group(1)).split("/")[:-1] if re.fullmatch(r"[a-z_]\w*", part)]
    # A module that calls a loop of its own is named again inside it.
    return "/".join(part for part, _ in itertools.groupby(parts)) or None
