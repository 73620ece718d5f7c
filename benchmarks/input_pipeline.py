"""Images a second and core of ways to read, decode and crop ImageNet's files: ours beside what a user would pick.

python -m benchmarks input_pipeline [--data_dir=DIR] [--json] [--write]
"""

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.pages import table
from resnet_jax.data.imagenet.crops import aspect_box, batch_draws
from resnet_jax.data.imagenet.decode import image_size, resize
from resnet_jax.data.imagenet.loader import TrainLoader, load_crop
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, prepare
from resnet_jax.data.imagenet.shards import ShardSource
from resnet_jax.data.imagenet.source import Source
from resnet_jax.errors import UserError

SIZE = 224
#: Images a second of the chips that the table names cores for.
CHIPS = (3_000, 7_000)

Edges = tuple[int, int, int, int]
Way = Callable[[bytes, Edges], np.ndarray]


def pillow(data: bytes, edges: Edges) -> np.ndarray:
    """As torchvision's transforms on an ImageFolder do it."""
    return np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, edges)
    )


def opencv(data: bytes, edges: Edges) -> np.ndarray:
    """OpenCV alone."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION))
    left, top, right, bottom = edges
    return cv2.cvtColor(resize(pixels[top:bottom, left:right], SIZE, SIZE), cv2.COLOR_BGR2RGB)


def simple(data: bytes, edges: Edges) -> np.ndarray:
    """simplejpeg with its fast and coarse upsampling, resized by OpenCV."""
    left, top, right, bottom = edges
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True, strict=False)
    return resize(pixels[top:bottom, left:right], SIZE, SIZE)


WAYS: dict[str, Way] = {"Pillow": pillow, "OpenCV": opencv, "simplejpeg, fast and coarse": simple}


def per_core(work: Callable[[], int], seconds: float) -> float:
    """Images for each second of processor time of this process, the best of rounds that fill `seconds`."""
    best, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end or not best:
        began = time.process_time()
        images = work()
        best = max(best, images / (time.process_time() - began))
    return best


def _edges(row: np.ndarray, data: bytes) -> Edges:
    top, left, height, width = aspect_box(row, *image_size(data))
    return int(left), int(top), int(left + width), int(top + height)


def measure(data_dir: Path, folder: Path, seconds: float, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each way and kind of file.

    Args:
      data_dir: original images, anything that `prepare` takes.
      folder: to prepare shards in.
      seconds: for each row.
      note: told what is being measured.
    """
    if not data_dir.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder of ImageNet's images (train/<wnid>/*.JPEG and val/)")
    splits = open_originals(data_dir, allow_partial=True, called="--data_dir")
    note("preparing shards at a shorter side of 256 pixels")
    prepare({"train": splits["train"]}, folder, Recipe(256, 90, 5000), 2, lambda done, total: None)
    rows = []
    for files, source in (("original", splits["train"]), ("prepared, 256", ShardSource(folder, "train"))):
        rows += _measure_source(files, source, seconds, note)
    return rows


def _measure_source(files: str, source: Source, seconds: float, note: Callable[[str], None]) -> list[dict[str, Any]]:
    count = min(len(source), 200)
    draws = batch_draws(0, 0, count)
    data = [source.load(index).data for index in range(count)]
    edges = [_edges(row, one) for row, one in zip(draws, data, strict=True)]
    kilobytes = sum(map(len, data)) / count / 1000
    found = []

    def add(name: str, work: Callable[[], int]) -> None:
        note(f"{name}, {files}")
        found.append({"way": name, "files": files, "kilobytes": round(kilobytes, 1),
                      "images_per_second_per_core": round(per_core(work, seconds), 1)})  # fmt: skip

    def ours() -> int:
        for index in range(count):
            load_crop(source, index, lambda h, w, row=draws[index]: aspect_box(row, h, w), SIZE)  # type: ignore[misc]
        return count

    def batches() -> int:
        loader = TrainLoader(source, seed=0, batch_size=count, rows=(0, count), size=SIZE, crop="aspect",
                             sides=(256, 480))  # fmt: skip
        loader.batches([0])
        return count

    add("resnet_jax, one thread", ours)
    add("resnet_jax, its threads and batches", batches)
    for name, way in WAYS.items():
        add(name, lambda way=way: len([way(one, box) for one, box in zip(data, edges, strict=True)]))  # type: ignore[misc]
    if (tf := tensorflow_work(data, edges)) is not None:
        add("tf.data's decode_and_crop_jpeg", tf)
    return found


def tensorflow_work(data: Sequence[bytes], edges: Sequence[Edges]) -> Callable[[], int] | None:
    """TensorFlow's `decode_and_crop_jpeg` and bilinear resize, not antialiased; None where it is not installed."""
    try:
        import tensorflow as tf
    except ImportError:
        return None

    windows = [[top, left, bottom - top, right - left] for left, top, right, bottom in edges]

    def crop(one: Any, window: Any) -> Any:
        pixels = tf.image.decode_and_crop_jpeg(one, window, channels=3)
        return tf.cast(tf.image.resize(pixels, (SIZE, SIZE)), tf.uint8)

    images = tf.data.Dataset.from_tensor_slices((list(data), windows)).map(crop)
    return lambda: sum(1 for _ in images)


def report(rows: Sequence[dict[str, Any]], as_json: bool = False) -> str:
    """The table, or one JSON object."""
    if as_json:
        return json.dumps({"size": SIZE, "rows": list(rows)})
    cells = [
        [row["way"], row["files"], f"{row['kilobytes']:.0f}", f"{row['images_per_second_per_core']:,.0f}",
         *(str(math.ceil(chip / row["images_per_second_per_core"])) for chip in CHIPS)]
        for row in rows
    ]  # fmt: skip
    cores = [f"cores for {chip:,} images/s" for chip in CHIPS]
    return table(["way", "files", "kB", "images/s/core", *cores], cells)
