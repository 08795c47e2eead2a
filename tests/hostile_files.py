"""Opens files that were damaged at random, or made to cost much, under limits on memory and time.

Run as a program in a folder of its own: ``hostile_files.py mutate SEED COUNT`` or ``hostile_files.py bombs``. It
prints what broke a promise, a line each, and nothing if all were kept: a file opens, or is a ValueError.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save as save_safetensors
from test_sources_tar import tar_of
from torch import nn

import pyparam

MEMORY = 300 << 20
SECONDS = 10  # of processor time: a busy machine changes nothing
MANY = [0, 1, 2, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def gguf_file() -> bytes:
    """A text, a number, an array, and a tensor each of F32 and Q8_0."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    made = b"GGUF" + struct.pack("<IQQ", 3, 2, 3)
    made += text(b"general.name") + struct.pack("<I", 8) + text(b"tiny")
    made += text(b"general.alignment") + struct.pack("<II", 4, 32)
    made += text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    made += text(b"w") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    made += text(b"q") + struct.pack("<IQIQ", 1, 32, 8, 32)
    return made + bytes(-len(made) % 32) + bytes(32 + 34)


def array_file(save: Callable[..., None], *args: object, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **arrays)
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    net = model()
    state = {"model": net.state_dict(), "epoch": 3, "more": [1.5, "x", (True, None)], "sparse": torch.eye(2)}
    script, program = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(net), script)
    torch.export.save(torch.export.export(net.eval(), (torch.ones(2, 3),)), program)
    dcp.save(state, checkpoint_id="dcp", no_dist=True)
    ones = torch.ones(3, 2)
    return {
        "x.pt": saved(state),
        "legacy.pt": saved(state, _use_new_zipfile_serialization=False),
        "exotic.pt": saved({"s": torch.eye(3).to_sparse(), "c": torch.ones(2, dtype=torch.complex64).conj()}),
        "module.pt": saved(net),
        "values.pt": saved({**state, "args": argparse.Namespace(a=1), "n": numpy.arange(6.0).reshape(2, 3)}),
        "old.pt": tar_of({"a": ones, "b": [ones, 3]}, [ones]),
        "x.gguf": gguf_file(),
        "x.npy": array_file(numpy.save, numpy.eye(3)),
        "x.npz": array_file(numpy.savez, w=numpy.eye(3), o=numpy.array([{}])),
        "packed.npz": array_file(numpy.savez_compressed, w=numpy.zeros((4, 9), ">f4")),
        "script.pt": script.getvalue(),
        "x.pt2": program.getvalue(),
        "x.safetensors": save_safetensors(net.state_dict(), {"format": "pt"}),
        "dcp/.metadata": Path("dcp/.metadata").read_bytes(),
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "y.safetensors"}}).encode(),
    }


