"""A unit of compiled layers against PyTorch."""

import functools

import jax
import numpy as np
import pytest

from resnet_jax.kernels.build import switched_off
from resnet_jax.models import layers
from resnet_jax.models.blocks import ORDERS, Unit
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.shortcuts import Shortcut
from tests.kernels.direct import calls
from tests.models import reference


def torch_unit(params, images, cotangent):
    """The gradients of a strided basic unit with a projection, in training, by PyTorch in float64: images first."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def parameter(x):
        x = torch.tensor(np.asarray(x, np.float64))
        return (x.permute(3, 2, 0, 1) if x.ndim == 4 else x).clone().requires_grad_()

    def conv_and_norm(x, conv, norm, stride, padding):
        x = torch.nn.functional.conv2d(x, conv["kernel"], stride=stride, padding=padding)
        return torch.nn.functional.batch_norm(x, None, None, norm["scale"], norm["bias"], training=True, eps=1e-5)

    p = jax.tree.map(parameter, params)
    x = torch.tensor(images.astype(np.float64)).permute(0, 3, 1, 2).clone().requires_grad_()
    y = conv_and_norm(x, p["conv1"], p["bn1"], 2, 1).relu()
    y = conv_and_norm(y, p["conv2"], p["bn2"], 1, 1)
    y = (y + conv_and_norm(x, p["shortcut"]["conv"], p["shortcut"]["bn"], 2, 0)).relu()
    y.backward(torch.tensor(cotangent.astype(np.float64)).permute(0, 3, 1, 2))

    def gradient(x):
        x = x.grad
        return (x.permute(2, 3, 1, 0) if x.shape[2:] in ((1, 1), (3, 3)) else x).numpy()

    return [x.grad.permute(0, 2, 3, 1).numpy(), *map(gradient, jax.tree.leaves(p))]


def test_the_gradients_of_a_unit_are_pytorchs(kernels):
    """As near to PyTorch's in float64 as with XLA's own layers: twice as far is allowed, as both round alike."""
    unit = Unit(
        "basic",
        ORDERS["original"],
        32,
        2,
        "1x1",
        False,
        layers.conv,
        BatchNorm,
        BatchNorm,
        functools.partial(Shortcut, kind="B"),
    )
    images, cotangent = reference.images(8, 8, 8, 16), reference.images(8, 4, 4, 32, seed=1)
    variables = reference.random_variables(unit, images, train=False)

    def gradients_of_the_unit():
        def apply(images, params):
            tree = {**variables, "params": params}
            return unit.apply(tree, images, train=True, mutable=["batch_stats"])[0]

        def call(images, params):
            return jax.vjp(apply, images, params)[1](cotangent)

        return calls(call, images, variables["params"]), jax.tree.leaves(jax.jit(call)(images, variables["params"]))

    count, ours = gradients_of_the_unit()
    with switched_off():
        none, xlas = gradients_of_the_unit()
    # Three convolutions' outputs and images' gradients, two kernels' that are not 1x1; three batch norms and gradients.
    assert count == 8 + 6 and none == 0
    torchs = torch_unit(variables["params"], images, cotangent)
    assert len(ours) == len(xlas) == len(torchs) == 10
    for x, y, expected in zip(ours, xlas, torchs, strict=True):
        assert x.shape == expected.shape
        distance = [np.sqrt(np.mean((np.asarray(z, np.float64) - expected) ** 2)) for z in (x, y)]
        size = np.sqrt(np.mean(expected**2))
        assert distance[0] <= 2 * distance[1] <= 1e-5 * size
