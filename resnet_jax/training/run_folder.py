"""Writes the folder of a run that is trained: what `run_record` reads, and tensorboard/."""

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ml_collections import ConfigDict

from resnet_jax.atomic_write import atomic_write
from resnet_jax.config import differing_fields, to_dict
from resnet_jax.errors import UserError, writing
from resnet_jax.training.result import DatasetInfo, Result
from resnet_jax.training.run_record import CHANGES, DATASET_INFO, RunRecord
from resnet_jax.training.tensorboard import TensorBoardFile


class RunFolder(RunRecord):
    """Writes one run's folder, and reads it. What counts is `metrics.jsonl`; TensorBoard gets the same numbers.

    Of several processes, process 0 alone calls what writes (`distributed.agreed`).
    """

    def __init__(self, workdir: str | Path) -> None:
        super().__init__(workdir)
        self._tensorboard: TensorBoardFile | None = None
        self._lock: TextIO | None = None

    def open(self, config: ConfigDict) -> None:
        """Makes the folder for a run of `config`, or takes the one that is there, and locks it.

        Raises:
          UserError: if the folder cannot be written to, or another process trains in it.
        """
        path = self.workdir / "config.json"
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
            self._acquire_lock()
            if not path.exists():
                _write(path, json.dumps(to_dict(config), indent=2) + "\n")
            (self.workdir / "metrics.jsonl").touch()
        except OSError as error:
            raise UserError(f"cannot write to workdir {self.workdir}: {error.strerror or error}") from error

    def _acquire_lock(self) -> None:
        """Locks the folder until this process closes the record or ends, however it ends."""
        self._lock = (self.workdir / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"another process trains in workdir {self.workdir}; choose another one, or wait") from None
        except OSError:
            pass  # a file system without locks

    def replace_config(self, config: ConfigDict, step: int, info: DatasetInfo) -> None:
        """Records forced changes of a config, or other images, once the checkpoint could be read into it.

        changes.json says which steps were done under which values: a result must not pass for one of the new config
        alone. Changes after a checkpoint that was given up count from the step that is gone back to.

        Args:
          config: of the steps to come.
          step: steps that are done, whose state was restored.
          info: of the data set that is trained on from here.
        """
        differing = self.differing(config, info)
        earlier = self.changes()
        changes = [{**change, "after_step": min(change["after_step"], step)} for change in earlier] if step else []
        if differing and step:
            fields = {name: list(values) for name, values in differing.items()}
            changes.append({"after_step": step, "fields": fields})
        if changes != earlier:
            _write(self.workdir / CHANGES, json.dumps({"changes": changes}, indent=2) + "\n")
        if differing:
            _write(self.workdir / DATASET_INFO, json.dumps(info.to_json()) + "\n")
            # What was finished under the old config is not under the new one.
            (self.workdir / "result.json").unlink(missing_ok=True)
            _write(self.workdir / "config.json", json.dumps(to_dict(config), indent=2) + "\n")

    def differing(self, config: ConfigDict, info: DatasetInfo) -> dict[str, tuple[Any, Any]]:
        """Returns what would not be as in this run: fields with both values, and the images by their fingerprints."""
        return differing_fields(self.config(), config) | self._other_images(info)

    def _other_images(self, info: DatasetInfo) -> dict[str, tuple[str, str]]:
        """Returns both fingerprints if data.json is of other images; records of early versions do not say it."""
        recorded = self.dataset_info()
        if recorded is None or recorded.fingerprint in ("", info.fingerprint):
            return {}
        return {"data.fingerprint": (recorded.fingerprint, info.fingerprint)}

    def truncate(self, step: int) -> None:
        """Drops the lines past `step`, which a resumed run writes again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        _write(self.workdir / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self._close_tensorboard()
        try:
            self._tensorboard = TensorBoardFile(self.workdir / "tensorboard", purge_step=step + 1)
        except OSError as error:
            raise UserError(f"cannot write to workdir {self.workdir}: {error.strerror or error}") from error

    def check_is_held(self) -> None:
        """Raises UserError if the folder, or its lock, was removed or replaced: another process may train there."""
        if self._lock is None:
            return
        try:
            held = os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self._lock.name))
        except OSError:
            held = False
        if not held:
            raise UserError(
                f"workdir {self.workdir} or its lock was removed or replaced while this process trained there, which "
                "therefore ends; the same command goes on from the newest checkpoint that is left"
            )

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line, and the same values as TensorBoard scalars.

        Raises:
          UserError: if it cannot be written, as on a full disk or without the file; see also `check_is_held`.
        """
        self.check_is_held()
        try:
            path = self.workdir / "metrics.jsonl"
            with open(path, "a", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT)) as file:
                file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.workdir}/metrics.jsonl at step {step}: {error.strerror}; with that mended, the "
                "same command goes on"
            ) from error
        if self._tensorboard is not None:
            self._tensorboard.add(step, values)

    def sync(self) -> None:
        """Flushes the lines so far to the disk, so that they outlive a loss of power.

        Raises:
          UserError: if that fails; see also `check_is_held`.
        """
        self.check_is_held()
        with writing(self.workdir / "metrics.jsonl"), (self.workdir / "metrics.jsonl").open("rb") as file:
            os.fsync(file.fileno())

    def write_skipped(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Writes skipped.json.

        It holds whatever step a run goes on from: every checkpoint newer than the one that was gone back to was made
        without the batch.
        """
        _write(self.workdir / "skipped.json", json.dumps({"batches": list(batches)}, indent=2) + "\n")

    def write_dataset_info(self, info: DatasetInfo, force: Collection[str] = ()) -> None:
        """Writes data.json, unless it is there; `replace_config` does so once a step can be done with other images.

        Args:
          info: what to write.
          force: fields that may differ from those that the run began with; with one of `data`, the images may.

        Raises:
          UserError: if the run began with other images, or the same in another order.
        """
        recorded = None
        with contextlib.suppress(UserError):  # a damaged one is written anew
            recorded = self.dataset_info()
        if recorded is None:
            _write(self.workdir / DATASET_INFO, json.dumps(info.to_json()) + "\n")
        elif self._other_images(info) and not any(field.startswith("data.") for field in force):
            there, here = (f" ({source})" if source else "" for source in (recorded.source, info.source))
            raise UserError(
                f"the run in {self.workdir} began with other images, labels or another order of them{there} than "
                f"there are now{here}; --force=data.data_dir goes on with these"
            )

    def finish(self, result: Result) -> None:
        """Writes result.json, which makes the run finished."""
        try:
            self.check_is_held()
            _write(self.workdir / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
        finally:
            self.close()

    def close(self) -> None:
        """Closes the TensorBoard file and unlocks the folder."""
        self._close_tensorboard()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_tensorboard(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None


def _write(path: Path, text: str) -> None:
    """Writes a file whole.

    Raises:
      UserError: if it cannot be written, as on a full disk.
    """
    try:
        atomic_write(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; with that mended, the same command goes on") from error