def mutated(data: bytes, choose: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled, or put in, numbers made extreme, code put in."""
    made = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(made) + 1)
        kind = choose.randrange(8)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << choose.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = choose.randrange(256)
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            del made[at : at + choose.randint(1, 16)]
        elif kind == 4:
            made[at:at] = made[at : at + choose.randint(1, 64)]
        elif kind == 5:
            made[at : at + 8] = struct.pack("<Q", choose.choice(MANY))
        elif kind == 6:
            made[at:at] = choose.choice(
                [b"cposix\nmkdir\n(Vran\ntR", b"]", b"(", b"}", b"\x94", b"0", b"2", b"R"]
            )
        else:
            numbers = list(re.finditer(rb"\d+", bytes(made)))
            if numbers:
                found = choose.choice(numbers)
                made[found.start() : found.end()] = str(choose.choice(MANY)).encode()
    return bytes(made)


def with_member_mutated(data: bytes, choose: random.Random) -> bytes:
    """An archive that is sound, and one of whose members is not, is missing, or is there twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        victim = choose.choice(old.namelist())
        described = [name for name in old.namelist() if name.endswith((".pkl", ".json", ".py", ".npy"))]
        if choose.random() < 0.8:
            victim = choose.choice(described)
        for name in old.namelist():
            content = old.read(name)
            if name == victim:
                content = mutated(content, choose)
                if choose.random() < 0.1:
                    continue
                if choose.random() < 0.1:
                    new.writestr(name, content)
            kind = zipfile.ZIP_DEFLATED if choose.random() < 0.1 else zipfile.ZIP_STORED
            new.writestr(name, content, kind)
    return out.getvalue()


def opened_and_read(path: Path, listing: bool) -> None:
    with pyparam.open(path, refused="list" if listing else "raise") as opened:
        for name in opened:
            info = opened.tensor_info(name)
            opened.byte_range(name)
            if info.nbytes < 1 << 20:
                try:
                    opened[name].detach().reshape(-1)[:1].clone()
                except (ValueError, RuntimeError, NotImplementedError):
                    continue  # refused by name, or a kind of tensor that does not reshape
        repr(opened)


def attempt(label: str, path: Path, listing: bool = False) -> None:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        opened_and_read(path, listing)
    except ValueError:
        pass
    except BaseException as error:
        print(f"{label}: {type(error).__name__}: {error}"[:500])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if os.path.exists("ran"):
        print(f"{label}: code ran")
        os.rmdir("ran")


def mutate(seed: int, count: int) -> None:
    choose = random.Random(seed)
    files = originals()
    Path("y.safetensors").write_bytes(files["x.safetensors"])
    limit()
    for number in range(count):
        name = list(files)[number % len(files)]
        data = files[name]
        is_archive = data.startswith(b"PK") and choose.random() < 0.7
        Path(name).write_bytes(with_member_mutated(data, choose) if is_archive else mutated(data, choose))
        attempt(f"seed {seed}, file {number} ({name})", Path(name), listing=choose.random() < 0.3)


def archive(**members: bytes | tuple[bytes, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in members.items():
            made.writestr("x/" + name.replace("__", "/"), content, zipfile.ZIP_DEFLATED, 1)
    return out.getvalue()


def shared_lists(depth: int) -> bytes:
    """A tensor in a list, which is in a list twice, which is in a list twice ..."""
    value: object = [torch.ones(1)]
    for _ in range(depth):
        value = [value, value]
    return saved(value)


def pickled_archive(program: bytes) -> bytes:
    return archive(**{"data.pkl": program, "data__0": b"\0" * 16})


def tensor_of(shape: bytes, stride: bytes) -> bytes:
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
    return b"}Va\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n" + shape + stride + b"I00\nNtRs."


def npz(header: bytes, size: int = 0) -> bytes:
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(size)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("w.npy", array)
    return out.getvalue()


def bombs() -> dict[str, bytes]:
    deep = b"(" * 200_000 + b"t" * 200_000 + b"."
    zeros = zlib.compress(b"\0" * (1 << 20))
    header = b'{"a":{"dtype":"F32","shape":[%s1],"data_offsets":[0,4]}}' % (b"1," * 500_000)
    return {
        "shared lists": shared_lists(40),
        "a few shared lists": shared_lists(18),
        "deep lists": pickled_archive(b"]" * 1 + b"(l" * 500_000 + b"."),
        "nested lists": pickled_archive(b"(" * 300_000 + b"l" * 300_000 + b"."),
        "deep tuples": pickled_archive(deep),
        "many lists": pickled_archive(b"(" + b"]" * 6_000_000 + b"l."),
        "many ordered dicts": pickled_archive(
            b"ccollections\nOrderedDict\nq\x00(" + b"h\x00)R" * 1_500_000 + b"l."
        ),
        "many memos": pickled_archive(b"N" + b"\x94" * 8_000_000 + b"."),
        "a large memo": pickled_archive(b"Nr\xff\xff\xff\x7f."),
        "a large bytearray": pickled_archive(b"c__builtin__\nbytearray\nI100000000000\n\x85R."),
        "a large bytes": pickled_archive(b"\x8e" + struct.pack("<Q", 1 << 40) + b"."),
        "a large tensor": pickled_archive(b"ctorch\nTensor\nI100000000000\n\x85R."),
        "a large typed tensor": pickled_archive(b"ctorch\nFloatTensor\nI100000000000\n\x85R."),
        "a long integer": pickled_archive(b"I" + b"9" * 4_000_000 + b"\n."),
        "keys that collide": pickled_archive(
            b"}(" + b"".join(b"L%dL\nN" % ((2**61 - 1) * i) for i in range(1, 20_000)) + b"u."
        ),
        "a key of shared tuples": pickled_archive(b"}N" + b"2\x86" * 64 + b"Ns."),
        "zero strides": pickled_archive(tensor_of(b"(L1099511627776L\nt", b"(I0\nt")),
        "many dimensions": pickled_archive(
            tensor_of(b"(" + b"I1\n" * 9999 + b"t", b"(" + b"I1\n" * 9999 + b"t")
        ),
        "a deflated bomb": archive(
            **{"data.pkl": b"\x8e" + struct.pack("<Q", 1 << 29) + b"\0" * (1 << 29) + b"."}
        ),
        "many bombs": archive(**{"data.pkl": b"N.", **{f"data__{i}": b"\0" * (24 << 20) for i in range(4)}}),
        "deep JSON": b"[" * 10_000_000,
        "wide JSON": b'{"weight_map": {"a": [' + b"[]," * 5_000_000 + b"[]]}}",
        "a deep header": struct.pack("<Q", 1_000_000) + b'{"a":' + b"[" * 999_995,
        "a wide shape": struct.pack("<Q", len(header)) + header + b"1234",
        "a zip of nothing": b"PK\x03\x04" + zeros,
        "a large array": npz(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}"),
        "a long header": npz(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 4900 + b")}"),
        "arrays that unpack to much": npz(
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (67108864,)}", 256 << 20
        ),
    }


def named(number: int, label: str) -> Path:
    return Path(f"{number}.index.json" if "JSON" in label else f"{number}.pt")


def limit() -> None:
    """From here on, so much more memory and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(TimeoutError("it takes too long")))
    torch.set_num_threads(1)
    if sys.argv[1] == "mutate":
        mutate(int(sys.argv[2]), int(sys.argv[3]))
        return
    made = bombs()
    for i, (label, data) in enumerate(made.items()):
        named(i, label).write_bytes(data)
        made[label] = b""
    limit()
    for i, label in enumerate(made):
        attempt(label, named(i, label))


if __name__ == "__main__":
    main()
