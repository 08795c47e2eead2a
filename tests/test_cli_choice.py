"""--select and --exclude of every command, --arg, and --meta of a config.json."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pyparam
from pyparam import ParamTable
from pyparam._cli import app
from pyparam._cli.config import model_of
from pyparam._cli.mistake import Mistake
from pyparam._cli.source import load
from pyparam._sources.chosen import Chosen, picked

MODELS = """
from torch import nn

def build(n_layers, width=4, name="plain"):
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(n_layers)])
    model.told = name
    return model
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_factories.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    torch.save(net.state_dict(), "a.pt")
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
        net[2].bias.add_(1)
    torch.save(net.state_dict(), "b.pt")
    yield tmp_path
    sys.modules.pop("my_factories", None)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_globs_are_united_and_left_out():
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]

    def taken(*globs):
        return [name for name in names if Chosen(*globs).matches(name)]

    assert taken(["*.weight", "1.*"]) == ["0.weight", "1.weight", "1.bias"]
    assert taken(["0.*"], ["*.bias"]) == ["0.weight"]
    assert taken([], ["*.bias", "1.*"]) == ["0.weight"]
    assert taken([], ["bias"]) == names  # the whole name
    assert repr(Chosen(["a*"], ["*b"])) == "'a*' but '*b'"
    assert repr(Chosen([], ["*b"])) == "anything but '*b'"


@pytest.mark.parametrize("command", ["stats", "show", "show --names"])
def test_listing_commands(folder, command):
    chosen = ["--select", "0.*", "--select", "2.*", "--exclude", "*.bias", "--json"]
    made = json.loads(run(*command.split(), "a.pt", *chosen).stdout)
    if command == "stats":
        names = [row["name"] for row in made["parameters"]]
    elif command == "show":
        names = [f"{row['name']}.{t['key']}" for row in made["rows"] for t in row["tensors"]]
    else:
        names = [row["name"] for row in made]
    assert names == ["0.weight", "2.weight"]


def test_check_and_report_look_at_what_is_chosen(folder):
    assert run("check", "b.pt").exit_code == 1
    assert run("check", "b.pt", "--exclude", "0.*", "--ignore", "running-statistics").exit_code == 0
    made = run("report", "b.pt", "--exclude", "0.*", "--against", "a.pt", "-o", "r.html", "--json")
    told = json.loads(made.stdout)
    assert all(name.startswith(("1.", "2.")) for finding in told["findings"] for name in finding["names"])
    assert told["comparison"]["parameters"][0]["name"] == "1.weight"


def test_compare(folder):
    assert json.loads(run("compare", "a.pt", "b.pt", "--json").stdout)["changed"] == ["0.weight", "2.bias"]
    found = run("compare", "a.pt", "b.pt", "--exclude", "0.*", "--json")
    assert json.loads(found.stdout)["changed"] == ["2.bias"]
    assert run("compare", "a.pt", "b.pt", "--select", "1.*").exit_code == 0
    assert run("compare", "a.pt", "b.pt", "--select", "1.*", "--fingerprint").exit_code == 0
    assert run("compare", "a.pt", "b.pt", "--select", "2.*", "--fingerprint").exit_code == 1


def test_compare_chooses_by_the_names_that_rules_give():
    a = {"module.w": torch.ones(2, device="cpu"), "module.b": torch.ones(2, device="cpu")}
    b = {"w": torch.ones(2, device="cpu"), "b": torch.zeros(2, device="cpu")}
    assert pyparam.compare(a, b, rename_a="module.", select="w").equal
    assert pyparam.compare(a, b, rename_a="module.", select="b").changed() == ["b"]
    with pytest.raises(ValueError, match=r"^compare: nothing matches 'x' on either side$"):
        pyparam.compare(a, b, select="x")


@pytest.mark.parametrize("command", ["stats", "show", "check", "report"])
def test_nothing_matches(folder, command):
    made = run(command, "a.pt", "--select", "none", "--exclude", "x")
    assert made.exit_code == 2
    assert "nothing matches 'none' but 'x' among 9 parameters" in made.stderr


