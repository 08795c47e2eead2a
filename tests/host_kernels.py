"""CUDA kernel bodies compiled by a plain C++ compiler and run thread by thread, over the tables that the
kernels would get. See csrc/kernels/block.h."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from pyparam._base.native import _C

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "tests" / "native"
COMPILER = os.environ.get("CXX", "c++").split()[-1]

# The numbers of c10::ScalarType.
DTYPE_NUMBERS = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 3,
    torch.int64: 4,
    torch.float16: 5,
    torch.float32: 6,
    torch.float64: 7,
    torch.complex32: 8,
    torch.complex64: 9,
    torch.complex128: 10,
    torch.bool: 11,
    torch.bfloat16: 15,
    torch.float8_e5m2: 23,
    torch.float8_e4m3fn: 24,
    torch.float8_e5m2fnuz: 25,
    torch.float8_e4m3fnuz: 26,
    torch.uint16: 27,
    torch.uint32: 28,
    torch.uint64: 29,
    torch.float8_e8m0fnu: 44,
}


class TableView(ctypes.Structure):
    """pyparam::TableView."""

    _fields_ = [
        ("tensors", ctypes.c_void_p),
        ("extents", ctypes.c_void_p),
        ("chunks", ctypes.c_void_p),
        ("tensor_count", ctypes.c_int64),
        ("chunk_count", ctypes.c_int64),
    ]


class Table:
    """The rows of a list of CPU tensors, as a kernel would get them."""

    def __init__(self, tensors: list[torch.Tensor], chunk_elements: int, verb: str = "test") -> None:
        self.bytes, view, self.numel = _C.device_table(verb, tensors, chunk_elements)
        self.view = TableView(*view)
        self.tensors = tensors  # their memory must outlive the rows


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """tests/native/<name>.cpp as a shared library: compiled once a run, in seconds, without torch.

    The flags that decide about numbers are those of the extension.
    """
    folder = Path(tempfile.mkdtemp(prefix="pyparam-native-"))
    out = folder / f"{name}.so"
    command = [COMPILER, "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden"]
    command += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-I", str(ROOT / "csrc")]
    if os.environ.get("PYPARAM_EXPECT_SANITIZE") == "1":  # and then its runtime is loaded already
        command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
    done = subprocess.run(
        [*command, str(NATIVE / f"{name}.cpp"), "-o", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(out))


def address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
