"""Finds the net among all tensors of a file, wherever it lies there.

A file is one list of names: dicts and wrappers are dots in a name, as in `state_dict.module.layer1.0.conv1.weight`. A
net is where something before a dot is followed by a layout's first convolution and units. What that is, and what else
the file holds, needs no list of known wrappers.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from resnet_jax.errors import UserError, some
from resnet_jax.interop.architectures import named_by_tensors
from resnet_jax.interop.classifier import Classifier, classifier_of, is_beside_the_net
from resnet_jax.interop.layouts import COUNTER, LAYOUTS, Layout, Place, find_places
from resnet_jax.interop.structure import Structure, structure_of
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG

#: What PyTorch's wrappers of any module put into names, anywhere.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")

#: Says that weights are an average over training, which is what projects publish.
_AVERAGE = re.compile(r"(^|[._])ema([._]|$)")

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class FoundNet:
    """Holds which of a file's tensors are a net.

    Attributes:
      structure: the net, by their names and shapes.
      names: by the layout's name, the file's.
      extra: names inside of the net that its layout has no place for, as the file has them.
      notes: sentences on what was chosen and left out.
    """

    structure: Structure
    names: Mapping[str, str]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """Holds tensors that may be a net: what is before their names, and places by the layout's names."""

    layout: Layout
    prefix: str
    places: Mapping[str, Place]

    @property
    def label(self) -> str:
        return self.prefix.rstrip(".") or "the top"


def find_net(shapes: Shapes, what: str, key: str | None = None) -> FoundNet:
    """Finds the net in a file.

    Args:
      shapes: of all tensors, by name.
      what: the file, for errors.
      key: which net, if there are several: what is before its names, or some of it between dots, as "teacher".

    Raises:
      UserError: if there is none, several, or what there is does not say which net it is.
    """
    plain = _without_wrappers(shapes)
    candidates = _candidates(plain)
    if not candidates:
        raise _no_net(plain, what)
    chosen, structures, notes = _choose(candidates, plain, shapes, what, key)
    if len(plain) and any(name != own for name, own in plain.items()):
        words = sorted({word for own in plain.values() for word in own.split(".") if word in WRAPPERS})
        notes.append("names without " + ", ".join(f"'{word}.'" for word in words))
    if chosen.prefix:
        notes.insert(0, f"weights under {chosen.label!r}")
    return _found(chosen, structures, plain, shapes, what, notes)


def _without_wrappers(shapes: Shapes) -> dict[str, str]:
    """Returns the file's names by what they are without `WRAPPERS`; counters are left out."""
    plain: dict[str, str] = {}
    for name in shapes:
        if not name.endswith(COUNTER):
            short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
            plain[name if short in plain else short] = name
    return plain


def _candidates(plain: Mapping[str, str]) -> list[_Candidate]:
    """Returns what may be a net: all that has a first convolution and another. Of each, the layout that names most."""
    groups: dict[tuple[int, str], dict[str, Place]] = defaultdict(dict)
    for name in plain:
        for number, layout in enumerate(LAYOUTS):
            for prefix, place in find_places(layout, name):
                groups[number, prefix][name.removeprefix(prefix)] = place
    best: dict[str, _Candidate] = {}
    for (number, prefix), places in sorted(groups.items(), key=lambda group: -len(group[1])):
        modules = {place.module: name for name, place in places.items() if place.leaf in ("weight", "kernel")}
        needs = LAYOUTS[number].needs
        in_stages = (name.startswith("stage") and "/conv" in name for name in modules)
        if modules.keys() >= set(needs) and any(in_stages):
            # `resnet.` is a part of one layout's names and a wrapper of another's: it is the same net.
            best.setdefault(prefix + modules[needs[0]], _Candidate(LAYOUTS[number], prefix, places))
    return list(best.values())


