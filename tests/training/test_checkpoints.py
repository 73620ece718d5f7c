"""Checkpoints that are damaged, foreign, too many or that do not fit on the disk."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.evaluation.single_view import evaluate
from resnet_jax.training.checkpoint import Checkpoints, checksum
from resnet_jax.training.distributed import make_mesh, replicated
from resnet_jax.training.loop import fit
from resnet_jax.training.run_record import RunRecord

SHARDING = replicated(make_mesh(jax.devices()[:1]))


def state(value):
    """A stand-in for a train state, with arrays that do not compress to nothing."""
    rng = np.random.default_rng(value)
    arrays = {"w": rng.normal(size=(64, 64)).astype(np.float32), "step": np.int32(value), "on": np.bool_(value % 2)}
    return jax.device_put(arrays, SHARDING)


def save(directory, steps, keep=3, errors=None):
    checkpoints = Checkpoints(directory, keep)
    for step in steps:
        checkpoints.save(step, state(step), {"n": step}, {s: e for s, e in (errors or {}).items() if s <= step})
    checkpoints.close()


def restore(directory):
    checkpoints = Checkpoints(directory, 3)
    try:
        return checkpoints.restore(state(0), SHARDING)
    finally:
        checkpoints.close()


def assert_is(restored, step):
    assert restored.host == {"n": step}
    jax.tree.map(np.testing.assert_array_equal, restored.state, state(step))


def test_newest_is_restored_bitwise(tmp_path):
    save(tmp_path, (2, 4))
    restored = restore(tmp_path)
    assert_is(restored, 4)
    assert restored.damaged == ()


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "new") is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    save(tmp_path, (1, 2, 3, 4, 5, 6), keep=2, errors={1: 50.0, 2: 10.0, 4: 30.0})
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 5, 6]


def test_the_best_is_kept_by_the_next_process(tmp_path):
    """Which it is follows from the scores that the run knows, not from what one process saved."""
    errors = {2: 10.0, 3: 40.0, 4: 10.0}
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, (step,), keep=1, errors=errors)
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 5]  # the first of two alike


def test_what_the_host_saves_is_of_that_moment(tmp_path):
    """The run goes on and appends to its lists while a checkpoint is written in the background."""
    checkpoints = Checkpoints(tmp_path, 3)
    steps = [1]
    checkpoints.save(1, state(1), {"pending": steps}, {})
    steps.append(2)
    checkpoints.close()
    assert restore(tmp_path).host == {"pending": [1]}


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    save(tmp_path, (2, 2))
    assert_is(restore(tmp_path), 2)


def data_files(folder: Path):
    """Files of a checkpoint that hold its arrays or what is needed to read them, largest first."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(files, key=lambda p: -p.stat().st_size)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing data", "missing manifest", "emptied"])
def test_a_damaged_newest_is_said_and_the_one_before_is_used(tmp_path, damage):
    save(tmp_path, (2, 4))
    newest = tmp_path / "4"
    largest = data_files(newest)[0]
    if damage == "truncated":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif damage == "flipped":
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 0x10
        largest.write_bytes(bytes(data))
    elif damage == "missing data":
        largest.unlink()
    elif damage == "missing manifest":
        (newest / "state/manifest.ocdbt").unlink()
    else:
        shutil.rmtree(newest / "state")
    restored = restore(tmp_path)
    assert_is(restored, 2)
    assert len(restored.damaged) == 1 and "checkpoint 4 cannot be read" in restored.damaged[0]
    assert (tmp_path / "damaged-4").is_dir() and not newest.exists()
    # The run comes to that step again.
    save(tmp_path, (4,))
    assert_is(restore(tmp_path), 4)


def test_damaged_again_and_again(tmp_path):
    """Whatever lies where the damaged checkpoint is moved to."""
    for _ in range(3):
        save(tmp_path, (2, 4))
        shutil.rmtree(tmp_path / "4/state")
        assert_is(restore(tmp_path), 2)
    assert sorted(p.name for p in tmp_path.glob("damaged*")) == ["damaged-4", "damaged-4.2", "damaged-4.3"]
    (tmp_path / "damaged-4.4").write_text("a file")
    (tmp_path / "damaged-4.5").symlink_to(tmp_path / "nowhere")
    save(tmp_path, (4,))
    shutil.rmtree(tmp_path / "4/state")
    assert_is(restore(tmp_path), 2)
    assert (tmp_path / "damaged-4.6").is_dir()


