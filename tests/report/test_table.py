"""The table, against result.json."""

import io
import json

from rich.console import Console

from resnet_jax.report.grid import to_markdown, to_rich
from resnet_jax.report.table import runs_grid


def cells(markdown):
    return [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in markdown.splitlines()]


def test_the_numbers_are_those_of_result_json(four_runs):
    header, rule, *lines = cells(to_markdown(runs_grid(four_runs)))

    assert header == list(runs_grid([]).headings)
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    assert len(lines) == 4
    for run, line in zip(four_runs, lines, strict=True):
        recorded = json.loads((run.workdir / "result.json").read_text())
        shown = dict(zip(header, line, strict=True))
        assert shown["net"] == run.label
        assert shown["depth"] == str(recorded["depth"])
        assert shown["parameters"] == f"{recorded['params']:,}"
        assert shown["training error (%)"] == f"{recorded['metrics']['train_error']:.2f}"
        assert shown["test error (%)"] == f"{recorded['metrics']['test_error']:.2f}"
        assert shown["seconds"] == "1,234.6"
        assert shown["images/s"] == "2,411"


def test_an_unfinished_run_is_shown_empty(make_run):
    runs = [make_run("ResNet-20", "residual"), make_run("ResNet-56", "residual", 56, finished=False)]

    assert runs_grid(runs).texts()[1] == ["ResNet-56"] + [""] * (len(runs_grid([]).headings) - 1)
    last = to_markdown(runs_grid(runs)).splitlines()[-1]
    assert set(last.replace("ResNet-56", "")) == {"|", " "}


def test_an_error_on_held_out_images_does_not_pass_for_one_on_the_test_set(make_run):
    assert "4.44 (held out)" in runs_grid([make_run("ResNet-20", "residual", evaluated_on="held_out")]).texts()[0]


def test_the_terminal_shows_the_same_cells(four_runs):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_rich(runs_grid(four_runs), "digits", 200))
    text = console.export_text()

    assert all(cell in text for row in runs_grid(four_runs).texts() for cell in row)


def test_labels_cannot_break_the_tables(make_run):
    run = make_run("a|b [bold]", "residual", folder="run")

    assert r"| a\|b [bold] |" in to_markdown(runs_grid([run]))
    assert next(iter(to_rich(runs_grid([run])).renderables[0].columns[0].cells)).plain == "a|b [bold]"


def test_no_runs_give_a_table_without_rows():
    assert len(to_markdown(runs_grid([])).splitlines()) == 2
