"""Lowering a config's steps from shapes: they are the shapes that a run has."""

import dataclasses
import os
import re

import jax
import numpy as np
import pytest

from configs import cifar10, digits, imagenet
from resnet_jax.aot import programs, topologies
from resnet_jax.aot.cost import cost_of
from resnet_jax.aot.programs import OutOfMemory, compile_program, lower_steps
from resnet_jax.aot.quiet import without_stderr
from resnet_jax.aot.topologies import CHIPS
from resnet_jax.data.shapes import KNOWN, step_shapes
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.training.distributed import make_mesh
from resnet_jax.training.trainer import make_trainer


def shapes_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def operations(lowered):
    """The lines of a program's main function, without the numbers of functions, which depend on what JAX has cached."""
    main = lowered.as_text().partition("@main")[2].partition("\n  }\n")[0]
    return re.sub(r"(call @\w*?)_\d+", r"\1", main).splitlines()


@pytest.fixture
def no_arrays(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an array was put on a device")

    monkeypatch.setattr(jax, "device_put", refuse)


@pytest.mark.parametrize("fields", [{}, {"held_out": 100}, {"rgb": True, "resize": 12, "normalization": "per_channel"}])
def test_they_are_those_of_a_pipeline(fields):
    config = digits.get_config("resnet20")
    config.data.update(fields)
    trainer = make_trainer(config, jax.devices()[:2])
    pipeline, shapes = trainer.pipeline, step_shapes(config, trainer.mesh)
    assert shapes_of(shapes.train) == shapes_of(pipeline.train)
    assert shapes_of(shapes.test) == shapes_of(pipeline.test)
    assert shapes_of(shapes.train_inputs(3)) == shapes_of(pipeline.train_inputs(0, 3))
    assert shapes_of(shapes.eval_inputs()) == shapes_of(next(pipeline.test_inputs()))
    for name in ("num_classes", "train_size", "test_size", "image_shape", "batch_size", "eval_batch_size",
                 "size_changes", "steps_per_dispatch"):  # fmt: skip
        assert getattr(shapes, name) == getattr(pipeline, name), name


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_known_sets_are_as_they_are_known(name):
    dataset, known = load_dataset(name), KNOWN[name]
    assert (known.num_classes, known.train_size, known.test_size, known.image_shape) == (
        dataset.num_classes, len(dataset.train), len(dataset.test), dataset.image_shape,
    )  # fmt: skip


def test_the_program_is_that_of_a_run():
    """Operation by operation, as the step that `train` makes."""
    config = digits.get_config("resnet20")
    devices = jax.devices()[:2]
    trainer = make_trainer(config, devices)
    lowered = lower_steps(config, devices)
    inputs = trainer.pipeline.train_inputs(0, lowered.steps)
    run = trainer.train_step.lower(trainer.random_init(), trainer.pipeline.train, inputs)
    assert operations(lowered.train) == operations(run)
    tested = trainer.random_init().tested_variables
    evaluation = trainer.eval_step.lower(tested, trainer.pipeline.test, *next(trainer.pipeline.test_inputs()))
    assert operations(lowered.evaluate) == operations(evaluation)


def test_streamed_sets_are_lowered_without_data_or_arrays(no_arrays):
    config = imagenet.get_config("resnet18")
    config.data.train_sizes, config.data.size_boundaries, config.data.image_size = (32, 64), (0.5,), 64
    config.batch_size = config.model.bn_group_size = 8
    shapes = step_shapes(config, make_mesh(jax.devices()[:2]))
    assert shapes.train_inputs(1)["images"].shape == (1, 8, 64, 64, 3) and shapes.image_shape == (64, 64, 3)
    assert lower_steps(config, jax.devices()[:2]).steps == 1


def test_the_evaluation_step_is_not_lowered_in_vain(monkeypatch):
    """Nor traced: that takes seconds for deep nets."""
    monkeypatch.setattr(programs, "make_eval_step", None)
    found = lower_steps(digits.get_config("resnet20"), jax.devices()[:1], evaluation=False)
    assert found.evaluate is None and "convolution" in found.train.as_text()


def test_costs_are_those_of_the_program():
    """The bytes that two devices sum are at least the gradients', each number once."""
    config = digits.get_config("resnet20")
    devices = jax.devices()[:2]
    lowered = lower_steps(config, devices)
    cost = cost_of(compile_program(lowered.train), CHIPS["v5e"], lowered.steps)
    state = make_trainer(config, devices).random_init()
    gradients = [one for one in cost.collectives if one.carries == "gradients"]
    kernels = sum(x.nbytes for x in jax.tree.leaves(state.params) if x.ndim > 1)
    everything = sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert {one.operation for one in cost.collectives} == {"all-reduce"}
    assert kernels <= sum(one.bytes for one in gradients) <= 1.05 * everything + 1000
    assert cost.peak_bytes > 2 * everything and cost.flops > 0
    arithmetic, memory = cost.flops / 197e12, cost.memory_bytes / 819e9
    np.testing.assert_allclose(cost.bound_seconds, max(arithmetic, memory))
    assert cost.to_json()["bound_by"] == ("arithmetic" if arithmetic > memory else "memory")


def test_out_of_memory_is_read_from_the_compilers_error():
    text = ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 16.33G "
            "of 15.75G hbm. Exceeded hbm capacity by 593.60M.")  # fmt: skip
    found = OutOfMemory.of(text)
    assert (found.used, found.capacity) == (16.33, 15.75)
    assert "0.58 more" in str(found) and "model.remat" in str(found) and "\n" not in str(found)
    assert OutOfMemory.of("INTERNAL: something else") is None


def test_what_a_gpus_compiler_lets_pass_does_not_fit_either():
    """XLA's compiler for GPUs only warns of a program that is larger than their memory: running it fails."""
    compiled = compile_program(jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((512, 512), np.float32)))
    matrix = 4 * 512**2
    assert cost_of(compiled, dataclasses.replace(CHIPS["h100"], memory=2.5 * matrix)).peak_bytes >= 2 * matrix
    with pytest.raises(OutOfMemory, match="out of memory: the step needs") as error:
        cost_of(compiled, dataclasses.replace(CHIPS["h100"], memory=1.5 * matrix))
    assert error.value.used * 2**30 >= 2 * matrix


def test_unknown_sets_need_their_classes():
    config = cifar10.get_config("resnet20")
    config.data.name = "tfds:oxford_flowers102"
    mesh = make_mesh(jax.devices()[:1])
    with pytest.raises(UserError, match="--num_classes=N"):
        step_shapes(config, mesh)
    assert step_shapes(config, mesh, num_classes=102).num_classes == 102


@pytest.mark.parametrize(
    "topology, message",
    [("v9:2x2", "unknown chip 'v9'"), ("v5e", "as v5e:1x1"), ("v5e:0x2", "as v5e:1x1"), ("v5e:2x2x2", "2 sides"),
     ("h100:2x2", "1 sides at most"), ("", "unknown chip")],
)  # fmt: skip
def test_wrong_topologies(topology, message):
    with pytest.raises(UserError, match=message):
        topologies.find(topology)


@pytest.mark.parametrize("topology, extra", [("v5e:2x2", r"\.\[tpu\]"), ("h100:8", r"\.\[cuda\]")])
def test_a_missing_compiler(monkeypatch, topology, extra):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=extra):
        topologies.find(topology)


def test_libraries_are_quiet_while_they_start(capfd):
    with without_stderr():
        os.write(2, b"Could not find cuda drivers\n")
    os.write(2, b"error: ...\n")
    assert capfd.readouterr().err == "error: ...\n"