def test_every_byte_of_the_hosts_json_is_under_the_checksum(tmp_path):
    """Flipped in each bit in turn; keys, numbers and the checksum itself. What it says is never changed."""
    host = {"pending": [{"loss": 1.25}], "seconds": 3.5, "loss_average": 0.75}
    writing = Checkpoints(tmp_path, 3)
    writing.save(2, state(2), host, {})
    writing.save(4, state(4), host, {})
    writing.close()
    reading = Checkpoints(tmp_path, 3, read_only=True)
    file = tmp_path / "4/host/metadata"
    whole = file.read_bytes()
    found = []
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        restored = reading.restore(state(0), SHARDING)
        assert restored.host == host
        found.append(int(restored.state["step"]))
    reading.close()
    assert found.count(2) > 0.9 * len(whole)


def test_a_checkpoint_of_before_is_read(tmp_path):
    """Early versions' sum is of the arrays alone."""
    save(tmp_path, (2,))
    file = tmp_path / "2/host/metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"checksum": checksum(state(2))}))
    assert_is(restore(tmp_path), 2)


def test_any_flipped_bit_in_any_file_is_noticed_or_harmless(tmp_path):
    """Never another state: what is restored is bitwise the newest checkpoint or the one before it."""
    save(tmp_path / "whole", (2, 4))
    files = [p.relative_to(tmp_path / "whole") for p in data_files(tmp_path / "whole/4")]
    assert len(files) > 5
    rng = np.random.default_rng(0)
    outcomes = set()
    for number, file in enumerate(files):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "whole", copy)
        data = bytearray((copy / file).read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (copy / file).write_bytes(bytes(data))
        restored = restore(copy)
        step = int(restored.state["step"])
        assert_is(restored, step)
        outcomes.add(step)
    assert 2 in outcomes


def test_all_damaged_is_an_error_and_nothing_is_moved(tmp_path):
    save(tmp_path, (2, 4))
    for step in ("2", "4"):
        shutil.rmtree(tmp_path / step / "state")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used: checkpoint 4 .*; checkpoint 2 "):
        restore(tmp_path)
    assert (tmp_path / "2").is_dir() and (tmp_path / "4").is_dir()


def test_checkpoints_of_another_net_are_an_error(tiny_config, tmp_path):
    """Forced over the config's check, the arrays do not fit; the earlier run's checkpoints stay."""
    fit(tiny_config(), tmp_path / "run")
    wider = tiny_config(model__widths=(4, 8, 16))
    with pytest.raises(UserError, match="can be used"):
        fit(wider, tmp_path / "run", force=["model.widths"])
    assert fit(tiny_config(), tmp_path / "run").steps == 6, "the finished run is as it was"
    with pytest.raises(UserError, match="unknown config field 'banana'"):
        fit(tiny_config(), tmp_path / "run", force=["banana"])


def test_force_goes_on_with_the_named_field_only(tiny_config, tmp_path):
    fit(tiny_config(), tmp_path / "run")
    longer = tiny_config(steps=8)
    with pytest.raises(UserError, match=r"steps: 6 there, 8 here\).*--force=steps"):
        fit(longer, tmp_path / "run")
    with pytest.raises(UserError, match="seed: 0 there, 1 here"):
        fit(tiny_config(steps=8, seed=1), tmp_path / "run", force=["steps"])
    result = fit(longer, tmp_path / "run", force=["steps"])
    assert result.steps == 8
    assert [x["step"] for x in RunRecord(tmp_path / "run").lines() if "loss" in x] == [2, 4, 6, 8]


def test_a_result_says_only_what_was_done(tiny_config, tmp_path):
    """Six steps of seed 0 are no result of four steps, nor of another seed, rate or set, however they are forced."""
    run = tmp_path / "run"
    fit(tiny_config(), run)
    files = {name: (run / name).read_bytes() for name in ("result.json", "config.json", "data.json", "metrics.jsonl")}
    for changed in (
        {"steps": 4}, {"seed": 1}, {"optimizer__learning_rate": 0.5}, {"batch_size": 8}, {"data__padding": 0},
        {"steps": 4, "early_stopping__patience": 1, "data__held_out": 100, "data__eval_split": "held_out"},
    ):  # fmt: skip
        fields = [name.replace("__", ".") for name in changed]
        with pytest.raises(UserError, match="of step 6.*no step would be done with the changed"):
            fit(tiny_config(**changed), run, force=fields)
        assert all((run / name).read_bytes() == content for name, content in files.items())
    assert RunRecord(run).result().changes == []

    result = fit(tiny_config(steps=8, seed=1), run, force=["steps", "seed"])
    assert result.changes == [{"after_step": 6, "fields": {"seed": [0, 1], "steps": [6, 8]}}]
    assert RunRecord(run).result().changes == result.changes, "and so does its file"
    longer = fit(tiny_config(steps=10, seed=1, data__normalization="per_channel"), run,
                 force=["steps", "data.normalization"])  # fmt: skip
    assert [change["after_step"] for change in longer.changes] == [6, 8]
    assert RunRecord(run).dataset_info().mean.shape == (1,), "of the images that the weights were last trained on"


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (8, 2), (1, 4), (2, 8)])
def test_a_checkpoint_of_some_devices_goes_on_with_others(tiny_config, tmp_path, saved_on, restored_on):
    """The run on both is the run on one device within float32 rounding."""
    fit(tiny_config(steps=4), tmp_path / "moved", devices=jax.devices()[:saved_on])
    moved = fit(tiny_config(), tmp_path / "moved", devices=jax.devices()[:restored_on], force=["steps"])
    fit(tiny_config(steps=4), tmp_path / "stayed", devices=jax.devices()[:1])
    stayed = fit(tiny_config(), tmp_path / "stayed", devices=jax.devices()[:1], force=["steps"])
    losses = [[x["loss"] for x in RunRecord(tmp_path / n).lines() if "loss" in x] for n in ("moved", "stayed")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert moved.steps == stayed.steps == 6


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MB of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", mount]).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_a_full_disk_is_an_error_with_the_earlier_checkpoints_whole(tiny_config, tmp_path, small_disk):
    """Filled after some steps; with room again, the run goes on to the uninterrupted run's result."""
    config = tiny_config(steps=12, checkpoint_every=1)
    ballast = (small_disk / "ballast").open("wb", buffering=0)  # a full disk may refuse a new file

    class Fills:
        """A progress display that uses up the disk when step 5 is done."""

        def __enter__(self): ...

        def __exit__(self, *_): ...

        def start(self, *_): ...

        def status(self, *_): ...

        def note(self, *_): ...

        def update(self, step, values, *, line):
            if step == 5:
                # To the last byte, however much a checkpoint in the background takes meanwhile.
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(2**16)):
                        pass

    with pytest.raises(UserError, match=r"cannot write .*(the disk is full|No space left)"):
        fit(config, small_disk / "run", Fills())
    ballast.close()
    (small_disk / "ballast").unlink()
    result = fit(config, small_disk / "run")
    whole = fit(config, tmp_path / "whole")
    assert (result.metrics["test_error"], result.metrics["train_error"]) == (
        whole.metrics["test_error"],
        whole.metrics["train_error"],
    )


def test_a_read_only_disk_is_an_error_and_can_be_evaluated(tiny_config, tmp_path, small_disk):
    """With nothing on it, and with a run that is not finished; writable again, that goes on."""

    def remount(mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", small_disk], check=True)

    if subprocess.run(["mount", "-o", "remount,ro", small_disk]).returncode:
        pytest.skip("this kernel does not remount")
    with pytest.raises(UserError, match="cannot write to workdir .*Read-only file system"):
        fit(tiny_config(), small_disk / "run")
    remount("rw")
    whole = fit(tiny_config(), small_disk / "run")
    (small_disk / "run/result.json").unlink()
    shutil.rmtree(small_disk / "run/checkpoints/6")
    remount("ro")
    with pytest.raises(UserError, match="cannot write to workdir .*Read-only file system"):
        fit(tiny_config(), small_disk / "run")
    assert evaluate(small_disk / "run").step == 4
    remount("rw")
    assert fit(tiny_config(), small_disk / "run").metrics["test_error"] == whole.metrics["test_error"]
