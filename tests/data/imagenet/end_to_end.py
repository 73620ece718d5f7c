"""ImageNet from its files to its errors: prepared, trained, killed, trained on, and tested by every protocol.

python -m tests.data.imagenet.end_to_end --size=224     (make imagenet-check)

The files are the 240 in shared/data/imagenet_sample, once as folders and once packed into tars as ImageNet comes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.data.imagenet.conftest import SAMPLE, examples
from tests.data.imagenet.test_originals import labels_file, tars_of
from tests.training.kills import environment, last_step, lines, state_bytes

ROOT = Path(__file__).parents[3]

#: The file that each protocol leaves; of `size` pixels for the first.
METRICS = {
    "centre_crop": "single_crop_{size}", "ten_crop": "ten_crop", "multi_scale": "multi_scale",
    "crop320": "single_crop_320",
}  # fmt: skip


def command(workdir: Path, *arguments: str) -> None:
    """Runs `python -m resnet_jax` to its end, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "resnet_jax", *arguments], capture_output=True, text=True, cwd=ROOT,
        env=environment(workdir),
    )  # fmt: skip
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])


def prepared(folder: Path) -> Path:
    """The sample's shards, made from tars and equal to those made from folders."""
    tars = tars_of(SAMPLE, folder / "tars")
    labels = labels_file(SAMPLE, folder / "labels")
    for source, out, more in ((SAMPLE, "a", ()), (tars, "b", (f"--val_labels={labels}",))):
        command(folder / "prepare", "prepare", "imagenet", f"--source={source}", f"--out={folder / out}",
                "--allow_partial", "--workers=2", *more)  # fmt: skip
        command(folder / "prepare", "prepare", "imagenet", f"--out={folder / out}", "--verify")
    for split, count in (("train", 200), ("val", 40)):
        a, b = examples(folder / "a", split), examples(folder / "b", split)
        assert sorted(a) == sorted(b) and len(a) == count
    return folder / "b"


def training(data: Path, net: str, workdir: Path, size: int, steps: int, fields: Sequence[str] = ()) -> list[str]:
    """The arguments of a short run at a size: a line and a checkpoint at each step."""
    sides = (size * 8 // 7, size * 8 // 7 * 15 // 8)
    return [
        "train", f"--config={ROOT}/configs/imagenet.py:{net}", f"--workdir={workdir}",
        *(f"--config.{field}" for field in (
            f"data.data_dir={data}", f"data.image_size={size}", f"data.shorter_side={sides}",
            f"data.eval_shorter_side={sides[0]}", "batch_size=8", "model.bn_group_size=8",
            "optimizer.learning_rate=0.001", f"steps={steps}", "log_every=1", "checkpoint_every=1",
            f"eval_every={steps}", *fields,
        )),
    ]  # fmt: skip


def killed_and_resumed(data: Path, net: str, folder: Path, size: int, steps: int, fields: Sequence[str] = ()) -> Path:
    """A run that SIGKILL ended inside an epoch and that went on: bitwise the run that was left alone; its folder."""
    whole, killed = folder / "whole", folder / "killed"
    alone, process = (
        subprocess.Popen(
            [sys.executable, "-m", "resnet_jax", *training(data, net, workdir, size, steps, fields)], cwd=ROOT,
            env=environment(workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for workdir in (whole, killed)
    )  # fmt: skip
    record = killed / "metrics.jsonl"
    while process.poll() is None and (not record.exists() or last_step(killed) < 2):
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()
    reached = last_step(killed)
    assert 2 <= reached < steps < 25, "25 steps of 8 are an epoch"
    assert not (killed / "result.json").exists()
    command(killed, *training(data, net, killed, size, steps, fields))
    assert alone.wait() == 0
    assert lines(killed) == lines(whole) and last_step(killed) == steps
    assert state_bytes(killed) == state_bytes(whole)
    return killed


def evaluated(
    workdirs: Sequence[Path], size: int, scales: str = "", told: Callable[[str], object] = lambda line: None,
    command: Callable[..., None] = command,
) -> None:  # fmt: skip
    """Tests the first run by every protocol, and all runs as an ensemble."""
    first = workdirs[0]
    for protocol, metric in METRICS.items():
        began = time.monotonic()
        more = [f"--scales={scales}"] if protocol == "multi_scale" and scales else []
        command(first, "evaluate", f"--workdir={first}", f"--protocol={protocol}", "--json", *more)
        told(f"{protocol}: {_check(first, metric.format(size=size))}, {time.monotonic() - began:.0f} s")
    single = json.loads((first / f"evaluations/single_crop_{size}.json").read_text())
    assert single["test_error"] == json.loads((first / "result.json").read_text())["metrics"]["test_error"]
    command(first, "evaluate", f"--workdir={first}", "--protocol=centre_crop", "--recompute_bn=16", "--json")
    again = json.loads((first / f"evaluations/single_crop_{size}.json").read_text())
    assert again["recompute_bn"] == 16 and again["test_loss"] != single["test_loss"]
    told(f"centre_crop, statistics of 16 training images: {_check(first, f'single_crop_{size}')}")
    command(first, "evaluate", f"--workdir={','.join(map(str, workdirs))}", "--protocol=centre_crop", "--json")
    told(f"ensemble: {_check(first, 'ensemble')}")


def _check(workdir: Path, metric: str) -> str:
    found = json.loads((workdir / f"evaluations/{metric}.json").read_text())
    assert found["metric"] == metric and found["examples"] == 40 and found["unreadable"] == 0
    assert 0 <= found["top5_error"] <= found["test_error"] <= 100 and 0 < found["test_loss"] < 50
    for kind in ("classes", "confusion", "calibration"):
        assert (workdir / f"evaluations/{metric}_{kind}.csv").stat().st_size
    return f"top-1 {found['test_error']:.1f} %, top-5 {found['top5_error']:.1f} %, loss {found['test_loss']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    if not SAMPLE.is_dir():
        raise SystemExit(f"{SAMPLE} is not there")
    began = time.monotonic()

    def told(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepared(folder)
        told("prepared from tars and from folders: the same images")
        runs = []
        for net in ("plain18", "resnet18"):
            (folder / net).mkdir()
            runs.append(killed_and_resumed(data, net, folder / net, options.size, options.steps))
            told(f"{net}: killed, resumed, bitwise the run that was left alone")
        scales = "" if options.size == 224 else f"{options.size},{options.size * 5 // 4}"
        for first, other in (runs, runs[::-1]):
            told(f"{first.parent.name}:")
            evaluated([first, other], options.size, scales, lambda line: told(f"  {line}"))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
