"""Progressive sizes and repeats of streamed sets: by the step alone, ready ahead of time; tests are as without."""

import jax
import numpy as np
import pytest

from resnet_jax.data.imagenet.loaders import TrainLoader
from resnet_jax.data.sampling import batch_indices
from resnet_jax.errors import UserError
from resnet_jax.evaluation.statistics import from_training_images
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay
from resnet_jax.training.stepper import steps_to_dispatch
from resnet_jax.training.trainer import make_trainer
from tests.data.imagenet.test_streaming import config_of, lines, loader_of
from tests.training.interruptions import DiesAt, Killed

SIZES = {"data__train_sizes": (8, 12), "data__size_boundaries": (0.5,), "data__crop": "aspect"}


@pytest.fixture
def one_device():
    return jax.devices()[:1]


def pipeline_of(folder, device, **fields):
    return make_trainer(config_of(folder, **(SIZES | fields)), device).pipeline


def test_a_batch_of_a_size_is_that_of_a_loader_of_the_size(tiny_folder):
    images, labels = loader_of(tiny_folder).batches([1], [2, 3], [8, 8, 12])
    expected, same = loader_of(tiny_folder, size=8).batches([1])
    assert np.array_equal(images, expected) and np.array_equal(labels, same)


def test_sizes_change_at_their_steps_with_the_next_batches_under_way(tiny_folder, one_device, monkeypatch):
    """Every batch is decoded once, in its size, and those behind the change ahead of it."""
    begun = []
    begin = TrainLoader._begin
    monkeypatch.setattr(TrainLoader, "_begin", lambda self, *key: (begun.append(key), begin(self, *key))[1])
    pipeline = pipeline_of(tiny_folder, one_device)
    found = []
    for step in range(6):
        found.append(pipeline.train_inputs(step, 1))
        assert begun == [(n, 8 if n < 3 else 12) for n in range(step + 4)]
    assert [x["images"].shape[2] for x in found] == [8, 8, 8, 12, 12, 12]
    assert next(pipeline.test_inputs())[0]["images"].shape[1:3] == (16, 16)
    fresh = pipeline_of(tiny_folder, one_device)
    for step in (4, 2, 3):
        again = fresh.train_inputs(step, 1)
        assert np.array_equal(again["images"], found[step]["images"])
        assert np.array_equal(again["labels"], found[step]["labels"])


def test_a_batch_that_is_left_out_moves_no_change(tiny_folder, one_device):
    """Step 2 then takes batch 3, in the size of step 2."""
    pipeline = pipeline_of(tiny_folder, one_device)
    whole = [pipeline.train_inputs(step, 1) for step in range(6)]
    left_out = [pipeline.train_inputs(step, 1, [1]) for step in range(5)]
    assert [x["images"].shape[2] for x in left_out] == [8, 8, 8, 12, 12]
    for step in range(1, 5):
        assert np.array_equal(left_out[step]["labels"], whole[step + 1]["labels"])


def test_repeats_are_other_crops_of_the_same_images(tiny_folder, one_device):
    pipeline = pipeline_of(tiny_folder, one_device, data__repeats=2)
    inputs = pipeline.train_inputs(0, 1)
    indices = batch_indices(0, 0, 8, 12, 2)
    assert np.array_equal(indices[::2], indices[1::2]) and len(set(indices)) == 4
    assert np.array_equal(inputs["labels"][0], np.repeat([0, 1, 2], 4)[indices])
    one, other = inputs["images"][0, ::2], inputs["images"][0, 1::2]
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class Compilations(ProgressDisplay):
    """Counts what is compiled."""

    count = 0

    def status(self, text):
        self.count += text == "compiling"


@pytest.mark.long
def test_a_run_compiles_once_for_each_size_and_goes_on_bitwise(tiny_folder, tmp_path, one_device):
    """Stopped ahead of the change and right at it."""
    config = config_of(tiny_folder, checkpoint_every=1, **SIZES)
    compilations = Compilations()
    fit(config, tmp_path / "whole", compilations, devices=one_device)
    assert compilations.count == 2
    for last in (2, 3):
        with pytest.raises(Killed):
            fit(config, tmp_path / "killed", DiesAt(last + 1), devices=one_device)
    fit(config, tmp_path / "killed", devices=one_device)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_no_dispatch_spans_a_change(tiny_folder, one_device):
    """Images of two sizes cannot be one array."""
    fields = {"steps": 12, "log_every": 6, "eval_every": 6, "checkpoint_every": 6, "steps_per_dispatch": 6}
    for boundary, expected in ((0.5, 6), (0.25, 3), (0.33, 2)):
        config = config_of(tiny_folder, **(SIZES | fields | {"data__size_boundaries": (boundary,)}))
        trainer = make_trainer(config, one_device)
        assert steps_to_dispatch(trainer.config, trainer.mesh, trainer.pipeline, 0) == expected
        assert trainer.pipeline.size_changes == (round(12 * boundary),)


def test_statistics_are_of_the_last_size(tiny_folder, one_device):
    """As if the net had been trained in that size alone, from the step where it begins."""
    trainer = make_trainer(config_of(tiny_folder, **SIZES), one_device)
    state = trainer.init()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    found = from_training_images(trainer.model, variables, trainer.pipeline, trainer.mesh, 8)["batch_stats"]
    images = trainer.pipeline.train_batch(
        trainer.pipeline.train, jax.tree.map(lambda x: x[0], trainer.pipeline.train_inputs(3, 1)),
        jax.random.fold_in(jax.random.key(trainer.pipeline.seed), 0),
    )[0]  # fmt: skip
    assert images.shape[1:3] == (12, 12)
    _, mutated = trainer.model.apply(
        variables, images, train=True, mutable=["intermediates", "batch_stats"], capture_intermediates=True
    )
    outputs = mutated["intermediates"]["stem"]["conv"]["__call__"][0]
    np.testing.assert_allclose(found["stem"]["bn"]["mean"], np.mean(outputs, axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_vgg_is_refused(tiny_folder, one_device):
    with pytest.raises(UserError, match=r"train_sizes=\(16, 32\): vgg16's fully connected layers fit 32 pixels"):
        config = config_of(tiny_folder, "vgg16", **SIZES)
        config.model.stage_sizes, config.model.widths, config.model.bn_group_size = (1, 1), (4, 4), None
        config.data.update({"train_sizes": (16, 32), "image_size": 32, "eval_shorter_side": 36})
        make_trainer(config, one_device)
