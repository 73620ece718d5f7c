"""ResNet-20's training step as XLA's compiler makes it for four v5e chips. `make tpu-check` installs the compiler."""

import importlib.util
import re

import jax
import pytest

from configs import cifar10
from resnet_jax.aot.cost import OTHER, cost_of
from resnet_jax.aot.hlo import Program
from resnet_jax.aot.programs import compile_program, lower_steps
from resnet_jax.aot.topologies import find

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

DEVICES = 4


@pytest.fixture(scope="module")
def step():
    """(lowered steps, compiled program, its text parsed, the computation of one step, its cost)."""
    chip, devices = find("v5e:2x2")
    config = cifar10.get_config("resnet20")
    config.dtype, config.batch_size = "bfloat16", 128 * DEVICES
    programs = lower_steps(config, devices, evaluation=False)
    compiled = compile_program(programs.train)
    program = Program.parse(compiled.program.as_text())
    return programs, compiled.program, program, program.body_of_longest_loop(), cost_of(compiled, chip, programs.steps)


def test_no_custom_call_is_ours(step):
    targets = re.findall(r'custom_call_target="([^"]*)"', step[1].as_text())
    assert not [target for target in targets if "resnet" in target]


def test_convolutions_are_of_bfloat16(step):
    """19 layers, and the gradients of their kernels and, but for the first, of their images; what they add is wider."""
    convolutions = [one for one in step[2].everything() if one.operation == "convolution"]
    types = {one.name: one.type for one in step[2].everything()}
    assert len(convolutions) >= 3 * 19 - 1
    of_layers = [one for one in convolutions if "head" not in one.op_name and "dot_general" not in one.op_name]
    for one in of_layers:
        operands = [name.split(" ")[-1].lstrip("%") for name in one.rest.split(")")[0].split(", ")[:2]]
        assert all(types[name].startswith("bf16") for name in operands), (one.op_name, operands)


def test_every_leaf_of_the_state_is_given_away(step):
    aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", step[1].as_text(), re.DOTALL)
    assert len(re.findall(r"(?:may|must)-alias", aliases.group(1))) == len(
        jax.tree.leaves(step[0].train.args_info[0][0])
    )


def test_the_only_loop_is_that_of_the_steps(step):
    programs, _, program, body, _ = step
    assert program.loops() == [programs.steps] and program.loops(body) == []


def test_the_data_set_is_not_copied(step):
    images = step[0].shapes.train["images"].shape
    copies = [one for one in step[2].everything() if one.operation.startswith(("copy", "transpose"))]
    assert not [one for one in copies if ("u8", images) in one.arrays]
    assert step[4].peak_bytes < 0.27e9  # 0.154 of them are the set


def test_gradients_are_summed_once_in_float32(step):
    """All of them, and the metrics', joined; batch statistics are of groups within a chip."""
    collectives = step[4].collectives
    assert {one.operation for one in collectives} == {"all-reduce"} and len(collectives) <= 2
    assert {dtype for one in collectives for dtype in one.dtypes} == {"f32"}
    assert sum(one.bytes for one in collectives) == pytest.approx(4 * 272_474, rel=0.01)  # parameters, as published


def test_augmentation_is_no_large_part(step):
    """It was two fifths of the estimated cycles when crops were taken one image at a time."""
    cost = step[4]
    assert dict(cost.layers)[OTHER] < 0.25 * cost.cycles
