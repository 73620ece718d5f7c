"""Sources that ImageNet is prepared from: the original tars, a folder of images, or a set prepared by TFDS."""

from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from resnet_jax.data.imagenet.source import FileSource, Source, TfdsSource
from resnet_jax.data.imagenet.wnids import COUNTS, check_wnids, label_of, official_wnids, validation_labels
from resnet_jax.data.listing import list_folder
from resnet_jax.data.tar_files import TAR_ERRORS, members
from resnet_jax.errors import UserError, one_line

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"

CLASSES = len(official_wnids())


def open_originals(
    source: str | Path, val_labels: str | None = None, allow_partial: bool = False, called: str = "--source"
) -> dict[str, Source]:
    """Opens the splits "train" and "val" of a folder.

    Args:
      source: a folder with both tars, with train/ and val/, or a TFDS directory of imagenet2012.
      val_labels: see `wnids.validation_labels`; for tars and for a val/ without class folders.
      allow_partial: take fewer images and classes than ILSVRC 2012 has.
      called: the folder's name in errors.

    Raises:
      UserError: if it is none of these or cannot be read, or for other classes or numbers of images than ImageNet's.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        raise UserError(f"{called}={source} is not a folder; give that of the tars, of train/ and val/, or of TFDS")
    try:
        present = {entry.name for entry in root.iterdir()}
    except OSError as error:
        raise UserError(f"{called}={source} cannot be read: {error}") from error
    splits: dict[str, Source]
    if {TRAIN_TAR, VAL_TAR} & present:
        if lost := {TRAIN_TAR, VAL_TAR} - present:
            raise UserError(f"{called}={source} lacks {lost.pop()}")
        splits = {"train": train_tar(root / TRAIN_TAR, allow_partial), "val": val_tar(root / VAL_TAR, val_labels)}
    elif {"train", "val"} <= present:
        splits = {
            "train": _folder(root / "train", None, allow_partial),
            "val": _folder(root / "val", val_labels, allow_partial),
        }
    elif "dataset_info.json" in present:
        splits = {"train": open_tfds_split(root, "train"), "val": open_tfds_split(root, "validation")}
    else:
        raise UserError(
            f"{called}={source} holds neither {TRAIN_TAR}, nor train/ and val/, nor dataset_info.json (TFDS)"
        )
    if not allow_partial:
        for split, images in splits.items():
            if len(images) != COUNTS[split]:
                raise UserError(
                    f"{called}={source} has {len(images):,} {split} images and not {COUNTS[split]:,}; "
                    "--allow_partial takes it as it is"
                )
    return splits


def _folder(folder: Path, val_labels: str | None, allow_partial: bool) -> FileSource:
    wnids, paths = _by_class(folder)
    names = [path.name for path in paths]
    if not any(wnids):
        if folder.name == "train":
            raise UserError(f"{folder} has images, but no folder for each class")
        wnids = validation_labels(names, val_labels)
    check_wnids(wnids, str(folder), allow_partial)
    return FileSource(names, [label_of(wnid) for wnid in wnids], paths, None, CLASSES)


def _by_class(folder: Path) -> tuple[list[str], list[Path]]:
    """Returns the class folder of each image, "" for one in the folder itself, and its path."""
    try:
        top = list_folder(folder)
        found = [("", path) for path in top.images]
        found += [(place.name, path) for place in top.folders for path in list_folder(place).images]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from error
    if not found:
        raise UserError(f"{folder} holds no images, by class folder or flat; they end in .JPEG, .png or the like")
    return [wnid for wnid, _ in found], [path for _, path in found]


def train_tar(path: Path, allow_partial: bool = False) -> FileSource:
    """Opens the training images inside the tar of tars, without unpacking it.

    Raises:
      UserError: if the tar is damaged or its classes are not ImageNet's.
    """
    names, labels, places = [], [], []
    try:
        with path.open("rb") as file:
            outer = list(members(file, 0, path.stat().st_size))
            check_wnids([Path(member.name).stem for member in outer], str(path), allow_partial)
            for member in outer:
                label = label_of(Path(member.name).stem)
                for image in members(file, member.offset, member.size):
                    names.append(Path(image.name).name)
                    labels.append(label)
                    places.append((image.offset, image.size))
    except TAR_ERRORS as error:
        raise UserError(f"{path} is not a whole tar of tars: {one_line(error)}") from error
    if not names:
        raise UserError(f"{path} holds no images")
    return FileSource(names, labels, path, places, CLASSES)


def val_tar(path: Path, val_labels: str | None = None) -> FileSource:
    """Opens the validation images inside their tar.

    Raises:
      UserError: if the tar is damaged, or labels are missing.
    """
    try:
        with path.open("rb") as file:
            found = members(file, 0, path.stat().st_size)
            images = sorted((Path(member.name).name, (member.offset, member.size)) for member in found)
    except TAR_ERRORS as error:
        raise UserError(f"{path} is not a whole tar: {one_line(error)}") from error
    if not images:
        raise UserError(f"{path} holds no images")
    names = [name for name, _ in images]
    labels = [label_of(wnid) for wnid in validation_labels(names, val_labels)]
    return FileSource(names, labels, path, [place for _, place in images], CLASSES)


def open_tfds_split(directory: Path, split: str) -> TfdsSource:
    """Opens a split that TFDS prepared as array_record, without TensorFlow.

    Args:
      directory: that of dataset_info.json.
      split: TFDS's name of the split.

    Raises:
      UserError: if it is not there, is not whole, or has other classes than ImageNet.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(directory)
        classes, info = builder.info.features["label"].num_classes, builder.info.splits[split]
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
            # TFDS opens a shard at its first image: a missing shard would look like many unreadable images.
            if (found := ArrayRecordReader(str(path)).num_records()) != length:
                raise ValueError(f"{path} has {found:,} records and not {length:,}")
    except Exception as error:  # of many types
        raise UserError(
            f"{directory} has no whole split {split!r} prepared as array_record: {one_line(error, 300)}"
        ) from error
    if classes != CLASSES:
        raise UserError(f"{directory} has {classes} classes, not {CLASSES}")
    return TfdsSource(records, split, official_wnids())
