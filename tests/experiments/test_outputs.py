"""Every table and figure from made-up records, end to end; the page in a browser."""

import csv
import html
import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest
from PIL import Image

from experiments import registry
from experiments.__main__ import main
from experiments.experiment import runnable
from experiments.registry import load
from resnet_jax.report.comparison import to_grid
from tests.experiments.fakes import BEST, write_experiment, write_row, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.usefixtures("shallow")


def render(name, runs, out, *more):
    assert main([name, "render", f"--runs={runs}", f"--out={out}", *more]) == 0
    return out / f"{name}.html"


def rows_of(path):
    """The cells of a Markdown table's lines, by their first."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line[2:-2].split(" | ")] for line in lines)}


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_table_and_figure_with_and_without_runs(name, tmp_path, capsys):
    runs = tmp_path / "runs"
    runs.mkdir()
    experiment = load(name)
    endings = {"md", "csv", "tex"} | ({"png", "svg"} if experiment.form != "table" else set())
    for state in ("empty", "full"):
        if state == "full":
            write_experiment(runs, name)
        out = tmp_path / state
        page = render(name, runs, out).read_text()
        assert {path.name for path in out.iterdir()} == {f"{name}.{ending}" for ending in {*endings, "html"}}
        markdown = (out / f"{name}.md").read_text()
        for row in experiment.rows:
            assert row.label in markdown and html.escape(row.label, quote=False).replace("'", "&#39;") in page
        assert not re.search(r"(src|href)=\"(https?:)?//", page) and "<link" not in page
        links = re.findall(r'href="([^"#]+)"', page)
        assert all((out / unquote(link)).is_file() for link in links)
        assert bool(links) == (state == "full" and bool(runnable(experiment)))
        assert f"{BEST:.2f}" not in {cell for cells in rows_of(out / f"{name}.md").values() for cell in cells}
        assert str(BEST) not in (out / f"{name}.csv").read_text()
        if "png" in endings:
            assert Image.open(out / f"{name}.png").size[0] > 1000
    printed = capsys.readouterr().out
    assert f"{tmp_path}/full/{name}.md" in printed


def test_empty_rows_stay_empty(tmp_path):
    (tmp_path / "runs").mkdir()
    render("he2016.table2", tmp_path / "runs", tmp_path)
    found = rows_of(tmp_path / "he2016.table2.md")
    assert found["original"] == ["0 of 5", "5.93", "", "", "", "", ""]


def test_partial_state(tmp_path):
    rows = {row.name: row for row in load("he2016.table1").rows}
    write_row(tmp_path / "runs", rows["original"], [6.5, 6.7, 6.6])
    write_row(tmp_path / "runs", rows["conv1x1_shortcut"], [12.0], finished=False)
    write_row(tmp_path / "runs", rows["dropout_shortcut"], [12.0, 22.0, 31.0], scale=0.1)
    page = render("he2016.table1", tmp_path / "runs", tmp_path / "out").read_text()
    found = rows_of(tmp_path / "out" / "he2016.table1.md")
    assert found["original: identity"] == ["3 of 5", "6.61", "6.60", "6.60 ± 0.10", "−0.01", "yes", ""]
    assert found["1x1 convolution"][0] == "0 of 5, 1 begun" and found["1x1 convolution"][2] == ""
    assert found["dropout 0.5 (10 % of the paper's iterations)"][:3] == ["3 of 5", "over 20", "22.00"]
    assert "not finished" in page and "10 % of the paper&#39;s iterations" in page
    assert page.count('"caption"') == 2  # curves of the two lengths, apart


@pytest.mark.parametrize(
    ("name", "evaluated_on"),
    [("he2015.table7", "test"), ("he2015.table8", "validation"), ("he2015.table9", "validation")],
)
def test_average_precision_is_drawn_as_no_error_and_said_to_be_of_its_images(name, evaluated_on, tmp_path):
    write_experiment(tmp_path / "runs", name)
    page = render(name, tmp_path / "runs", tmp_path / "out").read_text()
    assert 'class="chart"' not in page and "Error over iterations" not in page
    with (tmp_path / "out" / f"{name}.csv").open() as file:
        assert {row["evaluated_on"] for row in csv.DictReader(file)} == {evaluated_on}


def test_a_detectors_numbers_of_other_images_are_said_to_be_theirs(tmp_path):
    """As of a run on the test images of a table of validation images: those are no part of the training set."""
    write_row(tmp_path / "runs", load("he2015.table8").rows[1], [48.0], evaluated_on="test")
    render("he2015.table8", tmp_path / "runs", tmp_path / "out")
    with (tmp_path / "out" / "he2015.table8.csv").open() as file:
        found = {row["row"]: row["evaluated_on"] for row in csv.DictReader(file)}
    assert found == {"vgg16": "validation", "resnet101": "test"}
    assert "ResNet-101 (on test images, not the paper's)" in rows_of(tmp_path / "out" / "he2015.table8.md")


def test_a_shortened_figure_is_a_figure_of_its_own(tmp_path):
    for row in load("he2015.figure1").rows:
        write_row(tmp_path / "runs", row, [9.0], scale=0.05)
    render("he2015.figure1", tmp_path / "runs", tmp_path / "out")
    assert (tmp_path / "out" / "he2015.figure1-5percent.png").exists()
    # Letters are drawn; what they spell is a comment ahead of them.
    assert ", 5 % of the paper's iterations -->" in (tmp_path / "out" / "he2015.figure1-5percent.svg").read_text()


def test_the_same_runs_give_the_same_bytes(tmp_path, monkeypatch):
    write_experiment(tmp_path / "runs", "he2015.figure1")
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert main(["he2015.figure1", "render", "--runs=../runs", "--out=out"]) == 0
        written.append({path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir()})
    assert written[0] == written[1]


def test_numbers_lead_to_their_records(tmp_path):
    rows = {row.name: row for row in load("he2016.table1").rows}
    (single,) = write_row(tmp_path / "runs", rows["original"], [6.5])
    write_row(tmp_path / "runs", rows["conv1x1_shortcut"], [12.0, 12.2])
    page = render("he2016.table1", tmp_path / "runs", tmp_path / "out").read_text()
    assert f'<a href="../runs/{single.name}/result.json">6.50</a>' in page
    anchor = re.search(r'<a href="#([^"]+)">12.10</a>', page).group(1)
    listed = page[page.index(f'id="{anchor}"') :]
    assert listed[: listed.index("</li>")].count("result.json</a>") == 2


def test_what_comes_from_outside_is_escaped(tmp_path):
    folder = write_row(tmp_path / "runs", load("he2015.figure1").rows[0], [9.0])[0]
    record = json.loads((folder / "result.json").read_text())
    record["commit"] = "</script><script>alert(1)</script>"
    record["hardware"]["cpu"] = "<img src=x onerror=alert(2)>"
    (folder / "result.json").write_text(json.dumps(record))
    page = render("he2015.figure1", tmp_path / "runs", tmp_path / "out").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;img src=x" in page


def test_changed_fields_are_said(tmp_path):
    from experiments.experiment import row_config

    row = load("he2015.figure1").rows[0]
    write_run(tmp_path / "runs", row_config(row, changes={"dtype": "bfloat16"}), 9.0)
    render("he2015.figure1", tmp_path / "runs", tmp_path / "out", "--set", "dtype=bfloat16")
    text = (tmp_path / "out" / "he2015.figure1.md").read_text()
    assert "Not the paper's setting: all runs have dtype=bfloat16." in text and "9.00" in text
    render("he2015.figure1", tmp_path / "runs", tmp_path / "plain")
    assert "9.00" not in (tmp_path / "plain" / "he2015.figure1.md").read_text()


def test_a_whole_paper_is_one_page(tmp_path):
    (tmp_path / "runs").mkdir()
    page = render("he2016", tmp_path / "runs", tmp_path / "out").read_text()
    assert all(f'<section id="he2016.table{i}">' in page for i in range(1, 6))
    assert all(f'<section id="he2016.figure{i}">' in page for i in (1, 3, 6))
    assert len(list((tmp_path / "out").iterdir())) == 5 * 3 + 3 * 5 + 1


def browse(page, folder, dark=False):
    """Opens a page with a cursor over each panel: the colour of its corner, and its elements once the script ran."""
    hover = (
        "<script>document.querySelector('.keys button')?.click();"
        "for (const s of document.querySelectorAll('.panel svg')) {"
        "const r = s.getBoundingClientRect();"
        "s.dispatchEvent(new PointerEvent('pointermove', {clientX: r.left + r.width * 0.8, clientY: r.top + 9}));"
        "}</script>"
    )
    page.write_text(page.read_text() + hover)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
               "--window-size=1300,2600", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]  # fmt: skip

    def ask(what):
        asked = subprocess.run([*command, what, page.as_uri()], check=True, capture_output=True, text=True, timeout=60)
        return asked.stdout

    ask(f"--screenshot={folder}/page.png")
    return Image.open(folder / "page.png").convert("L").getpixel((5, 5)), ask("--dump-dom")


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(tmp_path, dark):
    write_experiment(tmp_path / "runs", "he2015.figure6")
    corner, dom = browse(render("he2015.figure6", tmp_path / "runs", tmp_path / "out"), tmp_path, dark)
    assert corner < 60 if dark else corner > 200
    assert dom.count('<div class="panel">') == 3
    assert len(re.findall("<button[^>]*pressed=.false", dom)) == 1
    # The button hides plain-20's two lines; of the other 11 rows each has two, and a band for its test error.
    assert len(re.findall(r'<path d="M', dom)) == 22 and len(re.findall(r'<path class="band"', dom)) == 11
    tips = re.findall(r'<div class="tip" style="[^"]*"><div>iteration \d+</div>', dom)
    assert len(tips) == 3 and "ResNet-1202, test: " in dom
    assert "NaN" not in dom


@in_a_browser
@pytest.mark.parametrize("name", ["he2015", "he2016"])
def test_a_whole_papers_page_in_a_browser(name, tmp_path):
    for part in ("he2015.figure1", "he2015.figure4", "he2016.table2"):
        write_experiment(tmp_path / "runs", part)
    _, dom = browse(render(name, tmp_path / "runs", tmp_path / "out"), tmp_path)
    charts = {"he2015": 6, "he2016": 4}[name]
    assert dom.count('<figure class="chart">') == charts == len(re.findall(r'<div class="keys">', dom))
    assert "iteration " in dom and "NaN" not in dom


def test_headings_of_every_table_are_as_many_as_its_cells(tmp_path):
    from experiments.run_index import index_runs
    from experiments.tables import fill

    for name in registry.NAMES:
        grid = to_grid(fill(load(name), index_runs(tmp_path), with_computed=False).entries)
        assert all(len(line.cells) == len(grid.headings) for line in grid.lines)
