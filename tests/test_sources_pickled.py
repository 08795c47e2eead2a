"""What ``torch.save`` writes: flattened, mapped, and refused where it needs code."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from reference_sources import Net, rewritten
from torch import nn

import pyparam
from pyparam._sources import unpickle
from pyparam._sources.entries_part import EntriesPart


def assert_equal_tensors(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt", "model", "safetensors"])
def test_a_state_dict(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    state = Net().state_dict()
    torch.save(state, path)
    opened = pyparam.open(path)
    assert isinstance(opened, pyparam.Checkpoint)
    assert_equal_tensors(opened, state)
    assert opened.files == (path,)
    assert opened.path == path


def test_a_training_checkpoint_is_flattened(tmp_path):
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "state_dict": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "history": [1.0, 2.0],
        },
        tmp_path / "x.ckpt",
    )
    opened = pyparam.open(tmp_path / "x.ckpt")
    assert torch.equal(opened["state_dict.a.weight"], net.a.weight)
    assert torch.equal(opened["optimizer.state.0.exp_avg"], optimizer.state[net.a.weight]["exp_avg"])
    assert opened.extras["epoch"] == 3
    assert opened.extras["history"] == [1.0, 2.0]
    assert opened.extras["optimizer.param_groups"][0]["lr"] == 1e-3
    assert "epoch" not in opened


def test_lists_and_bare_tensors(tmp_path):
    torch.save([torch.ones(2), (torch.zeros(1), {"x": torch.ones(1)})], tmp_path / "list.pt")
    assert list(pyparam.open(tmp_path / "list.pt")) == ["0", "1.0", "1.1.x"]
    torch.save(torch.arange(3), tmp_path / "bare.pt")
    assert pyparam.open(tmp_path / "bare.pt")["0"].tolist() == [0, 1, 2]


def test_tied_tensors_stay_tied(tmp_path):
    net = Net()
    torch.save(net.state_dict(), tmp_path / "x.pt")
    opened = pyparam.open(tmp_path / "x.pt")
    assert opened["a.weight"].data_ptr() == opened["b.weight"].data_ptr()
    assert opened.byte_range("a.weight") == opened.byte_range("b.weight")
    assert opened.byte_range("a.bias") != opened.byte_range("b.bias")


def test_byte_ranges_of_a_pickled_file(tmp_path):
    path = tmp_path / "x.pt"
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save({"whole": whole, "column": whole[:, 1], "row": whole[1], "empty": torch.empty(0)}, path)
    opened = pyparam.open(path)
    raw = path.read_bytes()
    _, begin, end = opened.byte_range("row")
    assert struct.unpack("<4f", raw[begin:end]) == (4, 5, 6, 7)
    _, begin, end = opened.byte_range("column")
    assert struct.unpack("<9f", raw[begin:end]) == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert opened["column"].tolist() == [1, 5, 9]
    assert opened.byte_range("empty") is None


def test_writes_do_not_reach_a_pickled_file(tmp_path):
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt")
    before = (tmp_path / "x.pt").read_bytes()
    pyparam.open(tmp_path / "x.pt")["a"].fill_(1)
    assert (tmp_path / "x.pt").read_bytes() == before


def test_parameters_stay_parameters(tmp_path):
    torch.save(dict(Net().named_parameters()), tmp_path / "x.pt")
    assert all(isinstance(tensor, nn.Parameter) for tensor in pyparam.open(tmp_path / "x.pt").values())


def test_tensors_of_every_kind(tmp_path):
    tensors = {
        "strided": torch.arange(12.0).reshape(3, 4).t(),
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "complex": torch.ones(2, dtype=torch.complex64).conj(),
        "fp8": torch.ones(4).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True]),
        "scalar": torch.tensor(1),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(5, device="meta"),
    }
    torch.save(tensors, tmp_path / "x.pt")
    opened = pyparam.open(tmp_path / "x.pt")
    assert list(opened) == list(tensors)
    for name, tensor in tensors.items():
        assert opened.tensor_info(name) == (
            tensor.dtype,
            tuple(tensor.shape),
            tensor.numel() * tensor.itemsize,
        )
        assert opened[name].layout == tensor.layout
        if name not in ("meta", "fp8"):
            assert torch.equal(opened[name].to_dense(), tensor.to_dense())
    assert opened.byte_range("sparse") is None
    assert opened.byte_range("meta") is None


def test_the_format_before_zip_files(tmp_path):
    state = Net().state_dict()
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    opened = pyparam.open(tmp_path / "x.pt")
    assert_equal_tensors(opened, state)
    assert opened["a.weight"].data_ptr() == opened["b.weight"].data_ptr()
    place = opened.byte_range("a.bias")
    assert (tmp_path / "x.pt").read_bytes()[place.begin : place.end] == state["a.bias"].numpy().tobytes()


def test_an_archive_compressed_by_another_tool(tmp_path):
    state = Net().state_dict()
    torch.save(state, tmp_path / "x.pt")
    path = rewritten(
        tmp_path / "x.pt", tmp_path / "small.pt", lambda name, data: data, compression=zipfile.ZIP_DEFLATED
    )
    assert_equal_tensors(pyparam.open(path), state)


def test_an_archive_whose_tensors_lie_unaligned(tmp_path):
    state = Net().state_dict()
    torch.save(state, tmp_path / "x.pt")
    path = rewritten(
        tmp_path / "x.pt", tmp_path / "odd.pt", lambda name, data: None if name == ".format_version" else data
    )
    opened = pyparam.open(path)
    assert_equal_tensors(opened, state)
    assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in opened.values())


@pytest.mark.skipif(not hasattr(torch.serialization, "skip_data"), reason="needs skip_data to write the file")
def test_listing_100_gigabytes_of_torch_save(tmp_path):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        state = {f"l{i}.weight": torch.empty(10 * 2**28) for i in range(10)}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"state_dict": state}, tmp_path / "x.pt")
    if os.stat(tmp_path / "x.pt").st_blocks * 512 > 2**20:
        pytest.skip("the file system has no sparse files")
    opened = pyparam.open(tmp_path / "x.pt")
    assert opened.tensor_info("state_dict.l9.weight") == (torch.float32, (10 * 2**28,), 10 * 2**30)
    assert opened["state_dict.l9.weight"][-1] == 0


class Settings:
    def __init__(self):
        self.rate = 2


class Payload:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_needs_code_is_refused_and_runs_none(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1), "b": Payload()}, "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"x\.pt is refused: it needs code to load \(it refers to posix\.mkdir\)"
    ):
        pyparam.open("x.pt")
    assert not os.path.exists("ran")


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "x.pt")
    with pytest.raises(
        ValueError,
        match=r"needs code to load \(it refers to torch\.nn\.modules\.linear\.Linear\).*state_dict\(\)",
    ):
        pyparam.open(tmp_path / "x.pt")


def test_what_the_user_declared_safe_loads(tmp_path):
    torch.save({"a": torch.ones(1), "kept": Settings()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"it refers to [\w.]+\.Settings"):
        pyparam.open(tmp_path / "x.pt")
    with torch.serialization.safe_globals([Settings]):
        opened = pyparam.open(tmp_path / "x.pt")
    assert list(opened) == ["a"]
    assert opened.extras["kept"].rate == 2


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path, protocol, zipped):
    state = {"a": torch.ones(1), "b": torch.arange(70000), "c": {"d": (torch.zeros(2, 2), b"x" * 300)}}
    torch.save(state, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    opened = pyparam.open(tmp_path / "x.pt")
    assert list(opened) == ["a", "b", "c.d.0"]
    assert torch.equal(opened["b"], state["b"])
    assert opened.extras["c.d.1"] == b"x" * 300


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_anywhere(tmp_path, zipped):
    path = tmp_path / "x.pt"
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.pt"):
            pyparam.open(path)


def test_a_storage_that_claims_more_than_the_file_has(tmp_path):
    def claim(name, data):
        if name != "data.pkl":
            return data
        assert data.count(b"K\x03") == 2  # 3 elements, in the storage and in the shape
        return data.replace(b"K\x03", b"M\xff\xff")

    torch.save({"a": torch.arange(3.0)}, tmp_path / "x.pt")
    rewritten(tmp_path / "x.pt", tmp_path / "y.pt", claim)
    with pytest.raises(ValueError, match=r"y\.pt: entry 'a' in 'x/data/0': .* beyond its storage of 12"):
        pyparam.open(tmp_path / "y.pt")


def test_a_pickle_that_torch_did_not_write(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"x\.pt is refused: it is a pickle that torch\.save did not write"):
        pyparam.open(tmp_path / "x.pt")


def test_a_pickle_of_no_tensors(tmp_path):
    torch.save(5, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds an int; expected tensors by name"):
        pyparam.open(tmp_path / "x.pt")


def test_a_pickle_with_a_key_that_is_no_name(tmp_path):
    torch.save({("a", 1): torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: names are strings or integers; got the key \('a', 1\)"):
        pyparam.open(tmp_path / "x.pt")


def test_a_pickle_that_holds_itself(tmp_path):
    loop: dict = {"a": torch.ones(1)}
    loop["again"] = loop
    torch.save(loop, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: a dict holds itself"):
        pyparam.open(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_needs_code_can_be_listed(tmp_path, zipped):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    saved = {"model": model, "epoch": 3, "best": torch.ones(2)}
    torch.save(saved, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    opened = pyparam.open(tmp_path / "x.pt", refused="list")
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | {
        "best": saved["best"]
    }
    assert sorted(opened) == sorted(expected)
    for name, tensor in expected.items():
        assert opened.tensor_info(name)[:2] == (tensor.dtype, tuple(tensor.shape))
        assert opened.byte_range(name) is None
    assert opened.extras["epoch"] == 3
    with pytest.raises(
        ValueError, match=r"'best' is listed only: .*it refers to torch\.nn\.modules\.\w+\.\w+"
    ):
        opened["best"]


def test_listing_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1), "b": Payload()}, "x.pt")
    assert list(pyparam.open("x.pt", refused="list")) == ["a"]
    assert not os.path.exists("ran")


def test_refused_is_raise_or_list(tmp_path):
    with pytest.raises(ValueError, match=r"open: refused is 'raise' or 'list', got 'run'"):
        pyparam.open(tmp_path, refused="run")
    with pytest.raises(TypeError, match="open: expected a path, got a NoneType"):
        pyparam.open(None)


def test_a_refusal_tells_the_safe_ways_first(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="is refused") as caught:
        pyparam.open(tmp_path / "x.pt")
    text = str(caught.value)
    ways = ["model.state_dict()", "safe_globals", "refused='list'", "weights_only=False"]
    places = [text.index(way) for way in ways]
    assert places == sorted(places)


SAVES_A_DTENSOR = """
import sys, torch, torch.distributed as dist
from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
whole = torch.arange(6.0).view(3, 2)
torch.save({"w": distribute_tensor(whole, DeviceMesh("cpu", [0]), [Shard(0)])}, sys.argv[1])
dist.destroy_process_group()
"""

OPENS_IT = """
import sys, pyparam
opened = pyparam.open(sys.argv[1])
assert opened["w"].to_local().tolist() == [[0, 1], [2, 3], [4, 5]]
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_dtensors_open_in_a_process_that_has_not_imported_them(tmp_path):
    for script in (SAVES_A_DTENSOR, OPENS_IT):
        subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "x.pt")], check=True)


