"""Stats.by: rows united by module, layer, role or a function, exactly; how groups print, plot and are logged."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import pyparam
from pyparam._measure.grouped import strip


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"q_proj": nn.Linear(16, 16), "o_proj": nn.Linear(16, 8, bias=False)})
        self.norm = nn.LayerNorm(16)
        self.experts = nn.ModuleList(nn.Linear(3, 5, bias=False) for _ in range(2))


class Model(nn.Module):
    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 16)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.norm = nn.LayerNorm(16)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = Model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5)
    return model


ROLES = [
    "embed", "attn.q_proj", "attn.q_proj.bias", "attn.o_proj", "norm", "norm.bias", "experts.*",
    "norm (no layer)", "norm.bias (no layer)",
]  # fmt: skip


def test_groups_have_the_figures_of_their_values(model) -> None:
    stats = pyparam.measure(model, histogram=True, quantiles=(0.1, 0.5))
    roles = stats.by("role")
    assert roles.names == ROLES
    assert roles.members["experts.*"][:3] == [
        f"layers.{i}.experts.{j}.weight" for i, j in ((0, 0), (0, 1), (1, 0))
    ]
    for role in roles.names:
        values = torch.cat([model.get_parameter(name).detach().flatten() for name in roles.members[role]])
        alone = pyparam.measure({"all": values}, histogram=True, quantiles=(0.1, 0.5))["all"]
        row = roles[role]
        assert row.numel == len(values)
        for name in ("min", "max", "max_abs"):
            assert getattr(row, name) == getattr(alone, name)
        for name in ("mean", "std", "rms", "l1", "l2"):
            assert getattr(row, name) == pytest.approx(getattr(alone, name), rel=1e-12)
        assert row.quantiles == alone.quantiles
        ours, theirs = (
            roles.histogram(role),
            pyparam.measure({"all": values}, histogram=True).histogram("all"),
        )
        assert all(map(torch.equal, ours, theirs))
    assert roles.total.to_dict() == stats.total.to_dict()
    assert torch.equal(roles.underflow(torch.float16).zero, torch.zeros(len(ROLES), dtype=torch.float64))


def test_layers_modules_and_functions(model) -> None:
    stats = pyparam.measure(model)
    assert stats.by("layer").names == ["embed", *(f"layers.{i}" for i in range(12)), "norm"]
    modules = stats.by("module")
    assert modules.members["layers.3.attn.q_proj"] == [
        "layers.3.attn.q_proj.weight",
        "layers.3.attn.q_proj.bias",
    ]
    own = stats.by(lambda name: "norms" if "norm" in name else None)
    assert own.names == ["norms"]
    assert len(own.members["norms"]) == 26
    assert own.total.numel == stats.total.numel
    assert pyparam.measure(nn.Linear(2, 2)).by("layer").names == ["(model)"]
    assert pyparam.measure(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))).by("layer").names == ["0", "1"]
    assert stats.by(lambda name: None).names == []
    assert pyparam.measure(nn.ReLU()).by("role").names == []


def test_two_lists_of_layers_are_two_roles() -> None:
    model = nn.ModuleDict({"encoder": Model(2), "decoder": Model(2)})
    names = pyparam.measure(model).by("role").names
    assert "encoder.layers.*.attn.q_proj" in names
    assert "decoder.layers.*.attn.q_proj" in names


def test_shared_memory_counts_once_in_a_group(model) -> None:
    for block in model.layers[1:4]:
        block.attn["q_proj"].weight = nn.Parameter(model.layers[0].attn["q_proj"].weight.data)
    stats = pyparam.measure(model)
    assert stats.by("role")["attn.q_proj"].numel == 256 * 9
    everything = stats.by(lambda name: "all")
    assert everything["all"].numel == stats.total.numel
    assert everything["all"].l2 == pytest.approx(stats.total.l2, rel=1e-14)


def test_many_rows() -> None:
    state = {f"layers.{i}.w": torch.tensor([float(i)]) for i in range(1000)}
    found = pyparam.measure(state).by("role")["w"]
    assert (found.numel, found.max, found.mean) == (1000, 999, 499.5)
    assert found.std == pytest.approx(torch.arange(1000.0).double().std().item(), rel=1e-12)


def test_groups_of_shards_merge_and_travel(model) -> None:
    stats = pyparam.measure(model, histogram=True)
    halves = [
        pyparam.measure([(n, p) for n, p in model.named_parameters()][s], histogram=True)
        for s in (slice(0, 40), slice(40, None))
    ]
    a, b = halves[0] + halves[1], stats
    assert a.by("role")["attn.q_proj"].l2 == pytest.approx(b.by("role")["attn.q_proj"].l2, rel=1e-12)
    again = pickle.loads(pickle.dumps(stats.by("role")))
    assert repr(again) == repr(stats.by("role"))
    assert copy.deepcopy(again).members == again.members


def test_it_prints_a_line_a_group_with_a_bar_a_member(model) -> None:
    with torch.no_grad():
        model.layers[7].attn["q_proj"].weight.mul_(30)
        model.layers[2].attn["q_proj"].bias[0] = float("nan")
        model.layers[4].attn["o_proj"].weight.zero_()
    lines = repr(pyparam.measure(model).by("role")).splitlines()
    assert lines[0].split() == [
        "role",
        "tensors",
        "values",
        "mean",
        "std",
        "min",
        "max",
        "zeros",
        "nonfinite",
        "rms",
        "of",
        "each",
    ]
    assert len(lines) == len(ROLES) + 2
    by_name = {line.split("  ")[0]: line.rpartition("  ")[2] for line in lines}
    assert by_name["attn.q_proj"] == "▁▁▁▁▁▁▁█▁▁▁▁"
    assert by_name["attn.q_proj.bias"][2] == "!"
    assert by_name["attn.o_proj"][4] == "·"
    assert "▁▁▁█▁" in pyparam.measure(model).by("role")._repr_html_()


def test_strips() -> None:
    assert strip([1, 1, 1]) == "▅▅▅"
    assert strip([0, math.nan, math.inf]) == "·!!"
    assert len(strip([1.0] * 1000)) == 48
    assert strip([1.0] * 700 + [1e6] + [1.0] * 299).count("█") == 1
    assert "!" in strip([1.0] * 700 + [math.nan] + [1.0] * 299)
    assert strip([]) == ""


@pytest.mark.parametrize(
    ("by", "kind", "words"),
    [
        ("roles", ValueError, "by: expected 'module', 'layer', 'role' or a function of a name, got 'roles'"),
        (3, ValueError, "got 3"),
        (
            lambda name: 3,
            TypeError,
            "by: the function gave an int for 'embed.weight'; expected a string or None",
        ),
    ],
)
def test_mistakes(model, by, kind, words) -> None:
    with pytest.raises(kind, match=words):
        pyparam.measure(model).by(by)


def test_groups_are_drawn_as_a_heat_map(model) -> None:
    pytest.importorskip("matplotlib")
    figure = pyparam.plot(pyparam.measure(model).by("role"))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ROLES
    assert axes.images[0].get_array().shape == (len(ROLES), 24)
    with pytest.raises(TypeError, match="plot: 'heat' draws groups, as stats.by\\('role'\\) makes them"):
        pyparam.plot(model, "heat")
    assert pyparam.plot(pyparam.measure(model).by("role"), "norms").axes


def test_a_chart_a_role_in_the_logs(model) -> None:
    class Writer:
        def __init__(self) -> None:
            self.tags: list[str] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.tags.append(tag)

        def add_histogram_raw(self, tag: str, **_: object) -> None:
            self.tags.append(tag)

    writer = Writer()
    pyparam.log(pyparam.measure(model, histogram=True).by("role"), writer, 0)
    assert [tag for tag in writer.tags if tag.startswith("norm/")] == [
        f"norm/{role}" for role in (*ROLES, "total")
    ]
    assert "values/attn.q_proj" in writer.tags


def test_groups_are_as_wide_as_a_terminal(model, monkeypatch) -> None:
    groups = pyparam.measure(Model(48)).by("role")
    whole = repr(groups)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width in (80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = repr(groups).split("\n")
        assert max(map(len, lines)) <= width
        assert len(lines) == len(groups) + 2
        assert lines[0].startswith("role ")
        assert lines[0].rstrip().endswith("rms of each")
        assert len(lines[2].split()[-1]) >= 24  # of 48 layers: the largest of each two at least
    assert repr(groups) == whole  # where there is room, nothing is left out
    monkeypatch.setenv("COLUMNS", "80")
    assert "tensors" in repr(groups)
    assert "min" not in repr(groups).split("\n")[0]
