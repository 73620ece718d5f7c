"""Compiles the steps of a config for devices that need not be there."""

import dataclasses
import re
import time
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from resnet_jax.data.shapes import StepShapes, step_shapes
from resnet_jax.errors import UserError
from resnet_jax.tasks.choose import make_task
from resnet_jax.training.alternating import proposed_by
from resnet_jax.training.config_checks import validate_config
from resnet_jax.training.distributed import check_batch, make_mesh
from resnet_jax.training.init_from import load_proposer, resolve
from resnet_jax.training.step import init_state, make_eval_step, make_train_step
from resnet_jax.training.stepper import steps_to_dispatch
from resnet_jax.training.trainer import build_model, check_net


@dataclasses.dataclass(frozen=True)
class Programs:
    """Holds a config's steps, lowered for some devices.

    Attributes:
      config: the config.
      shapes: of what the steps take.
      steps: training steps of one dispatch.
      train: the lowered training step.
      evaluate: the lowered evaluation step; None if it was not asked for.
    """

    config: ConfigDict
    shapes: StepShapes
    steps: int
    train: jax.stages.Lowered
    evaluate: jax.stages.Lowered | None


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Holds a compiled program.

    Attributes:
      program: as JAX gives it.
      seconds: that compilation took, and of the processor.
      cpu_seconds: of all its cores together.
    """

    program: jax.stages.Compiled
    seconds: float
    cpu_seconds: float


def lower_steps(
    config: ConfigDict, devices: Sequence[jax.Device], num_classes: int | None = None, evaluation: bool = True
) -> Programs:
    """Lowers the steps that `train` would dispatch on these devices. No data set is read, and no array is made.

    Args:
      config: the fields of `config.base_config`.
      devices: of `topologies.find`, or this machine's.
      num_classes: see `shapes.step_shapes`.
      evaluation: whether the evaluation step is lowered, too.

    Raises:
      UserError: for anything in the config that is unknown or does not fit.
    """
    validate_config(config)
    config, _ = resolve(config)
    mesh = make_mesh(devices)
    check_batch(mesh, config.batch_size, config.accumulate)
    shapes = step_shapes(config, mesh, num_classes)
    batches, proposer = proposed_by(load_proposer(config), config, shapes.batches)
    proposer = jax.eval_shape(lambda: proposer)
    shapes = dataclasses.replace(shapes, batches=batches, train=shapes.train | proposer, test=shapes.test | proposer)
    check_net(config)
    model = build_model(config, shapes.num_classes, shapes.image_shape)
    task = make_task(config, shapes.num_classes)
    state = jax.eval_shape(lambda: init_state(model, config, shapes.image_shape))
    steps = steps_to_dispatch(config, mesh, shapes)
    train_step = make_train_step(model, task, config, shapes.batches, mesh)
    train = train_step.lower(state, shapes.train, shapes.train_inputs(steps))
    if not evaluation:
        return Programs(config, shapes, steps, train, None)
    eval_step = make_eval_step(model, task, shapes.batches, mesh)
    variables = jax.eval_shape(lambda state: state.tested_variables, state)
    evaluate = eval_step.lower(variables, shapes.test, *shapes.eval_inputs())
    return Programs(config, shapes, steps, train, evaluate)


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a lowered step.

    Raises:
      OutOfMemory: if it does not fit the devices.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (found := OutOfMemory.of(str(error))) is None:
            raise
        raise found from error
    return Compiled(program, time.monotonic() - began, time.process_time() - cpu_began)


class OutOfMemory(UserError):
    """Raised for a program that does not fit its devices.

    Attributes:
      used, capacity: GiB of one device, as the compiler gives them.
    """

    def __init__(self, used: float, capacity: float) -> None:
        self.used, self.capacity = used, capacity
        super().__init__(
            f"out of memory: the step needs {used:.2f} GiB of a device's {capacity:.2f}, {used - capacity:.2f} more; "
            "what helps: --config.model.remat=True, --config.accumulate=2 or more, more devices for the same batch"
        )

    @classmethod
    def of(cls, message: str) -> "OutOfMemory | None":
        """Reads XLA's error; None for another one."""
        number = r"([\d.]+)([KMGT])"
        found = re.search(rf"Used {number} of {number} hbm", message)
        if found is None:
            return None
        scale = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}
        return cls(float(found[1]) * scale[found[2]], float(found[3]) * scale[found[4]])
