"""``pyparam.open``: files of every kind, found out by content, in one part or many, whole or broken."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from reference_sources import assert_same_entries, installed
from safetensors.torch import save_file
from torch import nn

import pyparam
from pyparam._sources import table_of
from pyparam._sources.programs import _is_arithmetic

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(3, 4)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.a(x) + self.b(x))


def assert_equal_tensors(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


# --- torch.save --------------------------------------------------------------------------------------------


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
    assert opened.byte_range("a.weight") is None


def test_an_archive_compressed_by_another_tool(tmp_path):
    state = Net().state_dict()
    torch.save(state, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as source,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name.replace("x/", "small/", 1), source.read(name))
    assert_equal_tensors(pyparam.open(tmp_path / "small.pt"), state)


def test_an_archive_whose_tensors_lie_unaligned(tmp_path):
    state = Net().state_dict()
    torch.save(state, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as source,
        zipfile.ZipFile(tmp_path / "odd.pt", "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            if not name.endswith(".format_version"):
                target.writestr(name.replace("x/", "odd/", 1), source.read(name))
    opened = pyparam.open(tmp_path / "odd.pt")
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


@pytest.mark.parametrize("protocol", [2, 3])
def test_pickle_protocols(tmp_path, protocol):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt", pickle_protocol=protocol)
    assert list(pyparam.open(tmp_path / "x.pt")) == ["a"]


def test_a_pickle_protocol_that_torch_cannot_read_safely(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt", pickle_protocol=4)
    with pytest.raises(ValueError, match=r"x\.pt cannot be read: .* save it again with pickle_protocol=2"):
        pyparam.open(tmp_path / "x.pt")


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
    torch.save({"a": torch.arange(3.0)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as source,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):  # 3 elements, in the storage and in the shape
                assert data.count(b"K\x03") == 2
                data = data.replace(b"K\x03", b"M\xff\xff")
            target.writestr(name.replace("x/", "y/", 1), data)
    with pytest.raises(ValueError, match=r"y\.pt cannot be read as a PyTorch checkpoint"):
        pyparam.open(tmp_path / "y.pt")


def test_a_pickle_that_torch_did_not_write(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"x\.pt is refused: it is a pickle that torch\.save did not write"):
        pyparam.open(tmp_path / "x.pt")


def test_a_pickle_of_no_tensors(tmp_path):
    torch.save(5, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds a int; expected tensors by name"):
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


# --- programs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pt", "m.jit", "m.ckpt", "m"])
def test_a_torchscript_archive_by_its_content(tmp_path, name):
    torch.jit.save(torch.jit.script(Net()), tmp_path / name)
    opened = pyparam.open(tmp_path / name)
    assert isinstance(opened, torch.jit.ScriptModule)
    assert table_of(tmp_path / name).names == [name for name, _ in Net().named_parameters()]


def test_a_broken_torchscript_archive(tmp_path):
    torch.jit.save(torch.jit.script(Net()), tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as source,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            if not name.endswith("data.pkl"):
                target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match=r"x\.pt cannot be loaded as a TorchScript archive: \w+: "):
        pyparam.open(tmp_path / "x.pt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Net(), (torch.randn(4, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def test_an_exported_program(exported):
    opened = pyparam.open(exported)
    assert isinstance(opened, torch.export.ExportedProgram)
    assert_same_entries(table_of(opened), opened.named_parameters())
    assert table_of(exported, buffers=True).names == [
        name for name, _ in [*opened.named_parameters(), *opened.named_buffers()]
    ]


def test_an_exported_program_by_its_content(exported, tmp_path):
    (tmp_path / "renamed.bin").write_bytes(exported.read_bytes())
    assert isinstance(pyparam.open(tmp_path / "renamed.bin"), torch.export.ExportedProgram)


def changed(source, target, change):
    """Copies an archive with ``change(name, data)`` applied to its members; for no name it gives more of them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        root = name.partition("/")[0]
        for extra, data in (change(None, b"") or {}).items():
            new.writestr(f"{root}/{extra}", data)
    return target


