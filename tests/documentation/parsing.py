"""Takes a command of the documentation as far as its program understands it, and carries nothing out."""

import importlib
import re
import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS, _measure
from tests.documentation.pages import ROOT, Command

#: What each verb of `python -m resnet_jax` calls when it has read its flags; others are carried out.
BEGINS = {
    "train": "resnet_jax.training.loop.fit",
    "evaluate": "resnet_jax.training.distributed.initialize",
    "predict": "resnet_jax.training.load_weights.load_weights",
    "convert": "resnet_jax.training.load_weights.import_weights",
    "export": "resnet_jax.training.load_weights.load_weights",
    "prepare": "resnet_jax.data.imagenet.originals.open_originals",
    "analyze": "resnet_jax.cli.analyze.analyse",
    "compile": "resnet_jax.aot.topologies.find",
}

#: The same of `python -m experiments NAME`, by what follows.
EXPERIMENTS = {
    "run": "experiments.commands.run._launch",
    "render": "experiments.commands.render.fill_all",
    "campaign": "experiments.campaign_plan.make_campaign",
    "list": "experiments.commands.listing.fill_all",
}


class Begun(Exception):
    """The command had understood all of its arguments."""


def check(command: Command, patch: pytest.MonkeyPatch) -> None:
    """Raises AssertionError, or what the program raises, unless it understands the command."""
    words = [re.sub(r"^\[(.*)\]$", r"\1", word).replace("...", "") for word in command.words]
    program, *rest = words
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(rest) <= targets, f"there is no make {' '.join(rest)}"
    elif program in ("sbatch", "kubectl", "gcloud"):
        files = [word for word in rest if word.startswith("launch/")]
        assert all((ROOT / file).is_file() for file in files)
    elif rest[:2] == ["-m", "pip"] or program == "pip":
        _check_pip(rest)
    elif rest[:2] == ["-m", "pytest"]:
        assert all((ROOT / path).exists() for path in rest[2:] if not path.startswith("-"))
    elif rest[:2] == ["-m", "resnet_jax"]:
        _check_verb(rest[2:], patch)
    elif rest[:2] == ["-m", "experiments"]:
        _check_experiment(rest[2:], patch)
    elif rest[:2] == ["-m", "benchmarks"]:
        _check_benchmark(rest[2:], patch)
    else:
        raise AssertionError(f"{command.place}: nothing is known of {command.text}")


def _check_pip(words: Sequence[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for extra in re.findall(r"\.\[(.*)\]", word):
            assert set(extra.split(",")) <= set(extras)
        assert not word.endswith(".txt") or (ROOT / word).is_file()


def _check_benchmark(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    assert words[0] in BENCHMARKS, f"there is no benchmark {words[0]}"
    _stop_at(f"benchmarks.{BENCHMARKS[words[0]].module}.measure", patch)
    with pytest.raises(Begun):
        _measure(words)


def _check_verb(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    verb, *arguments = words
    main = importlib.import_module(f"resnet_jax.cli.{verb}").main
    if verb not in BEGINS:
        return main(arguments)
    if verb == "train":
        patch.setattr("resnet_jax.training.distributed.initialize", lambda *_: None)
    _stop_at(BEGINS[verb], patch)
    with pytest.raises(Begun) as begun:
        main(arguments)
    if verb == "train":
        from resnet_jax.training.config_checks import validate_config

        validate_config(begun.value.args[0][0])
    return None


def _check_experiment(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    from experiments import __main__ as experiments

    kind = next((word for word in words if word in EXPERIMENTS), "list")
    _stop_at(EXPERIMENTS[kind], patch)
    if kind == "run":
        patch.setattr("experiments.commands.run._dry_run", _begin)
        patch.setattr("experiments.commands.run.check_data", lambda plan: None)
    with pytest.raises(Begun):
        experiments._carry_out(words)


def _begin(*arguments: Any, **more: Any) -> Any:
    raise Begun(arguments)


def _stop_at(name: str, patch: pytest.MonkeyPatch) -> None:
    module, _, function = name.rpartition(".")
    patch.setattr(importlib.import_module(module), function, _begin)
