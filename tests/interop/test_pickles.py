"""PyTorch's files are read to the bit, and nothing in them is run, however they were made."""

import os
import zipfile
from collections import OrderedDict

import msgpack
import numpy as np
import pytest

from resnet_jax.errors import UserError
from resnet_jax.interop import pickle_values
from resnet_jax.interop.files import read_tensors
from resnet_jax.interop.torch_files import read_torch
from tests.interop.torch_made import Stub, legacy, tensor, zipped

NUMBERS = np.arange(24, dtype=np.float32)
VIEWS = {
    "transposed": ((0, (4, 6), (1, 4)), NUMBERS.reshape(6, 4).T),
    "every_second": ((1, (2, 5), (12, 2)), NUMBERS.reshape(2, 12)[:, 1:11:2]),
    "channels_last": ((0, (2, 3, 2, 2), (12, 1, 6, 3)), NUMBERS.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)),
    "one_number": ((23, (), ()), np.float32(23)),
    "empty": ((0, (0, 3), (3, 1)), np.empty((0, 3), np.float32)),
}


@pytest.mark.parametrize("write", ["zip", "legacy"])
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_a_storage(tmp_path, write, view):
    where, expected = VIEWS[view]
    value = OrderedDict(weight=tensor("FloatStorage", "0", 24, *where))
    if write == "zip":
        found = read_torch(zipped(tmp_path / "x.pt", value, {"0": NUMBERS.tobytes()}))
    else:
        found = read_torch(legacy(tmp_path / "x.pt", value, {"0": NUMBERS}))
    np.testing.assert_array_equal(np.asarray(found["weight"]), expected)


@pytest.mark.parametrize("dtype, kind", [("f8", "DoubleStorage"), ("f2", "HalfStorage"), ("i8", "LongStorage")])
def test_types(tmp_path, dtype, kind):
    path = zipped(tmp_path / "x", {"w": tensor(kind, "7", 24, 0, (24,), (1,))}, {"7": NUMBERS.astype(dtype).tobytes()})
    found = np.asarray(read_torch(path)["w"])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, NUMBERS)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    halves = NUMBERS.view(np.uint32) >> 16
    data = halves.astype("<u2").tobytes()
    path = zipped(tmp_path / "x", {"w": tensor("BFloat16Storage", "0", 24, 0, (24,), (1,))}, {"0": data})
    np.testing.assert_array_equal(np.asarray(read_torch(path)["w"]).astype(np.float32), NUMBERS)


def test_plain_values_and_numpys_numbers(tmp_path):
    value = {"epoch": 3, "best": np.float64(91.25), "args": ["a", (1, 2.5, None, True)], "n": np.int64(-7), "b": 2**80}
    assert read_torch(zipped(tmp_path / "x", value, {})) == value


class Evil:
    """Calls anything when it is unpickled in Python."""

    def __init__(self, function: object, *arguments: object):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("attack", ["system", "eval", "getattr", "numpy", "import", "exec_in_dict", "class"])
@pytest.mark.parametrize("write", ["zip", "legacy"])
def test_nothing_in_a_file_is_run(tmp_path, attack, write):
    mark = tmp_path / "run"
    code = f"open({str(mark)!r}, 'w')"
    value, name = {
        "system": (Evil(os.system, f"touch {mark}"), "system"),
        "eval": (Evil(eval, code), "builtin.*eval"),
        "getattr": (Evil(getattr, Evil(__import__, "os"), "system"), "getattr"),
        "numpy": (Evil(np.load, str(mark)), "numpy.*load"),
        "import": (Evil(__import__, "os"), "__import__"),
        "exec_in_dict": ({"state_dict": {"w": Evil(exec, code)}}, "exec"),
        "class": (OrderedDict(net=Stub("torchvision.models.resnet.ResNet")), "torchvision.models.resnet.ResNet"),
    }[attack]
    path = tmp_path / "x.pt"
    zipped(path, value, {}) if write == "zip" else legacy(path, value, {})
    with pytest.raises(UserError, match=name):
        read_tensors(path)
    assert not mark.exists()


#: Instructions by hand: what no pickler writes.
RAW = {
    "calls a tensor": b"\x80\x02]R.",
    "calls a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a deep tuple as a key": b"\x80\x02}" + b"(" * 50_000 + b"t" * 50_000 + b"K\x01s.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "an extension": b"\x80\x02\x82\x01.",
    "an old instance": b"(ios\nsystem\n.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "text of four gigabytes": b"\x80\x02X\xff\xff\xff\xffa.",
    "bytes of many gigabytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00a.",
    "a name out of a tower of lists": b"\x80\x04]q\x00" + b"(h\x00h\x00tq\x00" * 64 + b"h\x00\x93.",
    "sizes out of a tower of tuples": b"\x80\x02ctorch\nSize\n]q\x00" + b"(h\x00h\x00tq\x00" * 64 + b"\x85R.",
    "attributes of a list": b"\x80\x02]}b.",
    "memory that is not there": b"\x80\x02h\x05.",
}


