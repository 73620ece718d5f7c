"""Bytes on the wire, and other costs that are read off compiled programs or timed."""

import dataclasses

import jax
import pytest

from benchmarks import collectives, end_to_end, memory, scaling, startup
from benchmarks.resnet_jax_step import make_benchmark_trainer
from resnet_jax.errors import UserError
from resnet_jax.models.registry import VARIANTS


def test_all_reduces_are_read_off_a_programs_text():
    text = """
      %all-reduce.1 = f32[16,3]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}
      %all-reduce.2 = (f32[8]{0}, bf16[2,2]{1,0}, f32[]) all-reduce(%a, %b, %c), to_apply=%add
      %start = f32[5]{0} all-reduce-start(%y)
      %done = f32[5]{0} all-reduce-done(%start)
      %other = f32[99]{0} add(%all-reduce.1, %z)
    """
    assert collectives.all_reduces(text) == [192, 32 + 8 + 4, 20]


@pytest.mark.parametrize("group", [0, 2])
def test_a_step_sends_its_gradients_and_statistics(group):
    """On eight devices, 4 bytes for each parameter, and the sums of batch norm for each channel.

    Over the global batch these are two of its forward pass and two of its backward pass, or four where XLA does not
    join what it could; with groups, mean and variance alone, which are averaged over the devices. 64 bytes are for the
    loss, the error and other scalars.
    """
    trainer = make_benchmark_trainer("cifar_resnet20", 16, 8, stage_sizes=(1, 1), widths=(4, 8), bn_group_size=group)
    found = collectives.count(trainer)
    assert jax.device_count() == 8
    channels = 4 + 2 * 4 + 2 * 8  # the stem, and two layers in a unit of either stage
    gradients = 4 * found["params"]
    assert gradients <= found["bytes"] <= gradients + 4 * (2 if group else 6) * channels + 64, found


def test_the_report_of_scaling():
    counted = {"all_reduces": 50, "bytes": 100e6, "params": 25_000_000}
    rows = [
        {"kind": kind, "devices": n, "batch_size": 8, "images_per_second": 100.0 / n, **counted}
        for kind in ("weak", "strong")
        for n in (1, 2)
    ]
    text = scaling.report({"model": "a", "rows": rows, "counted": {"the whole batch": counted}})
    assert "| weak | 2 | 8 | 50 | 0.50 | 50 | 100.000 | 1.000 |" in text
    assert "| the whole batch | 50 | 100.00 | 1.0000 |" in text


def test_a_loop_makes_a_deep_nets_program_small(monkeypatch):
    """Read off compiled programs: deeper, one with a loop hardly grows, and rematerialised, it keeps less."""
    for name, size in (("shallow", 3), ("deep", 9)):
        fields = VARIANTS["cifar_resnet20"].fields | {"stage_sizes": (size,), "widths": (4,)}
        monkeypatch.setitem(VARIANTS, name, dataclasses.replace(VARIANTS["cifar_resnet20"], fields=fields))
    cases = [("shallow", "scan"), ("deep", "plain"), ("deep", "scan"), ("deep", "scan+remat")]
    shallow, plain, looped, kept = found = [memory.compiled_cost(name, way, 4) for name, way in cases]
    assert looped["temporary"] > 1.5 * kept["temporary"]
    assert looped["program"] - shallow["program"] < 0.5 * (plain["program"] - shallow["program"])
    assert "| deep | scan+remat | 4 |" in memory.report(found)


def test_a_command_is_timed_to_its_first_step(tmp_path):
    assert startup.run(["--help"], tmp_path, None)[1] < 60
    with pytest.raises(UserError, match="train failed: error: train needs --config"):
        startup.run(["train"], tmp_path, None)


def test_the_rate_of_a_run_is_the_median_of_its_lines_but_the_first(tmp_path):
    lines = "\n".join(f'{{"images_per_second": {n}}}' for n in (1, 10, 30, 20)) + '\n{"test_error": 1}\n'
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert end_to_end.of_metrics(tmp_path) == 20
    assert "| 0.900 |" in end_to_end.report({end_to_end.BARE: [100.0, 105.5], end_to_end.FIT: [90.0, 95.0]})
