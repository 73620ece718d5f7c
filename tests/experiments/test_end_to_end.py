"""Every table and figure from its command to its page, with tiny nets on sets that need no download.

Of each, the first, the middle and the last row are run as `run` runs them, and all of it is rendered: our numbers stand
in exactly the rows that ran.
"""

import csv
import html
import json
import re

import pytest

from experiments import registry
from experiments.__main__ import main
from experiments.experiment import row_config, runnable
from experiments.registry import load
from experiments.run_index import index_runs, seedless_hash
from experiments.scores import IN_RESULT

#: One unit, for what compiling takes; two steps.
TINY = {
    "model.stage_sizes": (1,), "model.widths": (4,), "model.bn_group_size": 8, "data.name": "digits",
    "data.flip": False,
    "batch_size": 16, "steps": 2, "log_every": 1, "eval_every": 2, "checkpoint_every": 2,
}  # fmt: skip

#: Nets with the ImageNet stem halve the image twice before the first stage: 8x8 pixels would hardly do.
TINY_IMAGENET = TINY | {"data.name": "synthetic", "data.padding": 1}


def fields(name):
    """What makes the nets of a table tiny."""
    configs = [row.config for row in runnable(load(name))]
    return TINY_IMAGENET if all(config.startswith("imagenet:") for config in configs) else TINY


def chosen(name):
    """First, middle and last row. VGG's classifier has 20 million weights however small the rest is: it is left out."""
    rows = [row for row in runnable(load(name)) if ":vgg" not in row.config]
    rows = list({seedless_hash(row, 1.0): row for row in rows}.values())  # panels may share a run
    return [rows[i] for i in sorted({0, len(rows) // 2, len(rows) - 1})] if rows else []


def markdown_rows(text):
    """The cells of the lines with our rows, in the table's order."""
    lines = [line[2:-2] for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]
    return [line for line in cells if not line[0].startswith("**")]


def page_rows(text):
    """The same from the page."""
    table = re.search(r"<tbody>.*</table>", text, re.DOTALL)[0]
    rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    plain = [[label, *re.findall(r"<td[^>]*>(.*?)</td>", rest)] for label, rest in rows]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in line] for line in plain]


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("name", registry.NAMES)
def test_from_the_command_to_the_page(name, tmp_path, in_process, capsys):
    experiment, rows, changes = load(name), chosen(name), fields(name)
    runs, out = tmp_path / "runs", tmp_path / "out"
    runs.mkdir()
    given = ["--set", *(f"{field}={value}" for field, value in changes.items())]
    if rows:
        asked = f"--rows={','.join(row.name for row in rows)}"
        assert main([name, "run", f"--out={runs}", "--seeds=1", asked, *given]) == 0
    else:
        assert main([name, "run", f"--out={runs}", *given]) == 2
        assert "no row that can be run" in capsys.readouterr().err
    assert main([name, "render", f"--runs={runs}", f"--out={out}", *given]) == 0

    results = {seedless_hash(row, 1.0, changes): result(runs, row, changes) for row in rows}
    lines = markdown_rows((out / f"{name}.md").read_text())
    assert page_rows((out / f"{name}.html").read_text()) == lines
    with (out / f"{name}.csv").open() as file:
        written = [line for line in csv.DictReader(file) if "error" in line["quantity"]]
    assert len(lines) == len(experiment.rows)
    for row, line in zip(experiment.rows, lines, strict=True):
        # Two rows that differ only in what was made tiny are now one run.
        found = results.get(seedless_hash(row, 1.0, changes)) if row.config and experiment.metric else None
        ours = [quantity for quantity in written if (quantity["row"], quantity["group"]) == (row.name, row.group)]
        assert [quantity["values"] for quantity in ours] == [expected(experiment, row, q, found) for q in ours]
        assert all(bool(q["ours"]) == bool(q["values"]) and bool(q["mean"]) == bool(q["values"]) for q in ours)
        texts = {f"{float(quantity['values']):.2f}" for quantity in ours if quantity["values"]}
        assert texts <= set(line)
        if row in runnable(experiment):
            assert any(re.match("1 of|1, paper" if found else "0 of", cell) for cell in line)
        if not texts:
            assert not any(re.fullmatch(r"\d+\.\d\d ± .*|yes|no|–", cell) for cell in line)


def result(runs, row, changes):
    """A row's result.json."""
    (found,) = index_runs(runs).find(row, 1.0, changes)
    return json.loads((found.folder / "result.json").read_text())


def expected(experiment, row, quantity, found):
    """What the CSV file should hold of one number: nothing of a row that did not run, or was not tested so."""
    if found is None:
        return ""
    if quantity["quantity"].startswith("training"):
        return str(found["metrics"]["train_error"])
    return str(found["metrics"]["test_error"]) if (row.metric or experiment.metric) in IN_RESULT else ""


def test_rows_are_told_apart():
    """Made tiny, the chosen rows are still as many different runs."""
    for name in registry.NAMES:
        rows = chosen(name)
        different = len({seedless_hash(row, 1.0, fields(name)) for row in rows})
        assert different == len(rows), name
        assert all(row_config(row, changes=fields(name)).data.name in ("digits", "synthetic") for row in rows)
