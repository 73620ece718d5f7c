"""The way from files to the step: order, crops, threads, damage, and runs that are killed inside an epoch."""

import time

import jax
import numpy as np
import pytest

from configs.imagenet import get_config
from resnet_jax.data.image_files import decode
from resnet_jax.data.imagenet.crops import DRAWS, crop_box
from resnet_jax.data.imagenet.loaders import TrainLoader
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, prepare
from resnet_jax.data.imagenet.test_crops import Crops
from resnet_jax.data.sampling import batch_indices
from resnet_jax.data.streaming import open_splits
from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.run_record import RunRecord
from resnet_jax.training.trainer import make_trainer
from tests.data.imagenet.conftest import WNIDS, fill, picture
from tests.training.interruptions import DiesAt, Killed


def loader_of(folder, seed=0, rows=(0, 6), workers=2, size=16, name="image_folder", batch=6):
    source = open_splits(name, str(folder)).train
    return TrainLoader(source, seed=seed, batch_size=batch, rows=rows, size=size, crop="scale", sides=(18, 24),
                       workers=workers)  # fmt: skip


def config_of(folder, net="resnet18", **fields):
    config = get_config(net)
    config.model.stage_sizes, config.model.widths, config.model.bn_group_size = (1, 1), (8, 8), 0
    config.data.data_dir, config.data.name = str(folder), "image_folder"
    config.update({"steps": 6, "batch_size": 8, "log_every": 2, "eval_every": 3, "checkpoint_every": 2})
    config.data.update({"image_size": 16, "shorter_side": (18, 24), "eval_shorter_side": 18, "workers": 2})
    config.schedule.boundaries = (0.5,)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def lines(workdir):
    timings = ("images_per_second", "step_seconds", "data_wait", "compile_seconds")
    kept = RunRecord(workdir).lines()
    return [{k: v for k, v in line.items() if k not in timings and "memory" not in k and k != "time"} for line in kept]


def test_batches_depend_on_seed_and_number_alone(tiny_folder):
    """Whatever was asked before, by however many threads, in whatever share."""
    one, other = loader_of(tiny_folder), loader_of(tiny_folder, workers=1)
    images, labels = one.batches([0, 1, 2], [3, 4])
    assert images.shape == (3, 6, 16, 16, 3) and images.dtype == np.uint8
    again = other.batches([2])
    assert np.array_equal(images[2], again[0][0]) and np.array_equal(labels[2], again[1][0])
    back = one.batches([1])
    assert np.array_equal(images[1], back[0][0])
    half = loader_of(tiny_folder, rows=(3, 6)).batches([1])
    assert np.array_equal(images[1, 3:], half[0][0]) and np.array_equal(labels[1, 3:], half[1][0])
    assert not np.array_equal(images[0], loader_of(tiny_folder, seed=1).batches([0])[0][0])
    labels_there = np.repeat([0, 1, 2], 4)
    assert np.array_equal(labels[0], labels_there[batch_indices(0, 0, 6, 12)])
    assert sorted(np.concatenate(labels[:2])) == sorted(labels_there)  # an epoch


def test_shards_give_what_the_folder_gives(tiny_folder, tmp_path):
    splits = open_originals(tiny_folder, allow_partial=True)
    prepare(splits, tmp_path / "out", Recipe(per_shard=5), 1, lambda *a: None)
    a = loader_of(tiny_folder, name="imagenet").batches([0, 1])
    b = loader_of(tmp_path / "out", name="imagenet").batches([0, 1])
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) and a[1].max() == 999


