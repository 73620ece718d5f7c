"""README.md and docs/ say what the committed records say."""

import json
import statistics

import pytest

from experiments import ablation, readme
from experiments.__main__ import main
from resnet_jax.training.run_record import RunRecord


@pytest.mark.long
def test_pages_are_what_the_records_give():
    """A number changed by hand, or a record without its table, fails here: `make readme` mends it."""
    pages = readme.regenerated()
    assert set(pages) == {"README.md", "docs/nets.md", "docs/results.md", "docs/detection.md", "docs/segmentation.md"}
    for page, text in pages.items():
        assert text == (readme.ROOT / page).read_text(), page


def test_committed_records_show_the_claim():
    """Plain-56 far worse in training than plain-20; ResNet-56 not above ResNet-20 by more than two points."""
    errors = {}
    for row in ablation.ROWS:
        metrics = RunRecord(readme.ROOT / readme.DIGITS / row.name).result().metrics
        errors[row.name] = metrics["train_error"]
        assert f"| {metrics['test_error']:.2f} |" in " ".join((readme.ROOT / "README.md").read_text().split())
    assert errors["plain56"] > errors["plain20"] + 20
    assert errors["resnet56"] < errors["resnet20"] + 2


def test_committed_records_are_of_todays_configs():
    """A changed recipe makes the committed numbers another recipe's."""
    from configs.digits import get_config
    from resnet_jax.config import config_hash

    for row in ablation.ROWS:
        result = json.loads((readme.ROOT / readme.DIGITS / row.name / "result.json").read_text())
        assert result["config_hash"] == config_hash(get_config(row.name)), row.name


@pytest.mark.parametrize(("name", "page"), [("he2015.figure6", "README.md"), ("he2015.table6", "docs/results.md")])
def test_pages_show_what_render_writes(name, page, tmp_path):
    """Every row of the page stands, number by number, in what `render` writes from the committed records alone."""
    assert main([name, "render", f"--runs={readme.ROOT / readme.PAPERS}", f"--out={tmp_path}"]) == 0
    rendered = table_rows((tmp_path / f"{name}.md").read_text())
    text = (readme.ROOT / page).read_text()
    shown = table_rows(text[text.index(f"**{name}: ") :].partition("\n\nMeasured on")[0])
    errors = {in_table(values) for values in errors_of_nets().values()}
    ours = 0
    for label, cells in shown.items():
        assert cells <= rendered[label], label
        ours += bool(cells & errors)
    assert ours >= (4 if name == "he2015.figure6" else 2)


def table_rows(markdown):
    """The cells of each row of a page's tables that has numbers, by its first."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|")
    return {first: set(cells) - {""} for first, *cells in rows if any(cells) and first.strip("-") and first != "net"}


def errors_of_nets():
    """The committed runs' errors by their nets."""
    found = {}
    for folder in (readme.ROOT / readme.PAPERS).glob("*/"):
        result = RunRecord(folder).result()
        found.setdefault(result.model, []).append(result.metrics["test_error"])
    return found


def in_table(values):
    """A cell of mean and deviation, with Bessel's correction; that of a run alone has no deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"
