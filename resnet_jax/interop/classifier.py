"""Finds a net's classifier among the tensors beside its layers, and tells what else may lie there."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping

from resnet_jax.errors import some
from resnet_jax.interop.layouts import Layout

#: What projects call a classifier, or the module that holds it.
CLASSIFIERS = (
    "fc", "linear", "head", "classifier", "last_linear", "heads", "cls_head", "classification_head", "logits",
    "linear_head", "output_layer",
)  # fmt: skip

#: A linear layer within such a module: alone, by its place in a Sequential, or by a name of its own.
_LAYER = re.compile(r"\w+(\.(\d+|fc|linear|head|classifier|layers?|out_proj))?")

#: What lies beside a net's layers and is no part of what it computes up to its average pool.
_BESIDE = re.compile(
    r"\w*head\w*|proj\w*|predict\w*|prototypes?\w*|contrast\w*|aux\w*|\w*loss\w*|criterion\w*|\w*metrics?|\w*acc\w*|"
    r"(train|val|valid|test)_\w+|dino\w*|queue\w*"
)

#: What Mask R-CNN and Keypoint R-CNN have beside a Faster R-CNN, whose boxes do not depend on it.
MASKS = re.compile(r"roi_heads\.(mask|keypoint)_")

#: Numbers that tools keep beside the tensors of each module: thop's counts, averages' lengths.
_TOOLS = ("total_ops", "total_params", "n_averaged", "decay", "num_updates")


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Holds the tensors of a classifier, if there is one that a net here can have.

    Attributes:
      names: by the layout's name, the file's; empty without a classifier.
      num_classes: its outputs; 0 without.
      notes: sentences on what was chosen or left out.
      left_out: the file's names of a classifier that no net here can have.
    """

    names: Mapping[str, str]
    num_classes: int
    notes: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()


def classifier_of(layout: Layout, prefix: str, features: int, rest: Mapping[str, str],
                  shapes: Mapping[str, tuple[int, ...]]) -> Classifier:  # fmt: skip
    """Returns the classifier of a net: one linear layer, by the layout's name, another's, or beside the net's wrapper.

    Args:
      layout, prefix: of the net.
      features: that the classifier gets.
      rest: the file's names, by what they are without wrappers, of all tensors but those of other layers.
      shapes: by the file's names.
    """
    if layout.flax:
        kernel = next((name for name in rest if name == "params/Dense_0/kernel"), None)
        names = {name: own for name, own in rest.items() if name.startswith("params/Dense_0/")}
        return Classifier(names if kernel else {}, shapes[rest[kernel]][-1] if kernel else 0)
    own = dict(layout.rows).get("head", "classifier.1")
    scope = prefix
    while True:
        groups: dict[str, list[str]] = defaultdict(list)
        for name in rest:
            first = name.removeprefix(scope).split(".")[0]
            if name.startswith(scope) and first in CLASSIFIERS and (scope == prefix or not name.startswith(prefix)):
                groups[first].append(name)
        if groups:
            order = sorted(groups, key=lambda first: (first != own.split(".")[0], CLASSIFIERS.index(first)))
            found = [_of_group(groups[first], own, features, rest, shapes, scope) for first in order]
            return next((one for one in found if one.names), found[0])
        if not scope:
            return Classifier({}, 0, ("the file has no classifier: the weights give features, not classes",))
        scope = scope.rstrip(".").rpartition(".")[0]
        scope += "." if scope else ""


def _of_group(group: list[str], own: str, features: int, rest: Mapping[str, str],
              shapes: Mapping[str, tuple[int, ...]], scope: str) -> Classifier:  # fmt: skip
    weights = [name for name in group if len(shapes[rest[name]]) > 1]
    if len(weights) == 1 and weights[0].endswith(".weight"):
        module, shape = weights[0].removesuffix(".weight"), shapes[rest[weights[0]]]
        linear = (len(shape) == 2 or shape[2:] == (1, 1)) and bool(_LAYER.fullmatch(module.removeprefix(scope)))
        known = {f"{module}.weight", f"{module}.bias"}
        others = [name for name in group if name not in known and name.rpartition(".")[2] not in _TOOLS]
        if linear and shape[1] == features and not others:
            names = {f"{own}.{name.rpartition('.')[2]}": rest[name] for name in group if name in known}
            notes = () if module == scope + own else (f"{module} is the classifier",)
            return Classifier(names, shape[0], notes)
        if linear and not others:
            what = f"{module} takes {shape[1]} features and not the {features} of the average pool"
        else:
            what = f"{some(sorted(group), 4)} are no single linear layer"
    else:
        what = f"{some(sorted(weights or group), 4)} are no single linear layer"
    return Classifier(
        {}, 0, (f"the classifier is left out, as {what}: the weights give features, not classes",),
        frozenset(rest[name] for name in group),
    )  # fmt: skip


def is_beside_the_net(name: str) -> bool:
    """Returns whether a name under the net's own is of no layer: a number, a buffer, a loss, a head of training."""
    first, _, more = name.partition(".")
    if MASKS.match(name):
        return True
    if name.rpartition(".")[2] in _TOOLS or not more:
        return True
    return first not in CLASSIFIERS and bool(_BESIDE.fullmatch(first))
