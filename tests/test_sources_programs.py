"""Programs in files: TorchScript archives and exported programs give their tensors, and run nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from reference_sources import Net, installed, rewritten
from torch import nn

import pyparam
from pyparam._sources import table_of
from pyparam._sources.programs import Program

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning", "ignore::UserWarning"
)


class Everything(nn.Module):
    """Ties of every kind, shared modules, buffers that are not saved, constants, odd strides and dtypes."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.constant = torch.arange(3.0)
        self.slice = nn.Parameter(self.a.weight.data[1:])
        self.shared = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.again = self.shared
        self.frozen = nn.Parameter(torch.randn(4, 3).t(), requires_grad=False)
        self.rounded = nn.Parameter(torch.randn(3).to(torch.bfloat16))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x):
        y = self.norm(self.a(x) + self.b(x)) + self.passing + self.constant + self.slice.sum()
        return (
            self.again(self.shared(y))
            + self.frozen.sum()
            + self.rounded
            + self.empty.sum()
            + self.flags.sum()
        )


def scripted(path, model):
    torch.jit.save(torch.jit.script(model), path)
    return torch.jit.load(path)


def traced(path, model):
    torch.jit.save(torch.jit.trace(model.eval(), torch.ones(2, 3)), path)
    return torch.jit.load(path)


def exported(path, model):
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (torch.randn(4, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    with open(path, "rb") as file:
        return torch.export.load(file)


def exported_once(path, model):
    """As torch.export.save wrote up to 2.6: what is serialized, each in a member."""
    from torch._export.serde.serialize import serialize

    program = torch.export.export(model, (torch.randn(4, 3),))
    made = serialize(program)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "7.3")
        archive.writestr("serialized_exported_program.json", made.exported_program)
        archive.writestr("serialized_state_dict.pt", made.state_dict)
        archive.writestr("serialized_constants.pt", made.constants)
        archive.writestr("serialized_example_inputs.pt", made.example_inputs)
    return program


KINDS = {"scripted": scripted, "traced": traced, "exported": exported, "exported once": exported_once}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [Everything, Net])
def test_a_program_lists_what_it_lists_when_loaded(tmp_path, kind, model):
    torch.manual_seed(0)
    path = tmp_path / "program"
    live = KINDS[kind](path, model())
    opened = pyparam.open(path)
    assert isinstance(opened, Program)
    for buffers in (False, True):
        for remove_duplicate in (False, True):
            options = {"buffers": buffers, "remove_duplicate": remove_duplicate}
            ours, theirs = table_of(opened, **options), table_of(live, **options)
            assert ours.names == theirs.names
            for (name, a), (_, b) in zip(ours, theirs, strict=True):
                assert torch.equal(a, b), name
                assert (a.dtype, a.stride(), a.requires_grad) == (b.dtype, b.stride(), b.requires_grad), name
                assert type(a) is type(b), name
            if kind != "exported once":  # whose tensors the program still shares with the model
                assert pyparam.ties(ours) == pyparam.ties(theirs)
    assert [name for name, _ in opened.named_parameters()] == [name for name, _ in live.named_parameters()]
    assert [name for name, _ in opened.named_buffers()] == [name for name, _ in live.named_buffers()]
    assert pyparam.compare(path, live).equal
    assert pyparam.measure(path).names == pyparam.measure(live).names


def test_what_is_neither_is_an_extra(tmp_path):
    exported(tmp_path / "m.pt2", Everything())
    assert torch.equal(pyparam.open(tmp_path / "m.pt2").extras["constant"], torch.arange(3.0))
    scripted(tmp_path / "m.pt", Everything())
    assert torch.equal(pyparam.open(tmp_path / "m.pt").extras["constant"], torch.arange(3.0))


def test_a_program_is_lazy_and_says_where_its_bytes_are(tmp_path):
    scripted(tmp_path / "m.pt", Everything())
    opened = pyparam.open(tmp_path / "m.pt")
    info = opened.tensor_info("frozen")
    assert info == (torch.float32, (3, 4), 48)
    place = opened.byte_range("frozen")
    assert (tmp_path / "m.pt").read_bytes()[place.begin : place.end] == bytes(
        opened["frozen"].detach().t().contiguous().view(torch.uint8).flatten().tolist()
    )
    assert opened.byte_range("empty") is None
    assert opened.byte_range("a.weight") == opened.byte_range("b.weight")
    assert opened["a.weight"] is opened["b.weight"]
    opened.close()
    with pytest.raises(ValueError, match="is closed"):
        opened["norm.weight"]


