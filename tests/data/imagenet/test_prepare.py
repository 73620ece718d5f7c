"""From the originals to shards: what is stored, what is counted, what goes on after a kill."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_jax.__main__ import main
from resnet_jax.data.image_files import decode, image_size
from resnet_jax.data.imagenet import prepare as writing
from resnet_jax.data.imagenet.originals import open_originals
from resnet_jax.data.imagenet.prepare import Recipe, verify
from resnet_jax.data.imagenet.shards import ShardSource, pack, unpack
from resnet_jax.data.imagenet.source import Example, RecordError
from resnet_jax.data.imagenet.wnids import official_wnids
from resnet_jax.errors import UserError
from tests.data.imagenet.conftest import WNIDS, examples, fill, picture, run

ROOT = Path(__file__).parents[3]


def test_original_bytes_come_out_as_they_went_in(tiny_folder, tmp_path):
    manifests, done = run(tiny_folder, tmp_path / "out")
    assert [m["examples"] for m in manifests.values()] == [12, 6]
    assert [s["records"] for s in manifests["train"]["shards"]] == [5, 5, 2]
    assert done[0] == (0, 18) and done[-1] == (18, 18)
    stored = examples(tmp_path / "out", "train")
    paths = sorted((tiny_folder / "train").glob("*/*"))
    assert [e.data for e in stored] == [path.read_bytes() for path in paths]
    assert [e.label for e in stored] == [0] * 4 + [1] * 4 + [999] * 4
    assert verify(tmp_path / "out") == 5


def test_shrinking(tiny_folder, tmp_path):
    fill(tiny_folder, {f"train/{WNIDS[0]}/small.JPEG": picture(size=(20, 30))})
    run(tiny_folder, tmp_path / "out", Recipe(shorter_side=32, quality=85))
    sizes = {e.name: image_size(e.data) for e in examples(tmp_path / "out", "train")}
    assert sizes.pop("small.JPEG") == (20, 30)  # nothing is enlarged
    assert set(sizes.values()) == {(32, 43)}


def test_odd_images_are_kept_and_counted_and_bad_ones_named(tiny_folder, tmp_path):
    at = f"train/{WNIDS[1]}/"
    whole = picture(7)
    odd = {"gray.JPEG": picture(1, mode="L"), "cmyk.JPEG": picture(2, mode="CMYK"), "png.JPEG": picture(3, form="PNG"),
           "one.JPEG": picture(4, size=(1, 1))}  # fmt: skip
    bad = {"cut.JPEG": whole[: len(whole) // 2], "empty.JPEG": b"", "header.JPEG": whole[:30], "text.JPEG": b"no image"}
    fill(tiny_folder, {at + name: data for name, data in (odd | bad).items()})
    manifest = run(tiny_folder, tmp_path / "out")[0]["train"]
    assert manifest["counts"] == {"cmyk": 1, "grayscale": 1, "png": 1, "rgb": 13}
    assert {name for name, _ in manifest["skipped"]} == bad.keys()
    assert manifest["examples"] == 16 and manifest["source_examples"] == 20
    stored = {e.name: e.data for e in examples(tmp_path / "out", "train")}
    assert all(decode(data).shape[2] == 3 for data in stored.values())
    assert {name: stored[name] for name in odd} == odd  # so that training sees their pixels


def test_finished_shards_are_kept(tiny_folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(tiny_folder, out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    (out / "train-00001-of-00003.array_record").unlink()
    short = out / "train-00002-of-00003.array_record"
    short.write_bytes(short.read_bytes()[:-10])
    (out / ".left.part").write_bytes(b"of a process that was killed")
    _, done = run(tiny_folder, out)
    assert done[0] == (11, 18)
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    changed = {name for name in times if again[name] != times[name]}
    assert changed == {"train-00001-of-00003.array_record", short.name}
    assert verify(out) == 5 and not list(out.glob("*.part"))
    with pytest.raises(UserError, match="another preparation"):
        run(tiny_folder, out, Recipe(per_shard=5, shorter_side=32))


def command_of(source, out, *more):
    return [sys.executable, "-m", "resnet_jax", "prepare", "imagenet", f"--source={source}", f"--out={out}",
            "--allow_partial", "--images_per_shard=10", "--workers=1", *more]  # fmt: skip


def wait_for_shards(out, count):
    for _ in range(1500):
        if len(list(out.glob("*.array_record.json"))) >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"no {count} shards in 30 seconds")


def test_a_kill_loses_no_shard(sample, tmp_path):
    """SIGKILL in the middle, to parent and workers; the result is that of a run without."""
    out = tmp_path / "out"
    process = subprocess.Popen(command_of(sample, out), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_shards(out, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(out.glob("*.array_record.json"))) >= 3 and not (out / "val.json").exists()
    with pytest.raises(UserError, match="holds no finished val.json"):
        ShardSource(out, "val")
    manifests, done = run(sample, out, Recipe(per_shard=10))
    assert done[0][0] >= 30 and done[-1] == (240, 240)
    whole, _ = run(sample, tmp_path / "whole", Recipe(per_shard=10))
    for split in ("train", "val"):
        assert manifests[split]["shards"] == whole[split]["shards"]


@pytest.mark.parametrize("what", ["missing", "short", "manifest"])
def test_damaged_directories_are_refused(what, tiny_folder, tmp_path):
    out = tmp_path / "out"
    run(tiny_folder, out)
    shard = out / "train-00001-of-00003.array_record"
    if what == "missing":
        shard.unlink()
    elif what == "short":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        (out / "train.json").write_text("{")
    with pytest.raises(UserError, match=r"train.json cannot be read" if what == "manifest" else shard.name):
        ShardSource(out, "train")


def test_a_changed_bit_is_noticed(tiny_folder, tmp_path):
    record = pack(Example("name", 3, b"data"))
    assert unpack(record) == Example("name", 3, b"data")
    for at in range(len(record)):
        with pytest.raises(RecordError):
            unpack(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :])
    run(tiny_folder, tmp_path / "out")
    shard = tmp_path / "out/val-00000-of-00002.array_record"
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8", b"\xff\xd9", 1))
    with pytest.raises(UserError, match="is not what was written"):
        verify(tmp_path / "out")


def test_mistakes_are_one_line(tiny_folder, tmp_path, capsys):
    flat = fill(tmp_path / "flat", {f"train/{WNIDS[0]}/a.JPEG": b"", "val/image.JPEG": b""})
    strange = fill(tmp_path / "strange", {"train/n99999999/a.JPEG": b"", "val/n99999999/b.JPEG": b""})
    (tmp_path / "empty/train").mkdir(parents=True)
    (tmp_path / "empty/val").mkdir()
    fill(tmp_path / "tars", {"ILSVRC2012_img_train.tar": b"no tar", "ILSVRC2012_img_val.tar": b""})
    fill(tmp_path / "one", {"ILSVRC2012_img_train.tar": b"no tar"})
    fill(tmp_path / "hollow", dict.fromkeys(("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"), bytes(10240)))
    numbers = tmp_path / "numbers"
    numbers.write_text("490\n")
    cases = [
        ((f"--source={tiny_folder}",), "lacks n01484850"),
        ((f"--source={tmp_path}/nowhere",), "is not a folder"),
        ((f"--source={tmp_path}",), "holds neither"),
        ((f"--source={flat}", "--allow_partial"), "is not ILSVRC2012_val_NUMBER.JPEG"),
        ((f"--source={flat}", "--allow_partial", f"--val_labels={numbers}"), "has numbers"),
        ((f"--source={flat}", "--allow_partial", f"--val_labels={tmp_path}/none"), "cannot be read"),
        ((f"--source={strange}", "--allow_partial"), "n99999999"),
        ((f"--source={tmp_path}/empty", "--allow_partial"), "holds no images"),
        ((f"--source={tmp_path}/tars", "--allow_partial"), "is not a whole tar"),
        ((f"--source={tmp_path}/hollow", "--allow_partial"), "img_train.tar holds no images"),
        ((f"--source={tmp_path}/one", "--allow_partial"), "lacks ILSVRC2012_img_val.tar"),
        ((f"--source={tiny_folder}", "--quality=0"), "--quality=0"),
        ((), "prepare needs"),
    ]
    for arguments, expected in cases:
        assert main(["prepare", "imagenet", f"--out={tmp_path}/out", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, error


def test_the_command_says_what_is_there(tiny_folder, tmp_path, capsys):
    fill(tiny_folder, {f"val/{WNIDS[0]}/bad.JPEG": b""})
    arguments = ["prepare", "imagenet", f"--source={tiny_folder}", f"--out={tmp_path}/out", "--allow_partial"]
    assert main([*arguments, "--workers=1"]) == 0
    captured = capsys.readouterr()
    assert "train: 12 images (12 rgb) in 1 shard," in captured.out and "1 skipped" in captured.out
    assert "skipped val bad.JPEG: an empty file" in captured.err
    assert main(["prepare", "imagenet", f"--out={tmp_path}/out", "--verify"]) == 0


@pytest.mark.parametrize(
    "file",
    ["labels_bom/val_labels_bom.txt", "labels_kaggle_csv/LOC_val_solution.csv", "labels_kaggle_csv/nosuffix.txt"],
)
def test_labels_of_windows_and_kaggle_give_the_official_ones(file, tiny_folder, tmp_path):
    cases = ROOT.parent / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("shared/cases is not there")
    images = {f"val/ILSVRC2012_val_0000000{i}.JPEG": picture(i) for i in range(1, 7)}
    flat = fill(tmp_path / "flat", images | {f"train/{WNIDS[0]}/a.JPEG": picture(9)})
    arguments = ["prepare", "imagenet", f"--source={flat}", f"--out={tmp_path}/out", "--allow_partial", "--workers=1"]
    assert main([*arguments, f"--val_labels={cases / file}"]) == 0
    stored = {e.name: official_wnids()[e.label] for e in examples(tmp_path / "out", "val")}
    official = ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189"]
    assert stored == dict(zip((name.removeprefix("val/") for name in images), official, strict=True))


def test_a_worker_writes_what_it_was_told(tiny_folder, tmp_path):
    """In this process: coverage of what workers do."""
    source = open_originals(tiny_folder, allow_partial=True)["train"]
    shard = writing.write_shard(writing._Task(source, tmp_path, "x.array_record", 2, 3, Recipe(), "plan"))
    assert (shard.records, shard.counts, shard.skipped) == (3, {"rgb": 3}, [])


@pytest.mark.skipif(sys.platform != "linux", reason="the file system takes UTF-8 alone")
def test_a_name_that_is_no_text_is_kept(tiny_folder, tmp_path):
    """As a file keeps that was unpacked from an archive in Latin-1: caf\xe9.JPEG."""
    folder = os.fsencode(tiny_folder / "train" / WNIDS[0])
    os.rename(folder + f"/{WNIDS[0]}_0.JPEG".encode(), folder + b"/caf\xe9.JPEG")
    manifests, _ = run(tiny_folder, tmp_path / "out")
    assert manifests["train"]["examples"] == 12
    assert b"caf\xe9.JPEG" in [os.fsencode(one.name) for one in examples(tmp_path / "out", "train")]


def test_other_labels_are_another_preparation(tiny_folder, tmp_path):
    """Corrected labels: refused with what to remove, and then stored; training shards stay as they are."""
    flat = tmp_path / "flat"
    flat.mkdir()
    (tiny_folder / "train").rename(flat / "train")
    names = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2)]
    fill(flat, {f"val/{name}.JPEG": picture(i) for i, name in enumerate(names)})
    labels = {}
    for which, ids in (("wrong", WNIDS[:2]), ("right", WNIDS[1:])):
        labels[which] = tmp_path / which
        labels[which].write_text("".join(f"{n},{i}\n" for n, i in zip(names, ids, strict=True)))
    out = tmp_path / "out"
    run(flat, out, val_labels=labels["wrong"])
    train = (out / "train-00000-of-00003.array_record").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"another preparation \(val-00000.* or labels.*remove val-\*"):
        run(flat, out, val_labels=labels["right"])
    assert [e.label for e in examples(out, "val")] == [0, 1]
    for path in out.glob("val-*"):
        path.unlink()
    run(flat, out, val_labels=labels["right"])
    assert [e.label for e in examples(out, "val")] == [1, 999]
    assert (out / "train-00000-of-00003.array_record").stat().st_mtime_ns == train


@pytest.mark.parametrize("change", ["another size of a file", "another file", "one file less"])
def test_other_images_are_another_preparation(change, tiny_folder, tmp_path):
    run(tiny_folder, tmp_path / "out")
    path = tiny_folder / f"train/{WNIDS[2]}/{WNIDS[2]}_3.JPEG"
    if change == "another size of a file":
        path.write_bytes(picture(99))
    elif change == "another file":
        path.rename(path.with_name("z.JPEG"))
    else:
        path.unlink()
    with pytest.raises(UserError, match="another preparation"):
        run(tiny_folder, tmp_path / "out")


def living(group):
    """The processes of a group that have not ended; one that has may wait for a parent that never asks."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = status.read_text().rpartition(")")[2].split()[:3]
            found += [status.parent.name] if int(of) == group and state != "Z" else []
    return found


