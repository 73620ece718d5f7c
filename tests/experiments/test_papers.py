"""The rows of tables and figures: what two tables print alike, what rows share, what is listed."""

import dataclasses

import pytest

from experiments import registry
from experiments.experiment import HIGHER_IS_BETTER, Experiment, Row, row_config, runnable, statistic
from experiments.registry import load
from resnet_jax.config import config_hash, flatten
from resnet_jax.errors import UserError
from resnet_jax.report.run_statistics import spread
from resnet_jax.training.config_checks import validate_config


def numbers(name, column):
    """{row: number} of a table's column, without empty cells."""
    experiment = load(name)
    place = experiment.columns.index(column)
    return {row.name: row.paper[place] for row in experiment.rows if row.paper and row.paper[place] is not None}


def test_numbers_that_the_papers_print_twice_are_the_same_here():
    table2, table3 = numbers("he2015.table2", "top1"), numbers("he2015.table3", "top1")
    assert (table2["plain34"], table2["resnet34"]) == (table3["plain34"], table3["resnet34_A"]) == (28.54, 25.03)
    deepest = numbers("he2015.table6", "mean")["resnet110"]
    table1, units = numbers("he2016.table1", "error"), numbers("he2016.table2", "error")
    assert deepest == table1["original"] == units["original_resnet110"] == 6.61
    by_depth, others = numbers("he2016.table3", "error"), numbers("he2016.table4", "error")
    for net in ("resnet110", "resnet164"):
        assert by_depth[f"cifar10_{net}_original_unit"] == units[f"original_{net}"]
        assert by_depth[f"cifar10_{net}_preactivation_unit"] == units[f"full_preactivation_{net}"]
    for data, net in (("cifar10", "resnet164"), ("cifar10", "resnet1001"), ("cifar100", "resnet164"),
                      ("cifar100", "resnet1001")):  # fmt: skip
        assert others[f"{data}_{net}"] == by_depth[f"{data}_{net}_preactivation_unit"]
    for data, net in (("cifar10", "resnet110"), ("cifar100", "resnet164"), ("cifar100", "resnet1001")):
        assert others[f"{data}_{net}_original"] == by_depth[f"{data}_{net}_original_unit"]
    assert others["cifar10_resnet1202_original"] == numbers("he2015.table6", "error")["resnet1202"] == 7.93
    older, newer = numbers("he2015.table6", "error"), numbers("he2016.table4", "error")
    assert [older[n] for n in ("nin", "dsn", "fitnet")] == [newer[f"cifar10_{n}"] for n in ("nin", "dsn", "fitnet")]


def test_numbers_of_the_abstracts_and_the_authors_pages():
    """2016 abstract: 4.62 %; 2015 abstract: 3.57 %; README of the 2015 models: ten crops, rounded."""
    assert numbers("he2016.table4", "error")["cifar10_resnet1001_batch64"] == 4.62
    assert numbers("he2015.table5", "top5")["resnet_ensemble"] == 3.57
    rounded = {"resnet50": (22.9, 6.7), "resnet101": (21.8, 6.1), "resnet152": (21.4, 5.7)}
    for net, printed in rounded.items():
        found = (numbers("he2015.table3", "top1")[net], numbers("he2015.table3", "top5")[net])
        assert found == pytest.approx(printed, abs=0.051)


def test_detection_is_as_the_paper_prints_it():
    """The issue's and the summary's numbers: ResNet-101 against VGG-16, 3.2 on VOC 2007 and 28 % of COCO's AP."""
    assert numbers("he2015.table7", "ap50") == {
        "vgg16": 73.2, "resnet101": 76.4, "vgg16_12": 70.4, "resnet101_12": 73.8
    }  # fmt: skip
    for column in ("ap50", "ap"):
        table8, table9 = numbers("he2015.table8", column), numbers("he2015.table9", column)
        assert table8.items() <= table9.items()
    ap = numbers("he2015.table8", "ap")
    assert ap["resnet101"] - ap["vgg16"] == pytest.approx(6.0)
    assert [numbers("he2015.table9", column)["multi_scale"] for column in ("ap50", "ap", "test_dev_ap50", "test_dev_ap")
            ] == [53.8, 32.5, 55.7, 34.9]  # fmt: skip
    assert numbers("he2015.table9", "test_dev_ap") == {"context": 32.2, "multi_scale": 34.9, "ensemble": 37.4}
    measured = {"he2015.table7", "he2015.table8", "he2015.table9"}
    assert {name for name in registry.NAMES if set(load(name).columns) & set(HIGHER_IS_BETTER)} == measured


