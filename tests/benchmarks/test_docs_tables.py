"""Measured tables and the pages that they stand in."""

import pytest

from benchmarks import ROOT, checkpoint_overhead
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.docs_tables import table, write_between
from resnet_jax.errors import UserError


def test_only_what_stands_between_the_markers_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n<!-- begin b -->\n<!-- end b -->\n")
    write_between(page, "a", table(["x", "y"], [["1", "2"]]))
    assert page.read_text() == (
        "before\n<!-- begin a -->\n| x | y |\n| --- | ---: |\n| 1 | 2 |\n<!-- end a -->\nafter\n"
        "<!-- begin b -->\n<!-- end b -->\n"
    )
    with pytest.raises(UserError, match="lacks the markers <!-- begin c --> and <!-- end c -->"):
        write_between(page, "c", "text")


#: Benchmarks whose tables nobody has had the time to make; their pages say so.
UNMEASURED: set[str] = set()


@pytest.mark.parametrize("name", [name for name, benchmark in BENCHMARKS.items() if benchmark.page])
def test_every_benchmark_has_its_place_filled(name):
    page = (ROOT / BENCHMARKS[name].page).read_text()
    inside = page.split(f"<!-- begin {name} -->")[1].split(f"<!-- end {name} -->")[0]
    if name in UNMEASURED:
        assert inside.strip() == "Not measured yet.", f"{name} is measured: take it out of UNMEASURED"
    else:
        # the tables of TPU slices come from the compiler alone: no chip took part
        assert "| --- |" in inside and ("Compiled on" if "slices" in name else "Measured on") in inside


def test_the_cost_of_checkpoints_is_that_of_medians():
    text = checkpoint_overhead.report({"none": [10.0, 12.0, 11.0], "every 100 steps": [11.55, 40.0, 11.0]})
    assert "| none | 11.00 | 10.00 - 12.00 | - |" in text
    assert "| every 100 steps | 11.55 | 11.00 - 40.00 | +5.0 % |" in text


def test_the_stopwatch_takes_the_lines_it_is_told():
    import time

    watch = checkpoint_overhead._Stopwatch(2, 4)
    for step in range(6):
        watch.update(step, {}, line=False)
        watch.update(step, {}, line=True)
        time.sleep(0.02)
    assert 0.035 < watch.ended - watch.began < 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["banana"], ["differences", "--steps=many"], ["regression", "--rounds=0"], ["eval", "--seconds=-1"]],
)
def test_mistakes(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
