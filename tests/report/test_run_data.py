"""Reading run folders."""

import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.report.run_data import load_run


def test_a_run_has_the_curves_of_its_record(make_run):
    run = make_run("ResNet-20", "residual", train_error=0.0, test_error=10.0)

    assert run.result is not None and run.result.metrics["test_error"] == 10.0
    np.testing.assert_array_equal(run.train_steps, np.arange(54, 541, 54))
    np.testing.assert_allclose(run.train_errors, np.linspace(81, 0, 10), atol=1e-12)
    np.testing.assert_array_equal(run.test_steps, np.arange(108, 541, 108))
    np.testing.assert_allclose(run.test_errors, np.linspace(74, 10, 5))


def test_an_unfinished_run_has_no_result_but_its_lines(make_run):
    run = make_run("ResNet-20", "residual", finished=False)

    assert run.result is None
    assert run.train_steps.size == 10


def test_a_folder_that_does_not_exist_is_an_unfinished_run(tmp_path):
    run = load_run("ResNet-20", "residual", tmp_path / "nothing")

    assert run.result is None
    assert run.train_errors.shape == run.test_errors.shape == (0,)


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl"])
def test_a_damaged_record_is_named(make_run, name):
    folder = make_run("ResNet-20", "residual").workdir
    (folder / name).write_text("{damaged\n")

    with pytest.raises(UserError, match="ResNet-20"):
        load_run("ResNet-20", "residual", folder)
