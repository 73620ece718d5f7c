"""Mixed images and soft labels: mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), label smoothing (Szegedy 2016)."""

import jax
import jax.numpy as jnp
from jax import Array

from resnet_jax.data.erasing import inside


def smooth_labels(targets: Array, smoothing: float) -> Array:
    """Returns (1 - smoothing) * targets + smoothing / classes (Szegedy et al. 2016, section 7).

    Args:
      targets: (batch, classes), each row with the sum 1.
      smoothing: 0.1 in that paper.
    """
    return (1 - smoothing) * targets + smoothing / targets.shape[-1]


def mixup(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Mixes each example with another of the batch: weight * x_i + (1 - weight) * x_j, and their targets likewise.

    The batch has one weight, from Beta(alpha, alpha), and one permutation, as in the authors' code (Zhang et al. 2018,
    section 2).

    Args:
      key: random key.
      images: (batch, height, width, channels).
      targets: (batch, classes).
      alpha: 0.1 to 0.4 on ImageNet, 1 on CIFAR, in that paper.
    """
    weight_key, order_key = jax.random.split(key)
    weight = jax.random.beta(weight_key, alpha, alpha)
    order = jax.random.permutation(order_key, images.shape[0])
    return weight * images + (1 - weight) * images[order], weight * targets + (1 - weight) * targets[order]


def cutmix(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Replaces a rectangle of each image by that of another of the batch, and mixes targets by the share of pixels.

    The batch has one rectangle and one permutation. The rectangle's sides are those of the image times
    sqrt(1 - weight), with the weight from Beta(alpha, alpha); its centre is uniform. It is clipped to the image, and
    the weight is then the share of pixels that stay (Yun et al. 2019, section 3.2 and algorithm A1).

    Args:
      key: random key.
      images: (batch, height, width, channels).
      targets: (batch, classes).
      alpha: 1 in that paper.
    """
    batch, height, width, _ = images.shape
    weight_key, row_key, column_key, order_key = jax.random.split(key, 4)
    side = jnp.sqrt(1 - jax.random.beta(weight_key, alpha, alpha))

    def span(middle_key: Array, length: int) -> tuple[Array, Array]:
        cut = (length * side).astype(jnp.int32)
        middle = jax.random.randint(middle_key, (), 0, length)
        return tuple(jnp.clip(middle + end, 0, length) for end in (-(cut // 2), cut // 2))  # type: ignore[return-value]

    (top, bottom), (left, right) = span(row_key, height), span(column_key, width)
    mask = inside(top[None], left[None], (bottom - top)[None], (right - left)[None], height, width)
    order = jax.random.permutation(order_key, batch)
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return jnp.where(mask, images[order], images), weight * targets + (1 - weight) * targets[order]


def soften(key: Array, images: Array, labels: Array, classes: int, *, smoothing: float = 0.0, mixup_alpha: float = 0.0,
           cutmix_alpha: float = 0.0) -> tuple[Array, Array]:  # fmt: skip
    """Applies label smoothing, and mixup or CutMix, as far as they are on.

    With both mixes on, each batch gets one of them, with equal probability (Wightman et al. 2021, "ResNet strikes
    back", section 3).

    Args:
      key: random key.
      images: (batch, height, width, channels).
      labels: int32, (batch,).
      classes: number of classes.
      smoothing, mixup_alpha, cutmix_alpha: 0 is off.

    Returns:
      images, and targets (batch, classes); the labels themselves if all is off.
    """
    if not (smoothing or mixup_alpha or cutmix_alpha):
        return images, labels
    targets = smooth_labels(jax.nn.one_hot(labels, classes), smoothing)
    which_key, mix_key = jax.random.split(key)
    if mixup_alpha and cutmix_alpha:
        return jax.lax.cond(
            jax.random.bernoulli(which_key),
            lambda: mixup(mix_key, images, targets, mixup_alpha),
            lambda: cutmix(mix_key, images, targets, cutmix_alpha),
        )
    if mixup_alpha:
        return mixup(mix_key, images, targets, mixup_alpha)
    if cutmix_alpha:
        return cutmix(mix_key, images, targets, cutmix_alpha)
    return images, targets
