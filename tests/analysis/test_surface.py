"""Filter normalisation against its formula, and the loss around a run's solution."""

import json

import numpy as np
import pytest

from resnet_jax.analysis import surface
from resnet_jax.analysis.surface import filter_normalised, loss_surface, make_evaluate, random_direction, run_surface
from resnet_jax.errors import UserError
from resnet_jax.evaluation.open_run import open_run


def tree(rng, scale=1.0):
    return {
        "conv": {"kernel": scale * rng.normal(size=(3, 3, 2, 4))},
        "bn": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)},
        "head": {"kernel": scale * rng.normal(size=(4, 5)), "bias": rng.normal(size=5)},
    }


def test_each_filter_is_as_long_as_the_net_s():
    rng = np.random.default_rng(0)
    direction, params = tree(rng), tree(rng, 7.0)
    found = filter_normalised(direction, params)
    for j in range(4):
        d, w = direction["conv"]["kernel"][..., j], params["conv"]["kernel"][..., j]
        expected = d / np.linalg.norm(d.ravel()) * np.linalg.norm(w.ravel())
        np.testing.assert_allclose(found["conv"]["kernel"][..., j], expected, rtol=1e-6)
    for j in range(5):
        d, w = direction["head"]["kernel"][:, j], params["head"]["kernel"][:, j]
        np.testing.assert_allclose(found["head"]["kernel"][:, j], d / np.linalg.norm(d) * np.linalg.norm(w), rtol=1e-6)
    for path in (("bn", "scale"), ("bn", "bias"), ("head", "bias")):
        assert not found[path[0]][path[1]].any()


def test_a_filter_of_zeros_stays():
    """As a zero-initialised one does: there is no length to give."""
    params = {"kernel": np.zeros((3, 3, 1, 2))}
    assert not filter_normalised({"kernel": np.ones((3, 3, 1, 2))}, params)["kernel"].any()
    assert np.isfinite(filter_normalised(params, {"kernel": np.ones((3, 3, 1, 2))})["kernel"]).all()


def test_directions_are_those_of_their_seed():
    params = tree(np.random.default_rng(0))
    one, again, other = (random_direction(params, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["conv"]["kernel"], again["conv"]["kernel"])
    a, b = one["conv"]["kernel"].ravel(), other["conv"]["kernel"].ravel()
    assert abs(a @ b) < 0.5 * np.linalg.norm(a) * np.linalg.norm(b)


def test_the_grid_is_where_it_says():
    """A quadratic loss, whose value at each point is known."""
    params, x, y = np.zeros(2, np.float32), np.array([1, 0], np.float32), np.array([0, 1], np.float32)

    def evaluate(p):
        return float(p[0] + 10 * p[1] ** 2), float(p[1])

    rows = loss_surface(evaluate, params, (x, y), (-1.0, 0.0, 2.0), (0.0, 3.0))
    assert rows == [([-1.0, 0.0, 2.0], [0.0] * 3), ([89.0, 90.0, 92.0], [3.0] * 3)]
    line = loss_surface(evaluate, params, (x,), (-1.0, 0.0), (0.0,))
    assert line == [([-1.0, 0.0], [0.0, 0.0])]
    assert loss_surface(lambda p: (float("inf"), 90.0), params, (x,), (0.0,), (0.0,)) == [([None], [90.0])]


def test_the_centre_is_the_run_s_own_loss(residual):
    path = run_surface(residual, points=3, span=0.5)
    found = json.loads(path.read_text())
    assert found["x"] == found["y"] == [-0.5, 0.0, 0.5]
    assert np.shape(found["loss"]) == np.shape(found["error"]) == (3, 3)
    run = open_run(residual)
    loss, error = loss_and_error(run, run.trainer.pipeline.train_size)
    assert (found["loss"][1][1], found["error"][1][1]) == (pytest.approx(loss, rel=1e-4), pytest.approx(error))


def test_a_killed_grid_goes_on(residual, monkeypatch):
    """What was done is not done again, and the whole is the same."""
    path = run_surface(residual, points=3, images=100)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"loss": whole["loss"][:2], "error": whole["error"][:2]}))
    evaluations = []

    def counted(*arguments):
        evaluate = make_evaluate(*arguments)
        return lambda params: (evaluations.append(1), evaluate(params))[1]

    monkeypatch.setattr(surface, "make_evaluate", counted)
    ticks = []
    run_surface(residual, points=3, images=100, report=lambda done, total: ticks.append((done, total)))
    assert len(evaluations) == 3 and ticks == [(7, 9), (8, 9), (9, 9)]
    assert json.loads(path.read_text()) == whole
    with pytest.raises(UserError, match=r"images: 100 there, 0 here"):
        run_surface(residual, points=3)


def test_a_line_is_the_plane_s_middle(runs):
    one = json.loads(run_surface(runs[0], points=3, images=50).read_text())
    (runs[0] / "surface.json").unlink()
    line = json.loads(run_surface(runs[0], points=3, images=50, dimensions=1).read_text())
    assert line["y"] == [0.0]
    np.testing.assert_allclose(line["loss"][0], one["loss"][1], rtol=1e-5)


def loss_and_error(run, images):
    """Of so many training images, the first of a permutation, in NumPy."""
    pipeline = run.trainer.pipeline
    chosen = np.random.Generator(np.random.Philox(0)).permutation(pipeline.train_size)[:images]
    pixels, labels = (np.asarray(array) for array in pipeline.eval_batch(pipeline.train, chosen))
    logits = np.float64(run.trainer.model.apply(run.variables, pixels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return losses.mean(), 100 * np.mean(logits.argmax(axis=1) != labels)


def test_a_subset_counts_each_image_once(residual):
    """An odd number on eight devices, whose batch is filled up."""
    run = open_run(residual)
    for count in (1, 13):
        assert make_evaluate(run, count)(run.state.params) == pytest.approx(loss_and_error(run, count), rel=1e-4)
    with pytest.raises(UserError, match="between 1 and the 1437"):
        make_evaluate(run, 1438)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, "points=4 must be odd"),
        ({"points": 1}, "points=1 must be odd, and 3 or more"),
        ({"span": 0.0}, "span=0.0 must be above 0"),
        ({"span": float("inf")}, "span=inf must be above 0"),
        ({"dimensions": 3}, "dimensions=3 1 or 2"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, options, message):
    """Said ahead of all else: the folder holds no run."""
    with pytest.raises(UserError, match=message):
        run_surface(tmp_path, **options)
    assert not list(tmp_path.iterdir())
