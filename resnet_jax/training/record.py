"""A run's folder: config.json, data.json, metrics.jsonl, skipped.json, tensorboard/, checkpoints/, result.json."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from resnet_jax.atomic_write import atomic_write, read_json_object
from resnet_jax.config import differing_fields, from_dict, to_dict
from resnet_jax.errors import UserError

CHECKPOINTS = "checkpoints"

#: Values of a training line that depend on the machine and the moment, not on the run.
OF_THE_MACHINE = frozenset(
    {"images_per_second", "step_seconds", "data_wait", "compile_seconds", "device_memory", "host_memory"}
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run came to; errors in percent.

    Attributes:
      model, dataset: names.
      config_hash: same for runs of the same config and seed.
      commit, versions, hardware: see `provenance`.
      finished: when, UTC, ISO 8601.
      seed, steps, batch_size: of the run.
      seconds: from start to end, compilation, evaluations and earlier parts of a resumed run included.
      images_per_second: median of the training lines; compilation and evaluations excluded. Of several runs in one
        program (`runs_at_once` in `hardware`), the run's own share.
      depth: weighted layers.
      params: parameters.
      flops: multiply-adds for one image.
      train_error: of the batches of the last epoch as they were trained on, as in the paper's figures.
      test_error: after the last step, single view: what the papers report. With early stopping, of the weights that
        are kept, which are chosen by it: a little too low.
      best_test_error: lowest of all evaluations. Chosen on the test set, so never a result: beside it, for
        comparison with work that reports it.
      evaluated_on: "test", "validation", or "held_out" for a part of the training set.
      skipped_batches: batches that `on_nan="rollback"` left out; skipped.json names them.
      stopped_step, kept_step: with early stopping, the step that training ended at, and the one whose weights are kept.
    """

    model: str
    dataset: str
    config_hash: str
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    finished: str
    seed: int
    steps: int
    batch_size: int
    seconds: float
    images_per_second: float
    depth: int
    params: int
    flops: int
    train_error: float
    test_error: float
    best_test_error: float
    evaluated_on: str
    skipped_batches: int = 0
    stopped_step: int | None = None
    kept_step: int | None = None


