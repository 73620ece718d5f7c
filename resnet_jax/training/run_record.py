"""Reads a run's folder: config.json, data.json, metrics.jsonl, skipped.json, changes.json, result.json."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax.atomic_write import parse_json, read_json_object
from resnet_jax.config import differing_fields, from_dict
from resnet_jax.errors import UserError, one_line
from resnet_jax.training.result import DatasetInfo, Result

CHECKPOINTS = "checkpoints"
DATASET_INFO = "data.json"
CHANGES = "changes.json"

#: Values of a training line that depend on the machine and the moment, not on the run.
MACHINE_METRICS = frozenset(
    {"images_per_second", "step_seconds", "data_wait", "compile_seconds", "device_memory", "host_memory"}
)


class RunRecord:
    """Reads one run's folder, whether the run is finished or not. `RunFolder` writes it."""

    def __init__(self, workdir: str | Path) -> None:
        self.workdir = Path(workdir).expanduser()

    def config(self) -> ConfigDict:
        """Reads the run's config.

        Raises:
          UserError: if the folder holds no run.
        """
        path = self.workdir / "config.json"
        try:
            return from_dict(read_json_object(path))
        except FileNotFoundError:
            raise UserError(f"{self.workdir} holds no run: there is no config.json") from None
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {one_line(error)}") from error

    def holds(self, config: ConfigDict, force: Collection[str] = ()) -> bool:
        """Returns whether the folder holds a run of this config.

        Args:
          config: the config.
          force: fields that may differ.

        Raises:
          UserError: if it holds a run that differs in other fields, naming them.
        """
        try:
            if not (self.workdir / "config.json").exists():
                if any(entry.name.isdigit() for entry in (self.workdir / CHECKPOINTS).glob("*")):
                    raise UserError(
                        f"workdir {self.workdir} holds checkpoints but no config.json; choose another workdir"
                    )
                return False
        except OSError as error:
            raise UserError(f"cannot use workdir {self.workdir}: {error.strerror or error}") from error
        differing = differing_fields(self.config(), config)
        if refused := {name: values for name, values in differing.items() if name not in force}:
            fields = "; ".join(f"{name}: {there} there, {here} here" for name, (there, here) in refused.items())
            raise UserError(
                f"workdir {self.workdir} holds a run of another config ({fields}); choose another workdir, or go on "
                f"with the changed fields by --force={','.join(refused)}"
            )
        return not differing

    def result(self) -> Result | None:
        """Reads the result; None if the run is not finished.

        Raises:
          UserError: if it cannot be read.
        """
        path = self.workdir / "result.json"
        if not path.exists():
            return None
        try:
            return Result.from_json(read_json_object(path))
        except KeyError as error:
            raise UserError(f"{path} lacks {error.args[0]}: it was not written by this version") from None
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None

    def dataset_info(self) -> DatasetInfo | None:
        """Reads data.json; None if there is none.

        Raises:
          UserError: if it is damaged.
        """
        path = self.workdir / DATASET_INFO
        try:
            return DatasetInfo.from_json(read_json_object(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def lines(self) -> list[dict[str, Any]]:
        """Reads all lines of metrics.jsonl in order. A last line that a kill cut short is left out.

        Raises:
          UserError: if it cannot be read, or another line holds anything but numbers by name, with a step.
        """
        path = self.workdir / "metrics.jsonl"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        found = []
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                value = parse_json(line.decode())
                if not _is_line(value):
                    raise ValueError(line)
            except ValueError:
                start = line.strip()[:60].decode(errors="backslashreplace")
                raise UserError(f"line {number} of {path} is damaged: {start!r}") from None
            found.append(value)
        return found

    def changes(self) -> list[dict[str, Any]]:
        """Reads changes.json: after which step the run went on with which fields changed, with both values."""
        return self._records(CHANGES, "changes", "after_step")

    def skipped_batches(self) -> list[dict[str, Any]]:
        """Reads skipped.json: the batches that were left out, each with its number (`batch`) and why."""
        return self._records("skipped.json", "batches", "batch")

    def _records(self, file: str, name: str, number: str) -> list[dict[str, Any]]:
        """Reads the list `name` of a file, none if there is no file; each item has a whole number under `number`."""
        path = self.workdir / file
        if not path.exists():
            return []
        found = read_json_object(path).get(name)
        if not isinstance(found, list) or not all(isinstance(r, dict) and type(r.get(number)) is int for r in found):
            raise UserError(f"{path} is damaged: it holds no list of {name}")
        return found


def _is_line(value: Any) -> bool:
    """Returns whether a value is a step with numbers by name, all of which float64 can hold."""
    return (
        isinstance(value, dict)
        and type(value.get("step")) is int
        and all(type(number) in (int, float) and abs(number) < sys.float_info.max for number in value.values())
        and 0 <= value["step"] < 2**53
    )