@pytest.mark.parametrize("name", ["m.pt", "m.jit", "m.ckpt", "m"])
def test_torchscript_by_its_content(tmp_path, name):
    scripted(tmp_path / name, Net())
    assert table_of(tmp_path / name).names == [name for name, _ in Net().named_parameters()]


def test_the_live_program_is_a_source_as_well(tmp_path):
    live = scripted(tmp_path / "m.pt", Net())
    assert pyparam.inspect(live)["a.weight"] is not None
    assert pyparam.inspect(tmp_path / "m.pt")["a.weight"] is not None


class Restored(nn.Module):
    """Whose way of being loaded is code."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        return self.inner(x)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.training = True

    def forward(self, x):
        return x * self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0] * float("nan")
        self.training = state[1]


def test_a_setstate_is_not_run(tmp_path):
    live = scripted(tmp_path / "m.pt", Restored())
    assert live.inner.weight.isnan().all()  # torch runs it
    opened = pyparam.open(tmp_path / "m.pt")
    assert list(opened) == []
    assert torch.equal(opened.extras["inner.__getstate__.0"], torch.ones(3))


def test_names_that_are_no_identifiers(tmp_path):
    model = nn.Sequential()
    model.add_module("a b", nn.Linear(2, 2))
    model.add_module("a-b", nn.Linear(2, 2))
    model[0].register_parameter("its scale", nn.Parameter(torch.ones(2)))
    live = scripted(tmp_path / "m.pt", model)
    assert list(pyparam.open(tmp_path / "m.pt")) == [name for name, _ in live.named_parameters()]


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
def test_quantized_modules_are_told_as_extras(tmp_path):
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no quantized kernels")
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    scripted(tmp_path / "m.pt", model)
    assert list(pyparam.open(tmp_path / "m.pt")) == []


def test_a_compressed_archive_is_read(tmp_path):
    live = scripted(tmp_path / "m.pt", Everything())
    path = rewritten(
        tmp_path / "m.pt", tmp_path / "z.pt", lambda name, data: data, compression=zipfile.ZIP_DEFLATED
    )
    assert pyparam.compare(path, live).equal
    assert pyparam.open(path).byte_range("frozen") is None


class Payload:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def pickled(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pt2(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    exported(path, Net())
    return path


def configured(change, kind="weights"):
    """``change(config)`` applied to a configuration."""

    def apply(name, data):
        if name is not None and name.endswith(f"{kind}_config.json"):
            config = json.loads(data)
            change(config["config"])
            return json.dumps(config)
        return data

    return apply


def first(change):
    return configured(lambda config: change(next(iter(config.values()))))


OPAQUE = {"path_name": "opaque_obj_0/x", "is_param": False, "use_pickle": True, "tensor_meta": None}


def as_pickle(payload):
    """The first weight is a pickle, as its configuration says."""

    def change(name, data):
        if name is not None and name.endswith("weight_0"):
            return pickled(payload)
        return first(lambda entry: entry.update(use_pickle=True))(name, data)

    return change


def replaced(ending, data):
    return lambda name, old: data if name is not None and name.endswith(ending) else old


def expressions(name, data):
    if name is not None and name.endswith("model.json"):
        return data.replace(b'"expr_str": "', b"\"expr_str\": \"open('ran', 'w') or ")
    return data


HARMLESS = {
    "an expression": expressions,
    "sample inputs": replaced("sample_inputs/model.pt", pickled(Payload())),
    "an opaque object": configured(lambda config: config.update(o=OPAQUE), "constants"),
    "compiled code": lambda name, data: {"data/aotinductor/model/x.so": b"x"} if name is None else data,
    "a pickle elsewhere": lambda name, data: {"elsewhere/w": pickled(Payload())} if name is None else data,
    "a pickle in the place of bytes": replaced("weight_7", pickle.dumps(Payload())),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_loading_would_run_is_not_looked_at(pt2, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    path = rewritten(pt2, tmp_path / "x.pt2", HARMLESS[case])
    assert table_of(path).names == table_of(pt2).names
    pyparam.measure(path)
    assert not os.path.exists("ran")


REFUSED = {
    "a pickled weight": (as_pickle(Payload()), r"'.*' cannot be read: it refers to posix\.mkdir"),
    "a payload that is not there": (
        first(lambda entry: entry.update(path_name="../weight_0")),
        r"is in 'm/data/weights/\.\./weight_0', which is not there",
    ),
    "a shape beyond its bytes": (
        first(lambda entry: entry["tensor_meta"].update(storage_offset={"as_int": 1})),
        r"offset 1 reaches beyond its storage of \d+ bytes",
    ),
    "a negative stride": (
        first(lambda entry: entry["tensor_meta"].update(strides=[{"as_int": -1}] * 2)),
        r"has sizes or strides that are no numbers",
    ),
    "a symbolic shape": (
        first(lambda entry: entry["tensor_meta"].update(sizes=[{"as_expr": {"expr_str": "s0"}}])),
        r"has sizes or strides that are no numbers",
    ),
    "an unknown dtype": (
        first(lambda entry: entry["tensor_meta"].update(dtype=99)),
        r"cannot be read: it has dtype 99 and layout 7",
    ),
    "a weight left out": (
        configured(lambda config: config.pop("a.weight")),
        r"it has no values for 'a\.weight'",
    ),
    "no signature": (replaced("models/model.json", b"{}"), r"its program has no signature"),
    "no JSON": (replaced("models/model.json", b"{"), r"m/models/model\.json is no JSON"),
    "deep JSON": (
        replaced("models/model.json", b"[" * 90_000),
        r"model\.json is no JSON: it is nested too deeply",
    ),
    "many lists in JSON": (
        replaced("models/model.json", b"[" * 200_000),
        r"model\.json is no JSON: it has too many lists and objects for its size",
    ),
    "no program": (
        lambda name, data: None if name == "models/model.json" else data,
        r"it holds no program, maybe compiled code; expected one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_exported_program(pt2, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    change, message = REFUSED[case]
    path = rewritten(pt2, tmp_path / "x.pt2", change)
    with pytest.raises(ValueError, match=r"x\.pt2 cannot be read as an exported program: .*" + message):
        pyparam.open(path)
    assert not os.path.exists("ran")


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x31", b"PK\x03\x04"])
def test_weights_whose_bytes_begin_like_a_pickle(tmp_path, start):
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.view(torch.uint8).flatten()[: len(start)].copy_(
            torch.frombuffer(bytearray(start), dtype=torch.uint8)
        )
    path = tmp_path / "x.pt2"
    torch.export.save(torch.export.export(net, (torch.ones(1, 3),)), path)
    found = dict(pyparam.named_parameters(pyparam.open(path)))
    assert torch.equal(found["weight"].view(torch.uint8), net.weight.view(torch.uint8))


BROKEN = {
    "no data.pkl": (lambda name, data: None if name == "data.pkl" else data, r"has no member '.*/data\.pkl'"),
    "no module": (replaced("data.pkl", pickle.dumps(3)), r"its data\.pkl holds no module"),
    "no storage": (lambda name, data: None if name == "data/0" else data, r"has no member '.*/data/0'"),
    "a short storage": (
        replaced("data/0", b"1234"),
        r"in '.*/data/0': .* reaches beyond its storage of 4 bytes",
    ),
    "no code": (
        lambda name, data: None if name is not None and name.startswith("code/") else data,
        r"its code declares no class __torch__\.reference_sources\.Net, of which the module '' is",
    ),
    "another byte order": (replaced("byteorder", b"big"), r"was written on a machine of another byte order"),
    "a truncated pickle": (replaced("data.pkl", b"\x80\x02("), r"data\.pkl: the pickle is truncated"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_torchscript_archive(tmp_path, case):
    change, message = BROKEN[case]
    scripted(tmp_path / "m.pt", Net())
    path = rewritten(tmp_path / "m.pt", tmp_path / "x.pt", change)
    with pytest.raises(ValueError, match=r"x\.pt.*" + message):
        pyparam.open(path)


def test_silero(tmp_path):
    source = installed("silero_vad") / "data" / "silero_vad.jit"
    (tmp_path / "renamed.ckpt").write_bytes(source.read_bytes())
    live = torch.jit.load(source)
    assert table_of(tmp_path / "renamed.ckpt", buffers=True).names == table_of(live, buffers=True).names
    assert pyparam.compare(tmp_path / "renamed.ckpt", live).equal
