"""The paper's numbers beside ours."""

import csv
import io

import pytest

from resnet_jax.report.comparison import Computed, Entry, Measure, to_csv, to_grid
from resnet_jax.report.run_statistics import difference, spread


def cells(entries):
    grid = to_grid(entries)
    return [dict(zip(grid.headings, [cell.text for cell in line.cells], strict=True)) for line in grid.lines]


def test_best_of_five_with_mean_and_deviation():
    measure = Measure("error (%)", 6.43, 6.61, 0.16, statistic="best", ours=spread([6.5, 6.7, 6.6]))
    (row,) = cells([Entry("resnet110", "ResNet-110", done=3, wanted=5, measures=(measure,))])
    assert row == {
        "net": "ResNet-110", "runs": "3 of 5", "error (%), paper": "6.43 (6.61 ± 0.16)", "our best": "6.50",
        "our mean ± std": "6.60 ± 0.10", "difference": "+0.07", "within": "yes",
    }  # fmt: skip


def test_a_printed_mean_is_held_against_our_mean():
    """The best of five lies 1.16 deviations below their mean, where a replica's mean may not be."""
    measure = Measure("error (%)", 6.43, 6.61, 0.16, statistic="best", ours=spread([6.56, 6.66, 6.60, 6.62, 6.61]))
    (row,) = cells([Entry("a", "A", done=5, wanted=5, measures=(measure,))])
    assert row["within"] == "yes" and measure.ours.mean - 2 * measure.ours.std > 6.43
    measure = Measure("error (%)", 6.43, 6.61, 0.16, statistic="best", ours=spread([6.41, 6.43, 6.45, 6.42, 6.44]))
    (row,) = cells([Entry("a", "A", done=5, wanted=5, measures=(measure,))])
    assert row["within"] == "no"


def test_median_is_what_is_compared_where_the_paper_reports_it():
    measure = Measure("error (%)", 6.61, statistic="median", ours=spread([6.0, 6.2, 9.0]))
    (row,) = cells([Entry("a", "A", done=3, wanted=5, measures=(measure,))])
    assert (row["our median"], row["difference"], row["our mean ± std"]) == ("6.20", "−0.41", "7.07 ± 1.68")


def test_a_single_run_says_nothing_of_the_spread():
    (row,) = cells([Entry("a", "A", done=1, wanted=1, measures=(Measure("error (%)", 8.75, ours=spread([8.6])),))])
    assert (row["within"], row["our mean ± std"], row["difference"]) == ("–", "8.60", "−0.15")


def test_numbers_say_of_how_many_of_the_runs_they_are():
    """Of three finished runs two were tested by ten crops, say: a mean of two is no mean of three."""
    measure = Measure("top-1 error (%)", 27.88, ours=spread([27.0, 28.0]))
    (row,) = cells([Entry("a", "A", done=3, wanted=1, measures=(measure,))])
    assert (row["runs"], row["our mean ± std"]) == ("3, paper 1", "27.50 ± 0.71 (2 of 3 runs)")


def test_rows_without_runs_are_empty():
    (row,) = cells([Entry("a", "A", wanted=1, measures=(Measure("error (%)", 8.75),))])
    assert row == {"net": "A", "runs": "0 of 1", "error (%), paper": "8.75", "our mean ± std": "", "difference": "",
                   "within": ""}  # fmt: skip
    grid = to_grid([Entry("a", "A", wanted=1, measures=(Measure("error (%)", 8.75),))])
    assert not any(cell.runs for cell in grid.lines[0].cells)


@pytest.mark.parametrize(("errors", "verdict"), [([22.0, 25.0], "yes"), ([12.0, 13.0], "no")])
def test_rows_of_which_the_paper_says_that_they_fail(errors, verdict):
    (row,) = cells([Entry("a", "A", done=2, wanted=5, measures=(Measure("error", above=20, ours=spread(errors)),))])
    assert (row["error, paper"], row["within"], row["difference"]) == ("over 20", verdict, "")


@pytest.mark.parametrize(
    ("fields", "mark"),
    [({"steps_scale": 0.05}, "A (5 % of the paper's iterations)"),
     ({"held_out": True, "evaluated_on": "held_out"}, "A (on held-out images, not the paper's)"),
     ({"quoted": True, "note": "a note"}, "A (quoted; a note)")],
)  # fmt: skip
def test_what_is_not_the_papers_says_so(fields, mark):
    measure = Measure("error (%)", 8.75, ours=spread([8.6, 8.8]))
    (row,) = cells([Entry("a", "A", done=2, wanted=1, measures=(measure,), **fields)])
    assert row["net"] == mark
    assert row["within"] == ("yes" if "quoted" in fields else "")
    assert row["runs"] == "2, paper 1"


def test_pairs():
    one, other = spread([6.0, 6.2]), spread([7.0, 7.4])
    entry = Entry("a", "A", done=2, wanted=5, measures=(Measure("error (%)", 6.4, ours=one),), against="B",
                  difference=difference(one, other), paper_difference=-0.24)  # fmt: skip
    (row,) = cells([entry])
    assert row["against another row"] == "B: −1.10 [−1.40, −0.80]; paper −0.24"


def test_facts_show_the_papers_digits():
    facts = (Computed("parameters (M)", 1.7, 1.72796, 2), Computed("test crop", 224, None, 0))
    (row,) = cells([Entry("a", "A", computed=facts)])
    assert row == {"net": "A", "parameters (M), paper": "1.7", "ours": "1.73", "test crop": "224"}


def test_csv_is_unrounded():
    measure = Measure("error (%)", 6.43, 6.61, 0.16, statistic="best", ours=spread([6.512345, 6.7]))
    entry = Entry("a", 'A, "x"', done=2, wanted=5, computed=(Computed("layers", 20, 20, 0),), measures=(measure,))
    fact, row = csv.DictReader(io.StringIO(to_csv([entry])))
    assert (fact["quantity"], fact["paper"], fact["ours"]) == ("layers", "20", "20")
    assert row["label"] == 'A, "x"' and row["ours"] == row["best"] == "6.512345"
    assert row["values"] == "6.512345 6.7" and row["steps_scale"] == "1.0" and row["evaluated_on"] == "test"


def test_csv_says_which_images_the_numbers_are_of():
    rows = csv.DictReader(io.StringIO(to_csv([
        Entry("a", "A", evaluated_on=name, measures=(Measure("AP (%)", 48.4),)) for name in ("test", "validation")
    ])))  # fmt: skip
    assert [row["evaluated_on"] for row in rows] == ["test", "validation"]


def test_csv_has_a_figures_pair_beside_its_test_error():
    one, other = spread([6.0, 6.2]), spread([7.0, 7.4])
    measures = (Measure("training error (%)", ours=spread([1.0, 1.2])), Measure("test error (%)", ours=one))
    entry = Entry("a", "A", done=2, wanted=2, measures=measures, against="B", difference=difference(one, other))
    training, test = csv.DictReader(io.StringIO(to_csv([entry])))
    assert (training["against"], training["pair_difference"]) == ("", "")
    assert test["against"] == "B" and float(test["pair_difference"]) == pytest.approx(-1.1)


def test_no_entries():
    assert to_grid([]).lines == ()
