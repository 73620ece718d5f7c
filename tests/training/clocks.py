"""Processes whose wall clock jumps, without a change to that of the machine."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("jumping_clock.c")

#: Time zones a day apart.
ZONES = ("Pacific/Kiritimati", "Etc/GMT+12")


def jumping_clock(folder: Path) -> Path | None:
    """Compiles `jumping_clock.c` into a folder; None where there is no C compiler."""
    library = folder / "jumping_clock.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        command = [compiler, "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
    return library


def jumping(library: Path, first: int) -> dict[str, str]:
    """Returns the environment of a process whose clock jumps, in one of `ZONES`; the first jump is number `first`."""
    return {"LD_PRELOAD": str(library), "CLOCK_JUMPS": str(first), "TZ": ZONES[first % 2]}
