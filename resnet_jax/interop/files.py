"""Reads named tensors from files of weights: safetensors, PyTorch's, Flax's msgpack and Orbax's folders."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from flax import serialization, traverse_util

from resnet_jax.errors import PLENTY, UserError, check_memory, one_line, some
from resnet_jax.interop.facts import CONFIG, PREPROCESSOR, is_timm, read_json
from resnet_jax.interop.pickle_values import Unread
from resnet_jax.interop.shards import INDEX_END, index_beside, shards_of
from resnet_jax.interop.torch_files import LEGACY_START, Tensor, read_torch

#: Files that a model folder of the Hugging Face hub holds its weights in, best first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

#: The same for weights in several files.
HUB_INDICES = tuple(name + INDEX_END for name in HUB_FILES)

#: How deep in a file tensors are looked for, and how many characters all their names may have.
DEPTH, MOST_CHARACTERS = 8, 2**25

#: An Orbax checkpoint may claim so many bytes for each that it has, beyond the first.
ORBAX_FREE, ORBAX_FOR_EACH_BYTE = 2**26, 100

_SAFETENSORS_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TensorFile:
    """Holds what a file of weights holds.

    Attributes:
      path: where it is.
      kind: its format, in words.
      sha256: of its bytes; None for a folder.
      tensors: by name; dicts in the file are dots in a name, and Flax's names have slashes and their collection first.
        Read when made into an array.
      config: what `config.json` beside it says, of timm or transformers; else empty.
      notes: sentences on what was chosen.
      preprocessor: what `preprocessor_config.json` beside it says; else empty.
      unread: names of objects that are not read, with what they are said to be.
    """

    path: Path
    kind: str
    sha256: str | None
    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)


def is_hub_folder(folder: Path) -> bool:
    """Returns whether a folder holds weights as those of the hub do."""
    return any((folder / name).is_file() for name in (*HUB_FILES, *HUB_INDICES))


def read_tensors(path: str | Path) -> TensorFile:
    """Reads the names and shapes of a file, whatever its format is; its first bytes say that.

    Raises:
      UserError: if there is no such file, it is empty or damaged, its format is unknown, or it holds no tensors.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            names = (*HUB_FILES, *HUB_INDICES)
            path = next((path / name for name in names if (path / name).is_file()), path)
        if path.is_dir():
            tensors = _flat_tree(_read_orbax(path), path)
            return TensorFile(path, "Orbax checkpoint", None, tensors, {})
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        index = index_beside(path)
        if index is not None:
            return _read_shards(index)
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")
        kind, tensors, unread = _read_file(path)
        digest = _digest([path])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not tensors:
        skipped = some(sorted(set(unread.values())), 4)
        but = f" but in objects that are not read ({skipped}): save the net's state dict alone" if unread else ""
        raise UserError(f"{path} ({kind}) holds no tensors{but}")
    return TensorFile(path, kind, digest, tensors, *_facts_beside(path), unread)


def _facts_beside(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...], Mapping[str, Any]]:
    config = read_json(path.parent / CONFIG)
    if not is_timm(config) and not isinstance(config.get("model_type"), str):
        return {}, (), {}
    return config, (), read_json(path.parent / PREPROCESSOR)