class RunRecord:
    """Reads and writes one run's folder. `metrics.jsonl` is the truth; TensorBoard gets the same numbers."""

    def __init__(self, workdir: str | Path) -> None:
        self.workdir = Path(workdir).expanduser()
        self._tensorboard: SummaryWriter | None = None
        self._lock: TextIO | None = None

    def begin(self, config: ConfigDict) -> None:
        """Makes the folder for a run of `config`, or goes on with what is there.

        Raises:
          UserError: if the folder cannot be written to, or another process trains in it.
        """
        path = self.workdir / "config.json"
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            self._take()
            if not path.exists():
                _write(path, json.dumps(to_dict(config), indent=2) + "\n")
            (self.workdir / "metrics.jsonl").touch()
        except OSError as error:
            raise UserError(f"cannot write to workdir {self.workdir}: {error.strerror or error}") from error

    def _take(self) -> None:
        """Locks the folder until this process closes the record or ends, however it ends."""
        self._lock = (self.workdir / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"another process trains in workdir {self.workdir}; choose another one, or wait") from None
        except OSError:
            pass  # a file system without locks

    def adopt(self, config: ConfigDict) -> None:
        """Makes a config with changed fields that of the run, once its checkpoint has been read into it."""
        if differing_fields(self.config(), config):
            # What was finished under the old config is not under the new one.
            (self.workdir / "result.json").unlink(missing_ok=True)
            _write(self.workdir / "config.json", json.dumps(to_dict(config), indent=2) + "\n")

    def is_same(self, config: ConfigDict, force: Collection[str] = ()) -> bool:
        """Whether the folder holds a run of this config.

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

    def config(self) -> ConfigDict:
        """The run's config.

        Raises:
          UserError: if the folder holds no run.
        """
        path = self.workdir / "config.json"
        try:
            return from_dict(read_json_object(path))
        except FileNotFoundError:
            raise UserError(f"{self.workdir} holds no run: there is no config.json") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from error

    def result(self) -> Result | None:
        """The result, or None if the run is not finished."""
        path = self.workdir / "result.json"
        if not path.exists():
            return None
        fields = {f.name for f in dataclasses.fields(Result)}
        record = read_json_object(path)
        required = {f.name for f in dataclasses.fields(Result) if f.default is dataclasses.MISSING}
        if missing := sorted(required - record.keys()):
            raise UserError(f"{path} lacks {', '.join(missing)}: it was not written by this version")
        return Result(**{k: v for k, v in record.items() if k in fields})

    def lines(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl in order. A last line that a kill cut short is left out."""
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        found = []
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            if not line.endswith("\n"):
                break
            try:
                value = json.loads(line)
                value["step"] + 0
            except (ValueError, TypeError, KeyError):
                raise UserError(f"line {number} of {path} is damaged: {line.strip()[:60]!r}") from None
            found.append(value)
        return found

    def truncate(self, step: int) -> None:
        """Drops the lines past `step`, which a resumed run is about to write again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        _write(self.workdir / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self._close_tensorboard()
        try:
            self._tensorboard = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise UserError(f"cannot write to workdir {self.workdir}: {error.strerror or error}") from error

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line, and the same values as TensorBoard scalars.

        Raises:
          UserError: if it cannot be written, as on a full disk.
        """
        try:
            with (self.workdir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.workdir}/metrics.jsonl at step {step}: {error.strerror}; with that mended, the "
                "same command goes on"
            ) from error
        if self._tensorboard is not None and _is_alive(self._tensorboard):
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def sync(self) -> None:
        """Sees to it that the lines so far outlive a loss of power."""
        with (self.workdir / "metrics.jsonl").open("rb") as file:
            os.fsync(file.fileno())

    def skipped(self) -> list[dict[str, Any]]:
        """The batches that were left out, each with its number (`batch`) and why."""
        path = self.workdir / "skipped.json"
        if not path.exists():
            return []
        batches = read_json_object(path).get("batches")
        if not isinstance(batches, list) or not all(
            isinstance(b, dict) and type(b.get("batch")) is int for b in batches
        ):
            raise UserError(f"{path} is damaged: it holds no list of batches")
        return batches

    def skip(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Writes skipped.json.

        It does not depend on the step that a run goes on from: no checkpoint is ever newer than the last one that was
        gone back to, but those made without the batch.
        """
        _write(self.workdir / "skipped.json", json.dumps({"batches": list(batches)}, indent=2) + "\n")

    def describe(self, name: str, facts: Mapping[str, Any]) -> None:
        """Writes a file of JSON that says what the run is of, unless it is there."""
        if not (self.workdir / name).exists():
            _write(self.workdir / name, json.dumps(facts) + "\n")

    def finish(self, result: Result) -> None:
        """Writes result.json, which makes the run finished."""
        _write(self.workdir / "result.json", json.dumps(dataclasses.asdict(result), indent=2) + "\n")
        self.close()

    def close(self) -> None:
        """Closes the TensorBoard file and lets others into the folder."""
        self._close_tensorboard()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_tensorboard(self) -> None:
        if self._tensorboard is not None and _is_alive(self._tensorboard):
            with contextlib.suppress(OSError):  # on a full disk, where metrics.jsonl has all that matters
                self._tensorboard.close()
        self._tensorboard = None


def _is_alive(writer: SummaryWriter) -> bool:
    """Whether its thread still writes: it dies of its first error, and whoever then waits for it waits for ever."""
    return writer.file_writer.event_writer._worker.is_alive()


class OthersRecord(RunRecord):
    """The record in processes other than 0, which only read it."""

    def begin(self, config: ConfigDict) -> None: ...

    def adopt(self, config: ConfigDict) -> None: ...

    def truncate(self, step: int) -> None: ...

    def append(self, step: int, values: Mapping[str, float]) -> None: ...

    def sync(self) -> None: ...

    def skip(self, batches: Sequence[Mapping[str, Any]]) -> None: ...

    def describe(self, name: str, facts: Mapping[str, Any]) -> None: ...

    def finish(self, result: Result) -> None: ...


def _write(path: Path, text: str) -> None:
    """Writes a file whole.

    Raises:
      UserError: if it cannot be written, as on a full disk.
    """
    try:
        atomic_write(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; with that mended, the same command goes on") from error
