"""Reading compiled programs, on programs whose operations are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax.aot.hlo import Program, layer_of

N = 8


@pytest.fixture(scope="module")
def program():
    """Seven steps, each of which sums a (4, 6) product over eight devices, for CPUs."""
    mesh = Mesh(np.array(jax.devices()[:N]), ("data",))
    sharded, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

    def steps(total, x, y):
        def step(total, _):
            return total + x.T @ (y * total.mean()), None

        return jax.lax.scan(step, total, None, length=7)[0]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 6), (16, 4), (16, 6))]
    jitted = jax.jit(steps, in_shardings=(whole, sharded, sharded), out_shardings=whole)
    return Program.parse(jitted.lower(*shapes).compile().as_text())


def test_loops_run_as_often_as_they_say(program):
    assert program.loops() == [7]


def test_a_sum_over_devices_is_found_with_its_size_and_how_often_it_runs(program):
    sums = [(one, times) for one, times in program.run() if one.operation.removesuffix("-start") == "all-reduce"]
    assert [(one.arrays, one.bytes, times) for one, times in sums] == [([("f32", (4, 6))], 4 * 6 * 4, 7)]
    (of_one_step,) = [one for one, _ in program.run(program.body_of_longest_loop()) if one == sums[0][0]]
    assert of_one_step.op_name


def test_types_of_several_arrays():
    text = """HloModule m

ENTRY %main.3 (a: bf16[2,3]) -> (bf16[2,3], f32[]) {
  %a = bf16[2,3]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x"}
  ROOT %sum.1 = (bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[]{:T(128)}, u8[5]{0}) all-reduce(%a), channel_id=1
}
"""
    program = Program.parse(text)
    parameter, result = program.computations["main.3"]
    assert program.entry == "main.3" and parameter.op_name == "x" and result.operation == "all-reduce"
    assert result.arrays == [("bf16", (2, 3)), ("f32", ()), ("u8", (5,))] and result.bytes == 12 + 4 + 5


def test_layers_are_those_of_flax():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="head")(jnp.tanh(nn.Dense(5, name="body")(x)))

    net, x = Net(), jnp.ones((2, 4))
    params = net.init(jax.random.key(0), x)
    text = jax.jit(jax.grad(lambda params: net.apply(params, x).sum())).lower(params).compile().as_text()
    found = {layer_of(one.op_name) for one in Program.parse(text).everything() if one.op_name}
    assert {"body", "head"} <= found


@pytest.mark.parametrize(
    "op_name, layer",
    [
        ("jit(steps)/while/body/transpose(jvp(ResNet))/stage1/block2/bn1.relu/bn1/mul", "stage1/block2/bn1"),
        ("jit(step)/jvp(ResNet)/stem/conv/cond/branch_0_fun/conv_general_dilated", "stem/conv"),
        ("jit(step)/jvp(ResNet)/stage1/while/body/stage1/checkpoint/rematted_computation/block1/bn1/mul",
         "stage1/block1/bn1"),
        ("jit(step)/jvp(Net)/body/cond/mul", "body/cond"),
        ("jit(steps)/while/body/jit(_threefry_split)/add", None),
        ("jit(step)/jvp(FasterRCNN)/FasterRCNN/stage4/block1/conv2/conv_general_dilated", "stage4/block1/conv2"),
        ("jit(step)/jvp(FasterRCNN)/proposals/vmap(vmap)/while/body/reduce_or", "proposals"),
        ("jit(evaluate)/FasterRCNN/FasterRCNN/stage1/block1/conv1/conv_general_dilated", "stage1/block1/conv1"),
    ],
)  # fmt: skip
def test_the_layer_of_an_operation(op_name, layer):
    """Names of control flow and rematerialisation are no layers, but a module may have one of them."""
    assert layer_of(op_name) == layer
