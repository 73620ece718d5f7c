"""ImageNet as it comes, in tars, folders or TFDS's files: what is read from each, and what is refused."""

import hashlib
import io
import os
import sys
import tarfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe
from resnet_jax.data.imagenet.wnids import official_wnids, validation_labels
from resnet_jax.data.streaming import open_splits
from resnet_jax.errors import UserError
from tests.data.imagenet.conftest import WNIDS, examples, fill, picture, run


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tars_of(folder: Path, out: Path) -> Path:
    """The original tars, from a folder; validation names carry numbers in the folder's order."""
    inner = {
        f"{wnid.name}.tar": tar_of({path.name: path.read_bytes() for path in sorted(wnid.iterdir())})
        for wnid in sorted((folder / "train").iterdir())
    }
    val = {path.name: path.read_bytes() for path in sorted((folder / "val").glob("*/*"))}
    return fill(out, {"ILSVRC2012_img_train.tar": tar_of(inner), "ILSVRC2012_img_val.tar": tar_of(val)})


def labels_file(folder: Path, out: Path) -> str:
    out.write_text("".join(f"{path.name} {path.parent.name}\n" for path in (folder / "val").glob("*/*")))
    return str(out)


def test_the_1000_ids_are_the_official_ones():
    """Pinned: the list of tensorflow-datasets, sorted."""
    wnids = official_wnids()
    assert len(set(wnids)) == 1000 and list(wnids) == sorted(wnids)
    assert (wnids[0], wnids[999]) == ("n01440764", "n15075141")  # tench, toilet tissue
    digest = hashlib.sha256("\n".join(wnids).encode()).hexdigest()
    assert digest.startswith("385e0240499426c0")
    import tensorflow_datasets

    home = Path(tensorflow_datasets.__file__).parent / "datasets/imagenet2012"
    assert tuple((home / "labels.txt").read_text().split()) == wnids
    assert validation_labels(["ILSVRC2012_val_00000001.JPEG"], None) == ["n01751748"]


@pytest.mark.parametrize("real", [False, True])
def test_tars_give_what_the_folder_gives(real, tiny_folder, tmp_path, request):
    folder = request.getfixturevalue("sample") if real else tiny_folder
    run(folder, tmp_path / "a", Recipe(per_shard=64))
    tars = tars_of(folder, tmp_path / "tars")
    run(tars, tmp_path / "b", Recipe(per_shard=64), val_labels=labels_file(folder, tmp_path / "labels"))
    for split in ("train", "val"):
        a, b = examples(tmp_path / "a", split), examples(tmp_path / "b", split)
        assert (
            sorted(a) == sorted(b) and len(a) == ({"train": 200, "val": 40} if real else {"train": 12, "val": 6})[split]
        )


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_tars_that_were_cut_short_are_refused(split, part, tiny_folder, tmp_path):
    tars = tars_of(tiny_folder, tmp_path / "tars")
    tar = tars / f"ILSVRC2012_img_{split}.tar"
    whole = tar.read_bytes().rstrip(b"\0")  # not only of the zeros at the end
    tar.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=f"{tar.name} is not a whole tar"):
        open_originals(tars, labels_file(tiny_folder, tmp_path / "labels"), allow_partial=True)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (header("a.JPEG", 2**62), "'a.JPEG' claims 4,611,686,018,427,387,904 bytes, and the tar has"),
        (header("a.JPEG", 2**62, tarfile.GNUTYPE_SPARSE), "'a.JPEG' is a sparse file"),
        (header("a.JPEG", -5), "claims -5 bytes"),
        (header("long", 2**62, tarfile.GNUTYPE_LONGNAME) + bytes(512) + header("a.JPEG", 0), ""),
        (header("pax", 2**62, tarfile.XHDTYPE) + bytes(512) + header("a.JPEG", 0), ""),
        (header("a.JPEG", 512), "claims 512 bytes, and the tar has 512"),
    ],
    ids=["size", "sparse", "negative", "long name", "pax", "one byte too few"],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_what_a_tar_claims_takes_no_memory(split, tar, message, tiny_folder, tmp_path):
    tars = tars_of(tiny_folder, tmp_path / "tars")
    path = tars / f"ILSVRC2012_img_{split}.tar"
    end = b"" if "the tar has 512" in message else bytes(1024)
    path.write_bytes(tar + end if split == "val" else tar_of({f"{WNIDS[0]}.tar": tar + end}))
    tracemalloc.start()
    with pytest.raises(UserError, match=f"{path.name} is not a whole tar.*{message}") as raised:
        open_originals(tars, labels_file(tiny_folder, tmp_path / "labels"), allow_partial=True)
    assert "\n" not in str(raised.value) and tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("inside", ["", WNIDS[0]])