def test_rows_that_the_paper_says_fail_have_a_bound_and_no_number():
    failing = {row.name: (row.paper, row.above) for row in load("he2016.table1").rows if row.above is not None}
    assert set(failing) == {"constant_scaling_0_1", "constant_scaling_0.5_1", "exclusive_gating_-5", "dropout_shortcut"}
    assert set(failing.values()) == {((None,), 20.0)}
    assert {row.name: row.above for row in load("he2015.figure6").rows if row.above} == {"plain110": 60.0}


def test_every_table_and_figure_of_the_papers_is_listed():
    """2015 has 14 tables and 7 figures, 2016 has 5 and 6."""
    of_papers = {f"he2015.{kind}{i}" for kind, last in (("table", 14), ("figure", 7)) for i in range(1, last + 1)}
    of_papers |= {f"he2016.{kind}{i}" for kind, last in (("table", 5), ("figure", 6)) for i in range(1, last + 1)}
    assert of_papers <= {*registry.NAMES, *registry.NOT_YET}
    assert not set(registry.NAMES) & set(registry.NOT_YET) and all(registry.NOT_YET.values())


def test_figures_show_the_nets_that_the_papers_show():
    nets = {name: [row.name for row in load(f"he2015.{name}").rows] for name in ("figure1", "figure4", "figure7")}
    assert nets["figure1"] == ["plain20", "plain56"]
    assert nets["figure4"] == ["plain18", "plain34", "resnet18", "resnet34"]
    assert nets["figure7"] == ["plain20", "plain56", "resnet20", "resnet56", "resnet110"]


@pytest.mark.parametrize("name", registry.NAMES)
def test_rows_make_sense(name):
    experiment = load(name)
    assert experiment.name == name
    names = [row.name for row in experiment.rows]
    assert len(set(names)) == len(names)
    for row in experiment.rows:
        assert len(row.paper) in (0, len(experiment.columns)), row.name
        assert "/" not in row.name and " " not in row.name
        if row.config:
            config = row_config(row)
            if config.finetune.frozen:
                with pytest.raises(UserError, match="need config.init_from: the weights"):
                    validate_config(config)
                config.init_from = "weights"
            validate_config(config)
            defaults = flatten(row_config(Row("", "", row.config)))
            assert set(row.changes) <= set(defaults)


def test_figures_share_the_tables_runs():
    def hashes(name):
        return {row.name: config_hash(row_config(row)) for row in load(name).rows if row.config}

    table6, figure6 = hashes("he2015.table6"), hashes("he2015.figure6")
    for net in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"):
        assert table6[net] == figure6[net]
    assert figure6["resnet110"] == figure6["resnet110_again"]
    for figure in ("he2015.figure1", "he2015.figure7"):
        assert set(hashes(figure).values()) <= set(figure6.values())
    assert hashes("he2015.figure4") == hashes("he2015.table2")
    table8, table9 = hashes("he2015.table8"), hashes("he2015.table9")
    assert table8.items() <= table9.items() and table9["box_refinement"] == table9["resnet101"]
    assert table9["multi_scale"] == table9["context"] != table9["resnet101"]
    table2, table3 = hashes("he2016.table2"), hashes("he2016.table3")
    for net in ("resnet110", "resnet164"):
        assert table2[f"original_{net}"] == table3[f"cifar10_{net}_original_unit"]
        assert table2[f"full_preactivation_{net}"] == table3[f"cifar10_{net}_preactivation_unit"]
    table4 = hashes("he2016.table4")
    assert table4["cifar100_resnet164"] == table3["cifar100_resnet164_preactivation_unit"]
    assert table4["cifar10_resnet110_original"] == table2["original_resnet110"]
    assert table4["cifar10_resnet1202_original"] == table6["resnet1202"]
    for figure, table in (("figure1", table3), ("figure3", hashes("he2016.table1")), ("figure6", table2)):
        assert set(hashes(f"he2016.{figure}").values()) <= set(table.values())