@pytest.mark.parametrize("case", RAW)
def test_instructions_that_no_weights_need(tmp_path, case):
    path = zipped(tmp_path / "x.pt", None, {}, RAW[case])
    known = "damaged or cut off: [a-z]|IndexError|KeyError|ValueError: (pickle|expected)|holds (a|no tensors)"
    with pytest.raises(UserError, match=known) as e:
        read_tensors(path)
    assert len(str(e.value)) < 600


BOMBS = {
    "beyond the storage": ("FloatStorage", "0", 24, 1, (24,), (1,)),
    "many elements of one": ("FloatStorage", "0", 24, 0, (10**6, 10**6), (0, 0)),
    "a storage that is not there": ("FloatStorage", "1", 24, 0, (24,), (1,)),
    "a storage of a terabyte": ("FloatStorage", "0", 10**12, 0, (10**12,), (1,)),
    "negative": ("FloatStorage", "0", 24, 0, (-1,), (1,)),
    "negative strides": ("FloatStorage", "0", 24, 23, (24,), (-1,)),
    "strides of another rank": ("FloatStorage", "0", 24, 0, (24,), (1, 1)),
    "no storage type": ("Tensor", "0", 24, 0, (24,), (1,)),
}


@pytest.mark.parametrize("case", BOMBS)
def test_tensors_take_no_more_than_the_file_has(tmp_path, case):
    path = zipped(tmp_path / "x.pt", {"w": tensor(*BOMBS[case])}, {"0": NUMBERS.tobytes()})
    known = "reaches beyond|no item named|cut off|sizes that are|strides|unknown type|Tensor"
    with pytest.raises(UserError, match=known):
        np.asarray(read_tensors(path).tensors["w"])


def test_a_compressed_archive_is_refused(tmp_path):
    value = {"w": tensor("FloatStorage", "0", 24, 0, (24,), (1,))}
    path = zipped(tmp_path / "x.pt", value, {"0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed"):
        read_torch(path)


@pytest.mark.parametrize("write", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_an_error(tmp_path, write):
    value = {"w": tensor("FloatStorage", "0", 24, 0, (24,), (1,))}
    path = tmp_path / "x.pt"
    zipped(path, value, {"0": NUMBERS.tobytes()}) if write == "zip" else legacy(path, value, {"0": NUMBERS})
    whole = path.read_bytes()
    for length in [*range(16, len(whole) - 1, 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            np.asarray(read_tensors(path).tensors["w"])


def test_a_storage_that_is_not_there_is_said_when_the_file_is_read(tmp_path):
    value = {"w": tensor("FloatStorage", "0", 24, 0, (24,), (1,))}
    with pytest.raises(UserError, match="lacks the storage '0'"):
        read_tensors(legacy(tmp_path / "x.pt", value, {}))


def test_numbers_for_names_in_msgpack_are_no_names_of_tensors(tmp_path):
    """Found by the campaign of tests/attack."""
    path = tmp_path / "x.msgpack"
    path.write_bytes(msgpack.packb({"params": {7: {"kernel": 1}}}))
    with pytest.raises(UserError, match="holds no tensors"):
        read_tensors(path)


def test_a_changed_byte_of_a_storage_is_met(tmp_path):
    value = {"w": tensor("FloatStorage", "0", 24, 0, (24,), (1,))}
    path = zipped(tmp_path / "x.pt", value, {"0": NUMBERS.tobytes()})
    data = bytearray(path.read_bytes())
    data[data.index(NUMBERS.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        np.asarray(read_torch(path)["w"])


@pytest.mark.parametrize("zipped_format", [True, False])
def test_what_pytorch_itself_writes(tmp_path, zipped_format):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; files like its own are made above")
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    value = {
        "state_dict": OrderedDict(
            a=base.to(memory_format=torch.channels_last), b=base.bfloat16(), c=torch.nn.Parameter(base[:, 1]),
            n=torch.tensor(5), t=base.reshape(4, 6).T,
        ),
        "optimizer": {"state": {0: {"momentum_buffer": base}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
    }  # fmt: skip
    torch.save(value, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped_format)
    found = read_torch(tmp_path / "x.pt")["state_dict"]
    for name, expected in value["state_dict"].items():
        np.testing.assert_array_equal(np.asarray(found[name]).astype(np.float32), expected.detach().float().numpy())


def test_the_table_of_calls_imports_nothing():
    for function in pickle_values.CALLS.values():
        assert function.__module__ == pickle_values.__name__
