"""Batches of images with boxes: functions of (seed, number), every image once, boxes that move with the pixels."""

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.data.augment import Augmentation
from resnet_jax.data.detection.batches import Batch, BoxLoader, batch_of, resized_size
from resnet_jax.data.detection.pipeline import BoxBatches, make_boxes
from resnet_jax.data.detection.voc import open_voc
from resnet_jax.data.imagenet.loaders import Unreadable
from resnet_jax.training.distributed import make_mesh
from tests.data.detection import made


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> BoxLoader:
    """Eleven wide images and five tall ones."""
    root = tmp_path_factory.mktemp("voc")
    wide, tall = [f"wide{i}" for i in range(11)], [f"tall{i}" for i in range(5)]
    shown = {name: made.rectangles(i, (64, 48) if name in tall else (48, 64)) for i, name in enumerate([*wide, *tall])}
    made.write_voc(root, {"train": [*wide, *tall], "test": ["wide0"]}, shown, tall)
    return BoxLoader("training", open_voc(root).train, 96, 4, Unreadable(), workers=1)


def test_sizes() -> None:
    """Ren et al. 2015: the shorter side has 600 pixels, and the longer at most 1,000."""
    assert resized_size(375, 500, 600) == (600, 800)
    assert resized_size(500, 375, 600) == (800, 600)
    assert resized_size(200, 500, 600) == (400, 1000)


def test_padding_changes_no_colour() -> None:
    """The mean grey that contrast is changed around is that of the image, and not of the black below and beside it."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (2, 8, 10, 3)).astype(np.uint8)
    statistics = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    batches = BoxBatches(Augmentation(0, False, colour_jitter=0.8), False, 4)

    def shown(height: int, width: int) -> np.ndarray:
        batch = Batch.empty(2, (height, width), 4)
        batch.images[:, :8, :10], batch.sizes[:] = whole, (8, 10)
        return np.asarray(batches.train_batch(statistics, batch, jax.random.key(1))[0]["images"])

    alone, padded = shown(8, 10), shown(12, 20)
    np.testing.assert_allclose(padded[:, :8, :10], alone, atol=1e-5)
    assert not padded[:, 8:].any() and not padded[:, :, 10:].any()


def test_an_epoch_has_every_image(loader: BoxLoader) -> None:
    batches = [batch_of(3, number, loader.groups, 4) for number in range(5)]
    seen = [loader.images[i].path.stem for _, indices in batches for i in indices]
    assert set(seen) == {image.path.stem for image in loader.images} and len(seen) == 20
    for which, indices in batches:
        kinds = {loader.images[i].path.stem[:4] for i in indices}
        assert len(kinds) == 1 and len(loader.groups[which].indices) in (5, 11)
    again = [batch_of(3, number, loader.groups, 4)[1].tolist() for number in range(5)]
    assert again == [indices.tolist() for _, indices in batches]
    assert again != [batch_of(3, number, loader.groups, 4)[1].tolist() for number in range(5, 10)]


@pytest.mark.parametrize("devices", [1, 3])
def test_every_test_image_counts_once(tmp_path: Path, devices: int) -> None:
    """Seven wide images and five tall ones, in batches of four, or of six on three devices: none of them divides."""
    wide, tall = [f"wide{i}" for i in range(7)], [f"tall{i}" for i in range(5)]
    shown = {name: made.rectangles(i, (64, 48) if name in tall else (48, 64)) for i, name in enumerate([*wide, *tall])}
    config = base_config()
    config.task, config.batch_size = "detection", 4
    folder = made.write_voc(tmp_path, {"train": ["wide0"], "test": [*shown]}, shown, tall)
    config.data.update({"name": "voc", "folder": str(folder), "normalization": "imagenet", "image_size": 96})
    seen, filling = [], 0
    for batch, mask in make_boxes(config, make_mesh(jax.devices()[:devices])).test_inputs():
        assert len(mask) == len(batch.images) and len(mask) % devices == 0
        filling += int(np.sum(mask == 0))
        for row in np.flatnonzero(mask):
            boxes = batch.boxes[row][batch.labels[row] >= 0] / batch.scales[row][[1, 0, 1, 0]]
            seen.append(boxes.round().astype(int).tolist())
    assert sorted(seen) == sorted([list(box) for _, box in objects] for objects in shown.values())
    assert filling > 0


def test_boxes_lie_on_their_rectangles(loader: BoxLoader) -> None:
    """Also in mirror images: the pixels in a box have its colour, and those around it do not."""
    mirrored = 0
    for number in range(5):
        batch = loader.begin_training(0, number, 4, (0, 4), flip=True).result()
        which, indices = batch_of(0, number, loader.groups, 4)
        for row, index in enumerate(indices):
            image, (height, width) = loader.images[index], batch.sizes[row]
            assert batch.images[row, height:].max(initial=0) == 0 == batch.images[row, :, width:].max(initial=0)
            there = batch.labels[row] >= 0
            assert there.sum() == len(image.labels)
            for box, label in zip(batch.boxes[row][there], batch.labels[row][there], strict=True):
                x1, y1, x2, y2 = box.round().astype(int)
                colour = made.COLOURS[("blue", "green", "red")[label]]
                inside = batch.images[row, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
                assert np.abs(inside.astype(int) - colour).max() < 12
            whole = image.boxes * batch.scales[row][[1, 0, 1, 0]]
            mirrored += not np.allclose(batch.boxes[row][there], whole)
    assert 3 < mirrored < 17


def test_an_image_that_is_gone_is_grey(tmp_path: Path) -> None:
    made.write_voc(tmp_path, {"train": ["a"], "test": ["b"]}, {"a": made.rectangles(0), "b": made.rectangles(1)})
    splits, unreadable = open_voc(tmp_path), Unreadable()
    for name in "ab":
        (tmp_path / "JPEGImages" / f"{name}.png").unlink()
    for split, images, objects in (("training", splits.train, 0), ("test", splits.test, len(splits.test[0].labels))):
        loader = BoxLoader(split, images, 48, 4, unreadable, workers=1)
        batch = loader.begin(0, np.zeros(1, int), np.zeros(1, bool)).result()
        # A test image counts all the same; in training, grey is nobody's object.
        assert (batch.labels >= 0).sum() == objects and np.ptp(batch.images[0, :48, :64]) == 0
    assert len(unreadable.new_warnings()) == 2


def test_objects_go_ahead_of_what_is_ignored(tmp_path: Path) -> None:
    """Where an image shows more than the padding holds, difficult ones are left out first; the order stays."""
    shown = [("red", (i, 0, i + 10, 10)) for i in range(0, 60, 10)]
    made.write_voc(tmp_path, {"train": ["a"], "test": ["a"]}, {"a": shown})
    (tmp_path / "Annotations" / "a.xml").write_text(made.xml(shown, difficult=(0, 2, 3)))
    for most, expected in ((6, [0, 10, 20, 30, 40, 50]), (4, [0, 10, 40, 50]), (2, [10, 40])):
        loader = BoxLoader("training", open_voc(tmp_path).train, 48, most, Unreadable(), workers=1)
        batch = loader.begin(0, np.zeros(1, int), np.zeros(1, bool)).result()
        assert batch.boxes[0, :, 0].tolist() == expected
        assert batch.ignored[0].tolist() == [x in (0, 20, 30) for x in expected]
