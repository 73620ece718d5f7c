"""Memory and time of reading weights are bounded by the file, whatever it says."""

import io
import json
import math
import os
import random
import struct
import time
import tracemalloc

import numpy as np
import orbax.checkpoint as ocp
import pytest

from resnet_jax.errors import UserError
from resnet_jax.interop import pickle_values, pickles
from resnet_jax.interop.convert import convert
from resnet_jax.interop.files import read_tensors
from tests.interop.torch_made import pickled, tensor, zipped

#: Bytes that reading a small file may take at most.
MOST = 300 * 10**6


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def items(count):
    return b"".join(b"M" + struct.pack("<H", k) + b"N\x86" for k in range(count))


#: Small pickles that made gigabytes, or took minutes, or could.
BOMBS = {
    "devices of devices": text("a" * 100) + b"q\x00" + b"ctorch\ndevice\nh\x00h\x00\x86Rq\x00" * 34,
    "text encoded again and again": b"c_codecs\nencode\nq\x01" + text("b" * 10**6) + b"q\x02" + text("latin1")
    + b"q\x03](" + b"h\x01h\x02h\x03\x86R" * 20_000 + b"e",
    "dicts copied": b"ccollections\nOrderedDict\nq\x01](" + items(20_000) + b"eq\x02](" + b"h\x01h\x02\x85R" * 20_000
    + b"e",
    "bytes as numbers": b"cnumpy.core.multiarray\nscalar\nq\x01cnumpy\ndtype\n" + text("f8")
    + b"\x85Rq\x02](" + b"h\x01h\x02C\x08aaaaaaaa\x86R" * 5_000 + b"e",
    "names of text": text("m" * 900) + b"\x94(" + b"h\x00h\x00\x93" * 200_000 + b"l",
    "a number of megabits as a key": b"\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000 + b"q\x00}(" + b"h\x00N"
    * 100_000 + b"u",
    "two equal long keys": text("k" * 200_000) + b"q\x00" + text("k" * 200_000) + b"q\x01}(" + b"h\x00Nh\x01N" * 50_000
    + b"u",
    "dicts of the same dict": b"}q\x00" + b"".join(
        b"}q" + bytes([k]) + b"(" + b"".join(b"K" + bytes([j]) + b"h" + bytes([k - 1]) for j in range(99)) + b"u"
        for k in range(1, 60)
    ),
}  # fmt: skip


