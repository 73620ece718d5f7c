"""Small images with masks, in every layout."""

from pathlib import Path

import numpy as np
from PIL import Image


def coordinates(height, width):
    """An image whose red and green are its pixels' places: column times 4, row times 4."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([4 * columns, 4 * rows, np.full_like(rows, 128)], axis=-1).astype(np.uint8)


def write(path: Path, array: np.ndarray, palette: bool = False) -> Path:
    """A PNG or JPEG; a mask with a palette if so wanted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


def shapes_folder(root: Path, train: int = 6, val: int = 3, sides=((32, 32), (32, 40))) -> Path:
    """Bright squares (1) and darker ones (2) on a dark ground (0), with a line that is ignored."""
    rng = np.random.default_rng(1)
    for part, count in (("train", train), ("val", val)):
        for k in range(count):
            height, width = sides[k % len(sides)]
            labels = np.zeros((height, width), np.uint8)
            image = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
            for label, bright in ((1, (230, 230, 40)), (2, (40, 120, 230))):
                top, left = rng.integers(0, height - 10), rng.integers(0, width - 10)
                labels[top : top + 9, left : left + 9] = label
                image[top : top + 9, left : left + 9] = bright
            labels[0] = 255
            write(root / part / f"images/{k}.png", image)
            write(root / part / f"masks/{k}.png", labels, palette=True)
    (root / "classes.txt").write_text("ground\nbright\ndark\n")
    return root