def test_one_process_prepares_a_folder(sample, tmp_path):
    """A second one is refused and changes nothing; a kill of the first leaves no worker that goes on writing."""
    out = tmp_path / "out"
    first = subprocess.Popen(command_of(sample, out), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for_shards(out, 2)
        os.killpg(first.pid, signal.SIGSTOP)  # so that it does not end before the second begins
        second = subprocess.run(command_of(sample, out), cwd=ROOT, capture_output=True, text=True)
        assert second.returncode == 2 and second.stderr.count("\n") == 1
        assert f"another process prepares --out={out}; wait for it" in second.stderr
        first.kill()  # the parent alone
        first.wait()
        os.killpg(first.pid, signal.SIGCONT)
        ends = time.monotonic() + 30
        while living(first.pid):
            assert time.monotonic() < ends, "its workers live on"
            time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    _, done = run(sample, out, Recipe(per_shard=10))
    assert done[0][0] >= 20 and verify(out) == 24 and not list(out.glob("*.part"))


def test_a_process_prepares_a_folder_to_its_end_while_others_are_refused(tiny_folder, tmp_path):
    holds = open(fill(tmp_path / "out", {"lock": b""}) / "lock")
    fcntl.flock(holds, fcntl.LOCK_EX)
    (tmp_path / "out/.train.1.part").write_bytes(b"of the first")
    with pytest.raises(UserError, match="another process prepares"):
        run(tiny_folder, tmp_path / "out")
    assert (tmp_path / "out/.train.1.part").exists()
    holds.close()
    run(tiny_folder, tmp_path / "out")
