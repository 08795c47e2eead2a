"""TorchScript archives and exported programs: found by content, and refused where loading would run code."""

from __future__ import annotations

import io
import json
import os

import pytest
import torch
from reference_sources import Net, assert_same_entries, installed, rewritten
from torch import nn

import pyparam
from pyparam._sources import table_of
from pyparam._sources.programs import _is_arithmetic

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("name", ["m.pt", "m.jit", "m.ckpt", "m"])
def test_a_torchscript_archive_by_its_content(tmp_path, name):
    torch.jit.save(torch.jit.script(Net()), tmp_path / name)
    opened = pyparam.open(tmp_path / name)
    assert isinstance(opened, torch.jit.ScriptModule)
    assert table_of(tmp_path / name).names == [name for name, _ in Net().named_parameters()]


def test_a_broken_torchscript_archive(tmp_path):
    torch.jit.save(torch.jit.script(Net()), tmp_path / "m.pt")
    rewritten(tmp_path / "m.pt", tmp_path / "x.pt", lambda name, data: None if name == "data.pkl" else data)
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
    return data


def replaced(ending, value):
    return lambda name, data: pickled(value) if name is not None and name.endswith(ending) else data


def unpickled(value, hide=lambda config: None):
    """The first weight is a pickle, and the configuration says to load it as one."""

    def change(name, data):
        if name is not None and name.endswith("weights_config.json"):
            config = json.loads(data)
            next(payload for payload in config["config"].values() if payload["path_name"] == "weight_0")[
                "use_pickle"
            ] = True
            hide(config)
            return json.dumps(config)
        return replaced("weight_0", value)(name, data)

    return change


def a_second_mention(config):
    raw = {"path_name": "WEIGHT_0", "is_param": True, "use_pickle": False, "tensor_meta": None}
    config["more"] = {"other": raw}


def added(name, data):
    return lambda known, known_data: {name: data} if known is None else known_data


HOSTILE = {
    "an expression": (hostile_expression, r"model\.json has .open\('ran', 'w'\). where a size belongs"),
    "sample inputs": (
        replaced("sample_inputs/model.pt", Payload()),
        r"sample_inputs/model\.pt is a pickle that holds more than tensors",
    ),
    "a pickled weight": (unpickled(Payload()), r"weight_0 is a pickle that holds more than tensors"),
    "a pickled weight that is also said to be raw": (
        unpickled(Payload(), a_second_mention),
        r"weight_0 is a pickle that holds more than tensors",
    ),
    "a pickle elsewhere": (
        added("elsewhere/weight", pickled(Payload())),
        r"elsewhere/weight is a pickle that holds more than tensors",
    ),
    "an opaque object": (
        added("data/constants/opaque_obj_0", b"x"),
        r"opaque_obj_0 is a pickled object",
    ),
    "compiled code": (added("data/aotinductor/model/x.so", b"x"), r"x\.so is compiled code"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_exported_program_that_needs_code_is_refused_and_runs_none(exported, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    change, message = HOSTILE[case]
    path = rewritten(exported, tmp_path / "x.pt2", change)
    with pytest.raises(ValueError, match=r"x\.pt2 is refused: it needs code to load \(.*" + message):
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


def test_a_pickle_in_the_place_of_raw_bytes_is_not_run(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = rewritten(exported, tmp_path / "x.pt2", replaced("weight_0", Payload()))
    with pytest.raises(ValueError, match=r"x\.pt2 cannot be loaded as an exported program"):
        pyparam.open(path)
    assert not os.path.exists("ran")


def test_a_broken_exported_program(exported, tmp_path):
    path = rewritten(
        exported, tmp_path / "x.pt2", lambda name, data: b"{}" if name == "models/model.json" else data
    )
    with pytest.raises(ValueError, match=r"x\.pt2 cannot be loaded as an exported program"):
        pyparam.open(path)


ARITHMETIC = """
s0 + 1
2*s0**2
s0**(-1)
Max(1, s0//2)
Eq(s0, 2) & (s1 < 3)
Piecewise((1, s0 < 2), (2, True))
Symbol('s77', positive=True, integer=True)
Pow(Integer(2), Symbol('s0'))
Float('0.5')
"""

NO_ARITHMETIC = """
exec(chr(1))
().__class__
[x for x in y]
lambda: 1
9**9**9
1 << 999999
Pow(9, Pow(9, 9))
Pow(9, 999999)
(open)(s0)
f()(x)
Max(open)(s0)
x.y
'a b'
Symbol('exec(x)')
Symbol('a.b')
Max(open, key=exec)
Max(x=exec())
a if b else exec(c)
"""


@pytest.mark.parametrize("text", ARITHMETIC.strip().splitlines())
def test_sizes_are_arithmetic(text):
    assert _is_arithmetic(text)


@pytest.mark.parametrize("text", [*NO_ARITHMETIC.strip().splitlines(), "", "(" * 1000, "s0" * 100_000])
def test_what_is_no_arithmetic(text):
    assert not _is_arithmetic(text)


def test_silero_by_content(tmp_path):
    source = installed("silero_vad") / "data" / "silero_vad.jit"
    (tmp_path / "renamed.ckpt").write_bytes(source.read_bytes())
    assert isinstance(pyparam.open(tmp_path / "renamed.ckpt"), torch.jit.ScriptModule)
