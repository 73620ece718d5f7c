"""The programs for accelerators, as far as a machine without one can make them: lowered for CUDA and for TPU."""

import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks.resnet_jax_step import make_benchmark_trainer
from resnet_jax.models import create_model
from resnet_jax.training.trainer import make_trainer

#: Steps of a dispatch.
STEPS = 5

BOTTLENECK = {"block": "bottleneck", "stage_sizes": (1, 1), "widths": (16, 32), "shortcut": "B", "stem": "imagenet"}


@pytest.fixture(params=["cuda", "tpu"])
def accelerator(request, kernels):
    return request.param


def trainer(dtype, devices=1, **fields):
    return make_benchmark_trainer("cifar_resnet20", 8, 32, dtype, jax.devices()[:devices], **BOTTLENECK | fields)


def text(step, platform, *arguments):
    return step.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def operand_types(program, operation):
    """What each `operation` of a program takes and gives."""
    found = re.findall(rf"stablehlo\.{operation}\b.* : \((.*)\) -> (\S*)", program)
    return [re.findall(r"tensor<[^>]*?x?(f32|bf16)>", " ".join(types)) for types in found]


def added(program):
    """The type of each sum over an axis."""
    return re.findall(r"stablehlo\.reduce\(.*applies stablehlo\.add .*tensor<[^>]*?x?(f32|bf16)>", program)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_training_step(accelerator, dtype):
    """One loop over the steps; the state given away; convolutions XLA's own; sums in float32.

    So are kernels' gradients, but on GPUs, where cuDNN's convolutions of bfloat16 give bfloat16.
    """
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
    # Each takes images, and a kernel or outputs, and gives outputs or the gradient of images, or that of the kernel.
    of_kernels = short if accelerator == "cuda" else "f32"
    assert sorted(convolutions) == sorted([[short] * 3] * 17 + [[short, short, of_kernels]] * 9)
    assert len(added(program)) > 2 * 9 and set(added(program)) == {"f32"}


def test_the_evaluation_step(accelerator):
    run = trainer("bfloat16")
    tested, mask = run.init().tested_variables, jax.numpy.ones(8)
    inputs = run.pipeline.train_inputs(0, 1)[0]
    program = text(run.eval_step, accelerator, tested, run.pipeline.train, inputs, mask)
    assert "@resnet_jax." not in program and len(operand_types(program, "convolution")) == 9


@pytest.mark.parametrize("fields", [{}, {"groups": 4, "width_per_group": 16}, {"shortcut": "shortcut_only_gating"}])
def test_eight_devices_add_gradients_in_float32(tmp_path, fields):
    """With bfloat16, every sum over the devices is of float32 numbers, and so is what each of them adds up itself."""
    run = trainer("bfloat16", devices=8, **fields)
    arguments = (run.init(), run.pipeline.train, run.pipeline.train_inputs(0, 1))
    program = text(run.train_step, "tpu", *arguments)
    # A kernel's gradient has the kernel's rows and columns ahead of its channels: the images are its batch.
    gradients = [line for line in program.splitlines() if "stablehlo.convolution" in line and "->[0, 1, b, f]" in line]
    kernels = [x for x in jax.tree.leaves(arguments[0].params) if x.ndim == 4]
    assert len(gradients) == len(kernels) > 6
    for line in gradients:
        assert re.search(r": \(tensor<\w*xbf16>, tensor<\w*xbf16>\) -> tensor<\w*xf32>", line), line
    assert set(added(program)) == {"f32"}
    # As the program is divided: later, XLA has a CPU add up bfloat16 as float32.
    dump = {"xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd-partitioning", "xla_dump_hlo_as_text": True}
    run.train_step.lower(*arguments).compile(compiler_options=dump)
    (divided,) = tmp_path.glob("*after_spmd-partitioning*")
    reduced = re.findall(r"= (\w+)\[.* all-reduce\(", divided.read_text())
    assert len(reduced) >= len(kernels) and set(reduced) == {"f32"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fully_connected_layers_and_biases_of_vgg(dtype):
    """Their gradients are float32 as well."""
    model = create_model("vgg16", num_classes=10, hidden=24, stage_sizes=(1, 1), widths=(4, 6), dtype=dtype)
    images = jnp.ones((8, 8, 8, 3))
    variables = model.init(jax.random.key(0), images)
    program = text(jax.jit(jax.grad(lambda v: (model.apply(v, images) ** 2).sum())), "tpu", variables)
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    wide, same = [short, short, "f32"], [short] * 3
    assert sorted(operand_types(program, "convolution")) == sorted([same] * 3 + [wide] * 2)
    # Two layers in the dtype: outputs, and both gradients. The classifier is float32.
    assert sorted(operand_types(program, "dot_general")) == sorted([same] * 4 + [wide] * 2 + [["f32"] * 3] * 3)
    assert set(added(program)) == {"f32"}


@pytest.mark.parametrize("net", [
    {"model__shortcut": "C"},
    {"model__block": "bottleneck", "model__groups": 2, "model__shortcut": "B"},
    {"model__name": "vgg16", "model__stage_sizes": (1, 1), "model__widths": (4, 6)},
])  # fmt: skip
@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_a_precision_is_that_of_every_product_of_the_net(tiny_config, precision, net):
    """In training and evaluation. The default says nothing, so that a platform has its own."""
    run = make_trainer(tiny_config(precision=precision, **net), jax.devices()[:1])
    state, inputs = run.init(), run.pipeline.train_inputs(0, 1)
    count = sum(layer.kind != "norm" for layer in run.summary.layers)
    for program, each in (
        (text(run.train_step, "tpu", state, run.pipeline.train, inputs), 3),
        (text(run.eval_step, "tpu", state.tested_variables, run.pipeline.test, inputs[0], jnp.ones(16)), 1),
    ):
        said = [
            re.search(r"precision(?:_config)? = \[([^]]*)\]", line).group(1)
            for line in program.splitlines()
            if "stablehlo.convolution" in line or "stablehlo.dot_general" in line
        ]
        assert len(said) == each * count - (each == 3)  # the first layer's images have no gradient
        assert {tuple(re.findall("DEFAULT|HIGHEST|HIGH", words)) for words in said} == {(precision.upper(),) * 2}


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
