"""Tables of compiled steps, from records whose numbers are known, and what is compiled for them."""

import json
import subprocess

import pytest

from benchmarks import slices
from benchmarks.local_processes import answer
from benchmarks.slices import Row
from resnet_jax.errors import UserError
from resnet_jax.models.registry import get_variant

#: 4 ms of arithmetic and 5 ms of bytes on a v5e, 6 ms by the compiler; 40 MB take 0.35 ms on the links of 8 chips.
STEP = {
    "peak_bytes": 3 * 2**30, "flops": 4e-3 * 197e12, "memory_bytes": 5e-3 * 819e9, "cycles": 9_000_000,
    "inner_loops": [], "collectives": 2, "collective_bytes": 40_000_000, "overlapped": False, "cpu_seconds": 99.6,
    "measured": "Measured on A.",
}  # fmt: skip


def cells(text, row=2):
    return [cell.strip() for cell in text.splitlines()[row].strip("|").split("|")]


def test_a_row_names_a_net_fields_images_and_chips():
    assert Row.parse("resnet50@v5e:2x4") == ("resnet50", (), 256, "v5e:2x4")
    assert Row.parse("cifar_resnet1202+scan+remat@v6e:1x1") == ("cifar_resnet1202", ("scan", "remat"), 128, "v6e:1x1")
    assert Row.parse("resnet50+flax/16@v5e:16x16") == ("resnet50", ("flax",), 16, "v5e:16x16")
    for row in (*slices.ROWS, *slices.DEEP):
        assert get_variant(Row.parse(row).net)


@pytest.mark.parametrize(
    "row, message",
    [("resnet50", "NET"), ("resnet50/0@v5e:1x1", "NET"), ("resnet51@v5e:1x1", "unknown net 'resnet51'"),
     ("resnet50+skan@v5e:1x1", "unknown field 'skan'; did you mean scan"), ("resnet50@v9:1x1", "unknown chip")],
)  # fmt: skip
def test_mistakes_in_rows(row, message):
    with pytest.raises(UserError, match=message):
        slices.measure(["resnet18@v5e:1x1", row], again=False, limit=1)


def test_the_table_is_worked_out_from_the_compiled_numbers():
    """By hand: a ring of 8 sends 2 * 7/8 of 40 MB at 200 GB/s, 0.35 ms; 6 of 6.35 ms are computation."""
    text = slices.report({"resnet50/64@v5e:2x4": STEP})
    assert dict(zip(cells(text, 0), cells(text), strict=True)) == {
        "net": "resnet50", "with": "-", "chips": "v5e:2x4", "images": "512", "memory, GiB": "3.00", "GFLOP": "788",
        "GB moved": "4.09", "roofline, ms": "5.00", "bound by": "memory",
        "images/s at most": f"{512 / 5.35e-3:,.0f}", "estimated, ms": "6.0", "collectives": "2", "MB": "40.0",
        "on the links, ms": "0.35", "efficiency, %": "94.5 - 100.0", "CPU s to compile": "100",
    }  # fmt: skip


def test_efficiency_where_the_links_take_longer_than_the_step():
    assert slices.efficiency(2, 3) == (0.4, pytest.approx(2 / 3))


def test_what_does_not_fit_or_is_given_up_or_not_known():
    """One chip exchanges nothing, so that there are no columns of it; a loop's operations are counted once."""
    rest = {"measured": "Measured on A."}
    text = slices.report({
        "cifar_resnet110@v5e:1x1": STEP | {"inner_loops": [17, 17]},
        "cifar_resnet1202+scan@v5e:1x1": {"needs": 16.33, "has": 15.75, "cpu_seconds": 300, **rest},
        "cifar_resnet1202@v5e:1x1": {"limit": 900, "measured": "Measured on B."},
    })  # fmt: skip
    looped, too_much, given_up = (cells(text, row) for row in (2, 3, 4))
    assert looped[4:] == ["3.00", *["-"] * 5, "6.0", "100"]
    assert too_much[4:] == ["16.33 of 15.75: too much", *["-"] * 6, "300"]
    assert given_up[4:] == [*["-"] * 7, "more than 900"]
    assert text.endswith("Compiled on A. Compiled on B: cifar_resnet1202@v5e:1x1.")


def test_only_what_is_missing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "RECORDS", tmp_path / "results" / "slices.json")
    asked = []

    def compiled(arguments, what, cpu_seconds):
        asked.append(what)
        if "scan" not in what:
            raise subprocess.TimeoutExpired(arguments, cpu_seconds)
        return {"flops": len(asked)}

    monkeypatch.setattr(slices, "answer", compiled)
    rows = ["cifar_resnet110+scan@v5e:1x1", "cifar_resnet110@v5e:1x1"]
    first = slices.measure(rows, again=False, limit=7)
    assert list(first) == asked == rows
    assert first[rows[0]]["flops"] == 1 and first[rows[1]]["limit"] == 7
    assert all("Measured on" in record["measured"] for record in first.values())
    assert slices.measure(rows, again=False, limit=7) == first == json.loads(slices.RECORDS.read_text())
    assert asked == rows
    assert slices.measure(rows[:1], again=True, limit=7)[rows[0]]["flops"] == 3


def test_a_process_may_take_so_many_seconds_of_the_cpu():
    assert answer(["-c", "print(3)"], "three", cpu_seconds=9) == 3
    with pytest.raises(subprocess.TimeoutExpired):
        answer(["-c", "while True: pass"], "for ever", cpu_seconds=1)
