"""Measures images per second and core of ways to read, decode and crop ImageNet's files, ours and others'.

python -m benchmarks input_pipeline [--data_dir=DIR] [--peer_python=PATH ...] [--json] [--write]
"""

import contextlib
import functools
import io
import math
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import ROOT, input_run, note
from benchmarks.docs_tables import table
from benchmarks.local_processes import last_line
from resnet_jax.data.image_files import image_size
from resnet_jax.data.imagenet.crops import aspect_box, batch_draws
from resnet_jax.data.imagenet.decode import resize
from resnet_jax.data.imagenet.loaders import TrainLoader, default_workers, load_crop
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, prepare
from resnet_jax.data.imagenet.shards import ShardSource
from resnet_jax.data.imagenet.source import Source
from resnet_jax.errors import UserError

SIZE = 224
#: Images per second of the chips for which the table names cores.
CHIPS = (3_000, 7_000)
#: The way that the others are compared with.
OURS = "resnet_jax, its threads and batches"
#: Rows that `input_peers` measures.
PEERS = {"tensorflow": "tf.data's decode_and_crop_jpeg", "torch": "PyTorch's DataLoader with Pillow"}

Edges = tuple[int, int, int, int]
Way = Callable[[bytes, Edges], np.ndarray]


def pillow(data: bytes, edges: Edges) -> np.ndarray:
    """Does what PyTorch's DataLoader does to an image, without its processes and tensors."""
    return np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, edges)
    )


def opencv(data: bytes, edges: Edges) -> np.ndarray:
    """Decodes and crops with OpenCV alone."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION))
    left, top, right, bottom = edges
    return cv2.cvtColor(resize(pixels[top:bottom, left:right], SIZE, SIZE), cv2.COLOR_BGR2RGB)


def simple(data: bytes, edges: Edges) -> np.ndarray:
    """Decodes with simplejpeg, with its fast and coarse upsampling, and resizes with OpenCV."""
    left, top, right, bottom = edges
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True, strict=False)
    return resize(pixels[top:bottom, left:right], SIZE, SIZE)


WAYS: dict[str, Way] = {"Pillow": pillow, "OpenCV": opencv, "simplejpeg, fast and coarse": simple}


def per_core(work: Callable[[], int]) -> float:
    """Returns images per second of this process's processor time."""
    began = time.process_time()
    images = work()
    return images / (time.process_time() - began)


