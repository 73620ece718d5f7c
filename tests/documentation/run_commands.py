"""Runs the commands of the documentation, shortened, in a terminal of 80 columns and in a pipe.

    python -m tests.documentation.run_commands [PAGE...]    # or: make docs-commands

All go in one folder, in the order of the pages, so that a command finds what those before it wrote. It takes minutes.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.detection.made import rectangles, write_voc
from tests.data.segmentation.made import shapes_folder
from tests.documentation.pages import ROOT, Command, commands
from tests.documentation.terminals import in_pipe, in_terminal

#: Data that are not part of the project, beside the checkout.
SHARED = ROOT.parent / "shared"

#: What is not run, and why.
NOT_RUN = {
    r"^make (?!help)": "it installs, tests or builds; that its target is there is tested",
    r"\bpip install\b": "it installs",
    r"-m pytest": "a test",
    r"^(sbatch|kubectl|gcloud)": "it needs a cluster",
    r"-m experiments campaign": "it publishes",
    r"-m resnet_jax compile": "it needs libtpu; make tpu-check does it",
    r"-m benchmarks": "it measures for minutes; tests/benchmarks has it",
    r"--num_processes": "it needs a second terminal; tests/training/test_processes.py does it",
    r"-m experiments he2015\.table6 run": "it trains ten nets at full length",
    r"-m experiments mine\.": "tests/examples/test_tutorials.py has that table",
    r"imagenet": "it needs ImageNet; make imagenet-check does it",
    r"IMAGENET|TARS|--workdir=RUN|--workdir=A,B,C|--from=FILE|init_from=runs/weights": "it needs ImageNet's weights",
    r"akamaster|resnet20-12fca82f": "tests/interop has these weights",
    r"fasterrcnn_resnet50_fpn_coco|weights/fpn": "it needs a file of torchvision's; tests/interop has one in small",
    r"he2015\.table4|he2015\.table7 run": "it needs ImageNet, or its weights",
    r"configs/faster_rcnn\.py": "it needs ImageNet's weights; tests/training/test_alternating.py does it in small",
    r"export --weights=DIR": "the layout is that of an ImageNet net",
    r"evaluate --weights=DIR": "it needs ImageNet",
}

#: Text of commands, and what stands there instead. The last ones shorten runs.
INSTEAD = (
    (r"^(\.venv/bin/)?python\b", sys.executable),
    (r"(?<= )(\.venv/bin/)python\b", sys.executable),
    (r" --config\.data\.data_dir=(TFDS_DIR|DIR)", ""),
    (r"--config\.init_from=(WEIGHTS|weights/resnet20)", "--config.init_from=runs/a"),
    (r"(configs/cifar10\.py:resnet56) --workdir=runs/a\b", r"\1 --workdir=runs/configured"),
    (r"(--config\.init_from=runs/base .*)--workdir=runs/mine\b", r"\1--workdir=runs/from_base"),
    (r"(configs/nuclei\.py) --config\.data\.folder=PATH", r"\1 --config.data.folder=runs/instances"),
    (r"(configs/bccd\.py) --config\.data\.folder=PATH", r"\1 --config.data.folder=runs/boxes"),
    (r"--weights=WEIGHTS IMAGE\.\.\. \[--top=5\] \[--json\]", "--weights=runs/first digit.png --top=5 --json"),
    (r"--config\.data\.folder=PATH", "--config.data.folder=runs/digits"),
    (r"--recompute_bn=\d+", "--recompute_bn=64"),
    (r"(analyze lesion .*)", r"\1 --repeats=1"),
    (r"(veit2016\.lesion\.digits run)", r"\1 --steps_scale=0.01"),
)

SHORT = (
    "--config.steps=4 --config.log_every=2 --config.eval_every=4 --config.checkpoint_every=4 --config.batch_size=16 "
    "--config.schedule.warmup=none"
)
WHOLE_BATCH = "--config.model.bn_group_size=0"
TINY = f'--config.model.stage_sizes="(1,1,1)" --config.model.widths="(4,8,8)" {WHOLE_BATCH}'


def shortened(text: str) -> str:
    """Returns a command as it is run."""
    text = text.partition("  #")[0].strip()
    for pattern, instead in INSTEAD:
        text = re.sub(pattern, instead, text)
    if " train " in text:
        if "init_from" not in text:  # whose net is that of the weights
            text += f" {WHOLE_BATCH if 'stage_sizes' in text else TINY}"
        text = f"{text} {SHORT}"
        if re.search(r"configs/cifar10\.py|=mine\.py", text) and "image_folder" not in text:
            text += " --config.data.name=synthetic"
    return text


def prepare(folder: Path) -> None:
    """Writes the files that the pages take for granted: photographs of digits, and the runs of `make ablation`."""
    rng = np.random.default_rng(0)
    (folder / "mine.py").write_text("from configs.cifar10 import get_config\n")  # tests/examples has the page's own
    for name in ("even", "odd"):
        (folder / "runs/digits" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "runs/digits" / name / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / "digit.png")
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(folder / name)
    shapes = shapes_folder(folder / "runs/instances", sides=((128, 128),))
    (shapes / "classes.txt").unlink()  # instances are no classes
    for part in ("train", "val"):
        (shapes / part / "masks").rename(shapes / part / "instances")
    shown = {name: rectangles(seed) for seed, name in enumerate("abcdef")}
    write_voc(folder / "runs/boxes", {"trainval": "abcd", "test": "ef"}, shown)
    train = f"{sys.executable} -m resnet_jax train {SHORT} {TINY} --config.seed="
    configs = {
        "runs/first": "digits:resnet20", "runs/ablation/plain56": "digits:plain56",
        "runs/ablation/resnet56": "digits:resnet56", "runs/a": "cifar10:resnet20", "runs/b": "cifar10:resnet20",
        "runs/c": "cifar10:resnet20",
    }  # fmt: skip
    for i, (workdir, config) in enumerate(configs.items()):
        data = " --config.data.name=synthetic" if "cifar10" in config else ""
        command = train.replace("train ", f"train --config={config} --workdir={workdir} ") + f"{i}{data}"
        done = in_pipe(command, folder, environment(folder), 600)
        assert done.status == 0, done.printed


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables besides this process's own."""
    return {"PYTHONPATH": str(ROOT)}


def wrong(status: int, printed: str) -> str:
    """Returns what is wrong with a command's end, empty if nothing is."""
    if status:
        return f"exit status {status}"
    for sign in ("Traceback", "Warning", "warning:", "…"):
        if sign in printed:
            return f"{sign!r} in its output"
    return ""


def main(pages: list[str]) -> int:
    """Runs all commands, or those of some pages, and returns 1 if one fails."""
    failed = ran = 0
    with tempfile.TemporaryDirectory(prefix="docs_commands_") as name:
        folder = Path(name)
        prepare(folder)
        for command in commands():
            if pages and not any(page in command.place for page in pages):
                continue
            reason = next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command.text)), "")
            if reason:
                print(f"not run  {command.place}: {reason}", flush=True)
                continue
            ran += 1
            failed += _run(command, folder)
    print(f"{ran} commands ran, {failed} failed")
    return int(bool(failed))


def _run(command: Command, folder: Path) -> int:
    text = shortened(command.text)
    for run in (in_pipe, in_terminal):
        # The second time goes on with what the first has left, as a user's second time does.
        done = run(text, folder, environment(folder), 600)
        if what := wrong(*done):
            print(f"FAILED   {command.place}, {run.__name__}: {what}\n{text}\n{done.printed}", flush=True)
            return 1
    print(f"ran      {command.place}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
