"""Every number of the rows against papers/*.json, both ways, and what the rows change."""

import json
from pathlib import Path

import pytest

from experiments import registry
from experiments.registry import load, row_config
from resnet_jax.config import config_hash, flatten, validate_config
from resnet_jax.errors import UserError

PAPERS = Path(registry.__file__).parent / "papers"
HE2015, HE2016 = (json.loads((PAPERS / f"{name}.json").read_text()) for name in ("he2015", "he2016"))

#: Rows whose numbers are not in the JSON files: other works', quoted from the papers.
QUOTED = {
    "he2015.table4": {"vgg_ilsvrc14", "googlenet"},
    "he2015.table6": {"maxout", "nin", "dsn", "fitnet", "highway19", "highway32"},
    "he2016.table4": {
        *(f"cifar10_{name}" for name in ("nin", "dsn", "fitnet", "highway", "all_cnn", "elu", "fitresnet")),
        *(f"cifar100_{name}" for name in ("nin", "dsn", "fitnet", "highway", "all_cnn", "elu", "fitnet_lsuv")),
    },
    "he2016.table5": {"inception_v3"},
}


def numbers(name):
    """{(row, column): number} of a table here, without the rows of QUOTED and without empty cells."""
    experiment = load(name)
    cells = {}
    for row in experiment.rows:
        for column, value in zip(experiment.columns, row.paper, strict=bool(row.paper)):
            if value is not None and row.name not in QUOTED.get(name, ()):
                cells[row.name, column] = value
    return cells


def cells(table, columns, skip=("columns", "note", "scales_shorter_side")):
    """{(row, column): number} of a table of the JSON files whose entries are lists under `columns`."""
    return {
        (row, column): value
        for row, values in table.items()
        if row not in skip
        for column, value in zip(columns, values if isinstance(values, list) else [values], strict=True)
        if value is not None
    }


def millions(text):
    return float(text.removesuffix("M"))


def test_2015_table1():
    flops = {key: value * 1e9 for key, value in numbers("he2015.table1").items() if key[1] == "flops"}
    assert flops == pytest.approx(cells(HE2015["table1_flops_multiply_adds"], ["flops"]))
    layers = {row: value for (row, column), value in numbers("he2015.table1").items() if column == "layers"}
    assert all(row.endswith(f"t{value}") or row in (f"plain{value}", f"vgg{value}") for row, value in layers.items())


@pytest.mark.parametrize(
    ("name", "key", "columns"),
    [
        ("table2", "table2_top1_10crop", ["top1"]),
        ("table3", "table3_10crop", ["top1", "top5"]),
        ("table4", "table4_single_model_multiscale", ["top1", "top5"]),
        ("table5", "table5_ensemble_top5_test", ["top5"]),
    ],
)
def test_2015_imagenet(name, key, columns):
    assert numbers(f"he2015.{name}") == cells(HE2015[key], columns)
    assert HE2015[key].get("columns", columns) == columns


def test_2015_table4_names_its_scales():
    scales = HE2015["table4_single_model_multiscale"]["scales_shorter_side"]
    assert all(str(scale) in load("he2015.table4").note for scale in scales)


def test_2015_table6():
    table = HE2015["table6_cifar10"]
    expected = cells(table, table["columns"])
    expected = {k: millions(v) if k[1] == "params" else v for k, v in expected.items()}
    assert numbers("he2015.table6") == expected
    above = {row.name: row.above for row in load("he2015.figure6").rows if row.above is not None}
    assert above == {"plain110": 60} and "plain-110 trains to more than 60 % error" in table["note"]


def test_2016_table1():
    table = HE2016["table1_cifar10_resnet110_shortcuts"]
    expected = []
    for key, value in table.items():
        if key != "columns":
            expected += [(key, *line) for line in (value if isinstance(value[0], list) else [value])]
    rows = load("he2016.table1").rows
    assert len(rows) == len(expected) == 11
    for row, (key, on_shortcut, on_residual, error, remark) in zip(rows, expected, strict=True):
        assert row.name.startswith(key)
        assert row.paper == (error,)
        assert row.above == (20 if "fails" in remark else None)
        model = row_config(row).model
        if key == "constant_scaling":
            assert (model.shortcut_scale, model.residual_scale) == (float(on_shortcut), float(on_residual))
        if "gating" in key:
            assert remark.endswith(f"{model.gate_bias:g}") and model.shortcut == key
        if key == "dropout_shortcut":
            assert on_shortcut == f"dropout {model.shortcut_dropout}"
        assert row_config(row).schedule.warmup == "steps"


def test_2016_table2():
    table = HE2016["table2_cifar10_activation"]
    expected = {
        (f"{unit}_{net}", "error"): error
        for unit, errors in table.items()
        if unit != "columns"
        for net, error in zip(table["columns"], errors, strict=True)
    }
    assert numbers("he2016.table2") == expected


def test_2016_table3():
    table = HE2016["table3_original_vs_preactivation"]
    expected = {
        (f"{data}_{net}_{unit}", "error"): error
        for data in ("cifar10", "cifar100")
        for net, errors in table[data].items()
        for unit, error in zip(table["columns"], errors, strict=True)
    }
    assert numbers("he2016.table3") == expected


def test_2016_table4():
    table = HE2016["table4_preactivation"]
    expected = {}
    for data in ("cifar10", "cifar100"):
        expected |= {(f"{data}_{row}", c): v for (row, c), v in cells(table[data], table["columns"]).items()}
        for row in table[data]:
            expected[f"{data}_{row}", "params"] = millions(table["params"][row.removesuffix("_batch64")])
    assert numbers("he2016.table4") == expected


