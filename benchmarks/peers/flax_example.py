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
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks.peers import Implementation, Task


class Net(nn.Module):
    """Stem, stages of basic or bottleneck units with the shortcut none, A, B or C, and classifier.

    Layers have our names, with "/" for levels: "stage2/block1/conv1".
    """

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
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)

        def conv_bn(x: Any, features: int, size: int, strides: int, conv: str, bn: str) -> Any:
            pad = (size - 1) // 2
            layer = nn.Conv(features, (size, size), strides, pad, use_bias=False, dtype=self.dtype, name=conv)
            return norm(name=bn)(layer(x))

        def unit(x: Any, width: int, strides: int, name: str) -> Any:
            y = x
            layers = ((3, 1), (3, 1)) if self.block == "basic" else ((1, 1), (3, 1), (1, 4))
            strided = 1 if self.block == "bottleneck" and self.stride_on == "3x3" else 0
            for i, (size, multiple) in enumerate(layers):
                names = f"{name}/conv{i + 1}", f"{name}/bn{i + 1}"
                y = conv_bn(y, width * multiple, size, strides if i == strided else 1, *names)
                if i < len(layers) - 1:
                    y = nn.relu(y)
            if self.shortcut == "C" or (self.shortcut == "B" and x.shape != y.shape):
                y = y + conv_bn(x, y.shape[-1], 1, strides, f"{name}/shortcut/conv", f"{name}/shortcut/bn")
            elif self.shortcut != "none":
                x = x[:, ::strides, ::strides]
                missing = y.shape[-1] - x.shape[-1]
                y = y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
            return nn.relu(y)

        size, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = nn.relu(conv_bn(x.astype(self.dtype), self.widths[0], size, strides, "stem/conv", "stem/bn"))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, (count, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for k in range(count):
                x = unit(x, width, 2 if i and not k else 1, f"stage{i + 1}/block{k + 1}")
        return nn.Dense(self.num_classes, dtype=jnp.float32, name="head")(x.astype(jnp.float32).mean((1, 2)))


def by_layer(tree: dict) -> dict[str, dict[str, Any]]:
    """Returns our nested parameters or statistics as copies by layer: the step gives its state away."""
    found: dict[str, dict[str, Any]] = {}
    for path, leaf in flatten_dict(tree).items():
        found.setdefault("/".join(path[:-1]), {})[path[-1]] = jnp.array(leaf)
    return found


def nested(layers: dict[str, dict[str, Any]]) -> dict:
    """Undoes `by_layer`."""
    return unflatten_dict({(*layer.split("/"), leaf): value for (layer, leaf), value in flatten_dict(layers).items()})


class State(train_state.TrainState):
    """With batch statistics."""

    batch_stats: Any


def mean_loss(logits: Any, labels: Any) -> Any:
    """Returns the mean cross-entropy of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train_step(state: State, images: Any, labels: Any) -> tuple[State, dict[str, Any]]:
    """Updates by one batch."""

    def loss_fn(params: Any) -> Any:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = state.apply_fn(variables, images, train=True, mutable=["batch_stats"])
        return mean_loss(logits, labels), (new, logits)

    (loss, (new, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=new["batch_stats"])
    return state, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}


def make_optimizer(weight_decay: float, learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """Returns SGD with the decay added to the gradients."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))


def implementations(task: Task) -> list[Implementation]:
    """Returns the one implementation."""
    model = Net(**task.fields, dtype=jnp.dtype(task.dtype))
    images, labels = jax.device_put(list(task.images)), jax.device_put(list(task.labels))
    optimizer = make_optimizer(task.weight_decay, task.learning_rate, task.momentum)
    variables = {kind: by_layer(tree) for kind, tree in task.variables.items()}
    state = State.create(
        apply_fn=model.apply, params=variables["params"], tx=optimizer, batch_stats=variables["batch_stats"]
    )

    step = jax.jit(train_step, donate_argnums=0)

    @jax.jit
    def eval_step(variables: Any, images: Any, labels: Any) -> Any:
        logits: Any = model.apply(variables, images, train=False)
        return {"loss": mean_loss(logits, labels), "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}

    box = {"state": state, "step": 0}

    def losses(count: int) -> list[float]:
        found = []
        for _ in range(count):
            at = box["step"] % len(images)
            box["state"], metrics = step(box["state"], images[at], labels[at])
            box["step"] += 1
            found.append(metrics["loss"])
        return [float(x) for x in np.array(jax.device_get(found))]

    def step_from(params: dict) -> tuple[float, dict]:
        box["state"] = box["state"].replace(params=by_layer(params))
        return losses(1)[0], nested(jax.device_get(box["state"].params))

    tested = {kind: by_layer(tree) for kind, tree in task.variables.items()}

    def evaluate(count: int) -> list[float]:
        found = [eval_step(tested, images[i % len(images)], labels[i % len(images)])["loss"] for i in range(count)]
        return [float(x) for x in np.array(jax.device_get(found))]

    return [Implementation("flax_example", losses, evaluate, step_from)]