def _choose(candidates: Sequence[_Candidate], plain: Mapping[str, str], shapes: Shapes, what: str, key: str | None
            ) -> tuple[_Candidate, Structure, list[str]]:  # fmt: skip
    """Returns the candidate that is a net, what net it is, and notes; raises UserError if there are none or several."""
    if key is not None:
        kept = [one for one in candidates if f".{key.strip('.')}." in f".{one.prefix}"]
        if not kept:
            raise UserError(f"{what} holds no net under {key!r}; it has one under {_labels(candidates)}")
        candidates = kept
    nets: list[tuple[_Candidate, Structure]] = []
    lacking = ""
    for one in candidates:
        try:
            nets.append((one, _structure(one, plain, shapes)))
        except (LookupError, ValueError) as error:
            lacking = lacking or str(error.args[0] if error.args else type(error).__name__)
    if not nets:
        raise UserError(
            f"{what} has {candidates[0].layout.name}'s names, but does not say what net it is of: {lacking}"
            + named_by_tensors(plain)
        )
    # An optimiser's moments have the weights' names, and no statistics.
    counted = [net for net in nets if any(p.leaf in ("running_mean", "mean") for p in net[0].places.values())]
    nets = counted or nets
    averaged = [net for net in nets if _AVERAGE.search(net[0].prefix)]
    notes = []
    if len(averaged) == 1 < len(nets):
        others = _labels([one for one, _ in nets if one is not averaged[0][0]])
        notes, nets = [f"of the nets in the file the average, not {others} (--key takes another)"], averaged
    if len(nets) > 1:
        raise UserError(
            f"{what} holds {len(nets)} nets, under {_labels([one for one, _ in nets])}: say which by --key=NAME of "
            "convert, as init_from takes what it writes"
        )
    return *nets[0], notes


def _labels(candidates: Sequence[_Candidate]) -> str:
    labels = sorted(one.label for one in candidates)
    return " and ".join(labels) if len(labels) < 7 else some(labels, 6)


def _structure(one: _Candidate, plain: Mapping[str, str], shapes: Shapes) -> Structure:
    return structure_of(
        one.layout, {name: (place, shapes[plain[one.prefix + name]]) for name, place in one.places.items()}
    )


def _found(one: _Candidate, structure: Structure, plain: Mapping[str, str], shapes: Shapes, what: str,
           notes: list[str]) -> FoundNet:  # fmt: skip
    """Returns the net with its classifier, and what of the file is left out."""
    # A head that segments or detects is of the layout; a classifier may have any name.
    detects = one.layout.net not in (ResNet, VGG)
    own_head = detects or structure.fields.get("head", "classifier") != "classifier"
    names = {n: plain[one.prefix + n] for n, place in one.places.items() if own_head or place.module != "head"}
    taken = set(names.values())
    rest = {name: own for name, own in plain.items() if own not in taken}
    if own_head:
        classifier = Classifier({}, structure.fields["num_classes"])
    else:
        classifier = classifier_of(one.layout, one.prefix, structure.features, rest, shapes)
    notes += classifier.notes
    names |= classifier.names
    taken = {*classifier.names.values(), *classifier.left_out}
    extra, beside = [], set()
    for name, own in rest.items():
        inner = name.removeprefix(one.prefix)
        if own in taken:
            continue
        if name.startswith(one.prefix) and not is_beside_the_net(inner):
            extra.append(inner)
        else:
            beside.add(_short(name))
    if beside:
        notes.append(f"left out, as no part of the net: {some(sorted(beside), 6)}")
    structure = dataclasses.replace(structure, fields=dict(structure.fields) | {"num_classes": classifier.num_classes})
    return FoundNet(structure, names, tuple(sorted(extra)), tuple(notes))


def _short(name: str) -> str:
    """Returns the parts of a name that say what it belongs to: `optimizer.state` of `optimizer.state.0.exp_avg`."""
    parts = name.split(".")
    return ".".join(parts[: 2 if len(parts) > 2 else len(parts)])


def _no_net(plain: Mapping[str, str], what: str) -> UserError:
    """Returns the error for a file without a net, that says which other net it may be of."""
    known = ", ".join(f"{one.name} ({one.projects})" for one in LAYOUTS)
    another = named_by_tensors(plain)
    return UserError(
        f"{what} is of no known layout: its tensors are named {some(sorted(plain), 4)}{another}; known: {known}"
    )
