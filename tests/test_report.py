"""The report as a file: what it holds, what it says, and how it refuses."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from reports import GPT, HOSTILE, faulty
from torch import nn

import pyparam
from pyparam._cli.demo import mixture, net
from pyparam._view.html.pack import Packer, unpack
from pyparam._view.html.page import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 20_000_000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.texts.append(data)


def written(source, tmp_path, **options):
    made = pyparam.report(source, tmp_path / "report.html", **options)
    text = made.path.read_text(encoding="utf-8")
    page = Page(text)
    header, columns = unpack(page.scripts[0].strip())
    return made, page, header, columns


def names_of(header, columns):
    """Names as the page puts them together from the tree."""
    strings = header["strings"]
    paths = [""]
    for node in range(1, header["modules"]):
        parent, key = int(columns["node_parent"][node]), strings[int(columns["node_key"][node])]
        assert parent < node
        paths.append(f"{paths[parent]}.{key}" if parent else key)
    rows = zip(columns["row_node"].tolist(), columns["row_attribute"].tolist(), strict=True)
    return [f"{paths[node]}.{strings[attribute]}" if node else strings[attribute] for node, attribute in rows]


# --- the file ------------------------------------------------------------------------------------------------


def test_it_stands_alone(tmp_path):
    _, page, _, _ = written(net(), tmp_path)
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base"), tag
        if tag == "script":
            assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        assert not any(key.startswith("on") for key in attributes)
    assert len(page.scripts) == 2 + len(SCRIPTS)


def test_its_policy_lets_its_own_scripts_run_and_nothing_be_fetched(tmp_path):
    import base64
    import hashlib

    _, page, _, _ = written(net(), tmp_path)
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy
    assert "unsafe-inline" not in policy.split(";")[1]
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_its_plotly_is_the_installed_one(tmp_path):
    from plotly.offline import get_plotlyjs

    _, page, _, _ = written(net(), tmp_path)
    assert page.scripts[1] == get_plotlyjs().replace("\r\n", "\n")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "plotly.min" not in tracked.stdout


def test_hostile_names_are_never_markup(tmp_path):
    made, page, header, columns = written(
        {HOSTILE: torch.randn(3), "a": torch.randn(2)}, tmp_path, title=HOSTILE
    )
    assert names_of(header, columns) == [HOSTILE, "a"]
    assert not any(tag == "img" for tag, _ in page.elements)
    assert "onerror=hacked" not in made.path.read_text().replace("onerror=hacked=1&gt;", "")
    assert HOSTILE in "".join(page.texts)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_writes_markup(script):
    text = (Path(pyparam.__file__).parent / "_view/html/js" / script).read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
    )
    assert len(text.splitlines()) < 400


# --- what it holds -------------------------------------------------------------------------------------------


def test_names_and_figures_come_back(tmp_path):
    model = faulty()
    _, _, header, columns = written(model, tmp_path)
    names = names_of(header, columns)
    assert names == [name for name, _ in model.named_parameters(remove_duplicate=False)]
    stats = pyparam.measure(model, quantiles=header["quantiles"])
    for row, name in enumerate(names):
        if name == "head.weight":
            name = "wte.weight"
        at = int(columns["row_stats"][row])
        expected = stats[name]
        for column in ("min", "max", "mean", "std", "rms", "l1", "l2"):
            assert columns[f"stat_{column}"][at].item() == pytest.approx(
                getattr(expected, column), rel=1e-6, nan_ok=True
            )
        for column in ("zeros", "nans", "posinfs", "neginfs", "subnormals"):
            assert int(columns[f"stat_{column}"][at]) == getattr(expected, column)
        for q, value in expected.quantiles.items():
            assert columns[f"stat_q{q:g}"][at].item() == pytest.approx(value, rel=1e-6)
        assert header["shapes"][int(columns["row_shape"][row])] == "×".join(map(str, expected.shape))
        assert f"torch.{header['dtypes'][int(columns['row_dtype'][row])]}" == str(expected.dtype)


def test_what_smaller_types_lose_comes_back_as_counts(tmp_path):
    values = torch.tensor([1e-9, 1e-6, 1.0, 1e5, 0.0, float("nan")])
    _, _, _, columns = written({"a": values}, tmp_path)
    assert columns["stat_float16_zero"].tolist() == [1, 1]
    assert columns["stat_float16_subnormal"].tolist() == [1, 1]
    assert columns["stat_float16_overflow"].tolist() == [1, 1]
    assert columns["stat_bfloat16_overflow"].tolist() == [0, 0]
    assert columns["stat_float8_e4m3fn_overflow"].tolist() == [1, 1]


@pytest.mark.parametrize("dropped", [None, 7])
def test_histograms_come_back(tmp_path, monkeypatch, dropped):
    if dropped is not None:  # as where there are very many bins
        monkeypatch.setattr("pyparam._view.html.content._MANTISSAS", ((math.inf, dropped),))
    model = net()
    _, _, header, columns = written(model, tmp_path)
    shift = 7 - header["mantissa_bits"]
    assert dropped in (None, shift)
    stats = pyparam.measure(model, histogram=True)
    ends = columns["hist_length"].long().cumsum(0).tolist()
    for row, (name, parameter) in enumerate(model.named_parameters()):
        entries = slice(ends[row - 1] if row else 0, ends[row])
        counts = columns["hist_count"].long()[entries]
        bins = columns["hist_step"].long()[entries].cumsum(0)
        assert int(counts.sum()) == parameter.numel()
        bits = parameter.detach().flatten().view(torch.int32) >> 16 & 0x7FFF
        expected = torch.where(parameter.flatten() < 0, (1 << 15) - 1 - bits, (1 << 15) + bits) >> shift
        found, number = expected.unique(return_counts=True)
        assert torch.equal(bins, found.long())
        assert torch.equal(counts, number)
        assert len(stats.histogram(name).counts) >= len(counts)


def test_shared_memory_counts_once(tmp_path):
    model = GPT(tied=True)
    _, _, header, columns = written(model, tmp_path)
    assert int(columns["row_own_bytes"].long().sum()) == sum(p.nbytes for p in model.parameters())
    row = names_of(header, columns).index("head.weight")
    assert int(columns["row_first"][row]) == names_of(header, columns).index("wte.weight")
    assert header["total"]["numel"] == sum(p.numel() for p in model.parameters())


def test_classes_of_modules_are_named(tmp_path):
    _, _, header, columns = written(net(), tmp_path)
    types = [header["strings"][i] for i in columns["node_type"].tolist()]
    assert types[:4] == ["Sequential", "Sequential", "Sequential", "Linear"]


def test_names_that_only_a_mapping_can_have(tmp_path):
    names = ["", ".x", "..y", "a", "a.b", "a..b", "ü\u202e\n", "1.2.3"]
    _, _, header, columns = written({name: torch.randn(2) for name in names}, tmp_path)
    assert names_of(header, columns) == names


def test_findings_are_in_it(tmp_path):
    made, _, header, columns = written(faulty(), tmp_path)
    names = names_of(header, columns)
    assert [finding["kind"] for finding in header["findings"]] == [finding.kind for finding in made.findings]
    for told, finding in zip(header["findings"], made.findings, strict=True):
        assert [names[row] for row in told["names"]] == list(finding.names)
        assert {names[int(row)]: words for row, words in told["details"].items()} == finding.details
    assert [finding.severity for finding in made.faults].count("error") == 1
    assert repr(made).splitlines()[0] == f"Report at {made.path}"
    assert repr(made).splitlines()[1].startswith("error: 1 parameter has values that are not finite")


def test_its_head_says_of_a_file_what_show_says(tmp_path):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 7}
    padded = {"view": torch.zeros(1 << 20)[:10], "hyper_parameters": {"lr": 0.01}}
    torch.save({**state, **padded}, tmp_path / "last.ckpt")
    _, page, header, _ = written(tmp_path / "last.ckpt", tmp_path)
    about = header["about"]
    assert [part[0] for part in about["parts"]] == ["model", "optimizer state (optimizer_states)"]
    facts = dict(about["facts"])
    assert facts["file"].startswith("PyTorch (zip archive), 1 file, 4.0")
    assert (facts["progress"], facts["settings"]) == ("epoch 7", "lr=0.01")
    assert set(facts) & set(about["warnings"]) == {"not listed"}
    assert ("dl", {"id": "about", "class": "about small", "hidden": None}) in page.elements
    assert written(net, tmp_path)[2]["about"]["facts"] == []


def test_no_findings(tmp_path):
    made, _, header, _ = written(net(), tmp_path)
    assert made.findings == made.faults == ()
    assert header["findings"] == []
    assert repr(made) == f"Report at {made.path}: no findings"


# --- every kind of source ------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.fc(x))


def _paths(tmp_path):
    from safetensors.torch import save_file

    model = Small().eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return model


@pytest.mark.parametrize(
    ("kind", "buffers"),
    [
        ("module", 3),
        ("state dict", 0),
        ("pt", 0),
        ("safetensors", 0),
        ("table", 0),
        ("pairs", 0),
        ("exported", 3),
    ],
)
def test_sources(tmp_path, kind, buffers):
    model = _paths(tmp_path)
    source = {
        "module": lambda: model,
        "state dict": model.state_dict,
        "pt": lambda: tmp_path / "model.pt",
        "safetensors": lambda: str(tmp_path / "model.safetensors"),
        "table": lambda: pyparam.walk(model),
        "pairs": model.named_parameters,
        "exported": lambda: torch.export.export(model, (torch.randn(2, 3),)),
    }[kind]()
    made, _, header, columns = written(source, tmp_path)
    assert "fc.weight" in names_of(header, columns)
    assert int(columns["row_buffer"].sum()) == buffers
    assert made.findings == ()


@pytest.mark.filterwarnings("ignore")
def test_torchscript(tmp_path):
    _, _, header, columns = written(torch.jit.script(Small()), tmp_path)
    assert header["title"] == "Small"
    assert int(columns["row_buffer"].sum()) == 3


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_tensor(tmp_path):
    state = {
        "sparse": torch.eye(8).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.rand(3, 3), 0.1, 0, torch.quint8),
        "complex": torch.randn(4, 4, dtype=torch.complex64),
        "integers": torch.tensor([2**62, -(2**62)]),
        "bool": torch.ones(3, 3, dtype=torch.bool),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.0),
        "float8": torch.randn(30, 30).to(torch.float8_e4m3fn),
        "wide": torch.tensor([1e300, 1e-300, 0.0], dtype=torch.float64),
        "nested": torch.nested.nested_tensor([torch.randn(2), torch.randn(3)]),
        "expanded": torch.randn(1).expand(100, 100),
        "nan": torch.full((5,), float("nan")),
        "meta": torch.empty(3, device="meta"),
        "lazy": nn.LazyLinear(3).weight,
    }
    _, _, header, columns = written(state, tmp_path, against=state)
    assert names_of(header, columns) == list(state)
    reasons = {list(state)[int(row)]: words for row, words in header["unreadable"].items()}
    assert set(reasons) == {"sparse", "quantized", "nested", "meta", "lazy"}
    assert reasons["meta"] == "it is on the meta device"
    wide = int(columns["row_stats"][list(state).index("wide")])
    assert columns["stat_max"][wide].item() == 1e300
    assert sorted(header["against"]["left_out"]) == sorted(reasons)


@pytest.mark.parametrize("source", [{}, nn.ReLU()])
def test_nothing(tmp_path, source):
    _, _, header, columns = written(source, tmp_path)
    assert names_of(header, columns) == []
    assert header["total"]["numel"] == 0
    assert header["total"]["mean"] is None


def test_a_model_on_the_meta_device(tmp_path):
    with torch.device("meta"):
        model = net()
    made, _, header, _ = written(model, tmp_path)
    assert [finding.severity for finding in made.findings] == ["info"]
    assert len(header["unreadable"]) == 18


def test_the_mixture_is_small(tmp_path):
    made = pyparam.report(mixture(), tmp_path / "report.html")
    assert made.path.stat().st_size < LIMIT
    text = made.path.read_text(encoding="utf-8")
    _, columns = unpack(text.partition('id="data">')[2].partition("<")[0])
    assert len(columns["row_node"]) == 47_398
    assert made.findings == ()


# --- against -------------------------------------------------------------------------------------------------


def test_what_changed(tmp_path):
    before, after = GPT(tied=False), GPT(tied=False)
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        after.h[1].linear1.weight.add_(0.25)
    after.wpe = nn.Embedding(10, 64)
    after.ln_f.half()
    del after.h[3]
    after.extra = nn.Parameter(torch.randn(3))
    made, _, header, columns = written(after, tmp_path, against=before)
    names = names_of(header, columns)
    told = header["against"]
    assert told["name"] == "the other GPT"
    assert not told["equal"]
    assert [names[row] for row in told["only_here"]] == ["extra"]
    assert len(told["only_there"]) == 12
    assert [[names[row], *shapes] for row, *shapes in told["shape_changed"]] == [
        ["wpe.weight", "300×64", "10×64"]
    ]
    assert [names[row] for row, *_ in told["dtype_changed"]] == ["ln_f.weight", "ln_f.bias"]
    at = int(columns["row_difference"][names.index("h.1.linear1.weight")])
    assert columns["diff_max_abs"][at].item() == pytest.approx(0.25, rel=1e-3)
    assert not columns["diff_equal"][at]
    assert made.comparison.changed() == ["h.1.linear1.weight", "ln_f.weight", "ln_f.bias", "wpe.weight"]


def test_against_a_checkpoint_of_itself(tmp_path):
    model = _paths(tmp_path)
    _, _, header, _ = written(model, tmp_path, against=tmp_path / "model.safetensors")
    assert header["against"]["equal"]
    assert header["against"]["name"] == "model.safetensors"


# --- errors --------------------------------------------------------------------------------------------------


def test_where_it_cannot_write(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory; expected the path of a file to write"):
        pyparam.report(net(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*/none to write a.html in"):
        pyparam.report(net(), tmp_path / "none" / "a.html")


def test_no_source(tmp_path):
    with pytest.raises(TypeError, match="an int is no source of parameters"):
        pyparam.report(5, tmp_path / "a.html")
    with pytest.raises(TypeError, match="an int is no source of parameters"):
        pyparam.report(net(), tmp_path / "a.html", against=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'report needs {package}, which is not installed \(pip install "pyparam'
    ):
        pyparam.report(net(), tmp_path / "a.html")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    path.write_text("before")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        pyparam.report(net(), path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_an_existing_file_is_replaced_with_ordinary_permissions(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("before")
    pyparam.report(net(), str(path))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


# --- packing -------------------------------------------------------------------------------------------------


def test_columns_take_the_smallest_type_that_holds_them():
    packer = Packer()
    columns = {
        "bytes": torch.tensor([0, 255]),
        "shorts": torch.tensor([256, 65535]),
        "words": torch.tensor([65536, 2**32 - 1]),
        "large": torch.tensor([2**32, 2**53]),
        "floats": torch.tensor([1.5, float("nan"), float("-inf"), 0.0], dtype=torch.float64),
        "wide": torch.tensor([1e300], dtype=torch.float64),
        "tiny": torch.tensor([1e-40], dtype=torch.float64),
        "strided": torch.arange(9).reshape(3, 3).t()[1],
        "none": torch.zeros(0, 3)[:, 1],
    }
    for name, column in columns.items():
        packer.add(name, column)
    header, found = unpack("".join(packer.text({"title": "ü"})))
    assert header["title"] == "ü"
    types = ["u1", "u2", "u4", "f8", "f4", "f8", "f8", "u1", "f4"]
    assert [column["type"] for column in header["columns"]] == types
    for name, column in columns.items():
        assert torch.equal(found[name].double().nan_to_num(7), column.double().nan_to_num(7)), name