def test_folders_that_cannot_be_read_are_named(inside, tiny_folder, monkeypatch):
    """Without the right to; root has every right, so that the system's answer is put there."""
    closed, listed = tiny_folder / "train" / inside, os.scandir

    def scandir(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for opened in (lambda: open_originals(tiny_folder, allow_partial=True),
                   lambda: open_splits("image_folder", str(tiny_folder))):  # fmt: skip
        with pytest.raises(UserError, match="Permission denied"):
            opened()


@pytest.mark.parametrize("name", ["imagenet", "image_folder"])
def test_no_image_is_held_out_of_imagenet(name, tiny_folder, tmp_path):
    """Its validation images would be evaluated on, and called test images, whatever was asked for."""
    if name == "image_folder":
        run(tiny_folder, tmp_path / "prepared")
        tiny_folder = tmp_path / "prepared"
    with pytest.raises(UserError, match=f"held_out is not for {name}, .* its validation images alone"):
        open_splits(name, str(tiny_folder), 0.5, "held_out")
    assert len(open_splits(name, str(tiny_folder)).test) == 6
    called = {asked: open_splits(name, str(tiny_folder), 0.0, asked).evaluated_on for asked in ("auto", "validation")}
    assert called == {"auto": "test", "validation": "validation"}


def test_counts_are_checked(tiny_folder, monkeypatch):
    """With all 1,000 classes there, a missing image is still an error."""
    monkeypatch.setattr("resnet_jax.data.imagenet.originals.check_wnids", lambda *a: None)
    with pytest.raises(UserError, match="has 12 train images and not 1,281,167"):
        open_originals(tiny_folder)


@pytest.fixture
def tfds_set(tmp_path, monkeypatch):
    """A set that TFDS's own imagenet2012 prepared from tars, as array_record and without TensorFlow."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder, imagenet_common

    # What TFDS 4.9.10 asks TensorFlow for on this way: local files.
    files = SimpleNamespace(io=SimpleNamespace(gfile=SimpleNamespace(GFile=open, exists=os.path.exists)))
    for module in (extractor, imagenet_common, imagenet2012_dataset_builder):
        monkeypatch.setattr(module, "tf", files)
    train = {f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": picture(10 * c + i) for i in range(3)})
             for c, wnid in enumerate(WNIDS)}  # fmt: skip
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": picture(50 + i) for i in range(1, 5)}
    tars = {"ILSVRC2012_img_train.tar": tar_of(train), "ILSVRC2012_img_val.tar": tar_of(val)}
    manual = fill(tmp_path / "manual", tars)
    builder = tfds.builder("imagenet2012", data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    assert "tensorflow" not in sys.modules
    return Path(builder.data_dir), manual


def test_what_tfds_prepared_gives_what_the_tars_give(tfds_set, tmp_path):
    """The official validation labels by file names, too."""
    directory, tars = tfds_set
    manifests, _ = run(directory, tmp_path / "a")
    run(tars, tmp_path / "b")
    assert [manifest["examples"] for manifest in manifests.values()] == [9, 4]
    for split in ("train", "val"):
        assert sorted(examples(tmp_path / "a", split)) == sorted(examples(tmp_path / "b", split))
    labels = {example.name: example.label for example in examples(tmp_path / "a", "val")}
    assert labels["ILSVRC2012_val_00000001.JPEG"] == official_wnids().index("n01751748")
    with pytest.raises(UserError, match="has 9 train images and not 1,281,167"):
        open_originals(directory)


@pytest.mark.parametrize(
    ("what", "message"),
    [("short", "has 0 .* not 9"), ("missing", "has 0 .* not 9"), ("info", "load JSON"), ("count", "has 9 .* not 8")],
)
def test_damaged_tfds_directories_are_refused(what, message, tfds_set, tmp_path):
    directory, _ = tfds_set
    (record,) = directory.glob("*train.array_record*")
    info = directory / "dataset_info.json"
    if what == "short":
        record.write_bytes(record.read_bytes()[:-100])
    elif what == "missing":
        record.unlink()
    else:
        info.write_text("{" if what == "info" else info.read_text().replace('"9"', '"8"'))
    with pytest.raises(UserError, match=f"has no whole split 'train' prepared as array_record: .*{message}"):
        run(directory, tmp_path / "a")