def alternate(ways: dict[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """Returns the rates of each way, in rounds of all ways, so that other load slows all of them down alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    end = time.monotonic() + seconds * len(ways)
    while time.monotonic() < end or not found[OURS]:
        for name, way in ways.items():
            found[name].append(way())
    return found


def _edges(row: np.ndarray, data: bytes) -> Edges:
    top, left, height, width = aspect_box(row, *image_size(data))
    return int(left), int(top), int(left + width), int(top + height)


def measure(data_dir: Path, seconds: float, pythons: Sequence[str]) -> dict[str, Any]:
    """Returns rows for each way and kind of file, and what `input_run` measures.

    Args:
      data_dir: original images, anything that `prepare` takes.
      seconds: for each row.
      pythons: interpreters that have TensorFlow or PyTorch, besides this one.
    """
    peers = find_peers([sys.executable, *pythons])
    if not data_dir.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder of ImageNet's images (train/<wnid>/*.JPEG and val/)")
    splits = open_originals(data_dir, allow_partial=True, called="--data_dir")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        note("preparing shards at a shorter side of 256 pixels")
        shards = folder / "shards"
        prepare(splits, shards, Recipe(256, 90, 5000), 2, lambda done, total: None)
        rows, threads = [], []
        sources = {"original": splits["train"], "prepared, 256": ShardSource(shards, "train")}
        for files, source in sources.items():
            note(f"{files}: {', '.join(['resnet_jax', *WAYS, *peers])}")
            rows += _measure_source(files, source, folder / files, seconds, peers)
            threads += [{"files": files, **row} for row in input_run.scaling(source, SIZE, seconds)]
        note("memory over batches, and a run of resnet18")
        return {
            "rows": rows,
            "threads": threads,
            "memory": input_run.memory(shards, SIZE, batches=10 + int(20 * seconds)),
            "data_wait": input_run.data_wait(shards, folder / "run", steps=4 + int(4 * seconds)),
        }


def _measure_source(
    files: str, source: Source, folder: Path, seconds: float, peers: dict[str, str]
) -> list[dict[str, Any]]:
    count = min(len(source), 200)
    draws = batch_draws(0, 0, count)
    data = [source.load(index).data for index in range(count)]
    edges = [_edges(row, one) for row, one in zip(draws, data, strict=True)]
    kilobytes = sum(map(len, data)) / count / 1000
    # The other ways read plain files.
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for path, one in zip(paths, data, strict=True):
        path.write_bytes(one)

    def ours() -> int:
        for index in range(count):
            load_crop(source, index, lambda h, w, row=draws[index]: aspect_box(row, h, w), SIZE)  # type: ignore[misc]
        return count

    # Made once, as in a run.
    loader = TrainLoader(source, seed=0, batch_size=count, rows=(0, count), size=SIZE, crop="aspect", sides=(256, 480))

    def batches() -> int:
        loader.batches([0])
        return count

    def each(way: Way) -> int:
        return len([way(path.read_bytes(), box) for path, box in zip(paths, edges, strict=True)])

    works = {"resnet_jax, one thread": ours, OURS: batches}
    works |= {name: functools.partial(each, way) for name, way in WAYS.items()}
    ways: dict[str, Callable[[], float]] = {name: functools.partial(per_core, work) for name, work in works.items()}
    task = folder / "task"
    task.write_bytes(pickle.dumps({"paths": list(map(str, paths)), "edges": edges, "size": SIZE,
                                   "workers": default_workers()}))  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, python in peers.items():
            ways[PEERS[name]] = stack.enter_context(peer(python, name, task))
        found = alternate(ways, seconds)
    return [
        {
            "way": name,
            "files": files,
            "kilobytes": round(kilobytes, 1),
            "images_per_second_per_core": round(float(np.median(speeds)), 1),
            "times_as_fast": round(float(np.median(np.divide(found[OURS], speeds))), 3),
        }
        for name, speeds in found.items()
    ]


def find_peers(pythons: Sequence[str]) -> dict[str, str]:
    """Returns the first of the interpreters that has each library."""
    found: dict[str, str] = {}
    for python in pythons:
        for name in PEERS:
            # It is imported, since an installation may be incomplete.
            modules = "torch, torchvision" if name == "torch" else name
            try:
                status = subprocess.run(
                    [python, "-c", f"import {modules}"], capture_output=True, check=False
                ).returncode
            except OSError as error:
                raise UserError(f"--peer_python={python} cannot be run: {error.strerror}") from error
            if status == 0:
                found.setdefault(name, python)
    return {name: found[name] for name in PEERS if name in found}


@contextlib.contextmanager
def peer(python: str, name: str, task: Path) -> Iterator[Callable[[], float]]:
    """Starts a process of `input_peers`. Each call is one round and returns images per second of its processor time.

    Raises:
      UserError: if it fails.
    """
    command = [python, str(ROOT / "benchmarks" / "input_peers.py"), name, str(task)]
    with (
        task.with_name(f"{name}.log").open("w+") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        asked, answers = process.stdin, process.stdout
        assert asked and answers

        def answer() -> str:
            if line := answers.readline():
                return line
            log.seek(0)
            raise UserError(f"{name} in {python} failed: {last_line(log.read())}")

        def once() -> float:
            asked.write("\n")
            asked.flush()
            return float(answer())

        answer()  # it is ready
        yield once
        asked.close()


def report(found: dict[str, Any]) -> str:
    """Returns the tables, and what `input_run` found in sentences."""
    cells = [
        [row["way"], row["files"], f"{row['kilobytes']:.0f}", f"{row['images_per_second_per_core']:,.0f}",
         f"{row['times_as_fast']:.2f}",
         *(str(math.ceil(chip / row["images_per_second_per_core"])) for chip in CHIPS)]
        for row in found["rows"]
    ]  # fmt: skip
    cores = [f"cores for {chip:,} images/s" for chip in CHIPS]
    speeds = table(["way", "files", "kB", "images/s/core", "ours is x times this", *cores], cells)
    threads = table(
        ["files", "threads", "images/s", "times one thread's"],
        [
            [row["files"], str(row["threads"]), f"{row['images_per_second']:,.0f}", f"{row['times_one']:.2f}"]
            for row in found["threads"]
        ],
    )
    return f"{speeds}\n\n{threads}\n\n{input_run.sentences(found['memory'], found['data_wait'])}"
