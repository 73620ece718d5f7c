"""Reads named tensors from files of weights: safetensors, PyTorch's, Flax's msgpack and Orbax's folders."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from flax import serialization, traverse_util

from resnet_jax.errors import UserError, one_line
from resnet_jax.interop.torch_files import LEGACY_START, Tensor, read_torch

#: Names of a file's dict under which a state dict lies, best first: averaged weights are those that are published.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")

#: What wrappers of nets put before every name.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")

#: Files that a model folder of the Hugging Face hub holds its weights in, best first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

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
      tensors: by name; Flax's names have slashes and their collection first. Read when made into an array.
      config: what `config.json` beside it says, as in a folder of transformers; else empty.
      notes: sentences on what was chosen.
    """

    path: Path
    kind: str
    sha256: str | None
    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_tensors(path: str | Path) -> TensorFile:
    """Reads the names and shapes of a file, whatever its format is; its first bytes say that.

    Raises:
      UserError: if there is no such file, it is empty or damaged, its format is unknown, or it holds no tensors.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            path = next((path / name for name in HUB_FILES if (path / name).is_file()), path)
        if path.is_dir():
            tensors, notes = _flat_tree(_read_orbax(path), path)
            return TensorFile(path, "Orbax checkpoint", None, tensors, {}, notes)
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")
        kind, tensors, notes = _read_file(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not tensors:
        raise UserError(f"{path} ({kind}) holds no tensors")
    return TensorFile(path, kind, digest, tensors, _config_beside(path), notes)


def _read_file(path: Path) -> tuple[str, Mapping[str, Any], tuple[str, ...]]:
    with path.open("rb") as file:
        start = file.read(16)
    if start[:2] == b"PK" or start[:15] == LEGACY_START:
        kind = "PyTorch" if start[:2] == b"PK" else "PyTorch, before 1.6"
        return kind, *_state_dict(read_torch(path), path)
    if start[8:9] == b"{":
        return "safetensors", *_without_prefix(_read_safetensors(path), path)
    if start[:1] and start[0] in (*range(0x81, 0x90), 0xDE, 0xDF):  # a map that is not empty
        return "Flax msgpack", *_flat_tree(_read_msgpack(path), path)
    if start[:1] == b"\x80":
        raise UserError(f"{path} is a bare pickle; weights are read from what torch.save writes, or from safetensors")
    raise UserError(
        f"{path} is of no known format: weights are read from safetensors, from what torch.save writes (.pt, .pth, "
        ".th, .bin), and from Flax's msgpack and Orbax checkpoints"
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
        raise UserError(f"{path} is damaged, cut off or no msgpack of Flax's: {error}") from error


def _read_orbax(path: Path) -> Any:
    folder = path / "default" if (path / "default").is_dir() else path
    if not any((folder / name).exists() for name in ("_METADATA", "manifest.ocdbt", "checkpoint")):
        raise UserError(
            f"{path} is a folder, and neither a checkpoint of Orbax's nor one that holds {' or '.join(HUB_FILES)}"
        )
    import jax
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.metadata(folder.absolute()).item_metadata.tree
            # As NumPy arrays: the devices that it was saved on need not be here.
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(folder.absolute(), restore_args=arguments)
    except Exception as error:  # Orbax and TensorStore have many
        raise UserError(f"cannot read the Orbax checkpoint {path}: {one_line(error, 300)}") from error


def _state_dict(found: Any, path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Returns the state dict in what a PyTorch file holds, and what was chosen."""
    notes: tuple[str, ...] = ()
    for _ in range(2):
        if not isinstance(found, Mapping):
            raise UserError(f"{path} holds a {type(found).__name__}, not a state dict")
        if any(isinstance(value, Tensor) for value in found.values()):
            break
        wrapped = [name for name in WRAPPERS if isinstance(found.get(name), Mapping) and found[name]]
        if not wrapped:
            keys = ", ".join(str(key) for key in list(found)[:6])
            raise UserError(f"{path} holds no state dict; at its top it has {keys or 'nothing'}")
        notes += (f"weights under {wrapped[0]!r}" + (f", not {', '.join(wrapped[1:])}" if wrapped[1:] else ""),)
        found = found[wrapped[0]]
    tensors = {str(name): value for name, value in found.items() if hasattr(value, "shape")}
    flat, more = _without_prefix(tensors, path)
    return flat, notes + more


def _without_prefix(tensors: Mapping[str, Any], path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    while prefix := next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes += (f"names without {prefix!r}",)
    return tensors, notes


def _flat_tree(tree: Any, path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Returns the parameters and statistics of a Flax train state, or of bare variables."""
    for name in ("state", "model", "target"):
        if isinstance(tree, Mapping) and "params" not in tree and isinstance(tree.get(name), Mapping):
            tree = tree[name]
    if not isinstance(tree, Mapping) or not isinstance(tree.get("params"), Mapping):
        keys = ", ".join(str(key) for key in list(tree)[:6]) if isinstance(tree, Mapping) else type(tree).__name__
        raise UserError(f"{path} holds no params of a Flax net; at its top it has {keys or 'nothing'}")
    variables = {name: tree[name] for name in ("params", "batch_stats") if isinstance(tree.get(name), Mapping)}
    flat = traverse_util.flatten_dict(variables, sep="/")
    return {name: value for name, value in flat.items() if hasattr(value, "shape")}, ()


def _config_beside(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((path.parent / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) and config.get("model_type") == "resnet" else {}
