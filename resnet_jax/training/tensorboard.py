"""Writes a run's numbers as TensorBoard reads them, beside metrics.jsonl, which is the record."""

import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

#: Seconds between two flushes to the disk.
FLUSH_SECONDS = 120

#: How names of event files begin; the time follows.
_PREFIX = "events.out.tfevents."


class TensorBoardFile:
    """Writes scalars to an event file of its own in a folder.

    It is written in the caller's thread. tensorboardX's `SummaryWriter` has one of its own, which prints what it meets
    on a full disk, also after the command's last words.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Opens a file, which hides what earlier ones have from `purge_step` on.

        Raises:
          OSError: if it cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_PREFIX}{_after_others(folder):017.6f}.{socket.gethostname()}"
        self._file: RecordWriter | None = RecordWriter(str(path))
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), step=purge_step, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.SessionStatus.START)
        self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step; after an error, as on a full disk, nothing more is written."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self._flushed = -FLUSH_SECONDS
        self._write(None)
        self._file = None

    def _write(self, event: Event | None) -> None:
        if self._file is None:
            return
        try:
            if event is not None:
                self._file.write(event.SerializeToString())
            if time.monotonic() - self._flushed >= FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()
        except OSError:
            self._file = None


def _after_others(folder: Path) -> float:
    """Returns the time, or one after that of all files that are there: TensorBoard reads them by their names.

    The clock may have been set back since they were written.
    """
    times = [re.match(r"\d+(\.\d{6})?", path.name.removeprefix(_PREFIX)) for path in folder.glob(f"{_PREFIX}*")]
    return max([time.time(), *(float(found[0]) + 1e-6 for found in times if found)])