def _digest(paths: list[Path]) -> str:
    """Returns the SHA-256 of files, one behind the other."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                found.update(block)
    return found.hexdigest()


def _read_shards(index: Path) -> TensorFile:
    shards = shards_of(index)
    tensors: dict[str, Any] = {}
    unread: dict[str, str] = {}
    kind = ""
    for shard, names in shards.items():
        kind, found, more = _read_file(shard)
        if missing := sorted(names - found.keys()):
            raise UserError(f"{shard} lacks {some(missing, 4)}, which {index.name} says is in it")
        tensors |= found
        unread |= more
    notes = (f"{len(shards)} files of {index.name}",)
    config, _, preprocessor = _facts_beside(index)
    digest = _digest([index, *shards])
    return TensorFile(index, f"{kind} in {len(shards)} files", digest, tensors, config, notes, preprocessor, unread)


def _read_file(path: Path) -> tuple[str, Mapping[str, Any], Mapping[str, str]]:
    """Returns a file's format, its tensors, and what in it is not read."""
    with path.open("rb") as file:
        start = file.read(16)
    if start[:2] == b"PK" or start[:15] == LEGACY_START:
        kind = "PyTorch" if start[:2] == b"PK" else "PyTorch, before 1.6"
        return kind, *_flat(read_torch(path), path)
    if start[8:9] == b"{":
        return "safetensors", _read_safetensors(path), {}
    if start[:1] and start[0] in (*range(0x81, 0x90), 0xDE, 0xDF):  # a map that is not empty
        return "Flax msgpack", _flat_tree(_read_msgpack(path), path), {}
    if start[:1] == b"\x80":
        raise UserError(
            f"{path} is a bare pickle, as detectron2 and fastai's export write; weights are read from what torch.save "
            "writes of a state dict, or from safetensors"
        )
    raise UserError(
        f"{path} is of no known format: weights are read from safetensors, from what torch.save writes (.pt, .pth, "
        ".th, .bin, .ckpt, .tar), and from Flax's msgpack and Orbax checkpoints"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        found = {}
        for name, entry in safetensors.deserialize(path.read_bytes()):
            if entry["dtype"] not in _SAFETENSORS_DTYPES:
                raise UserError(f"{path}: tensor {name} is of type {entry['dtype']}, which is not read")
            dtype = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
            found[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        return found
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged or cut off: {error}") from error


def _read_msgpack(path: Path) -> Any:
    try:
        return serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # of msgpack, of NumPy, of Flax: whatever damaged bytes lead to
        check_memory(error, PLENTY + 2 * path.stat().st_size)
        raise UserError(f"{path} is damaged, cut off or no msgpack of Flax's: {error}") from error


def _read_orbax(path: Path) -> Any:
    folder = path / "default" if (path / "default").is_dir() else path
    if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
        raise UserError(
            f"{path} is a sharded checkpoint of PyTorch's FSDP: make one file of it by python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE"
        )
    if not any((folder / name).exists() for name in ("_METADATA", "manifest.ocdbt", "checkpoint")):
        raise UserError(
            f"{path} is a folder, and neither a checkpoint of Orbax's nor one that holds {' or '.join(HUB_FILES)}"
        )
    import jax
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.metadata(folder.absolute()).item_metadata.tree
            _check_claims(jax.tree.leaves(tree), folder)
            # As NumPy arrays: the devices that it was saved on need not be here.
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(folder.absolute(), restore_args=arguments)
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore have many
        check_memory(error)
        raise UserError(f"cannot read the Orbax checkpoint {path}: {one_line(error, 300)}") from error


def _check_claims(arrays: list[Any], folder: Path) -> None:
    """Raises UserError for arrays that are far larger than their files: parts that are not there would be zeros."""
    claimed = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays if getattr(a, "shape", None))
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if claimed > ORBAX_FREE + ORBAX_FOR_EACH_BYTE * there:
        raise UserError(f"{folder} claims arrays of {claimed:,} bytes and has {there:,}")


def _flat(found: Any, path: Path) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Returns all tensors in dicts and lists, by their keys with dots between; and what is not read, in the same way.

    Each dict and list is visited once, wherever it is found first.
    """
    if isinstance(found, Unread):
        raise UserError(
            f"{path} holds an object of {found.path[:80]}, and only tensors in plain containers are read, as running "
            "what a file names is not safe; save the net's state dict alone"
        )
    if not isinstance(found, dict | list):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict")
    tensors: dict[str, Tensor] = {}
    unread: dict[str, str] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), found)]
    visited, characters = set[int](), 0
    for keys, container in waiting:
        if id(container) in visited or len(keys) > DEPTH:
            continue
        visited.add(id(container))
        before = "".join(f"{key}." for key in keys)
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, Tensor | Unread):
                characters += len(before) + len(str(key))
                if characters > MOST_CHARACTERS:
                    raise UserError(f"{path} has far more names than a net")
                name = f"{before}{key}"
                if isinstance(value, Tensor):
                    tensors[name] = value
                else:
                    unread[name] = value.path
            elif isinstance(value, dict | list):
                waiting.append(((*keys, str(key)), value))
    return tensors, unread


def _flat_tree(tree: Any, path: Path) -> Mapping[str, Any]:
    """Returns the parameters and statistics of a Flax train state, or of bare variables."""
    for name in ("state", "model", "target"):
        if isinstance(tree, Mapping) and "params" not in tree and isinstance(tree.get(name), Mapping):
            tree = tree[name]
    if not isinstance(tree, Mapping) or not isinstance(tree.get("params"), Mapping):
        keys = ", ".join(str(key) for key in list(tree)[:6]) if isinstance(tree, Mapping) else type(tree).__name__
        raise UserError(f"{path} holds no params of a Flax net; at its top it has {keys or 'nothing'}")
    variables = {name: tree[name] for name in ("params", "batch_stats") if isinstance(tree.get(name), Mapping)}
    flat = traverse_util.flatten_dict(variables)  # without `sep`: a damaged file may have numbers for names
    return {"/".join(map(str, path)): value for path, value in flat.items() if hasattr(value, "shape")}
