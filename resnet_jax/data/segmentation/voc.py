"""PASCAL VOC 2012 as its devkit lays it out, with or without the masks of SBD (Hariharan et al. 2011)."""

from pathlib import Path

from resnet_jax.data.label_files import read_text
from resnet_jax.errors import UserError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Pairs = dict[str, tuple[Path, Path]]


def find(root: Path, sbd: str | None = None) -> tuple[Pairs, Pairs]:
    """Returns the images and masks to train on, 1,464, and the 1,449 of `val`, by name.

    With SBD, every image that has a mask in it and is not in `val` is trained on: 10,582, mostly called "trainaug".
    VOC's own mask is taken where it has one.

    Args:
      root: VOCdevkit/VOC2012, or a folder above it.
      sbd: SBD's folder `dataset`, with cls/, train.txt and val.txt.

    Raises:
      UserError: if a list of images is not there.
    """
    inside = ("", "VOC2012", "VOCdevkit/VOC2012")
    folder = next((root / name for name in inside if (root / name / "ImageSets/Segmentation").is_dir()), None)
    if folder is None:
        raise UserError(f"config.data.data_dir={root} has no ImageSets/Segmentation: it must be VOCdevkit/VOC2012")
    lists = {part: _names(folder / f"ImageSets/Segmentation/{part}.txt") for part in ("train", "val")}

    def image(name: str) -> Path:
        return folder / f"JPEGImages/{name}.jpg"

    train, val = (
        {name: (image(name), folder / f"SegmentationClass/{name}.png") for name in lists[part]}
        for part in ("train", "val")
    )
    if sbd is not None:
        extra = Path(sbd).expanduser()
        for name in _names(extra / "train.txt") + _names(extra / "val.txt"):
            if name not in val:
                train.setdefault(name, (image(name), extra / f"cls/{name}.mat"))
    return train, val


def _names(path: Path) -> list[str]:
    return read_text(path, str(path)).split()
