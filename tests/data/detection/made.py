"""Makes small sets of coloured rectangles on grey, in the layouts of PASCAL VOC and COCO."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 60), "red": (220, 40, 40)}

#: Name, (x1, y1, x2, y2) of pixels counted from 0, the end not included.
Shown = Sequence[tuple[str, tuple[float, float, float, float]]]


def rectangles(seed: int, size: tuple[int, int] = (48, 64)) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Chooses two or three rectangles that do not touch, in columns."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 4))
    found = []
    for column in range(count):
        width, height = rng.integers(10, 15, 2)
        x = column * (size[1] // count) + int(rng.integers(0, size[1] // count - width + 1))
        y = int(rng.integers(0, size[0] - height + 1))
        found.append((str(rng.choice(list(COLOURS))), (x, y, x + int(width), y + int(height))))
    return found


def draw(path: Path, shown: Shown, size: tuple[int, int] = (48, 64), seed: int = 0) -> None:
    """Writes an image of (height, width) pixels as PNG."""
    pixels = np.random.default_rng(seed).integers(110, 140, (*size, 3)).astype(np.uint8)
    for name, box in shown:
        x1, y1, x2, y2 = (int(v) for v in box)
        pixels[y1:y2, x1:x2] = COLOURS.get(name, (0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def xml(shown: Shown, difficult: Sequence[int] = (), size: tuple[int, int] | None = None) -> str:
    """Returns VOC's XML: pixels counted from 1, both ends of a box included; `size` is (height, width)."""
    said = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(i in difficult)}</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for i, (name, (x1, y1, x2, y2)) in enumerate(shown)
    )
    return f"<annotation>{said}{objects}</annotation>"


def write_voc(root: Path, lists: dict[str, Sequence[str]], shown: dict[str, Any], tall: Sequence[str] = ()) -> Path:
    """Writes one year of the devkit: the lists of names, and the objects of each name."""
    for name, objects in shown.items():
        size = (64, 48) if name in tall else (48, 64)
        draw(root / "JPEGImages" / f"{name}.png", objects, size, seed=len(name))
        (root / "Annotations").mkdir(exist_ok=True, parents=True)
        (root / "Annotations" / f"{name}.xml").write_text(xml(objects))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for part, names in lists.items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return root


def write_coco(root: Path, parts: dict[str, dict[str, Shown]], **more: Any) -> Path:
    """Writes annotations/instances_PART.json and the folder of each part; `more` is added to each record's lists."""
    ids = {name: 10 * (i + 1) for i, name in enumerate(COLOURS)}
    for part, images in parts.items():
        record: dict[str, Any] = {"categories": [{"id": v, "name": k} for k, v in reversed(ids.items())]}
        record["images"] = [
            {"id": i, "file_name": f"{name}.png", "height": 48, "width": 64} for i, name in enumerate(images, start=100)
        ]
        record["annotations"] = []
        for i, (name, objects) in enumerate(images.items(), start=100):
            draw(root / part / f"{name}.png", objects)
            for kind, (x1, y1, x2, y2) in objects:
                record["annotations"].append(
                    {"id": len(record["annotations"]), "image_id": i, "category_id": ids[kind],
                     "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0, "area": 7.0}
                )  # fmt: skip
        for field, values in more.items():
            record[field] += values
        (root / "annotations").mkdir(exist_ok=True, parents=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(record))
    return root