def pickled(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def hostile_expression(name, data):
    if name is not None and name.endswith("model.json"):
        assert b'"expr_str"' in data
        parsed = json.loads(data)
        stack = [parsed]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                if "expr_str" in value:
                    value["expr_str"] = "open('ran', 'w')"
                stack.extend(value.values())
            elif isinstance(value, list):
                stack.extend(value)
        return json.dumps(parsed)
    return data if name else None


HOSTILE = {
    "an expression": (hostile_expression, r"model\.json has .open\('ran', 'w'\). where a size belongs"),
    "sample inputs": (
        lambda name, data: (pickled(Payload()) if "sample_inputs" in name else data) if name else None,
        r"sample_inputs/model\.pt is a pickle that holds more than tensors",
    ),
    "a pickled weight": (
        lambda name, data: (pickled(Payload()) if name.endswith("weight_0") else data) if name else None,
        r"weight_0 is a pickle that holds more than tensors",
    ),
    "an opaque object": (
        lambda name, data: data if name else {"data/constants/opaque_obj_0": b"x"},
        r"opaque_obj_0 is a pickled object",
    ),
    "compiled code": (
        lambda name, data: data if name else {"data/aotinductor/model/x.so": b"x"},
        r"x\.so is compiled code",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_exported_program_that_needs_code_is_refused_and_runs_none(exported, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    change, message = HOSTILE[case]
    path = changed(exported, tmp_path / "x.pt2", change)
    with pytest.raises(ValueError, match=r"x\.pt2 is refused: it needs code to load \(.*" + message):
        pyparam.open(path)
    assert not os.path.exists("ran")


def test_a_broken_exported_program(exported, tmp_path):
    path = changed(
        exported,
        tmp_path / "x.pt2",
        lambda name, data: (b"{}" if name.endswith("model.json") else data) if name else None,
    )
    with pytest.raises(ValueError, match=r"x\.pt2 cannot be loaded as an exported program"):
        pyparam.open(path)


@pytest.mark.parametrize(
    "text",
    [
        "s0 + 1", "2*s0**2", "Max(1, s0//2)", "Eq(s0, 2) & (s1 < 3)", "s0**(-1)",
        "Piecewise((1, s0 < 2), (2, True))", "Symbol('s77', positive=True, integer=True)", "Pow(Integer(2), Symbol('s0'))", "Float('0.5')",
    ],
)  # fmt: skip
def test_sizes_are_arithmetic(text):
    assert _is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "exec(chr(1))", "().__class__", "[x for x in y]", "lambda: 1", "9**9**9", "(open)(s0)", "'a b'", "f()(x)",
        "x.y", "Max(open, key=exec)", "1 << 999999", "(" * 1000, "", "a if b else exec(c)", "s0" * 100_000,
        "Symbol('exec(x)')", "Max(open)(s0)", "Pow(9, Pow(9, 9))", "Pow(9, 999999)", "Symbol('a.b')",
        "Max(x=exec())",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic(text):
    assert not _is_arithmetic(text)


# --- several files -----------------------------------------------------------------------------------------


def sharded(directory, weight_map, **tensors):
    """Writes one safetensors file a value of ``weight_map``, and the index."""
    for shard in set(weight_map.values()):
        held = {
            name: tensors.get(name, torch.ones(1)) for name, where in weight_map.items() if where == shard
        }
        save_file(held, directory / shard)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("how", ["directory", "index"])
def test_sharded_safetensors(tmp_path, how):
    weight_map = {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}
    index = sharded(tmp_path, weight_map, a=torch.arange(3), b=torch.arange(4))
    opened = pyparam.open(tmp_path if how == "directory" else index)
    assert list(opened) == ["b", "a"]
    assert opened["a"].tolist() == [0, 1, 2]
    assert opened["b"].tolist() == [0, 1, 2, 3]
    assert opened.byte_range("a").file == tmp_path / weight_map["a"]
    assert sorted(opened.files) == sorted(tmp_path / shard for shard in weight_map.values())
    assert opened.metadata == {"total_size": 8}
    assert "2 tensors, 56 B, 2 files" in repr(opened)


def test_sharded_bin(tmp_path):
    for i in (1, 2):
        torch.save({f"w{i}": torch.full((2,), i)}, tmp_path / f"pytorch_model-0000{i}-of-00002.bin")
    weight_map = {f"w{i}": f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    opened = pyparam.open(tmp_path)
    assert {name: tensor.tolist() for name, tensor in opened.items()} == {"w1": [1, 1], "w2": [2, 2]}


def test_shards_linked_from_elsewhere(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index = sharded(tmp_path / "blobs", {"a": "model-00001-of-00001.safetensors"})
    for file in (index, tmp_path / "blobs" / "model-00001-of-00001.safetensors"):
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert list(pyparam.open(tmp_path / "snapshot")) == ["a"]


def test_an_entry_the_index_leaves_out_is_left_out(tmp_path):
    index = sharded(tmp_path, {"a": "x.safetensors", "b": "x.safetensors"})
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    assert list(pyparam.open(index)) == ["a"]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("gone.safetensors", r"puts entry 'a' in 'gone\.safetensors', which is missing"),
        ("../x.safetensors", r"'\.\./x\.safetensors', which is outside the directory of the index"),
        ("sub/../../x.safetensors", r"which is outside the directory"),
        ("..\\x.safetensors", r"which is outside the directory"),
        ("/etc/passwd", r"'/etc/passwd', which is outside the directory"),
        ("C:\\x.safetensors", r"which is outside the directory"),
        ("", r"'', which is no file name"),
        ("a\0b", r"which is no file name"),
        (3, r"in 3, which is no file name"),
        (None, r"in None, which is no file name"),
        (".", r"which is missing"),
    ],
)
def test_an_index_that_names_a_file_it_may_not(tmp_path, shard, message):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    inner = tmp_path / "inner"
    inner.mkdir()
    index = inner / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match=message) as raised:
        pyparam.open(index)
    assert str(index) in str(raised.value)


def test_an_index_that_lists_what_the_file_lacks(tmp_path):
    index = sharded(tmp_path, {"a": "x.safetensors"})
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}))
    with pytest.raises(ValueError, match=r"lists entry 'b' in x\.safetensors, which does not hold it"):
        pyparam.open(index)


