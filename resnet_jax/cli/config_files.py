"""Finds the config file that `--config=FILE[:NET]` names, from any directory."""

import importlib
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from resnet_jax.errors import UserError, unknown_name

#: The configs of this project: in the package where it is installed, and beside it in a checkout.
FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")


def own_folder() -> Path | None:
    """Returns the folder of the configs of this project."""
    return next((folder for folder in FOLDERS if (folder / "cifar10.py").is_file()), None)


def resolved(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the path of the config file after `--config`, and makes its imports work.

    FILE is a path, or the name of one of this project's own configs: `cifar10:resnet20`, `configs/cifar10.py:resnet20`.
    A config file can import them as `configs.cifar10`, and what lies beside it by its name.

    Raises:
      UserError: if there is no such file.
    """
    found = list(arguments)
    for i, argument in enumerate(found):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[i] = f"{flag}={_with_path(value)}"
        elif i + 1 < len(found):
            found[i + 1] = _with_path(found[i + 1])
    return found


def _with_path(value: str) -> str:
    file, colon, net = value.partition(":")
    path, own = Path(file).expanduser(), own_folder()
    if not path.is_file():
        names = [] if own is None else sorted(one.stem for one in own.glob("[a-z]*.py") if one.stem != "small_images")
        name = path.name.removesuffix(".py")
        if own is None or name not in names or path.parent not in (Path(), Path("configs")):
            hint = str(unknown_name("config", name, names)).partition("; ")[2]
            hint = hint.removeprefix("known: ")
            raise UserError(f"there is no config file {file!r}; give the path of a file, or one of our own: {hint}")
        path = own / f"{name}.py"
    if own is not None:
        _add_to_configs(own)
    if path.parent != own:
        sys.path.append(str(path.parent.absolute()))
    return f"{path}{colon}{net}"


def _add_to_configs(folder: Path) -> None:
    """Adds a folder to those of the package `configs`, behind the user's own if there is one of that name."""
    try:
        package = importlib.import_module("configs")
    except ModuleNotFoundError:
        package = sys.modules["configs"] = types.ModuleType("configs")
        package.__path__ = []
    if str(folder) not in package.__path__:
        package.__path__ = [*package.__path__, str(folder)]