def test_a_list_of_parameters_makes_no_more_than_its_pickle_explains(tmp_path, monkeypatch):
    torch.save([nn.Parameter(torch.ones(1)) for _ in range(300)], tmp_path / "list.pt")
    monkeypatch.setattr(unpickle, "_FREE_UNITS", 0)  # which would be enough for some thousands
    opened = pyparam.open(tmp_path / "list.pt")
    assert len(opened) == 300


ODD = {
    "tied": lambda a: {"a": a, "b": a},
    "views": lambda a: {"a": a[:2], "b": a[2:]},
    "strided": lambda a: {"a": a.t()},
    "empty": lambda a: {"a": a, "b": torch.zeros(0)},
    "parameter": lambda a: {"a": torch.nn.Parameter(a)},
    "grad": lambda a: {"a": a, "b": torch.ones(2, requires_grad=True)},
}


@pytest.mark.parametrize("kind", [None, *ODD])
def test_plain_tensors_are_columns(tmp_path, kind):
    """A state dict of tensors with memory of their own costs no object an entry; anything else keeps them."""
    path = tmp_path / "state.pt"
    plain = {f"{i}": torch.randn(i + 1, 3).to(dtype) for i, dtype in enumerate((torch.half, torch.int64))}
    plain |= {"scalar": torch.tensor(2.5), "one": torch.randn(4)[1:3], "flags": torch.ones(3, 1) > 0}
    saved = plain if kind is None else {**plain, **ODD[kind](torch.randn(4, 3))}
    torch.save(saved, path)
    opened = pyparam.open(path)
    assert isinstance(opened._parts[0], EntriesPart) == (kind is None)
    for name, tensor in saved.items():
        found = opened[name]
        assert found.equal(tensor.detach()), name
        assert (found.dtype, found.stride(), found.requires_grad) == (
            tensor.dtype,
            tensor.stride(),
            tensor.requires_grad,
        )
        assert opened.tensor_info(name).shape == tuple(tensor.shape)
        place = opened.byte_range(name)
        if tensor.numel():
            raw = path.read_bytes()[place.begin : place.end]
            flat = tensor.detach().as_strided((len(raw) // tensor.itemsize,), (1,))
            assert raw == bytes(flat.view(torch.uint8).tolist())
    assert len(pyparam.ties(path)) == (kind == "tied")
    assert pyparam.compare(path, {name: tensor.detach() for name, tensor in saved.items()}).equal
