"""The programs for accelerators, as far as a machine without one can make them: lowered for CUDA and for TPU."""

import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks.resnet_jax_step import make_benchmark_trainer
from resnet_jax.models import create_model

#: Steps of a dispatch.
STEPS = 5

BOTTLENECK = {"block": "bottleneck", "stage_sizes": (1, 1), "widths": (16, 32), "shortcut": "B", "stem": "imagenet"}


@pytest.fixture(params=["cuda", "tpu"])
def accelerator(request, kernels):
    return request.param


def trainer(dtype):
    return make_benchmark_trainer("cifar_resnet20", 8, 32, dtype, jax.devices()[:1], **BOTTLENECK)


def text(step, platform, *arguments):
    return step.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def operand_types(program, operation):
    """What each `operation` of a program takes and gives."""
    found = re.findall(rf"stablehlo\.{operation}\b.* : \((.*)\) -> (\S*)", program)
    return [re.findall(r"tensor<[^>]*?x?(f32|bf16)>", " ".join(types)) for types in found]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_training_step(accelerator, dtype):
    """One loop over the steps; the state given away; convolutions XLA's own, in the dtype; sums in float32."""
    run = trainer(dtype)
    state = run.init()
    program = text(run.train_step, accelerator, state, run.pipeline.train, run.pipeline.train_inputs(0, STEPS))
    assert "@resnet_jax." not in program, "a kernel for CPUs"
    assert program.count("stablehlo.while") >= 1
    given_away = program.count("tf.aliasing_output") + program.count("jax.buffer_donor")
    assert given_away == len(jax.tree.leaves(state))
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    convolutions = operand_types(program, "convolution")
    # The stem; three of each unit and its projection; of each its two gradients, but the stem's images'.
    assert len(convolutions) == 9 * 3 - 1
    assert {kind for types in convolutions for kind in types} == {short}
    sums = re.findall(r"stablehlo\.reduce\(.*applies stablehlo\.add .*tensor<[^>]*?x?(f32|bf16)>", program)
    assert len(sums) > 2 * 9 and set(sums) == {"f32"}


def test_the_evaluation_step(accelerator):
    run = trainer("bfloat16")
    tested, mask = run.init().tested_variables, jax.numpy.ones(8)
    inputs = run.pipeline.train_inputs(0, 1)[0]
    program = text(run.eval_step, accelerator, tested, run.pipeline.train, inputs, mask)
    assert "@resnet_jax." not in program and len(operand_types(program, "convolution")) == 9


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_kernels_for_cpus_are_in_programs_for_one_cpu_alone(kernels, platform):
    """Whatever the process's own devices are: a program is lowered for others as well."""
    model = create_model("cifar_resnet20")
    images = jnp.ones((8, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, images):
        logits, _ = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return logits.sum()

    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
    gradient = jax.jit(jax.grad(loss))
    for devices in (1, 8):
        mesh = jax.sharding.Mesh(jax.devices()[:devices], "batch")
        shared = jax.device_put(images, jax.sharding.NamedSharding(mesh, jax.P("batch")))
        params = jax.device_put(variables["params"], jax.sharding.NamedSharding(mesh, jax.P()))
        program = text(gradient, platform, params, shared)
        # 19 convolutions with the gradients of their kernels, and of their images but for the first; 19 batch norms.
        count = 19 * 2 + 18 + 19 * 2 if platform == "cpu" and devices == 1 else 0
        assert program.count("custom_call @resnet_jax.") == count
