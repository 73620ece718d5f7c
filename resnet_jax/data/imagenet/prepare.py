"""Writes prepared shards in parallel; each has a temporary name until it is complete, and is written once."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from resnet_jax.atomic_write import atomic_write
from resnet_jax.data.image_files import DecodeError, decode, kind
from resnet_jax.data.imagenet.decode import shrink
from resnet_jax.data.imagenet.fingerprint import fingerprint, image_bytes
from resnet_jax.data.imagenet.shards import FORMAT, Shard, manifest_path, pack, read_manifest, sha256
from resnet_jax.data.imagenet.source import RecordError, Source
from resnet_jax.errors import UserError

#: Images in a shard: 257 shards of about 550 MB for unchanged ImageNet.
PER_SHARD = 5_000

Report = Callable[[int, int], object]

_done: Any = None  # in a worker process: number of images that all workers have finished


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Says how images are stored.

    Attributes:
      shorter_side: pixels that a longer shorter side is shrunk to; 0: the original bytes.
      quality: of the JPEGs of shrunk images, 1 to 100.
      per_shard: images in a shard.
    """

    shorter_side: int = 0
    quality: int = 90
    per_shard: int = PER_SHARD


def prepare(
    splits: Mapping[str, Source], out: str | Path, recipe: Recipe, workers: int, report: Report
) -> dict[str, Any]:
    """Writes all splits and returns their manifests; shards of the same preparation that are complete are kept.

    Args:
      splits: sources by name.
      out: the directory, made if needed.
      recipe: how images are stored.
      workers: processes.
      report: called with (images done, images in all).

    Raises:
      UserError: if the directory cannot be written to, holds another preparation, or is being prepared.
    """
    directory = Path(out).expanduser()
    with _locked(directory, f"--out={out}"):
        return _prepare(splits, directory, recipe, workers, report)