def test_findings_of_what_is_chosen():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    assert [found.kind for found in pyparam.findings(net, select="0.*")] == ["non-finite"]
    assert pyparam.findings(net, select="1.*") == []
    with pytest.raises(ValueError, match="nothing matches 'x' among 4 parameters"):
        pyparam.findings(net, select="x")


# --- what is built -------------------------------------------------------------------------------------------


def test_arguments_of_a_factory(folder):
    made = load("my_factories:build", meta=True, arguments=["n_layers=3"])
    assert len(made) == 3
    assert all(parameter.is_meta for parameter in made.parameters())
    made = load("my_factories:build", arguments=["n_layers=1", "width=6", "name=it's"])
    assert made[0].weight.shape == (6, 6)
    assert made.told == "it's"


@pytest.mark.parametrize(
    ("source", "arguments", "words"),
    [
        ("my_factories:build", [], r"build is called without arguments: .*'n_layers' \(--arg NAME=VALUE\)"),
        ("my_factories:build", ["x=1"], r"build is called with x: "),
        ("my_factories:build", ["n_layers"], "--arg: expected NAME=VALUE, got 'n_layers'"),
        ("my_factories:build", ["a=1", "a=2"], "--arg: a is given twice"),
        ("a.pt", ["a=1"], "--arg is for package.module:factory, and 'a.pt' is no such name"),
    ],
)
def test_arguments_that_do_not_fit(folder, source, arguments, words):
    with pytest.raises(Mistake, match=words):
        load(source, arguments=arguments)


def config(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(entries))
    return path


SMALL = {"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 11, "n_positions": 5}


def test_a_config_gives_its_model_on_meta(tmp_path):
    pytest.importorskip("transformers")
    path = config(tmp_path, **SMALL, architectures=["GPT2LMHeadModel"])
    for source in (str(path), str(tmp_path)):
        made = load(source, meta=True)
        assert type(made).__name__ == "GPT2LMHeadModel"
        assert all(parameter.is_meta for parameter in made.parameters())
        assert made.transformer.wte.weight.shape == (11, 8)
    assert type(model_of(str(config(tmp_path, **SMALL)))).__name__ == "GPT2Model"


def test_a_config_runs_no_code_of_its_own(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "mine.py").write_text("raise SystemExit('code was run')")
    mapped = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    path = config(tmp_path, **SMALL, auto_map=mapped, architectures=["Model"])
    assert type(model_of(str(path))).__name__ == "GPT2Model"
    path = config(tmp_path, model_type="mine", auto_map=mapped)
    with pytest.raises(Mistake, match="no model type 'mine'.*, and code beside it is not run"):
        model_of(str(path))


def test_configs_that_are_none(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(Mistake, match="has no 'model_type'"):
        model_of(str(config(tmp_path, n_layer=2)))
    with pytest.raises(Mistake, match="no model type 'gpt22'; close to it: 'gpt2'"):
        model_of(str(config(tmp_path, model_type="gpt22")))
    with pytest.raises(Mistake, match="transformers cannot make the model of .*: "):
        model_of(str(config(tmp_path, **{**SMALL, "n_head": 3})))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Mistake, match=r"config\.json is no JSON"):
        model_of(str(tmp_path / "config.json"))
    with pytest.raises(Mistake, match=r"--meta builds what package\.module:factory names or a config\.json"):
        load(str(tmp_path / "none.pt"), meta=True)


def test_what_is_left_out_by_its_whole_name_is_not_taken_by_its_short_one(tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in nn.Linear(2, 3).state_dict().items()}
    assert ParamTable(list(wrapped), list(wrapped.values())).select(Chosen(exclude=["module.b*"])).names == [
        "module.weight"
    ]
    torch.save(wrapped, tmp_path / "wrapped.pt")
    for choice in (Chosen(["weight"]), Chosen(exclude=["bias"]), Chosen(exclude=["module.b*"])):
        assert list(picked(pyparam.open(tmp_path / "wrapped.pt"), choice)) == ["module.weight"]
