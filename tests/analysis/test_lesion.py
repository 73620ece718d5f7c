"""Nets without a unit against an explicit composition, units exchanged, and the study of a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis.lesion import (
    exchangeable,
    find_units,
    kendall_tau,
    lesioned_logits,
    make_score,
    rearranged,
    run_lesion,
)
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import open_run
from resnet_jax.models import VGG, ResNet
from tests.models import reference as ref


def make(**fields):
    net = ResNet(
        **{"stage_sizes": (2, 2), "widths": (4, 6), "stem": "cifar", "num_classes": 5, "shortcut": "A"} | fields
    )
    x = ref.images(3, 8, 8, 3)
    return net, ref.random_variables(net, x), x


UNITS = (("stage1/block1", 4, 1), ("stage1/block2", 4, 1), ("stage2/block1", 6, 2), ("stage2/block2", 6, 1))


def composed(variables, x, removed, shortcut="A", order=UNITS):
    """Logits of the net above without some units, in NumPy: a removed one is left out of the sum."""
    w = ref.Weights(variables)
    x = ref.relu(w.bn("stem/bn", w.conv("stem/conv", x)))
    for (path, width, strides), (at, _, _) in zip(order, UNITS, strict=True):
        if shortcut == "none" and at in removed:
            continue
        inner = ref.relu(w.bn(f"{path}/bn1", w.conv(f"{path}/conv1", x, strides)))
        total = w.bn(f"{path}/bn2", w.conv(f"{path}/conv2", inner))
        if at in removed:
            total = 0
        if shortcut == "A":
            total = total + ref.option_a(x, strides, width)
        if shortcut == "C":
            total = total + w.bn(f"{path}/shortcut/bn", w.conv(f"{path}/shortcut/conv", x, strides))
        x = ref.relu(total)
    return w.dense("head", x.mean(axis=(1, 2)))


@pytest.mark.parametrize("shortcut", ["A", "C"])
@pytest.mark.parametrize("removed", [(), ("stage1/block2",), ("stage2/block1",), ("stage1/block1", "stage2/block2")])
def test_residual_against_a_composition_without(shortcut, removed):
    net, variables, x = make(shortcut=shortcut)
    keep = {path: path not in removed for path, _, _ in UNITS}
    ref.assert_close(lesioned_logits(net, variables, x, keep), composed(variables, x, removed, shortcut))


@pytest.mark.parametrize("removed", [(), ("stage1/block1",), ("stage1/block2", "stage2/block2")])
def test_plain_against_a_composition_without(removed):
    net, variables, x = make(shortcut="none")
    keep = {path: path not in removed for path, _, _ in UNITS if path != "stage2/block1"}
    ref.assert_close(lesioned_logits(net, variables, x, keep), composed(variables, x, removed, "none"))


@pytest.mark.parametrize(
    "fields",
    [{"activation": "full_preactivation"}, {"block": "bottleneck", "shortcut": "B"}, {"block": "single"}],
)
def test_a_unit_is_gone_when_none_of_its_weights_matters(fields):
    """Other units: the logits are the same whatever its residual's last kernel is, and are not so with it."""
    net, variables, x = make(**fields)
    path = "stage2/block2"
    changed = jax.tree.map(np.copy, variables)
    unit = changed["params"]["stage2"]["block2"]
    last = max(name for name in unit if name.startswith("conv"))
    unit[last]["kernel"] = 3 * unit[last]["kernel"] + 1
    one, other = (np.asarray(lesioned_logits(net, v, x, {path: False})) for v in (variables, changed))
    np.testing.assert_array_equal(one, other)
    assert np.abs(net.apply(variables, x) - net.apply(changed, x)).max() > 1e-3


def test_nothing_removed_is_the_net_and_remat_does_not_matter():
    net, variables, x = make(remat=True)
    np.testing.assert_allclose(lesioned_logits(net, variables, x, {}), net.apply(variables, x), rtol=1e-6)
    ref.assert_close(
        jax.jit(lambda keep: lesioned_logits(net, variables, x, {"stage1/block2": keep}))(jnp.array(False)),
        composed(variables, x, ("stage1/block2",)),
    )


def test_find_units():
    residual, plain = (find_units(make(shortcut=kind)[0], (8, 8, 3)) for kind in ("A", "none"))
    assert [unit.path for unit in residual] == [path for path, _, _ in UNITS]
    assert [unit.changes_shape for unit in residual] == [False, False, True, False]
    assert all(unit.removable for unit in residual)
    assert [unit.removable for unit in plain] == [True, True, False, True]
    assert find_units(VGG(stage_sizes=(1, 2), widths=(4, 6), hidden=7, num_classes=5), (8, 8, 3)) == []


def test_a_plain_unit_that_changes_the_shape_cannot_go():
    net, variables, x = make(shortcut="none")
    with pytest.raises(UserError, match="stage2/block1 of a plain net changes the shape"):
        lesioned_logits(net, variables, x, {"stage2/block1": False})


