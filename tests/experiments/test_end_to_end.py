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
from experiments.experiment import COLUMNS, row_config, runnable
from experiments.registry import load
from experiments.run_index import index_runs, seedless_hash
from experiments.scores import IN_RESULT
from tests.data.detection import made

#: One unit, for what compiling takes; two steps.
TINY = {
    "model.stage_sizes": (1,), "model.widths": (4,), "model.bn_group_size": 8, "data.name": "digits",
    "data.flip": False,
    "batch_size": 16, "steps": 2, "log_every": 1, "eval_every": 2, "checkpoint_every": 2,
}  # fmt: skip

#: The same of a detector, whose weights are a run of TINY's and whose images are written by the test.
TINY_DETECTOR = {
    "model.name": "faster_rcnn_cifar_resnet20", "model.stage_sizes": (1, 1), "model.widths": (4, 4),
    "model.anchor_sizes": (13,), "model.anchor_ratios": (1.0,), "model.rpn_features": 4, "model.region_size": 2,
    "model.train_proposals": (40, 10), "model.test_proposals": (40, 10), "model.regions": 8, "model.rpn_anchors": 8,
    "model.detections": 5, "data.image_size": 32, "data.most_objects": 4, "finetune.frozen": "", "batch_size": 8,
    "data.name": "voc", "steps": 2, "log_every": 1, "eval_every": 2, "checkpoint_every": 2,
}  # fmt: skip

#: Tables of detectors, of which one is run: of the others, one is on another set and one tests the same in other ways.
DETECTION = ("he2015.table7", "he2015.table8", "he2015.table9")

#: Nets with the ImageNet stem halve the image twice before the first stage: 8x8 pixels would hardly do.
TINY_IMAGENET = TINY | {"data.name": "synthetic", "data.padding": 1}


def fields(name):
    """What makes the nets of a table tiny."""
    configs = [row.config for row in runnable(load(name))]
    if name in DETECTION:
        return TINY_DETECTOR
    return TINY_IMAGENET if all(config.startswith("imagenet:") for config in configs) else TINY


def chosen(name):
    """First, middle and last row. VGG's classifier has 20 million weights however small the rest is: it is left out."""
    rows = [row for row in runnable(load(name)) if ":vgg" not in row.config and name not in DETECTION[1:]]
    rows = list({seedless_hash(row, 1.0): row for row in rows}.values())  # panels may share a run
    return [rows[i] for i in sorted({0, len(rows) // 2, len(rows) - 1})] if rows else []


#: A table, a figure and a table of ImageNet; all others are tested with the longest tests.
FEW = ("he2015.table6", "he2015.figure6", "he2015.table4")


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
@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in registry.NAMES]
)
def test_from_the_command_to_the_page(name, tmp_path, in_process, capsys):
    experiment, rows, changes = load(name), chosen(name), fields(name)
    runs, out = tmp_path / "runs", tmp_path / "out"
    runs.mkdir()
    if name in DETECTION:
        shown = {f"image{i}": made.rectangles(i) for i in range(2)}
        changes = changes | {
            "data.data_dir": str(made.write_voc(tmp_path / "boxes", {"train": [*shown], "test": [*shown]}, shown))
        }
    given = ["--set", *(f"{field}={value}" for field, value in changes.items())]
    if not rows and name in DETECTION:
        assert main([name, "run", "--dry_run", f"--out={runs}", *given]) == 0
    elif rows:
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
        written = [line for line in csv.DictReader(file) if re.search("error|^AP", line["quantity"])]
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
    fields = IN_RESULT.get(row.metric or experiment.metric, {})
    column = next(column for column, heading in COLUMNS.items() if heading == quantity["quantity"]) if fields and (
        experiment.columns) else "error"  # fmt: skip
    return str(found["metrics"][fields[column]]) if column in fields else ""


def test_rows_are_told_apart():
    """Made tiny, the chosen rows are still as many different runs."""
    for name in registry.NAMES:
        rows = chosen(name)
        different = len({seedless_hash(row, 1.0, fields(name)) for row in rows})
        assert different == len(rows), name
        sets = {row_config(row, changes=fields(name)).data.name for row in rows}
        assert sets <= {"digits", "synthetic", "voc"}
