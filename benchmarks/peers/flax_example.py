"""A minimal step in the style of flax/examples/imagenet: `nn.Conv`, `nn.BatchNorm`, Optax's SGD, one jitted step.

The net is written for this comparison, with our parameter names so that our weights fit. It uses nothing of resnet_jax.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state

from benchmarks.peers import Implementation, Task


class Unit(nn.Module):
    """A basic or bottleneck unit with the shortcut none, A, B or C."""

    width: int
    strides: int
    block: str
    shortcut: str
    stride_on: str
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = x
        layers = ((3, 1), (3, 1)) if self.block == "basic" else ((1, 1), (3, 1), (1, 4))
        strided = 1 if self.block == "bottleneck" and self.stride_on == "3x3" else 0
        for i, (size, multiple) in enumerate(layers):
            strides = self.strides if i == strided else 1
            y = self.conv(self.width * multiple, size, strides, name=f"conv{i + 1}")(y)
            y = self.norm(name=f"bn{i + 1}")(y)
            if i < len(layers) - 1:
                y = nn.relu(y)
        changes = x.shape != y.shape
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            y = y + Projection(y.shape[-1], self.strides, self.conv, self.norm, name="shortcut")(x)
        elif self.shortcut != "none":
            x = x[:, :: self.strides, :: self.strides]
            missing = y.shape[-1] - x.shape[-1]
            y = y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return nn.relu(y)


class Projection(nn.Module):
    """A strided 1x1 convolution and its norm."""

    features: int
    strides: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.norm(name="bn")(self.conv(self.features, 1, self.strides, name="conv")(x))


class Stem(nn.Module):
    """The first convolution."""

    kind: str
    width: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        size, strides = (7, 2) if self.kind == "imagenet" else (3, 1)
        x = nn.relu(self.norm(name="bn")(self.conv(self.width, size, strides, name="conv")(x)))
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if self.kind == "imagenet" else x


class Stage(nn.Module):
    """Units of one width."""

    size: int
    strides: int
    unit: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i in range(self.size):
            x = self.unit(strides=self.strides if i == 0 else 1, name=f"block{i + 1}")(x)
        return x


class Net(nn.Module):
    """Stem, stages, classifier."""

    stage_sizes: Sequence[int]
    widths: Sequence[int]
    num_classes: int
    block: str
    stem: str
    shortcut: str
    stride_on: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        def conv(features: int, size: int, strides: int, name: str) -> nn.Conv:
            return nn.Conv(
                features, (size, size), strides, (size - 1) // 2, use_bias=False, dtype=self.dtype, name=name
            )

        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        unit = partial(Unit, block=self.block, shortcut=self.shortcut, stride_on=self.stride_on, conv=conv, norm=norm)
        x = Stem(self.stem, self.widths[0], conv, norm, name="stem")(x.astype(self.dtype))
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            x = Stage(size, 1 if i == 0 else 2, partial(unit, width=width), name=f"stage{i + 1}")(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="head")(x.astype(jnp.float32).mean((1, 2)))


class State(train_state.TrainState):
    """With batch statistics."""

    batch_stats: Any


def implementations(task: Task) -> list[Implementation]:
    """Returns the one implementation."""
    model = Net(**task.fields, dtype=jnp.dtype(task.dtype))
    images, labels = jax.device_put(list(task.images)), jax.device_put(list(task.labels))
    optimizer = optax.chain(optax.add_decayed_weights(task.weight_decay), optax.sgd(task.learning_rate, task.momentum))
    # Copies: the step gives its state away.
    variables = jax.tree.map(jnp.array, task.variables)
    state = State.create(
        apply_fn=model.apply, params=variables["params"], tx=optimizer, batch_stats=variables["batch_stats"]
    )

    def mean_loss(logits: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: State, images: Any, labels: Any) -> tuple[State, dict[str, Any]]:
        def loss_fn(params: Any) -> Any:
            logits, new = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats}, images, train=True, mutable=["batch_stats"]
            )
            return mean_loss(logits, labels), (new, logits)

        (loss, (new, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads, batch_stats=new["batch_stats"])
        return state, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}

    @jax.jit
    def eval_step(variables: Any, images: Any, labels: Any) -> Any:
        logits: Any = model.apply(variables, images, train=False)
        return {"loss": mean_loss(logits, labels), "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}

    box = {"state": state, "step": 0}

    def losses(count: int) -> list[float]:
        found = []
        for _ in range(count):
            at = box["step"] % len(images)
            box["state"], metrics = train_step(box["state"], images[at], labels[at])
            box["step"] += 1
            found.append(metrics["loss"])
        return [float(x) for x in np.array(jax.device_get(found))]

    def step_from(params: dict) -> tuple[float, dict]:
        box["state"] = box["state"].replace(params=jax.tree.map(jnp.array, params))
        return losses(1)[0], jax.device_get(box["state"].params)

    tested = jax.tree.map(jnp.array, task.variables)

    def evaluate(count: int) -> list[float]:
        found = [eval_step(tested, images[i % len(images)], labels[i % len(images)])["loss"] for i in range(count)]
        return [float(x) for x in np.array(jax.device_get(found))]

    return [Implementation("flax_example", losses, evaluate, step_from)]
