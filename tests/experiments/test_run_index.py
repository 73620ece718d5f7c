"""Runs found by their config, and the rows that they fill."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from experiments.experiment import RECOMPUTE_BN, Row, row_config, run_folder
from experiments.plan import State, Trial, status
from experiments.registry import load
from experiments.run_index import index_runs
from experiments.scores import run_errors
from experiments.tables import fill, net_summary
from resnet_jax.config import config_hash
from resnet_jax.errors import UserError
from resnet_jax.report.run_data import load_run
from tests.experiments.fakes import BEST, write_row, write_run


def row(experiment, name):
    return next(row for row in load(experiment).rows if row.name == name)


def entries(experiment, root, changes=None):
    filled = fill(load(experiment), index_runs(root), changes, with_computed=False)
    return {entry.key: entry for entry in filled.entries}


RESNET20 = row("he2015.table6", "resnet20")


def test_seeds_are_found_wherever_their_folders_lie(tmp_path):
    first, second = write_row(tmp_path / "a", RESNET20, [8.5, 8.7])
    shutil.move(second, tmp_path / "deep" / "under" / "another name")
    (first / "checkpoints" / "1").mkdir(parents=True)
    (first / "checkpoints" / "1" / "config.json").write_text("not a run")
    index = index_runs(tmp_path)
    assert [found.seed for found in index.find(RESNET20)] == [0, 1]
    assert index.unreadable == ()
    assert index.find(row("he2015.table6", "resnet32")) == []
    entry = entries("he2015.table6", tmp_path)["resnet20-1"]
    assert entry.done == 2 and entry.measures[0].ours.values == (8.5, 8.7)


def test_a_run_is_the_same_however_it_is_carried_out(tmp_path):
    config = row_config(RESNET20, 3)
    config.data.data_dir, config.steps_per_dispatch, config.checkpoint_every = "/elsewhere", 7, 10
    write_run(tmp_path, config, 8.4)
    assert [found.seed for found in index_runs(tmp_path).find(RESNET20)] == [3]
    config.dtype = "bfloat16"
    write_run(tmp_path, config, 8.3)
    assert len(index_runs(tmp_path).find(RESNET20)) == 1
    assert len(index_runs(tmp_path).find(RESNET20, changes={"dtype": "bfloat16"})) == 1


def test_a_run_counts_however_often_it_was_evaluated(tmp_path):
    """But not where evaluations decide when it ends."""
    write_row(tmp_path, RESNET20, [14.0], scale=0.1)
    rare = row_config(RESNET20, 1, 0.1, {"eval_every": 1600})
    assert rare.eval_every == 160 and config_hash(rare) != config_hash(row_config(RESNET20, 1, 0.1))
    write_run(tmp_path, rare, 15.0)
    index = index_runs(tmp_path)
    assert [found.seed for found in index.find(RESNET20, 0.1)] == [0, 1]
    assert entries("he2015.table6", tmp_path)["resnet20-0.1"].measures[0].ours.values == (14.0, 15.0)
    stops = {"early_stopping.patience": 3, "data.held_out": 5000}
    write_run(tmp_path / "stops", row_config(RESNET20, 0, 0.1, stops | {"eval_every": 1600}), 16.0)
    index = index_runs(tmp_path / "stops")
    assert index.find(RESNET20, 0.1, stops) == [] and index.find(RESNET20, 0.1, stops | {"eval_every": 1600})


def test_two_records_of_one_run_count_once(tmp_path):
    write_run(tmp_path / "a", row_config(RESNET20), 8.5, finished=False)
    write_run(tmp_path / "b", row_config(RESNET20), 8.6)
    entry = entries("he2015.table6", tmp_path)["resnet20-1"]
    assert (entry.done, entry.unfinished, entry.measures[0].ours.values) == (1, 0, (8.6,))


def test_short_runs_never_mix_with_whole_ones(tmp_path):
    write_row(tmp_path, RESNET20, [8.5, 8.7])
    write_row(tmp_path, RESNET20, [20.0, 21.0, 22.0], scale=0.05)
    found = entries("he2015.table6", tmp_path)
    assert found["resnet20-1"].measures[0].ours.values == (8.5, 8.7) and found["resnet20-1"].full
    short = found["resnet20-0.05"]
    assert short.measures[0].ours.values == (20, 21, 22) and not short.full
    assert list(found).index("resnet20-1") + 1 == list(found).index("resnet20-0.05")


def test_held_out_errors_never_pass_for_test_errors(tmp_path):
    write_row(tmp_path, RESNET20, [8.5])
    held = row_config(RESNET20, changes={"data.held_out": 5000})
    write_run(tmp_path, held, 5.0)
    found = entries("he2015.table6", tmp_path)
    assert [key for key in found if key.startswith("resnet20")] == ["resnet20-1"]
    assert found["resnet20-1"].measures[0].ours.values == (8.5,)
    asked = entries("he2015.table6", tmp_path, {"data.held_out": 5000})["resnet20-1-held-out"]
    assert asked.held_out and not asked.full and asked.measures[0].ours.values == (5.0,)


def test_the_best_on_the_test_set_is_never_taken(tmp_path):
    (folder,) = write_row(tmp_path, RESNET20, [8.5])
    run = load_run("", "", folder)
    assert run.result.metrics["best_test_error"] == BEST
    assert run_errors(run, "test_error")[0]["error"] == 8.5 and run_errors(run, "train_error")[0]["error"] == 1.0


def test_other_ways_of_testing_are_read_from_their_files(tmp_path):
    (folder,) = write_row(tmp_path, row("he2015.table3", "resnet34_A"), [7.8])
    run = load_run("", "", folder)
    assert run_errors(run, "ten_crop", RECOMPUTE_BN) == ({"error": 17.8, "top1": 17.8, "top5": 7.8}, "")
    assert run_errors(run, "ensemble") == ({}, "")
    path = folder / "evaluations" / "ten_crop.json"
    path.write_text(json.dumps({"evaluated_on": "held_out", "test_error": 1.0, "top5_error": 1.0}))
    assert run_errors(run, "ten_crop") == ({}, "")
    path.write_text("[")
    errors, sentence = run_errors(run, "ten_crop")
    assert errors == {} and re.search(r"cannot read .*ten_crop.json", sentence)
    entry = entries("he2015.table2", tmp_path / "none")["resnet34-1"]
    assert entry.measures[0].ours is None and entry.wanted == 1


@pytest.mark.parametrize(
    ("table", "name", "metric", "change", "reason"),
    [
        ("table4", "resnet34_B", "multi_scale", {"shorter_sides": [256]}, r"shorter sides \[256\], .* \[224, 256, 384"),
        ("table4", "resnet34_B", "multi_scale", {"recompute_bn": 0}, "of 0 images, .*--recompute_bn=50000"),
        ("table4", "resnet34_B", "multi_scale", {"pool_size": None}, "all positions at once"),
        ("table3", "resnet34_B", "ten_crop", {"crop": 160}, "crops had 160 pixels, and the paper's 224"),
        ("table3", "resnet34_B", "ten_crop", {"protocol": "centre_crop"}, "tested by centre_crop, .* ten_crop"),
        ("table3", "resnet34_B", "ten_crop", {"step": 7}, "of the weights of step 7, and the run ends with .* 600000"),
        ("table3", "resnet34_B", "ten_crop", {"config_hashes": ["0" * 12]}, "of another config than the run"),
        ("table3", "resnet34_B", "ten_crop", {"shorter_sides": None}, "shorter sides None, .* \\[256\\]"),
    ],
)
def test_an_evaluation_that_is_not_the_rows_is_left_out_and_said(tmp_path, table, name, metric, change, reason):
    """A record of one scale was once taken as table 4's five."""
    experiment = load(f"he2015.{table}")
    (folder,) = write_row(tmp_path, row(experiment.name, name), [7.8])
    assert entries(experiment.name, tmp_path)[f"{name}-1"].measures[0].ours.values == (17.8,)
    path = folder / "evaluations" / f"{metric}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    filled = fill(experiment, index_runs(tmp_path), with_computed=False)
    (entry,) = (entry for entry in filled.entries if entry.name == name)
    assert entry.measures[0].ours is None
    (sentence,) = filled.left_out
    assert re.search(reason, sentence) and f"{folder.name}/evaluations/{metric}.json is left out" in sentence


