"""Runs tested by protocols: the files they leave, ensembles, and single view as it ever was."""

import csv
import json

import numpy as np
import pytest

from experiments.scores import evaluation
from resnet_jax.__main__ import main
from resnet_jax.errors import UserError
from resnet_jax.evaluation.evaluate_runs import evaluate_runs as run_test
from resnet_jax.evaluation.evaluation_files import write_evaluation
from resnet_jax.evaluation.measures import error
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.report.draw_evaluation import draw_evaluation
from resnet_jax.training.loop import fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained nets of different seeds."""
    from configs.digits import get_config

    folders = []
    for seed in (0, 1):
        config = get_config("resnet20")
        config.model.stage_sizes, config.model.widths, config.seed = (1, 1, 1), (4, 8, 8), seed
        config.update({"steps": 30, "batch_size": 16, "log_every": 10, "eval_every": 30, "checkpoint_every": 30})
        folders.append(tmp_path_factory.mktemp("runs") / f"seed{seed}")
        fit(config, folders[-1])
    return folders


def test_single_view_is_what_it_was(runs):
    """The same error as `evaluate`, whose way through the data and the net is another."""
    found, before = run_test([runs[0]]).result, evaluate(runs[0])
    assert found.test_error == before.test_error
    assert found.test_loss == pytest.approx(before.test_loss, rel=1e-5)
    assert (found.step, found.examples, found.evaluated_on) == (before.step, before.examples, before.evaluated_on)


def test_an_ensemble_averages_its_members(runs):
    members = [run_test([run], "ten_crop") for run in runs]
    both = run_test(runs, "ten_crop")
    np.testing.assert_allclose(both.scores, (members[0].scores + members[1].scores) / 2)
    assert both.result.test_error == error(both.scores, both.labels)
    assert (both.result.metric, both.result.protocol, both.result.step) == ("ensemble", "ten_crop", (30, 30))


def test_recomputed_statistics_change_scores(runs):
    as_trained, again = run_test([runs[0]]), run_test([runs[0]], recompute_bn=64)
    assert again.result.recompute_bn == 64
    assert 1e-4 < np.abs(again.scores - as_trained.scores).max()


def test_the_files_of_a_test(runs):
    """The experiments find the errors; classes and confusion add up to them."""
    tested = run_test([runs[0]], "multi_scale", scales=[8, 10])
    path = write_evaluation(tested, runs[0])
    pictures = draw_evaluation(tested, runs[0])
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    found = evaluation(runs[0], "multi_scale")
    assert found is not None and found == json.loads(path.read_text())
    assert found["test_error"] == tested.result.test_error and found["top5_error"] <= found["test_error"]
    assert {"protocol", "step", "commit", "config_hashes", "hardware"} <= found.keys()

    def table(kind):
        with (path.parent / f"multi_scale_{kind}.csv").open() as file:
            return list(csv.DictReader(file))

    classes = table("classes")
    wrong = sum(int(row["images"]) * float(row["error_percent"]) / 100 for row in classes)
    assert 100 * wrong / 360 == pytest.approx(found["test_error"], abs=1e-3)
    confusion = np.array([[int(v) for k, v in row.items() if k != "class"] for row in table("confusion")])
    assert confusion.sum() == 360 and 100 * (1 - np.trace(confusion) / 360) == pytest.approx(found["test_error"])
    assert sum(int(row["images"]) for row in table("calibration")) == 360


def test_command(runs, capsys):
    both = ",".join(map(str, runs))
    assert main(["evaluate", f"--workdir={both}", "--protocol=ten_crop", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["metric"] == "ensemble"
    assert json.loads((runs[0] / "evaluations/ensemble.json").read_text()) == found
    assert not (runs[1] / "evaluations/ensemble.json").exists()
    assert main(["evaluate", f"--workdir={runs[1]}", "--protocol=ten_crop", "--recompute_bn=16"]) == 0
    out, err = capsys.readouterr()
    assert "trained without mirror images, which are half" in err
    assert "ten crops of the image padded by 1 pixels" in out and "ten crop error" in out and "top-5" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--protocol=crop320"], "crop320 is for photographs"),
        (["--protocol=tencrop"], "did you mean ten_crop"),
        (["--protocol=multi_scale", "--scales=a"], "whole numbers of pixels"),
        (["--recompute_bn=-1"], "--recompute_bn=-1"),
    ],
)
def test_wrong_input_is_one_line(runs, capsys, flags, message):
    assert main(["evaluate", f"--workdir={runs[0]}", *flags]) == 2
    captured = capsys.readouterr().err.strip()
    assert message in captured and "\n" not in captured


def test_runs_of_other_data_are_no_ensemble(runs, tiny_config, tmp_path):
    fit(tiny_config(data__held_out=100), tmp_path / "other")
    with pytest.raises(UserError, match="config.data.held_out=100 and the first run 0"):
        run_test([runs[0], tmp_path / "other"])