def test_rows_of_different_experiments_do_not_share_a_config_by_accident():
    """Two rows of one table with the same config would show the same runs twice."""
    for name in registry.NAMES:
        found = {}
        for row in load(name).rows:
            if row.config:
                found.setdefault((config_hash(row_config(row)), row.metric), []).append(row.name)
        shared = [names for names in found.values() if len(names) > 1]
        if name == "he2016.figure3":  # the original beside each of the others
            assert [len(names) for names in shared] == [4] and all(n.startswith("original_") for n in shared[0])
        else:
            assert shared == ([["resnet110", "resnet110_again"]] if name == "he2015.figure6" else [])


def test_names_that_are_not_there():
    with pytest.raises(UserError, match="table12 .detection on ImageNet's 200 classes. is not there yet"):
        load("he2015.table12")
    with pytest.raises(UserError, match="did you mean he2015.table6"):
        load("he2015.tabel6")
    with pytest.raises(UserError, match="did you mean resnet56"):
        runnable(load("he2015.table6"), "resnet65")
    with pytest.raises(UserError, match="'nin' of he2015.table6 is not ours to run"):
        runnable(load("he2015.table6"), "nin")
    with pytest.raises(UserError, match="he2015.table1 has no row to run"):
        runnable(load("he2015.table1"), "resnet18")


def test_rows_by_the_labels_that_the_listing_shows():
    def names(table, asked):
        return [row.name for row in runnable(load(table), asked)]

    assert names("he2015.table6", "ResNet-20,resnet56, RESNET-110") == ["resnet20", "resnet56", "resnet110"]
    assert names("he2015.figure6", "ResNet-110") == ["resnet110", "resnet110_again"]
    with_commas = [row for row in load("he2016.table1").rows if "," in row.label]
    assert with_commas and names("he2016.table1", ",".join(row.label for row in with_commas)) == [
        row.name for row in with_commas
    ]


def test_the_paper_s_single_runs_are_compared_with_our_mean():
    table6 = {row.name: row for row in load("he2015.table6").rows}
    assert statistic(load("he2015.table6"), table6["resnet20"]) == "mean"
    assert statistic(load("he2015.table6"), table6["resnet110"]) == "best"
    assert statistic(load("he2016.table1"), load("he2016.table1").rows[0]) == "median"


@pytest.mark.parametrize(("field", "value", "said"), [
    ("protocol", "std", r"unknown protocol of mine 'std'"),
    ("form", "curve", r"unknown form of mine 'curve'; did you mean curves"),
    ("columns", ("eror",), r"unknown column of mine 'eror'; did you mean error\?"),
    ("rows", (Row("a", "A", against="b"),), r"unknown row to compare with of mine 'b'; known: a"),
])  # fmt: skip
def test_a_table_of_ones_own_is_checked_ahead_of_its_runs(field, value, said):
    """Else "std" would be compared with the paper's error, and the others end in a traceback once the runs are done."""
    with pytest.raises(UserError, match=said):
        Experiment(**{"name": "mine", "title": "Mine", "rows": (Row("a", "A"),)} | {field: value})


def test_several_runs_of_a_table_that_names_no_statistic_have_their_mean():
    """docs/tutorials/own_table.md: a table of one's own with seeds=3 and nothing else."""
    mine = dataclasses.replace(load("he2015.figure6"), seeds=3)
    assert getattr(spread([1.0, 2.0, 6.0]), statistic(mine, mine.rows[0])) == 3.0