@contextlib.contextmanager
def _locked(directory: Path, called: str) -> Iterator[None]:
    """Makes the directory, and locks it until the lines under it, or this process, end."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise UserError(f"{called} cannot be written to: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process prepares {called}; wait for it, or give another --out") from None
        except OSError:
            pass  # a file system without locks
        yield


def _prepare(
    splits: Mapping[str, Source], directory: Path, recipe: Recipe, workers: int, report: Report
) -> dict[str, Any]:
    try:
        for left in directory.glob(".*.part"):
            left.unlink()
    except OSError as error:
        raise UserError(f"{directory} cannot be written to: {error}") from error
    total = sum(map(len, splits.values()))
    tasks, before = [], 0
    plans = {split: _plan(source, recipe) for split, source in splits.items()}
    for split, source in splits.items():
        for task in _tasks(split, source, directory, recipe, plans[split]):
            kept = _kept(task)
            before += kept * task.count
            if not kept:
                tasks.append(task)
    report(before, total)
    _run(tasks, min(workers, max(1, len(tasks))), lambda done: report(before + done, total))
    return {split: _finish(directory, split, source, recipe, plans[split]) for split, source in splits.items()}


@dataclasses.dataclass(frozen=True)
class _Task:
    """Describes one shard to write: `count` examples of the source from `first` on."""

    source: Source
    directory: Path
    file: str
    first: int
    count: int
    recipe: Recipe
    plan: str

    @property
    def record(self) -> Path:
        """The file beside the shard that marks it as complete."""
        return self.directory / f"{self.file}.json"


def _plan(source: Source, recipe: Recipe) -> str:
    """Returns a hash of everything that the records depend on; of images, their sizes in bytes stand for them."""
    facts = hashlib.sha256(json.dumps([FORMAT, dataclasses.astuple(recipe), fingerprint(source)]).encode())
    facts.update(repr(image_bytes(source)).encode())
    return facts.hexdigest()[:16]


def _tasks(split: str, source: Source, directory: Path, recipe: Recipe, plan: str) -> list[_Task]:
    # In the order of the source, so that the disk reads sequentially; training reads at random anyway.
    starts = range(0, len(source), recipe.per_shard)
    return [
        _Task(source, directory, f"{split}-{number:05d}-of-{len(starts):05d}.array_record", first,
              min(recipe.per_shard, len(source) - first), recipe, plan)
        for number, first in enumerate(starts)
    ]  # fmt: skip


def _kept(task: _Task) -> bool:
    """Returns whether the shard is complete; raises UserError if it belongs to another preparation."""
    try:
        shard = Shard(**json.loads(task.record.read_text()))
    except (OSError, ValueError, TypeError):
        return False
    if shard.plan != task.plan:
        raise UserError(
            f"{task.directory} holds shards of another preparation ({task.file}: other images or labels, size or "
            f"quality); give another --out, or remove {task.file.partition('-')[0]}-* there and run this again"
        )
    path = task.directory / task.file
    return path.is_file() and path.stat().st_size == shard.bytes


def _start(done: Any) -> None:
    global _done
    _done = done
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is killed, whose lock on the directory is gone then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run(tasks: list[_Task], workers: int, report: Callable[[int], object]) -> None:
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start, initargs=(done,))
    try:
        waiting = {pool.submit(write_shard, task) for task in tasks}
        while waiting:
            finished, waiting = concurrent.futures.wait(
                waiting, timeout=0.5, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            for future in finished:
                future.result()
            report(done.value)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (out of memory?); the same command goes on, fewer --workers need less"
        ) from error
    except OSError as error:
        raise UserError(f"writing ends: {error}; the same command goes on") from error
    finally:
        pool.shutdown(cancel_futures=True)


def write_shard(task: _Task) -> Shard:
    """Writes one shard, and then the file beside it that marks it as complete."""
    counts: collections.Counter[str] = collections.Counter()
    skipped = []
    part = task.directory / f".{task.file}.{os.getpid()}.part"
    # One image per group, for random reads; JPEGs cannot be compressed further.
    writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
    for index in range(task.first, task.first + task.count):
        try:
            example = task.source.load(index)
            what = kind(example.data)
            writer.write(pack(example._replace(data=convert(example.data, task.recipe))))
            counts[what] += 1
        except (DecodeError, RecordError) as error:
            skipped.append((task.source.name(index), str(error)))
        if _done is not None:
            with _done.get_lock():
                _done.value += 1
    writer.close()
    shard = Shard(task.file, task.first, sum(counts.values()), part.stat().st_size, sha256(part), dict(counts),
                  skipped, task.plan)  # fmt: skip
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(task.directory / task.file)
    atomic_write(task.record, json.dumps(dataclasses.asdict(shard), indent=1) + "\n")
    return shard


def convert(data: bytes, recipe: Recipe) -> bytes:
    """Returns the bytes to store: those of the file, so that training sees its pixels, unless the recipe shrinks it.

    Every image is decoded once, so that no damaged one is stored.

    Raises:
      DecodeError: for an image that cannot be decoded.
    """
    if recipe.shorter_side:
        return shrink(data, recipe.shorter_side, recipe.quality)
    decode(data)
    return data


def _finish(directory: Path, split: str, source: Source, recipe: Recipe, plan: str) -> dict[str, Any]:
    tasks = _tasks(split, source, directory, recipe, plan)
    shards = [Shard(**json.loads(task.record.read_text())) for task in tasks]
    counts = sum((collections.Counter(shard.counts) for shard in shards), collections.Counter())
    skipped = [list(entry) for shard in shards for entry in shard.skipped]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "split": split,
        "classes": source.num_classes,
        "examples": sum(shard.records for shard in shards),
        "source_examples": len(source),
        "recipe": dataclasses.asdict(recipe),
        "plan": plan,
        "counts": dict(sorted(counts.items())),
        "skipped": skipped,
        "shards": [{k: getattr(shard, k) for k in ("file", "records", "bytes", "sha256")} for shard in shards],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if not manifest["examples"]:
        raise UserError(f"no {split} image could be decoded; the first: {': '.join(skipped[0])}")
    atomic_write(manifest_path(directory, split), json.dumps(manifest, indent=1) + "\n")
    return manifest


def verify(directory: str | Path) -> int:
    """Compares the checksum of every shard and returns their number.

    Raises:
      UserError: naming the first shard that is missing or differs.
    """
    root, shards = Path(directory).expanduser(), 0
    for split in ("train", "val"):
        for shard in read_manifest(root, split)["shards"]:
            path = root / shard["file"]
            if not path.is_file() or sha256(path) != shard["sha256"]:
                state = "is not what was written" if path.is_file() else "is missing"
                raise UserError(f"shard {path} {state}; remove it, and the prepare command writes it again")
            shards += 1
    return shards
