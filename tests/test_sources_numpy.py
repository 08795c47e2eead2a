"""Arrays of numpy as sources, written by numpy."""

from __future__ import annotations

import io
import zipfile

import numpy
import pytest
import torch

import pyparam
from pyparam._sources.stand_in import is_stand_in

RNG = numpy.random.default_rng(0)
ARRAYS = {
    "layer/kernel": RNG.standard_normal((4, 6)).astype(numpy.float32),
    "layer/turned": numpy.asfortranarray(RNG.standard_normal((3, 5, 2))),
    "half": RNG.standard_normal(7).astype(numpy.float16),
    "big": RNG.standard_normal((2, 3)).astype(">f4"),
    "complex": (RNG.standard_normal(3) + 1j).astype(">c16"),
    "flags": numpy.array([True, False]),
    "count": numpy.int64(7),
    "none": numpy.zeros((0, 3), numpy.float32),
    "bytes": numpy.arange(5, dtype=numpy.uint8),
}


def as_torch(array):
    array = numpy.asarray(array)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_an_archive(save, tmp_path):
    path = tmp_path / "m.npz"
    odd = {
        "names": numpy.array(["a", "b"]),
        "records": numpy.zeros(2, [("x", "f4"), ("y", "i4")]),
        "objects": numpy.array([{}, 1], dtype=object),
        "bfloat16": numpy.zeros(3, "V2"),
    }
    save(path, **ARRAYS, **odd)
    opened = pyparam.open(path)
    assert list(opened) == list(ARRAYS)
    wanted = {name: as_torch(array) for name, array in ARRAYS.items()}
    for name, tensor in wanted.items():
        assert opened.tensor_info(name)[:2] == (tensor.dtype, tuple(tensor.shape))
        for _ in range(3):  # what is unpacked again is not counted again
            assert torch.equal(opened[name], tensor)
    assert opened["layer/turned"].stride() == (1, 3, 15)
    assert {name: str(value) for name, value in opened.extras.items()} == {
        "names": "<not read: its elements are the type <U1, no plain numbers>",
        "records": "<not read: its elements are records, no plain numbers>",
        "objects": "<not read: it is a pickle of objects>",
        "bfloat16": "<not read: its elements are the type |V2, no plain numbers>",
    }
    assert opened.format == "numpy (.npz)"
    assert all(map(is_stand_in, opened.listing().tensors))
    found = pyparam.compare(path, wanted)
    assert found.changed() == []
    assert set(found.unseen) == set(odd)
    assert not found.equal
    assert pyparam.measure(path)["layer/kernel"].max == float(ARRAYS["layer/kernel"].max())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("name", ARRAYS)
def test_one_array(name, version, tmp_path):
    path = tmp_path / "w.npy"
    with open(path, "wb") as file:
        numpy.lib.format.write_array(file, numpy.asarray(ARRAYS[name]), version=version)
    opened = pyparam.open(path)
    assert list(opened) == ["0"]
    assert torch.equal(opened["0"], as_torch(ARRAYS[name]))


def array(text=None, extra=b"", data=bytes(16)):
    made = io.BytesIO()
    numpy.save(made, numpy.zeros(2))
    raw = made.getvalue()
    if text is None:
        return raw
    header = text.encode() + b"\n"
    return raw[:6] + b"\1\0" + len(header).to_bytes(2, "little") + header + data


MISTAKES = {
    "truncated": (array()[:-1], r"is truncated: 16 bytes of shape \[2\] begin at 128"),
    "in the header": (array()[:20], r"is truncated in its header"),
    "at once": (array()[:9], r"is no numpy array, or is truncated"),
    "a version": (array()[:6] + b"\7" + array()[7:], r"has a header that is not read \(version 7"),
    "a long header": (array()[:8] + b"\xff\xff" + array()[10:], r"65535 bytes"),
    "no shape": (array("{'descr': '<f8', 'fortran_order': False}"), r"has a damaged header"),
    "code": (array("{'descr': '<f8', 'fortran_order': False, 'shape': (print('ran'),)}"), r"damaged header"),
    "too large": (
        array(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**62},)}}"),
        r"more elements",
    ),
    "dimensions": (
        array(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({'1,' * 65})}}"),
        r"has 65 dimensions",
    ),
    "objects": (
        array("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"),
        r"it is a pickle of objects",
    ),
    "digits": (
        array(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({'9' * 6000},)}}"),
        r"more elements than can be",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake(case, tmp_path):
    raw, message = MISTAKES[case]
    (tmp_path / "w.npy").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"w\.npy.*{message}"):
        pyparam.open(tmp_path / "w.npy")
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("w.npy", raw)
    if case == "objects":
        assert not pyparam.open(tmp_path / "w.npz")
    else:
        with pytest.raises(ValueError, match=r"w\.npz: its member 'w\.npy'"):
            pyparam.open(tmp_path / "w.npz")