def test_unreadable_images_are_replaced_counted_and_told(tiny_folder):
    """By the next one and its label, here of another class, cropped as the bad one would have been."""
    bad, following = (tiny_folder / f"train/{WNIDS[c]}/{WNIDS[c]}_{i}.JPEG" for c, i in ((0, 3), (1, 0)))
    bad.write_bytes(bad.read_bytes()[:300])
    runs = [loader_of(tiny_folder, workers=workers) for workers in (1, 3)]
    found = [loader.batches([0, 1]) for loader in runs]
    assert np.array_equal(found[0][0], found[1][0])
    indices = np.concatenate([batch_indices(0, n, 6, 12) for n in (0, 1)])
    np.testing.assert_array_equal(found[0][1].reshape(-1), np.where(indices == 3, 1, indices // 4))
    assert [len(loader.unreadable) for loader in runs] == [1, 1]
    news = runs[0].unreadable.new_warnings()
    assert len(news) == 1 and bad.name in news[0] and runs[0].unreadable.new_warnings() == []
    bad.write_bytes(following.read_bytes())
    np.testing.assert_array_equal(loader_of(tiny_folder).batches([0, 1])[0], found[0][0])


def test_nothing_readable_is_an_error(tiny_folder):
    for path in tiny_folder.glob("train/*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="12 images in a row"):
        loader_of(tiny_folder).batches([0])


def test_no_test_image_that_can_be_read_is_an_error(tiny_folder):
    for path in tiny_folder.glob("val/*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 6 validation images can be read: .*no image of a format"):
        trainer = make_trainer(config_of(tiny_folder), jax.devices()[:1])
        trainer.evaluate(trainer.init())


def test_small_images_are_not_enlarged_in_silence(tiny_folder):
    """Images of 60x80 pixels for a net of 224; what the note says does keep them."""
    config = config_of(tiny_folder, data__image_size=224, data__eval_shorter_side=256, data__shorter_side=(256, 480))
    notes = list(make_trainer(config, jax.devices()[:1]).notes())
    assert [note for note in notes if "images are small, 60 pixels, and are enlarged to 224" in note]
    for field in notes[-1].split("--config.")[1:]:
        name, _, value = field.split()[0].rstrip(";").partition("=")
        config.update_from_flattened_dict({name: int(value) if value.isdigit() else value})
    trainer = make_trainer(config, jax.devices()[:1])
    assert trainer.pipeline.image_shape == (60, 60, 3) and not [n for n in trainer.notes() if "small" in n]


def test_small_images_are_not_enlarged_ahead_of_a_crop_in_silence(tiny_folder):
    """Images of 60x80 pixels, of which a net of 48 is shown fewer than 12x12 where a config is for photographs."""
    config = config_of(tiny_folder, data__image_size=48, data__eval_shorter_side=56, data__shorter_side=(256, 480))
    assert max(crop_box("scale", np.zeros(DRAWS), 60, 80, 48, (256, 480))) < 12
    (note,) = [n for n in make_trainer(config, jax.devices()[:1]).notes() if "small" in n]
    assert "60 pixels, and are enlarged to 256, and 48 of these are trained on at a time" in note
    config.data.crop = "aspect"
    assert not [n for n in make_trainer(config, jax.devices()[:1]).notes() if "small" in n]


def test_crops_that_show_little_are_told(tiny_folder, monkeypatch):
    """A net of 16 pixels with the sides of one of 224, on images that are large beside that."""
    monkeypatch.setattr("resnet_jax.data.size_notes.SMALL", 8)
    fields = {"data__eval_shorter_side": 256, "data__shorter_side": (256, 480)}
    notes = [n for n in make_trainer(config_of(tiny_folder, **fields), jax.devices()[:1]).notes() if "crops of" in n]
    assert notes == [
        "trained on crops of 16 pixels of images of 256 or more: --config.data.shorter_side=(18,34) shows more",
        "tested on crops of 16 pixels of images of 256 or more: --config.data.eval_shorter_side=18 shows more",
    ]
    assert not [n for n in make_trainer(config_of(tiny_folder), jax.devices()[:1]).notes() if "crops of" in n]


@pytest.mark.parametrize("sides", [(256, 480), (20, 24)])
def test_the_centre_that_is_trained_on(sides, tiny_folder):
    """The crop that is evaluated, unless a shorter side is given; filters differ where images are shrunk."""
    config = config_of(tiny_folder, data__crop="center", data__shorter_side=sides, data__image_size=16)
    loader = make_trainer(config, jax.devices()[:1]).pipeline.train_loader
    images = loader.batches([0])[0][0]
    source = loader.source
    crops = Crops(16, 18 if sides == (256, 480) else 20)
    for image, index in zip(images, batch_indices(0, 0, 8, 12), strict=True):
        (expected,) = crops.views(decode(source.load(int(index)).data), (1, 1))
        (other,) = Crops(16, 64).views(decode(source.load(int(index)).data), (1, 1))
        assert abs(image.astype(int) - expected).mean() < 4 < 8 < abs(image.astype(int) - other).mean()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_trains_evaluates_and_says_what_it_could_not_read(tiny_folder, tmp_path, devices):
    fill(tiny_folder, {f"train/{WNIDS[0]}/bad.JPEG": b"", f"val/{WNIDS[1]}/bad.JPEG": picture(0)[:100],
                       f"val/{WNIDS[2]}/one.JPEG": picture(0, (1, 1))})  # fmt: skip
    notes = []

    class Notes(ProgressDisplay):
        def note(self, text):
            notes.append(text)

    result = fit(config_of(tiny_folder), tmp_path / "run", Notes(), jax.devices()[:devices])
    assert result.dataset == "image_folder" and 0 <= result.metrics["test_error"] <= 100
    # The case folder_broken_test_images: they count in the error, and that is said everywhere.
    assert result.unreadable == 1 and "unreadable" not in result.metrics
    evaluated = [line for line in RunRecord(tmp_path / "run").lines() if "test_error" in line]
    assert [line["unreadable"] for line in evaluated] == [1, 1]
    assert [note for note in notes if "count in the error" in note] == [
        "1 of the 8 validation images cannot be read: they are shown grey, and count in the error"
    ]
    assert sum("bad.JPEG cannot be read" in note for note in notes) == 2
    found = evaluate(tmp_path / "run")
    assert (found.shown_grey, found.examples, found.test_error) == (1, 8, result.metrics["test_error"])
    assert found.test_loss == pytest.approx(evaluated[-1]["test_loss"])


def test_a_run_killed_inside_an_epoch_goes_on_bitwise(tiny_folder, tmp_path):
    """12 images, 8 a step: steps 1 and 3 end inside epochs."""
    config = config_of(tiny_folder, checkpoint_every=1)
    fit(config, tmp_path / "whole", devices=jax.devices()[:1])
    for last in (1, 3):
        with pytest.raises(Killed):
            fit(config, tmp_path / "killed", DiesAt(last + 1), devices=jax.devices()[:1])
    fit(config, tmp_path / "killed", devices=jax.devices()[:1])
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


@pytest.mark.parametrize("net", ["plain18", "resnet18"])
def test_real_images_at_64_pixels(net, sample, tmp_path):
    """From prepared shards, as ImageNet, with all 1,000 classes: the first losses are near guessing."""
    prepare(open_originals(sample, allow_partial=True), tmp_path / "out", Recipe(72, 90, 64), 1, lambda *a: None)
    config = config_of(tmp_path / "out", net, data__name="imagenet", steps=3, data__crop="aspect", batch_size=32)
    config.data.update({"image_size": 64, "eval_shorter_side": 72, "shorter_side": (64, 72)})
    config.eval_every = 3
    config.log_every = config.checkpoint_every = 1
    result = fit(config, tmp_path / "run", devices=jax.devices()[:1])
    losses = [line["loss"] for line in RunRecord(tmp_path / "run").lines() if "loss" in line]
    assert 5 < losses[0] < 9 and np.isfinite(losses).all() and result.metrics["test_error"] > 80


def test_decoding_hides_behind_a_slow_step(tiny_folder):
    """The next batches are under way while a step is computed."""
    loader = loader_of(tiny_folder)
    loader.batches([0], [1, 2])
    time.sleep(1)
    began = time.monotonic()
    loader.batches([1], [2, 3])
    assert time.monotonic() - began < 0.1


def test_the_normalisation_is_that_of_imagenet(tiny_folder):
    for kind, std in (("imagenet", [0.229, 0.224, 0.225]), ("per_pixel_mean", [1, 1, 1])):
        trainer = make_trainer(config_of(tiny_folder, data__normalization=kind), jax.devices()[:1])
        assert np.allclose(trainer.pipeline.train["std"], std)
    inputs = trainer.pipeline.train_inputs(0, 1)
    images, _ = trainer.pipeline.eval_batch(trainer.pipeline.train, jax.tree.map(lambda x: x[0], inputs))
    assert np.allclose(images, inputs["images"][0] / 255 - np.array([0.485, 0.456, 0.406]), atol=1e-6)


def test_mistakes(tiny_folder, tmp_path):
    cases = [
        ({"data__data_dir": None}, "needs --config.data.folder"),
        ({"data__data_dir": str(tmp_path / "no")}, "cannot be read: No such file"),
        ({"data__name": "imagenet", "data__data_dir": str(tmp_path / "no")}, "config.data.data_dir=.* is not a folder"),
        ({"data__held_out": 5}, "held_out"),
        ({"data__resize": 24}, "resize=24 is for sets that live on the devices"),
        ({"data__normalization": "per_channel"}, "per_channel"),
        ({"data__crop": "random"}, "must be one of scale, aspect, center"),
        ({"data__shorter_side": (24, 18)}, "shorter_side"),
        ({"data__image_size": 20}, "image_size=20 is more than the shorter side of 18"),
    ]
    for fields, message in cases:
        with pytest.raises(UserError, match=message):
            config = config_of(tiny_folder)
            config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
            validate_config(config)
            make_trainer(config, jax.devices()[:1])