def peak_of(function):
    """Bytes and seconds that a call takes."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        function()
    except UserError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak, time.perf_counter() - began


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_pickle_makes_no_large_values(tmp_path, bomb):
    data = b"\x80\x04" + BOMBS[bomb] + b"."
    path = zipped(tmp_path / "x.pt", None, {}, data)
    peak, seconds = peak_of(lambda: read_tensors(path))
    assert peak < MOST and seconds < 60


@pytest.mark.parametrize("data", [b"(" + b"]\x94" * 50_000 + b"l.", b"(" * 60_000, b"}" * 60_000, b"N" * 60_000])
def test_what_is_made_is_counted(monkeypatch, data):
    monkeypatch.setattr(pickles, "MOST", 2**21)
    with pytest.raises(ValueError, match="makes far more of its bytes than weights do"):
        pickles.load(io.BytesIO(b"\x80\x04" + data), len(data))


CALLS = (*pickle_values.CALLS, "torch.Size", "torch.device", "any.thing", "builtins.set")


def expression(rng, depth):
    """Instructions that push one value: a call or a container of others, or one of the two long values in memory."""
    kind = rng.choice(("call", "call", "list", "tuple", "dict", "stored", "leaf")) if depth else "leaf"
    if kind == "leaf":
        return rng.choice((b"h\x00", b"h\x01", b"h\x02", b"h\x03", b"K\x05", b"N", text("latin1"), text("f8"), b"]"))
    parts = [expression(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    if kind == "call":
        module, _, name = rng.choice(CALLS).rpartition(".")
        return f"c{module}\n{name}\n".encode() + b"(" + b"".join(parts) + b"t" + rng.choice((b"R", b"\x81"))
    if kind in ("list", "tuple"):
        return b"(" + b"".join(parts) + (b"l" if kind == "list" else b"t")
    if kind == "dict":
        return b"}(" + b"".join(text(rng.choice("abc")) + part for part in parts) + b"u"
    return parts[0] + b"q" + bytes([rng.randint(0, 3)])


def test_a_fuzzer_that_looks_for_memory_and_time():
    """Values out of calls and containers of each other and of long ones, repeated; each outcome is counted."""
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    rng = random.Random(seed)
    ended = {"read": 0, "refused": 0}
    for case in range(int(os.environ.get("FUZZ_CASES", "60"))):
        body = expression(rng, 4) * rng.choice((1, 20, 500))
        start = b"\x80\x04" + text("b" * 20_000) + b"q\x00(" + b"(Nt" * 500 + b"lq\x01]q\x02h\x00q\x03("
        data = start + body + b"l."

        def read(data=data):
            try:
                pickles.load(io.BytesIO(data), len(data))
                ended["read"] += 1
            except (ValueError, IndexError, KeyError, TypeError):
                ended["refused"] += 1

        peak, seconds = peak_of(read)
        assert peak < 2**25 + 100 * len(data) and seconds < 20, f"FUZZ_SEED={seed}, case {case}: {body[:300]!r}"
    assert min(ended.values()) > 5, ended


def many_views(tmp_path):
    """A net all of whose tensors are one block of 147 kB."""
    shapes = {"conv1.weight": (64, 3, 3, 3), "bn1.weight": (64,)}
    for name in ("bias", "running_mean", "running_var"):
        shapes[f"bn1.{name}"] = (64,)
    for k in range(10):
        for n in (1, 2):
            shapes[f"layer1.{k}.conv{n}.weight"] = (64, 64, 3, 3)
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"layer1.{k}.bn{n}.{name}"] = (64,)
    value = {
        name: tensor("FloatStorage", "0", 36_864, 0, shape, tuple(math.prod(shape[k + 1 :]) for k in range(len(shape))))
        for name, shape in shapes.items()
    }
    return zipped(tmp_path / "x.pt", value, {"0": bytes(4 * 36_864)})


def test_a_net_of_views_of_one_block_is_no_larger_than_the_file(tmp_path):
    with pytest.raises(UserError, match="numbers in its tensors and no more than"):
        convert(read_tensors(many_views(tmp_path)))


def test_safetensors_and_msgpack_that_claim_more_than_they_have(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    claims = {
        "safetensors": struct.pack("<Q", len(header)) + header + bytes(64),
        "safetensors_header": struct.pack("<Q", 2**60) + b"{" + bytes(64),
        "msgpack_map": b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 20,
        "msgpack_text": b"\x81\xa6params\xdb\xff\xff\xff\xff",
        "msgpack_array": b"\x81\xa6params\x81\xa1w\xc7\x20\x01\x93\x92\xcd\xff\xff\xcd\xff\xff\xa7float32\xc4\x04abcd"
        + bytes(8),
    }  # fmt: skip
    for name, data in claims.items():
        path = tmp_path / name
        path.write_bytes(data)

        def read(path=path):
            with pytest.raises(UserError):
                read_tensors(path)

        assert peak_of(read)[0] < 10**7, name


def test_an_orbax_checkpoint_that_claims_more_than_it_has(tmp_path):
    """The shape in its array's own metadata is made a million times as long; the files behind it are not there."""
    path = tmp_path / "c"
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
        checkpointer.save(path, {"params": {"w": np.zeros(1000, np.float32)}})
    array = path / "params.w" / ".zarray"
    array.write_text(json.dumps(json.loads(array.read_text()) | {"shape": [10**12]}))
    with pytest.raises(UserError, match=r"claims arrays of 4,000,000,000,000 bytes and has \d"):
        read_tensors(path)


def test_what_a_state_dict_makes_is_far_below_the_bound():
    """A net of 1,202 layers with two moments for each parameter."""
    value = {}
    for k in range(7200):
        value[f"module.layer1.{k}.conv1.weight"] = tensor("FloatStorage", str(k), 4, 0, (4,), (1,))
    data = pickled(
        {"state_dict": value, "optimizer": {"state": {k: {"a": 1, "b": v} for k, v in enumerate(value.values())}}}
    )
    found, storages = pickles.load(io.BytesIO(data), len(data))
    assert len(found["state_dict"]) == len(storages) == 7200