def test_exchanged_units_against_a_composition():
    net, variables, x = make()
    pairs = exchangeable(variables, find_units(net, (8, 8, 3)))
    assert pairs == [("stage1/block1", "stage1/block2")]
    moved = rearranged(variables, {"stage1/block1": "stage1/block2", "stage1/block2": "stage1/block1"})
    order = (UNITS[1], UNITS[0], *UNITS[2:])
    ref.assert_close(net.apply(moved, x), composed(variables, x, (), order=order))
    back = rearranged(moved, {"stage1/block1": "stage1/block2", "stage1/block2": "stage1/block1"})
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_what_can_be_exchanged():
    """With full pre-activation the first unit has no BN of its own; widths that repeat do not mix stages."""
    net, variables, _ = make(activation="full_preactivation", stage_sizes=(3, 3), widths=(4, 4))
    assert exchangeable(variables, find_units(net, (8, 8, 3))) == [
        ("stage1/block2", "stage1/block3"),
        ("stage2/block2", "stage2/block3"),
    ]


def test_kendall_tau():
    assert kendall_tau([0, 1, 2, 3]) == 1 and kendall_tau([3, 2, 1, 0]) == -1
    assert kendall_tau([1, 0, 2, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([0]) == 1


def test_study_of_a_run(residual):
    ticks = []
    path = run_lesion(residual, repeats=2, report=lambda done, total: ticks.append((done, total)))
    found = json.loads(path.read_text())
    run = open_run(residual)
    whole = run.trainer.evaluate(run.state)["test_error"]
    assert found["error"] == pytest.approx(whole)
    assert [entry["block"] for entry in found["single"]] == [
        f"stage{i}/block{j}" for i, size in ((1, 2), (2, 3), (3, 1)) for j in range(1, size + 1)
    ]
    assert [entry["count"] for entry in found["removed"]] == [1, 2, 3, 4]  # four of the six keep the shape
    assert [entry["count"] for entry in found["exchanged"]] == [1, 2]
    assert all(len(entry["errors"]) == 2 for entry in found["removed"] + found["exchanged"])
    # One of two pairs of neighbours exchanged is one of the six pairs of four units the other way round; both are two.
    assert [entry["kendall_tau"] for entry in found["exchanged"]] == [
        [pytest.approx(2 / 3)] * 2,
        [pytest.approx(1 / 3)] * 2,
    ]
    assert ticks[-1][0] == ticks[-1][1] == len(ticks)

    images, labels = run.trainer.pipeline.eval_batch(run.trainer.pipeline.test, np.arange(360))

    def error(variables, removed):
        keep = dict.fromkeys(removed, False)
        logits = lesioned_logits(run.trainer.model, variables, images, keep)
        return pytest.approx(100 * np.mean(np.argmax(logits, axis=1) != np.asarray(labels)))

    entry = next(entry for entry in found["single"] if entry["block"] == "stage2/block2")
    expected = error(run.variables, ["stage2/block2"])
    assert entry == {"block": "stage2/block2", "changes_shape": False, "error": expected}
    # All that can be removed, and all that can be exchanged, are the same whatever is drawn.
    keeping = [f"stage{i}/block{j}" for i, j in ((1, 1), (1, 2), (2, 2), (2, 3))]
    assert found["removed"][-1]["errors"] == [error(run.variables, keeping)] * 2
    a, b, c, d = keeping
    both = rearranged(run.variables, {a: b, b: a, c: d, d: c})
    assert found["exchanged"][-1]["errors"] == [error(both, [])] * 2
    again = json.loads(run_lesion(residual, repeats=2).read_text())
    assert again == found


def test_some_of_the_test_images(residual):
    """The errors are of the 50 images drawn, and the file says how many they were."""
    whole = json.loads(run_lesion(residual, repeats=1).read_text())
    some = json.loads(run_lesion(residual, repeats=1, images=50).read_text())
    assert some["settings"] == whole["settings"] | {"images": 50}
    errors = [some["error"], *(entry["error"] for entry in some["single"])]
    assert all(error % 2 == pytest.approx(0) for error in errors), "a share of 50"
    run = open_run(residual)
    chosen = np.random.Generator(np.random.Philox(0)).permutation(360)[:50]
    images, labels = run.trainer.pipeline.eval_batch(run.trainer.pipeline.test, np.sort(chosen))
    for entry in some["single"]:
        logits = lesioned_logits(run.trainer.model, run.variables, images, {entry["block"]: False})
        assert entry["error"] == pytest.approx(100 * np.mean(np.argmax(logits, axis=1) != np.asarray(labels)))
    with pytest.raises(UserError, match="images=361 must be between 1 and the 360 of the test set"):
        run_lesion(residual, images=361)


def test_a_plain_net_keeps_what_changes_its_shape(plain, tmp_path):
    found = json.loads(run_lesion(plain, repeats=1).read_text())
    kept = [entry["block"] for entry in found["single"] if entry["error"] is None]
    assert kept == ["stage2/block1", "stage3/block1"]
    with pytest.raises(UserError, match="repeats=0"):
        run_lesion(plain, repeats=0)
    run = open_run(plain)
    units = find_units(run.trainer.model, (8, 8, 1))
    with pytest.raises(AssertionError):
        make_score(run.trainer.model, units, run.trainer.pipeline, run.trainer.mesh)(run.variables, kept)
