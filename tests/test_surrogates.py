"""Names with half a surrogate pair, as file systems and broken files make: taken everywhere, printed escaped."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app

BAD = "a\udc80b"


def ours() -> nn.Module:
    model = nn.Module()
    model.add_module(BAD, nn.Linear(2, 2))
    model.register_parameter("w\udcff", nn.Parameter(torch.ones(2)))
    model.register_buffer("c\ud800", torch.ones(2))
    return model


SOURCES = {
    "module": ours,
    "state dict": lambda: {f"{BAD}.weight": torch.randn(2, 2), "x": torch.ones(2)},
    "pairs": lambda: [(f"{BAD}.weight", torch.randn(2, 2)), ("x", torch.ones(2))],
}
# What gives text that is printed.
TOLD = {
    "walk": lambda source: repr(pyparam.walk(source)),
    "measure": lambda source: repr(pyparam.measure(source)),
    "measure in a notebook": lambda source: pyparam.measure(source)._repr_html_(),
    "compare": lambda source: repr(pyparam.compare(source, {k: v + 1 for k, v in pyparam.walk(source)})),
    "Inspector": lambda source: repr(pyparam.inspect(source)),
    "initialize_": lambda source: repr(
        pyparam.init.initialize_(
            source, {f"{BAD}.weight": pyparam.init.zeros_, "*": pyparam.init.ones_}, seed=1
        )
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("verb", TOLD)
def test_names_are_printed_escaped(source, verb):
    told = TOLD[verb](SOURCES[source]())
    assert told.encode()
    assert "\\udc80b" in told


@pytest.mark.parametrize("source", SOURCES)
def test_names_are_found(source):
    made = SOURCES[source]()
    name = f"{BAD}.weight"
    table = pyparam.walk(made)
    weight = table[name]
    assert name in table.names
    assert table.attributes[table.names.index(name)] == "weight"
    assert pyparam.inspect(made)[name] is weight
    assert pyparam.inspect(made)[BAD].weight is weight
    assert pyparam.measure(made)[name].numel == 4
    assert pyparam.get_parameter(made, name) is weight
    prints = pyparam.fingerprint(made)
    again = pyparam.Fingerprint.from_dict(json.loads(json.dumps(prints.to_dict())))
    assert again == prints
    assert pyparam.compare(made, dict(table)).changed() == []
    assert pyparam.findings(made) is not None


def test_errors_say_them():
    with pytest.raises(KeyError) as raised:
        pyparam.measure(ours())[f"{BAD}.wieght"]
    assert "close to it: 'a\\udc80b.weight'" in raised.value.args[0]


def test_a_model_is_filled_and_tied_by_such_names():
    model = ours()
    pyparam.init.initialize_(model, {f"{BAD}.*": pyparam.init.ones_, "*": pyparam.init.zeros_}, seed=1)
    assert model.get_parameter(f"{BAD}.weight").sum() == 4
    packed = pyparam.pack_(model)
    assert packed.intact()
    model.get_submodule(BAD).weight = nn.Parameter(torch.ones(2, 2))
    assert packed.intact().broken == (f"{BAD}.weight",)
    pyparam.load_(model, {name: torch.full_like(value, 3.0) for name, value in model.state_dict().items()})
    assert pyparam.flatten(model).unique().tolist() == [3.0]
    assert dict(pyparam.index(model))[f"{BAD}.bias"] is model.get_submodule(BAD).bias


@pytest.mark.parametrize(
    "command", [("show",), ("show", "--names"), ("stats",), ("stats", "--json"), ("ties",), ("check",)]
)
def test_commands_on_a_file(tmp_path, command):
    torch.save(SOURCES["state dict"](), tmp_path / "a.pt")
    done = CliRunner().invoke(app, [command[0], str(tmp_path / "a.pt"), *command[1:]])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.exit_code in (0, 1), done.output


def test_the_report(tmp_path):
    pyparam.report(ours(), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_save_file_refuses_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"save_file: the name 'a\\udc80b.weight' is no text"):
        pyparam.save_file(SOURCES["state dict"](), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