def test_the_row_of_another_code_is_tested_with_its_running_statistics(tmp_path):
    """fb.resnet.torch does not compute them again."""
    name = "resnet200_preactivation_aspect"
    (folder,) = write_row(tmp_path, row("he2016.table5", name), [4.8])
    assert entries("he2016.table5", tmp_path)[f"{name}-1"].measures[0].ours.values == (14.8,)
    path = folder / "evaluations" / "single_crop_320.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recompute_bn": 50_000}))
    assert entries("he2016.table5", tmp_path)[f"{name}-1"].measures[0].ours is None


def test_unfinished_runs_are_counted_apart(tmp_path):
    write_row(tmp_path, RESNET20, [8.5], finished=False)
    entry = entries("he2015.table6", tmp_path)["resnet20-1"]
    assert (entry.done, entry.unfinished, entry.measures[0].ours) == (0, 1, None)


def test_folders_that_cannot_be_read_are_named(tmp_path):
    for name, text in (("a", "{"), ("b", '{"unknown_field": 1}'), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    index = index_runs(tmp_path)
    assert len(index.unreadable) == 3 and not index.runs
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a folder"):
        index_runs(tmp_path / "file")


def test_pairs_are_of_one_length(tmp_path):
    write_row(tmp_path, RESNET20, [8.5, 8.7])
    write_row(tmp_path, row("he2015.table6", "resnet32"), [7.5, 7.7], scale=0.05)
    found = entries("he2015.table6", tmp_path)
    assert found["resnet32-0.05"].difference is None and found["resnet32-0.05"].against == "ResNet-20"
    assert found["resnet32-0.05"].paper_difference == pytest.approx(7.51 - 8.75)
    write_row(tmp_path, row("he2015.table6", "resnet32"), [7.5, 7.7])
    assert entries("he2015.table6", tmp_path)["resnet32-1"].difference.mean == pytest.approx(-1)
    # Where the paper prints its best, a difference of means takes its mean.
    assert entries("he2016.table4", tmp_path)["cifar10_resnet1001-1"].paper_difference == pytest.approx(4.92 - 5.46)
    assert found["resnet110-1"].paper_difference == pytest.approx(6.61 - 6.97)


@pytest.mark.parametrize("name", ["he2015.table1"])
def test_architectures_agree_with_the_paper(name):
    """Depth exactly, multiply-adds within 2 %: see docs/fidelity.md."""
    for entry in fill(load(name), index_runs("none")).entries:
        layers, _, flops = entry.computed
        assert layers.ours == layers.paper and flops.ours == pytest.approx(flops.paper, rel=0.02), entry.name


def test_parameters_of_cifar_nets_agree_with_the_papers():
    for name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"):
        found = row("he2015.table6", name)
        summary = net_summary(found)
        assert summary.depth == found.paper[0] and summary.params / 1e6 == pytest.approx(found.paper[1], rel=0.02)
    hundred = net_summary(Row("a", "A", "cifar100:resnet20")).params
    assert hundred == net_summary(RESNET20).params + 90 * 65


def test_a_shrunk_row_says_so_in_its_config():
    config = row_config(RESNET20, 1, 0.05)
    assert (config.steps, config.steps_scale, config.seed) == (3200, 0.05, 1)
    assert run_folder(Path("x"), config) != run_folder(Path("x"), row_config(RESNET20, 1))
    # All of the schedule is shorter: a warm-up of 400 steps would be an eighth of these.
    warmed = row_config(row("he2016.table2", "original_resnet164"), 0, 0.05)
    assert (warmed.schedule.warmup_steps, warmed.schedule.boundaries) == (20, (0.5, 0.75))
    assert (warmed.log_every, warmed.eval_every, warmed.checkpoint_every) == (5, 40, 100)


def test_a_run_that_began_with_weights_is_its_rows(tmp_path):
    """What a run took from its weights stands in its record: their digest, pixels' mean, fields of their net."""
    experiment = load("he2015.table7")
    resnet101 = row("he2015.table7", "resnet101")
    config = row_config(resnet101)
    asked = config_hash(config)
    config.init_from, config.init_hash = "/somewhere", "0123456789ab"
    config.data.mean, config.model.stride_on = (0.4, 0.4, 0.4), "3x3"
    assert config_hash(config) != asked
    folder = write_run(tmp_path, config, 77.0)
    trial = Trial(row_config(resnet101, changes={"init_from": "/elsewhere"}), folder, "resnet101")
    assert status(trial).state is State.DONE
    filled = {entry.name: entry for entry in fill(experiment, index_runs(tmp_path), with_computed=False).entries}
    (measure,) = filled["resnet101"].measures
    assert (measure.ours.values, measure.paper, measure.difference) == ((77.0,), 76.4, pytest.approx(0.6))
    assert filled["vgg16"].measures[0].ours is None
    config.model.context = True  # no row of this table has it
    other = write_run(tmp_path / "other", config, 78.0)
    assert status(dataclasses.replace(trial, folder=other)).state is State.FAILED
    entries_of_others = fill(experiment, index_runs(tmp_path / "other"), with_computed=False).entries
    assert all(entry.done == 0 for entry in entries_of_others)


def test_a_run_that_began_with_weights_is_no_run_of_a_row_without(tmp_path):
    """It is neither drawn as the row nor taken for done, whatever fields its weights filled in."""
    digits = next(row for row in load("he2015.figure7.digits").rows if row.name == "resnet20")
    config = row_config(digits)
    config.init_from, config.init_hash = "/somewhere", "0123456789ab"
    folder = write_run(tmp_path, config, 1.0)
    index = index_runs(tmp_path)
    assert index.find(digits) == [] and not index.unreadable
    assert all(entry.done == 0 for entry in entries("he2015.figure7.digits", tmp_path).values())
    trial = Trial(row_config(digits), folder, "resnet20")
    assert status(trial).state is not State.DONE
    write_run(tmp_path, row_config(digits), 5.0)
    assert [found.folder.name for found in index_runs(tmp_path).find(digits)] == [
        run_folder(tmp_path, row_config(digits)).name
    ]


@pytest.mark.parametrize(
    ("name", "metric", "change", "reason"),
    [
        ("multi_scale", "refined_multi_scale", {"shorter_sides": [400, 600]},
         r"shorter sides \[400, 600\], .* \[200, 400, 600, 800, 1000\]"),
        ("multi_scale", "refined_multi_scale", {"protocol": "multi_scale"}, "by multi_scale, .* refined_multi_scale"),
        ("multi_scale", "refined_multi_scale", {"shorter_sides": None}, r"shorter sides None, .* \[200, 400"),
        ("box_refinement", "box_refinement", {"protocol": "whole_image"}, "by whole_image, .* box_refinement"),
        ("box_refinement", "box_refinement", {"shorter_sides": [800]}, r"shorter sides \[800\], .* \[600\]"),
    ],
)  # fmt: skip
def test_a_detectors_evaluation_that_is_not_the_papers_is_left_out_and_said(tmp_path, name, metric, change, reason):
    """He et al. 2015, appendix B: shorter sides of 200, 400, 600, 800 and 1,000 pixels."""
    (folder,) = write_row(tmp_path, row("he2015.table9", name), [48.0], evaluated_on="validation")
    assert entries("he2015.table9", tmp_path)[f"{name}-1"].measures[0].ours.values == (49.0,)
    path = folder / "evaluations" / f"{metric}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    filled = fill(load("he2015.table9"), index_runs(tmp_path), with_computed=False)
    assert next(entry for entry in filled.entries if entry.name == name).measures[0].ours is None
    (sentence,) = filled.left_out
    assert re.search(reason, sentence) and f"{folder.name}/evaluations/{metric}.json is left out" in sentence


def test_a_detectors_sizes_are_shares_of_the_runs_own(tmp_path):
    """A smaller net, whose table says that it has another size than the paper's, is tested at a third to 5/3 of it."""
    changes = {"data.image_size": 300}
    multi_scale = row("he2015.table9", "multi_scale")
    smaller = dataclasses.replace(multi_scale, changes={**multi_scale.changes, **changes})
    (folder,) = write_row(tmp_path, smaller, [48.0], evaluated_on="validation")
    path = folder / "evaluations" / "refined_multi_scale.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shorter_sides": [100, 200, 300, 400, 500]}))
    assert entries("he2015.table9", tmp_path, changes)["multi_scale-1"].measures[0].ours.values == (49.0,)


def test_average_precision_is_better_the_higher_and_of_the_validation_images(tmp_path):
    """The best of several is the highest; numbers of COCO's validation images are what tables 8 and 9 print."""
    box_refinement = row("he2015.table9", "box_refinement")
    write_row(tmp_path, box_refinement, [48.0, 49.0], evaluated_on="validation")
    write_row(tmp_path / "test", row("he2015.table9", "context"), [60.0])
    found = entries("he2015.table9", tmp_path)
    assert {(m.heading, m.ours.best, m.ours.mean) for m in found["resnet101-1"].measures} == {
        ("AP at 0.5 (%)", 49.0, 48.5), ("AP at 0.5 to 0.95 (%)", 29.0, 28.5)
    }  # fmt: skip
    assert [measure.ours.values for measure in found["box_refinement-1"].measures] == [(49.0, 50.0), (29.0, 30.0)]
    assert found["box_refinement-1"].difference.mean == pytest.approx(1.0)
    assert found["context-1-held-out"].held_out and "context-1" not in found
    assert [fact.paper for fact in found["context-1-held-out"].computed] == []
