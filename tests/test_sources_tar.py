"""Files of torch before 0.1.10, made as it made them; torch's own loader says what they hold."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

import pyparam


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return str(id(value)) if isinstance(value, (torch.Tensor, torch.storage.TypedStorage)) else None


def dumped(*values):
    return b"".join(pickle.dumps(value, protocol=2) for value in values)


def named(values):
    """A pickle of a number, another value, and a global of torch."""
    number, other, name = values
    return pickle.dumps(number, 2)[:-1] + pickle.dumps(other, 2)[2:-1] + name + b"\x87."


def tar_of(value, tensors, views=(), /, **replaced):
    """What torch.save wrote of a value that holds ``tensors``, each over a storage of its own."""
    storages, described = [], []
    for tensor in tensors:
        raw = tensor.untyped_storage()
        count = raw.nbytes() // tensor.element_size()
        kind = tensor.type().removeprefix("torch.").removesuffix("Tensor")
        key = raw.data_ptr()
        storages.append(
            named((key, "cpu", b"ctorch\n%sStorage\n" % kind.encode()))
            + struct.pack("<q", count)
            + bytes(raw.tolist())
        )
        described.append(
            named((id(tensor), key, b"ctorch\n%sTensor\n" % kind.encode()))
            + struct.pack("<i4x", tensor.dim())
            + struct.pack(f"<{2 * tensor.dim()}q", *tensor.shape, *tensor.stride())
            + struct.pack("<q", tensor.storage_offset())
        )
    body = io.BytesIO()
    Pickler(body, protocol=2).dump(value)
    members = {
        "sys_info": dumped({"protocol_version": 1000, "little_endian": True}),
        "pickle": body.getvalue(),
        "tensors": dumped(len(described)) + b"".join(described),
        "storages": dumped(len(storages)) + b"".join(storages) + dumped(list(views)),
    } | replaced
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            if content is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def example():
    torch.manual_seed(0)
    weight = torch.randn(4, 6)[:, 1:5]
    count = torch.arange(3)
    return OrderedDict(a=weight, b=OrderedDict(n=count, again=weight), step=3), [weight, count]


def test_it_holds_what_torchs_own_loader_says(tmp_path):
    value, tensors = example()
    path = tmp_path / "x.pt"
    path.write_bytes(tar_of(value, tensors))
    expected = torch.load(path, weights_only=False)
    with pyparam.open(path) as opened:
        assert list(opened) == ["a", "b.n", "b.again"]
        assert dict(opened.extras) == {"step": 3}
        assert torch.equal(opened["a"], expected["a"])
        assert torch.equal(opened["a"], value["a"])
        assert opened["a"].stride() == (6, 1)
        assert torch.equal(opened["b.n"], expected["b"]["n"])
        assert opened["b.again"] is opened["a"]
    assert pyparam.compare(path, value).equal
    assert pyparam.measure(path).total.numel == 16 + 3
    assert [set(tie.names) for tie in pyparam.ties(path)] == [{"a", "b.again"}]


def test_a_view_of_a_storage(tmp_path):
    base = torch.arange(8.0)
    part = torch.arange(3.0)  # a tensor over the view, which stands for elements 2 to 5 of base
    raw = named((id(base), base.untyped_storage().data_ptr(), b"ctorch\nFloatTensor\n"))
    raw += struct.pack("<i4x3q", 1, 8, 1, 0)
    raw += named((id(part), 7, b"ctorch\nFloatTensor\n")) + struct.pack("<i4x3q", 1, 3, 1, 0)
    views = [(7, base.untyped_storage().data_ptr(), 2, 3)]
    path = tmp_path / "x.pt"
    path.write_bytes(tar_of({"base": base, "part": part}, [base], views, tensors=dumped(2) + raw))
    assert torch.load(path, weights_only=False)["part"].tolist() == [2, 3, 4]
    opened = pyparam.open(path)
    assert opened["part"].tolist() == [2, 3, 4]
    assert [set(tie.names) for tie in pyparam.ties(path)] == [{"base", "part"}]


class Payload:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_it_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, tensors = example()
    with open("x.pt", "wb") as file:
        file.write(tar_of({**value, "p": Payload()}, tensors))
    with pytest.raises(ValueError, match=r"x\.pt is refused: .*it refers to posix\.mkdir"):
        pyparam.open("x.pt")
    assert "a" in pyparam.open("x.pt", refused="list")
    with open("x.pt", "wb") as file:
        file.write(tar_of(nn.Linear(1, 1), tensors))
    with pytest.raises(ValueError, match=r"it refers to torch\.nn\.modules\.linear\.Linear"):
        pyparam.open("x.pt")
    assert not os.path.exists("ran")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"pickle": None}, r"x\.pt is a tar archive that torch\.save did not write: unpack it first"),
        ({"tensors": dumped(-1)}, r"x\.pt cannot be read as a PyTorch checkpoint: it counts -1 objects"),
        ({"tensors": dumped(1)}, r"x\.pt cannot be read as a PyTorch checkpoint"),
        ({"tensors": dumped(0)}, r"refers to an object '\d+' that it does not have"),
        ({"storages": dumped(0, [])}, r"it has no storage \d+"),
        ({"storages": dumped(0, [(1, 2, 0, 1)])}, r"it has no storage 2"),
        ({"storages": dumped(1, (1, "cpu", "x"))}, r"a storage of x"),
    ],
)
def test_files_that_are_damaged(tmp_path, replaced, message):
    (tmp_path / "x.pt").write_bytes(tar_of(*example(), **replaced))
    with pytest.raises(ValueError, match=message):
        pyparam.open(tmp_path / "x.pt")


def test_truncated_anywhere(tmp_path):
    whole = tar_of(*example())
    end = len(whole.rstrip(b"\0"))
    for size in range(1, end, 61):
        (tmp_path / "x.pt").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.pt"):
            pyparam.open(tmp_path / "x.pt")
