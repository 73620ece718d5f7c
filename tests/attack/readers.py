"""Reads files that nobody should trust in a process of its own, and measures what that takes.

python -m tests.attack.readers weights     answers each path on the standard input with a line of JSON
"""

import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]

#: What reading one small file may take: MB over those of the process, seconds of CPU, seconds on a busy machine.
MOST_MEGABYTES, MOST_CPU_SECONDS, MOST_SECONDS = 300, 10, 60

#: MB of address space over those of the process, so that a bomb ends this process and not others.
MOST_ADDRESSES = 4096


class Reader:
    """Lets a process read files, one after another; one that ends or takes too long is replaced."""

    def __init__(self, kind: str) -> None:
        """`kind` is "weights" or "images"."""
        self._kind = kind
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.attack.readers", self._kind]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    def read(self, path: Path) -> str:
        """Returns "" if a file is read or refused in one line within the limits, else what happened."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        timer = threading.Timer(MOST_SECONDS, self._process.kill)
        timer.start()
        answer = self._process.stdout.readline()
        timer.cancel()
        wrong = ""
        if not answer:
            wrong = f"the reader ended or took more than {MOST_SECONDS} s (status {self._process.wait()})"
        else:
            found: dict[str, Any] = json.loads(answer)
            if found["error"]:
                wrong = found["error"]
            elif found["megabytes"] > MOST_MEGABYTES:
                wrong = f"{found['megabytes']:.0f} MB"
            elif found["seconds"] > MOST_CPU_SECONDS:
                wrong = f"{found['seconds']:.0f} s of CPU"
        if wrong:  # the next file is measured from a fresh process on
            self.close()
            self._process = self._started()
        return wrong

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(kind: str) -> None:
    import numpy as np

    from resnet_jax.data.image_files import read_image
    from resnet_jax.errors import UserError
    from resnet_jax.interop.files import read_tensors

    def read(path: str) -> None:
        if kind == "images":
            read_image(path)
        else:
            for array in read_tensors(path).tensors.values():
                np.asarray(array)

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_ADDRESSES * 2**20,) * 2)
    print("ready", flush=True)
    for line in sys.stdin:
        before, began, error = _peak(), time.process_time(), ""
        try:
            read(line.rstrip("\n"))
        except UserError as refused:
            if "\n" in str(refused):
                error = f"more than one line: {str(refused)[:200]!r}"
        except BaseException as raised:  # anything else is what the campaign looks for
            error = f"{type(raised).__name__}: {raised}"[:200]
        taken = {"error": error, "megabytes": _peak() - before, "seconds": time.process_time() - began}
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
