"""Makes the same crops with other libraries, in a process of its own: `PYTHON benchmarks/input_peers.py NAME FILE`.

It imports nothing of this project, so that any Python that has the library can run it. For each line that it is sent
it makes all crops once and answers with images for each second of processor time; the first answer, without a line, is
the library's version.

FILE holds a pickled dictionary: "paths" of JPEGs, as strings; "edges", of (left, top, right, bottom) for each; "size",
pixels of a side; "workers".
"""

import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def tensorflow(task: dict[str, Any]) -> tuple[str, Callable[[], float]]:
    """Uses tf.data with `workers` threads, `decode_and_crop_jpeg` and a bilinear resize, not antialiased."""
    import tensorflow as tf

    windows = [[top, left, bottom - top, right - left] for left, top, right, bottom in task["edges"]]

    def crop(one: Any, window: Any) -> Any:
        pixels = tf.image.decode_and_crop_jpeg(tf.io.read_file(one), window, channels=3)
        return tf.cast(tf.image.resize(pixels, (task["size"], task["size"])), tf.uint8)

    images = tf.data.Dataset.from_tensor_slices((task["paths"], windows))
    images = images.map(crop, num_parallel_calls=task["workers"]).batch(32)

    def once() -> float:
        began = time.process_time()
        count = sum(len(batch) for batch in images)
        return count / (time.process_time() - began)

    return tf.__version__, once


class Crops:
    """A PyTorch dataset of uint8 tensors: Pillow decodes and torchvision crops, antialiased."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task

    def __len__(self) -> int:
        return len(self.task["paths"])

    def __getitem__(self, index: int) -> Any:
        from PIL import Image
        from torchvision.transforms import functional

        left, top, right, bottom = self.task["edges"][index]
        image = Image.open(self.task["paths"][index]).convert("RGB")
        size = [self.task["size"]] * 2
        return functional.pil_to_tensor(functional.resized_crop(image, top, left, bottom - top, right - left, size))


def torch(task: dict[str, Any]) -> tuple[str, Callable[[], float]]:
    """Uses PyTorch's DataLoader with `workers` processes, whose processor time counts too."""
    import torch
    import torchvision

    crops: Any = Crops(task)  # its type is no Dataset: PyTorch is imported only here
    loader = torch.utils.data.DataLoader(crops, batch_size=32, num_workers=task["workers"], persistent_workers=True)

    def once() -> float:
        # The workers were started by a first epoch, which is not measured.
        began = time.process_time() + children_seconds()
        count = sum(len(batch) for batch in loader)
        return count / (time.process_time() + children_seconds() - began)

    return f"{torch.__version__}, torchvision {torchvision.__version__}", once


def children_seconds() -> float:
    """Returns the processor time that the processes started by this one have used so far."""
    tasks = (task for child in multiprocessing.active_children() for task in Path(f"/proc/{child.pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


PEERS = {"tensorflow": tensorflow, "torch": torch}


def main(name: str, file: str) -> None:
    """Answers the lines of stdin, as the module says."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    version, once = PEERS[name](pickle.loads(Path(file).read_bytes()))
    once()
    print(version, file=answers, flush=True)
    for _ in sys.stdin:
        print(once(), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