def test_an_index_that_names_itself(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(ValueError, match="is an index itself"):
        pyparam.open(index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an index of a checkpoint: Expecting"),
        ("[]", "has no weight_map"),
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "two entries are named 'a'"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_index(tmp_path, text, message):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        pyparam.open(index)
    assert str(index) in str(raised.value)


def test_a_directory_with_one_file(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "anything.safetensors")
    (tmp_path / "config.json").write_text("{}")
    opened = pyparam.open(tmp_path)
    assert list(opened) == ["a"]


def test_a_directory_prefers_safetensors(tmp_path):
    torch.save({"bin": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file({"safe": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(pyparam.open(tmp_path)) == ["safe"]


def test_numbered_parts_without_an_index(tmp_path):
    for i in (1, 2):
        save_file({f"w{i}": torch.ones(i)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    assert list(pyparam.open(tmp_path)) == ["w1", "w2"]
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold one checkpoint with all its parts"):
        pyparam.open(tmp_path)


def test_numbered_parts_that_repeat_an_entry(tmp_path):
    for i in (1, 2):
        save_file({"w": torch.ones(i)}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    with pytest.raises(ValueError, match="two files hold an entry named 'w'"):
        pyparam.open(tmp_path)


def test_a_directory_with_several(tmp_path):
    for name in "ab":
        save_file({"w": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        ValueError, match=r"holds several checkpoints \(a\.safetensors, b\.safetensors\): open one"
    ):
        pyparam.open(tmp_path)


def test_a_directory_with_none(tmp_path):
    with pytest.raises(ValueError, match="is a directory without a checkpoint") as raised:
        pyparam.open(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_distributed_checkpoint(tmp_path):
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a distributed checkpoint; .*dcp_to_torch_save"):
        pyparam.open(tmp_path)


def test_a_transformers_model_in_shards(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=100
    )
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    opened = pyparam.open(tmp_path)
    state = model.state_dict()
    assert set(opened) == set(state)
    assert all(torch.equal(opened[name], state[name]) for name in state)


# --- what a file is ----------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pyparam.open(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"GGUF\3\0\0\0", "is a GGUF file, which is not supported"),
        (b"\x93NUMPY\1\0", "is a numpy array"),
        (b"\x1f\x8b\x08\0", "is compressed with gzip"),
        (b"hello world, this is text", "is not a checkpoint"),
    ],
)
def test_another_format(tmp_path, content, message):
    (tmp_path / "x.dat").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.dat " + message):
        pyparam.open(tmp_path / "x.dat")


def test_a_zip_that_torch_did_not_write(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"x")
    with pytest.raises(ValueError, match=r"x\.npz is a zip archive, and not one that torch wrote"):
        pyparam.open(tmp_path / "x.npz")


def test_neither_a_file_nor_a_directory(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="neither a file nor a directory"):
        pyparam.open(tmp_path / "pipe")


def test_silero_by_content(tmp_path):
    source = installed("silero_vad") / "data" / "silero_vad.jit"
    (tmp_path / "renamed.ckpt").write_bytes(source.read_bytes())
    assert isinstance(pyparam.open(tmp_path / "renamed.ckpt"), torch.jit.ScriptModule)


def test_an_onnx_model():
    path = installed("silero_vad") / "data" / "silero_vad.onnx"
    with pytest.raises(ValueError, match=r"silero_vad\.onnx is an ONNX model"):
        pyparam.open(path)


# --- the mapping -------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    save_file({"a.weight": torch.arange(4), "a.bias": torch.ones(1)}, tmp_path / "x.safetensors")
    return pyparam.open(tmp_path / "x.safetensors")


def test_a_checkpoint_is_a_mapping(checkpoint):
    assert isinstance(checkpoint, collections.abc.Mapping)
    assert set(checkpoint.keys()) == {"a.weight", "a.bias"}
    assert checkpoint.get("nothing") is None
    assert "a.weight" in checkpoint
    assert 3 not in checkpoint
    assert checkpoint["a.weight"] is checkpoint["a.weight"]
    assert checkpoint == checkpoint
    assert checkpoint != {}
    assert len({checkpoint}) == 1
    with pytest.raises(TypeError):
        checkpoint["a.weight"] = torch.ones(1)


def test_a_missing_name(checkpoint):
    with pytest.raises(
        KeyError, match=r"no entry named 'a\.wieght' in checkpoint .* of 2; close to it: 'a\.weight'"
    ):
        checkpoint["a.wieght"]
    with pytest.raises(KeyError, match="no entry named 'x'"):
        checkpoint.tensor_info("x")
    with pytest.raises(KeyError, match="no entry named 'x'"):
        checkpoint.byte_range("x")
    with pytest.raises(KeyError, match=r"indexed by names, not by 3 \(int\)"):
        checkpoint[3]


def test_a_closed_checkpoint(checkpoint):
    with checkpoint as same:
        assert same is checkpoint
        taken = checkpoint["a.weight"]
    assert checkpoint.closed
    assert taken.tolist() == [0, 1, 2, 3]
    assert checkpoint.tensor_info("a.weight").shape == (4,)
    assert "closed" in repr(checkpoint)
    with pytest.raises(ValueError, match=r"x\.safetensors is closed"):
        checkpoint["a.bias"]
    checkpoint.close()


def test_a_checkpoint_is_not_pickled(checkpoint):
    with pytest.raises(TypeError, match="stands for open files and cannot be pickled"):
        pickle.dumps(checkpoint)


def test_metadata_cannot_be_changed(checkpoint):
    with pytest.raises(TypeError):
        checkpoint.metadata["x"] = 1
    with pytest.raises(TypeError):
        checkpoint.extras["x"] = 1
