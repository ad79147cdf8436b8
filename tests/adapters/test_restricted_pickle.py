"""Pickles from outside: plain data comes through as the real libraries wrote it, and nothing hostile is ever called."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers import pickle_machine
from adapters.containers.restricted_pickle import (
    MAX_DEPTH,
    load_npy_object,
    load_pickle_file,
    loads,
)
from schemas.errors import Code, SourceError

PROTOCOLS = range(6)


def refused(data: bytes) -> SourceError:
    with pytest.raises(SourceError) as caught:
        loads(data, where="f.pkl")
    assert caught.value.where == "f.pkl"
    return caught.value


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.tolist() == wanted.tolist()
    else:
        assert found == wanted


# -- what plain data is made of ------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "numbers": [0, -1, 255, 65536, 2**70, -(2**40), 1.5, float("inf"), 1j, True, False, None],
    "text": ["", "plain", "é 手 \U0001f590", "two\nlines"],
    "bytes": [b"", b"\x00\xff", bytearray(b"ab")],
    "containers": {(1, "a"): (), "b": ({1, 2}, frozenset(["c"])), 3: [[], {}]},
    "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
    "scalars": [np.float32(0.25), np.int64(-3), np.bool_(1), np.str_("hand")],
    "floats": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "strided": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "big endian": np.array([1, 256], dtype=">i4"),
    "halves": np.array([0.5], dtype=np.float16),
    "booleans": np.array([True, False]),
    "words": np.array(["ab", "c"]),
    "byte words": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 3)),
    "scalar array": np.array(2.5),
    "objects": np.array([{"pose": [1]}, None, "x"], dtype=object),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", VALUES)
def test_plain_data_comes_through(name: str, protocol: int) -> None:
    assert_same(loads(pickle.dumps(VALUES[name], protocol), where="f"), VALUES[name])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_array_referred_to_twice_stays_one(protocol: int) -> None:
    array = np.arange(3)
    first, second = loads(pickle.dumps([array, array], protocol), where="f")
    assert first is second
    assert first.tolist() == [0, 1, 2]


def test_a_defaultdict_is_a_dict_that_invents_nothing() -> None:
    found = loads(pickle.dumps(collections.defaultdict(list, {"a": [1]})), where="f")
    assert type(found) is dict
    assert found == {"a": [1]}


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_a_numpy_array_of_python_2(core: bytes) -> None:
    """Written out by hand: protocol 2, byte strings as U, [1.0, -2.0] as float64, numpy 1's and 2's module names."""
    raw = struct.pack("<2d", 1.0, -2.0)
    data = (
        b"\x80\x02c" + core + b".multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tb."
    )
    assert_same(loads(data, where="f"), np.array([1.0, -2.0]))


def test_text_and_numbers_of_protocol_0_by_python_2() -> None:
    data = b"(dp0\nS'caf\\xe9'\np1\nI01\nsS\"b'\"\nL12L\nsVx\\u624b\nF0.5\ns."
    assert loads(data, where="f") == {"café": True, "b'": 12, "x手": 0.5}


# -- torch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_torch_tensors_come_as_arrays(protocol: int) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "plain": base,
        "turned view": base.T[1:3],  # offset 1, stride (1, 4)
        "every second": base[:, ::2],
        "half": base.half(),
        "double": base.double(),
        "int64": torch.tensor([[1], [2**40]]),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "repeated": torch.ones(1).expand(4),  # stride 0
    }
    found = loads(pickle.dumps({**tensors, "size": base.shape}, protocol), where="f")
    for name, tensor in tensors.items():
        assert_same(found[name], tensor.numpy().copy())
    assert found["size"] == (3, 4)
    parameter = torch.nn.Parameter(base)
    assert_same(loads(pickle.dumps(parameter, protocol), where="f"), base.numpy().copy())


def storage_bytes(
    *, kind: bytes = b"torch\nFloatStorage", count: int = 3, key: bytes = b"7"
) -> bytes:
    """A legacy torch.save stream by hand: a storage of the floats 0, 1, 2."""
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
    saved = b"\x80\x02(X\x07\x00\x00\x00storagec" + kind + b"\nX\x01\x00\x00\x00" + key
    saved += b"X\x06\x00\x00\x00cuda:0K" + bytes([count]) + b"NtQ."
    keys = b"\x80\x02]X\x01\x00\x00\x00" + key + b"a."
    return magic + b"\x80\x02M\xe9\x03." + system + saved + keys + struct.pack("<q3f", 3, 0, 1, 2)


class Call:
    """Pickles as a call of a global, whatever it is: `Call("os", "system", "true")`."""

    def __init__(self, module: str, name: str, *args: Any, state: Any = None) -> None:
        self.module, self.name, self.args, self.state = module, name, args, state


def code(value: Any) -> bytes:
    """Protocol-2 pickle of plain values and `Call`s, without a frame; nothing is imported to write it."""
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        made = f"c{value.module}\n{value.name}\n".encode() + code(value.args) + b"R"
        return made if value.state is None else made + code(value.state) + b"b"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(code(k) + code(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, 3)[2:-1]


class Global(Call):
    """A global that is not called."""


def program(value: Any) -> bytes:
    return b"\x80\x03" + code(value) + b"."


def tensor(stream: bytes, offset: Any, size: Any, stride: Any) -> bytes:
    storage = Call("torch.storage", "_load_from_bytes", stream)
    hooks = Call("collections", "OrderedDict")
    return program(
        Call("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, False, hooks)
    )


def test_a_gpu_tensor_written_by_hand() -> None:
    stream = storage_bytes(kind=b"torch.cuda\nFloatStorage")
    assert_same(loads(tensor(stream, 1, (2,), (1,)), where="f"), np.array([1, 2], dtype=np.float32))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (3,), (1,)),  # one element past the end
        (0, (2,), (3,)),
        (0, (2, 2), (2, 1)),
        (3, (1,), (1,)),
        (-1, (1,), (1,)),
        (2, (2,), (-1,)),
        (0, (1 << 39,), (1,)),
        (0, (2,), (1, 1)),
        (0.0, (1,), (1,)),
    ],
)
def test_a_tensor_may_not_reach_outside_its_storage(offset: Any, size: Any, stride: Any) -> None:
    assert refused(tensor(storage_bytes(), offset, size, stride)).code is Code.CORRUPT_RECORD


def test_a_tensor_that_repeats_one_element_without_end_is_too_large() -> None:
    assert refused(tensor(storage_bytes(), 0, (1 << 30, 16), (0, 0))).code is Code.TOO_LARGE


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (storage_bytes(kind=b"os\nsystem"), Code.UNSAFE_CONTENT),
        (program(Call("os", "system", "true")), Code.UNSAFE_CONTENT),
        (storage_bytes()[:-1], Code.CORRUPT_RECORD),
        (storage_bytes(count=2), Code.CORRUPT_RECORD),
        (storage_bytes()[:40], Code.TRUNCATED),
        (b"\x80\x02K\x01." * 5, Code.CORRUPT_RECORD),
        (b"PK\x03\x04", Code.UNSAFE_CONTENT),
    ],
    ids=["os type", "hostile pickle", "cut", "lying count", "cut early", "no magic", "zip"],
)
def test_the_stream_inside_a_tensor_is_as_restricted(stream: bytes, wanted: Code) -> None:
    assert refused(tensor(stream, 0, (1,), (1,))).code is wanted


# -- hostile -------------------------------------------------------------------------------------------------------

DTYPE = Call("numpy", "dtype", "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
OBJECT = Call("numpy", "dtype", "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63))
NDARRAY = Global("numpy", "ndarray")


def array(shape: Any, dtype: Any, raw: Any, subtype: Any = NDARRAY) -> Call:
    return Call(
        "numpy.core.multiarray",
        "_reconstruct",
        subtype,
        (0,),
        b"b",
        state=(1, shape, dtype, False, raw),
    )


HOSTILE: dict[str, Any] = {
    "posix.system": Call("posix", "system", "exit 1"),
    "builtins.eval": Call("builtins", "eval", "1"),
    "builtins.getattr": Call("builtins", "getattr", [], "append"),
    "__builtin__.getattr": Call("__builtin__", "getattr", [], "append"),
    "builtins.list": Call("builtins", "list", "abc"),
    "numpy.load": Call("numpy", "load", "x.npy"),
    "numpy.core.multiarray.fromfile": Call("numpy.core.multiarray", "fromfile", "x"),
    "dotted name": Call("numpy", "ndarray.__class__", "x"),
    "object array": array((1,), OBJECT, [Call("os", "system", "true")]),
    "class in an object array": array((1,), OBJECT, [Global("collections", "OrderedDict")]),
    "array of another class": array((1,), DTYPE, b"\0" * 8, Global("collections", "OrderedDict")),
    "memmap": array((1,), DTYPE, b"\0" * 8, Global("numpy", "memmap")),
    "ndarray called": Call("numpy", "ndarray", (1 << 30,)),
    "ndarray state": Call("numpy", "ndarray", (1,), state=(1,)),
    "raw objects": array((1,), OBJECT, b"\0" * 8),
    "object scalar": Call("numpy.core.multiarray", "scalar", OBJECT, b"\0" * 8),
    "fields": Call(
        "numpy",
        "dtype",
        "V8",
        False,
        True,
        state=(3, "|", None, ("a",), {"a": (DTYPE, 0)}, 8, 1, 0),
    ),
    "field names": Call(
        "numpy", "dtype", "f8", state=(3, "<", None, ("a",), {"a": (DTYPE, 0)}, 8, 1, 0)
    ),
    "sub-array": Call("numpy", "dtype", "f8", state=(3, "<", (DTYPE, (9,)), None, None, 72, 1, 0)),
    "dtype by list": Call("numpy", "dtype", [("a", "f8")]),
    "dtype by class": Call("numpy", "dtype", Global("builtins", "float")),
    "codec": Call("_codecs", "encode", "x", "zlib_codec"),
    "factory": Call("collections", "defaultdict", Global("os", "getcwd")),
    "class as value": [Global("collections", "OrderedDict")],
    "state on a list": Call(
        "copy_reg", "_reconstructor", Global("builtins", "list"), Global("builtins", "object"), None
    ),
    "unbuilt": Call("numpy", "dtype", "f8"),
    "key": {((((((1,),),),),),): 1},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_plain_data_is_refused(name: str) -> None:
    assert refused(program(HOSTILE[name])).code is Code.UNSAFE_CONTENT


def test_the_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'proof'}",)

    for protocol in PROTOCOLS:
        error = refused(pickle.dumps({"a": [Hostile()]}, protocol))
        assert error.code is Code.UNSAFE_CONTENT
        assert f"{os.system.__module__}.system" in error.message
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x01.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\no.",
        b"Pid\n.",
        b"K\x01Q.",
        b"\x97.",
        b"]}b.",
        b"]K\x01\x85R.",
    ],
    ids=["EXT1", "INST", "OBJ", "PERSID", "BINPERSID", "NEXT_BUFFER", "BUILD", "REDUCE"],
)
def test_operations_that_plain_data_never_needs(data: bytes) -> None:
    assert refused(data).code is Code.UNSAFE_CONTENT


@pytest.mark.parametrize(
    "value",
    [
        array((2,), DTYPE, b"\0" * 8),
        array((1 << 39,), DTYPE, b""),
        array((-1,), DTYPE, b""),
        array((1,), OBJECT, []),
        array((1,), "f8", b"\0" * 8),
        array((0,) * 40, DTYPE, b""),
        array((1.0,), DTYPE, b"\0" * 8),
        array("1", DTYPE, b"\0" * 8),
    ],
    ids=[
        "short",
        "huge",
        "negative",
        "no objects",
        "no dtype",
        "axes",
        "float shape",
        "text shape",
    ],
)
def test_arrays_that_do_not_add_up(value: Any) -> None:
    assert refused(program(value)).code is Code.CORRUPT_RECORD


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_cut_is_told_and_nothing_else_escapes(protocol: int) -> None:
    data = pickle.dumps({"pose": np.arange(3.0), "t": (1, 2.5, "é", 2**40)}, protocol)
    for end in range(len(data)):
        assert refused(data[:end]).code in (Code.TRUNCATED, Code.CORRUPT_RECORD)


def test_garbage_never_escapes_as_another_error() -> None:
    rng = np.random.default_rng(3)
    healthy = pickle.dumps({"pose": np.arange(3.0), "o": np.array([{1}], dtype=object)}, 4)
    for _ in range(2000):
        data = bytearray(healthy)
        for at in rng.integers(0, len(data), size=3):
            data[at] = rng.integers(0, 256)
        try:
            loads(bytes(data), where="f")
        except SourceError:
            continue


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_sizes_are_bounded_before_memory_is_taken() -> None:
    big = struct.pack("<Q", 1 << 50)
    for data in (b"\x8e" + big, b"\x96" + big, b"\x8d" + big, b"\x95" + big, b"T\xff\xff\xff\x7f"):
        assert refused(data + b"x.").code is Code.TRUNCATED
    assert loads(b"K\x05r\xff\xff\xff\xff.", where="f") == 5  # a memo index is only a key
    with pytest.raises(SourceError, match="too_large"):
        loads(b"N.", where="f", max_bytes=1)


@pytest.mark.parametrize(
    "data",
    [
        b"I0x" + b"f" * 1000 + b"\n.",
        b"L" + b"9" * 1000 + b"L\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x8b" + struct.pack("<i", 500) + b"\x7f" * 500 + b".",
    ],
    ids=["hexadecimal", "LONG", "more digits than Python reads", "LONG4"],
)
def test_an_integer_that_no_message_can_show_is_refused(data: bytes) -> None:
    assert refused(data).code is Code.CORRUPT_RECORD


def test_one_value_may_not_be_copied_without_end() -> None:
    text = code("x" * 1_000_000)
    again = b"c_codecs\nencode\nh\x01h\x02\x86R0"
    data = text + b"q\x01" + code("latin1") + b"q\x02" + again * 10_000 + b"."
    assert refused(data).code is Code.TOO_LARGE


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPS", 100)
    assert refused(b"N" * 101 + b".").code is Code.TOO_LARGE


@pytest.mark.parametrize(
    "last",
    [b".", b"Ns.", b"K\x01\x86\x85R.", b"cnumpy\ndtype\nh\x01\x85R."],
    ids=["value", "key", "call", "name"],
)
def test_a_nest_a_hundred_thousand_deep_ends_nothing(last: bytes) -> None:
    """As a dictionary's key, CPython would hash it recursively and the process would end."""
    assert refused(b"}" + b")" + b"\x85" * 100_000 + b"q\x01" + last).code in (
        Code.UNSAFE_CONTENT,
        Code.CORRUPT_RECORD,
    )
    assert refused(b"]" * 9_000 + b"a" * 8_999 + b".").code is Code.UNSAFE_CONTENT