def test_2016_table5():
    table = HE2016["table5_imagenet_single_crop"]
    expected = []
    for net, lines in table.items():
        if net != "columns":
            expected += [(net, *line) for line in (lines if isinstance(lines[0], list) else [lines])]
    rows = [row for row in load("he2016.table5").rows if row.name not in QUOTED["he2016.table5"]]
    assert len(rows) == len(expected)
    for row, (net, augmentation, *values) in zip(rows, expected, strict=True):
        assert row.name.startswith(net) and list(row.paper) == values
        assert ("aspect" in row.note) == ("aspect" in augmentation)
        assert (row.changes.get("data.crop") == "aspect") == ("aspect" in augmentation)


def test_every_table_of_the_papers_is_listed():
    listed = {*registry.NAMES, *registry.NOT_YET}
    for paper, numbers_of in (("he2015", HE2015), ("he2016", HE2016)):
        for key in numbers_of:
            if key.startswith("table"):
                assert f"{paper}.{key.split('_')[0]}" in listed
        for figure in numbers_of.get("figures", ()):
            assert f"{paper}.figure{figure}" in listed


def test_figures_show_the_nets_that_the_papers_show():
    nets = {name: [row.name for row in load(f"he2015.{name}").rows] for name in ("figure1", "figure4", "figure7")}
    assert nets["figure1"] == ["plain20", "plain56"]
    assert nets["figure4"] == ["plain18", "plain34", "resnet18", "resnet34"]
    assert nets["figure7"] == ["plain20", "plain56", "resnet20", "resnet56", "resnet110"]


@pytest.mark.parametrize("name", registry.NAMES)
def test_rows_make_sense(name):
    experiment = load(name)
    assert experiment.name == name and experiment.form in registry.FORMS
    assert set(experiment.columns) <= set(registry.COLUMNS)
    assert experiment.protocol in ("best", "median", "single")
    names = [row.name for row in experiment.rows]
    assert len(set(names)) == len(names)
    for row in experiment.rows:
        assert not row.against or row.against in names
        assert len(row.paper) in (0, len(experiment.columns)), row.name
        assert "/" not in row.name and " " not in row.name
        if row.config:
            config = row_config(row)
            validate_config(config)
            defaults = flatten(row_config(registry.Row("", "", row.config)))
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
    table2, table3 = hashes("he2016.table2"), hashes("he2016.table3")
    for net in ("resnet110", "resnet164"):
        assert table2[f"original_{net}"] == table3[f"cifar10_{net}_original_unit"]
        assert table2[f"full_preactivation_{net}"] == table3[f"cifar10_{net}_preactivation_unit"]
    assert hashes("he2016.table4")["cifar100_resnet164"] == table3["cifar100_resnet164_preactivation_unit"]


def test_rows_of_different_experiments_do_not_share_a_config_by_accident():
    """Two rows of one table with the same config would show the same runs twice."""
    for name in registry.NAMES:
        found = {}
        for row in load(name).rows:
            if row.config:
                found.setdefault((config_hash(row_config(row)), row.metric), []).append(row.name)
        shared = [names for names in found.values() if len(names) > 1]
        assert shared == ([["resnet110", "resnet110_again"]] if name == "he2015.figure6" else [])


def test_names_that_are_not_there():
    with pytest.raises(UserError, match="table7 .detection on PASCAL VOC. is not there yet"):
        load("he2015.table7")
    with pytest.raises(UserError, match="did you mean he2015.table6"):
        load("he2015.tabel6")
    with pytest.raises(UserError, match="did you mean resnet56"):
        registry.runnable(load("he2015.table6"), ["resnet65"])
    with pytest.raises(UserError, match="'nin' of he2015.table6 is not ours to run"):
        registry.runnable(load("he2015.table6"), ["nin"])
    with pytest.raises(UserError, match="he2015.table1 has no row to run"):
        registry.runnable(load("he2015.table1"), ["resnet18"])


def test_the_paper_s_single_runs_are_compared_with_our_mean():
    table6 = {row.name: row for row in load("he2015.table6").rows}
    assert registry.statistic(load("he2015.table6"), table6["resnet20"]) == "mean"
    assert registry.statistic(load("he2015.table6"), table6["resnet110"]) == "best"
    assert registry.statistic(load("he2016.table1"), load("he2016.table1").rows[0]) == "median"


def test_imagenet_recipes():
    from configs.imagenet import TRAIN_IMAGES, get_config

    config = get_config("resnet50")
    assert (config.batch_size, config.steps, config.data.name) == (256, 600_000, "imagenet")
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay, config.optimizer.momentum) == (
        0.1,
        1e-4,
        0.9,
    )
    later = get_config("preact_resnet200")
    epochs = [fraction * later.steps * later.batch_size / TRAIN_IMAGES for fraction in later.schedule.boundaries]
    assert epochs == pytest.approx([30, 60], rel=1e-3) and later.schedule.warmup == "none"
    assert get_config("vgg16").optimizer.learning_rate == 0.01
    with pytest.raises(UserError, match="unknown ImageNet net 'resnet51'; did you mean resnet50"):
        get_config("resnet51")


def test_training_on_imagenet_says_that_there_is_no_such_set_yet():
    from resnet_jax.data.sources import SOURCES, load_dataset

    if "imagenet" in SOURCES:
        pytest.skip("the set has come")
    with pytest.raises(UserError, match="unknown dataset 'imagenet'"):
        load_dataset("imagenet")
