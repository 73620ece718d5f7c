"""Attacks what docs/trust.md promises, at random, for some minutes; ends in a table, with status 1 if a promise broke.

python -m tests.attack --minutes=5     (make attack)
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from rich.console import Console
from rich.table import Table

from resnet_jax.cli.run_command import hide_late_threads
from tests.attack.mutations import images, mutated, weights
from tests.attack.readers import Reader

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Part:
    """Counts the tries of one kind of attack.

    Attributes:
      name: what is attacked, and how.
      tries: so far.
      broken: a sentence for each that broke a promise.
    """

    name: str
    tries: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)


def flip_checkpoints(rng: random.Random, folder: Path, seconds: float, part: Part) -> None:
    """Damages a file of the newest of two checkpoints: the run goes on from one of them, bitwise."""
    from tests.training.test_checkpoints import assert_is, restore, save

    save(folder / "whole", (2, 4))
    files = sorted(p.relative_to(folder) for p in (folder / "whole/4").rglob("*") if p.is_file())
    for number in _until(seconds):
        copy = folder / f"copy{number}"
        shutil.copytree(folder / "whole", copy)
        path = copy / Path(*rng.choice(files).parts[1:])
        # One byte, or more of it.
        data = path.read_bytes()
        if data and rng.random() < 0.7:
            at = rng.randrange(len(data))
            path.write_bytes(data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :])
        elif rng.random() < 0.8:
            path.write_bytes(mutated(rng, data))
        else:
            path.unlink()
        part.tries += 1
        try:
            restored = restore(copy)
            assert_is(restored, int(restored.state["step"]))
            shutil.rmtree(copy)
        except Exception as error:
            part.broken.append(f"{path}: {type(error).__name__}: {error}"[:300])


def mutate_weights(rng: random.Random, folder: Path, seconds: float, part: Part) -> None:
    """Reads mutated files of weights."""
    kinds = weights(folder)
    with Reader("weights") as reader:
        for number in _until(seconds):
            kind = rng.choice(sorted(kinds))
            data, write = kinds[kind]
            path = folder / f"{number}"
            write(path, mutated(rng, data))
            _read(reader, path, kind, part)


def mutate_images(rng: random.Random, folder: Path, seconds: float, part: Part) -> None:
    """Reads mutated images."""
    kinds = images()
    with Reader("images") as reader:
        for number in _until(seconds):
            kind = rng.choice(sorted(kinds))
            path = folder / f"{number}"
            path.write_bytes(mutated(rng, kinds[kind]))
            _read(reader, path, kind, part)


def _read(reader: Reader, path: Path, kind: str, part: Part) -> None:
    part.tries += 1
    if wrong := reader.read(path):
        part.broken.append(f"{kind} {path}: {wrong}")
    else:
        path.unlink()


def kill_runs(rng: random.Random, folder: Path, seconds: float, part: Part) -> None:
    """Kills a run at random moments, half of the time under a clock that jumps: it ends as the one left alone."""
    from tests.training.clocks import jumping_clock
    from tests.training.kills import OPTIONS, compare

    kills = max(3, int(seconds / 10))
    fields = rng.choice(({}, OPTIONS))
    clock = jumping_clock(folder) if rng.random() < 0.5 else None
    part.tries += kills
    try:
        compare(folder, kills, seed=rng.randrange(2**32), fields=fields, clock=clock)
    except AssertionError as error:
        part.broken.append(f"{folder}, {fields}: {error}"[:300])


def race_starts(rng: random.Random, folder: Path, seconds: float, part: Part) -> None:
    """Starts a run twice, a moment apart: one trains, the other is refused, and the record is that of one run."""
    from tests.training.kills import command, environment, lines

    fields = {"steps": 60, "eval_every": 30, "keep_checkpoints": 1}

    def start(workdir: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command(workdir, **fields), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=environment(workdir),
        )  # fmt: skip

    assert start(folder / "whole").wait() == 0
    for number in _until(seconds):
        workdir = folder / f"race{number}"
        first = start(workdir)
        time.sleep(rng.choice((0, rng.uniform(0, 8))))
        second = start(workdir)
        part.tries += 1
        said = [p.communicate()[1] for p in (first, second)]
        # The second may also come when the first has finished, and then only reads.
        late = "another process trains" not in "".join(said)
        if sorted([first.returncode, second.returncode]) != ([0, 0] if late else [0, 2]):
            part.broken.append(f"{workdir}: {first.returncode} and {second.returncode}: {said}"[:600])
        elif lines(workdir) != lines(folder / "whole"):
            part.broken.append(f"{workdir}: other lines than those of one run")


#: Attacks, and the share of the time that each has.
PARTS: dict[str, tuple[Callable[[random.Random, Path, float, Part], None], float]] = {
    "checkpoints: bytes flipped, files cut, changed or gone": (flip_checkpoints, 0.2),
    "weights: mutated files": (mutate_weights, 0.2),
    "images: mutated files": (mutate_images, 0.15),
    "races: two starts in one workdir": (race_starts, 0.15),
    "kills: a run at random moments": (kill_runs, 0.3),
}


def _until(seconds: float) -> Iterator[int]:
    """Counts from 0 until so many seconds have gone by."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= end:
            return
        yield number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", default="", help="attack what begins with this alone: kills, races, ...")
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax says at length what is damaged
    hide_late_threads()
    print(f"seed {options.seed}", flush=True)
    chosen = {name: part for name, part in PARTS.items() if name.startswith(options.only)}
    shares = sum(share for _, share in chosen.values())
    folder, parts, began = Path(tempfile.mkdtemp(prefix="attack_")), [], time.monotonic()
    for name, (attack, share) in chosen.items():
        parts.append(part := Part(name))
        place = folder / name.partition(":")[0]
        place.mkdir()
        with _noted(part):
            attack(random.Random(f"{options.seed} {name}"), place, 60 * options.minutes * share / shares, part)
        print(json.dumps(dataclasses.asdict(part)), file=sys.stderr, flush=True)
    table = Table("attack", "tries", "broken")
    for part in parts:
        table.add_row(part.name, f"{part.tries:,}", str(len(part.broken)))
    console = Console()
    console.print(table, f"seed {options.seed}, {time.monotonic() - began:.0f} s")
    broken = [sentence for part in parts for sentence in part.broken]
    for sentence in broken[:20]:
        console.print(sentence, markup=False)
    if broken:
        console.print(f"what broke a promise is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


@contextlib.contextmanager
def _noted(part: Part) -> Iterator[None]:
    """Counts an attack that cannot go on as broken."""
    try:
        yield
    except Exception as error:
        part.broken.append(f"it could not go on: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    sys.exit(main())