def test_depth_is_that_of_the_longest_way_and_cycles_are_refused() -> None:
    nest: list[Any] = []
    chain = [nest]
    for _ in range(MAX_DEPTH - 2):
        nest = [nest]
        chain.append(nest)
    assert loads(pickle.dumps(nest), where="f") == nest
    assert refused(pickle.dumps([*chain, [nest]])).code is Code.UNSAFE_CONTENT
    ring: list[Any] = []
    ring.append(ring)
    assert "contains itself" in refused(pickle.dumps(ring)).message


def test_a_million_ways_through_shared_lists_are_walked_once() -> None:
    """2^40 ways: a walk of each one never ends, so to end at all is the proof."""
    shared: list[Any] = []
    for _ in range(40):
        shared = [shared, shared]
    loads(pickle.dumps(shared), where="f")


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_npy_with_one_object(tmp_path: Path) -> None:
    """Pickles are written here, as data sets hold them, and read by nothing but what is tested."""
    value = {"left": {"trans": np.arange(6.0).reshape(2, 3)}}
    np.save(tmp_path / "a.npy", np.array(value, dtype=object), allow_pickle=True)
    assert_same(load_npy_object(tmp_path / "a.npy")["left"]["trans"], value["left"]["trans"])


def npy_of(array: np.ndarray, tail: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue() + tail


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (npy_of(np.zeros(3)), Code.UNKNOWN_LAYOUT),
        (npy_of(np.array([None, 1], dtype=object)), Code.UNKNOWN_LAYOUT),
        (npy_of(np.array({}, dtype=object))[:-4], Code.TRUNCATED),
        (b"\x93NUMPY\x01\x00\xff\xff{", Code.CORRUPT_RECORD),
        (b"\x93NUMPY\x09\x00", Code.CORRUPT_RECORD),
        (zlib.compress(b"x"), Code.CORRUPT_RECORD),
        (
            npy_of(np.array({}, dtype=object)).split(b"\n")[0] + b"\n" + program([1]),
            Code.CORRUPT_RECORD,
        ),
        (b"\x93NUMPY\x01\x00\xe8\x03" + b"(" * 1000, Code.CORRUPT_RECORD),
    ],
    ids=["numbers", "many", "cut", "header", "version", "other", "list", "nest"],
)
def test_other_npy_files_are_refused(tmp_path: Path, data: bytes, wanted: Code) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(SourceError) as caught:
        load_npy_object(tmp_path / "a.npy")
    assert caught.value.code is wanted
    assert caught.value.where == "a.npy"


def test_pickle_files(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, 2]))
    assert load_pickle_file(tmp_path / "a.pkl") == [1, 2]
    with pytest.raises(SourceError, match="too_large"):
        load_pickle_file(tmp_path / "a.pkl", max_bytes=10)
    with pytest.raises(SourceError, match="missing_file"):
        load_pickle_file(tmp_path / "b.pkl")
