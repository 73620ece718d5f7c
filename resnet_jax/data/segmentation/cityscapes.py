"""Cityscapes' layout: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png beside gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""

from pathlib import Path

from resnet_jax.errors import UserError

#: The 19 classes that its benchmark evaluates, and their ids in the masks; other ids are ignored (Cordts et al. 2016).
CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"

Pairs = dict[str, tuple[Path, Path]]


def find(root: Path) -> tuple[Pairs, Pairs]:
    """Returns the images and masks of `train` and of `val`, by name.

    Raises:
      UserError: if there is no leftImg8bit/train or val.
    """

    def pairs(part: str) -> Pairs:
        folder = root / "leftImg8bit" / part
        if not folder.is_dir():
            raise UserError(f"config.data.data_dir={root} has no leftImg8bit/{part}")
        found: Pairs = {}
        for file in sorted(folder.glob(f"*/*{IMAGE}")):
            name = file.name.removesuffix(IMAGE)
            found[name] = (file, root / "gtFine" / part / file.parent.name / f"{name}{MASK}")
        return found

    return pairs("train"), pairs("val")
