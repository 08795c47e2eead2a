"""``show``: the text, its totals, its JSON form."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks.models import mixture, net
from pyparam import inspect, show
from pyparam._base.words import plain, size, span
from pyparam._view.memory import memory_of
from pyparam._view.text import summarize
from tests.reference_view import bare_chain


def shown(source, **options):
    file = io.StringIO()
    show(source, file=file, **options)
    return file.getvalue()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.norm
        self.lazy = nn.LazyLinear(3)
        self.norm.bias.requires_grad_(False)


def test_the_nested_network():
    assert shown(net()).splitlines() == [
        "module                 type            tensors                  dtype    device  values      bytes",
        "(model)                Sequential                                                   309   1.21 KiB  trainable",
        "  0                    Sequential                                                   304   1.19 KiB  trainable",
        "    block 0 – block 3  4 × Sequential                                            4 × 76  4 × 304 B  trainable",
        "      0                Linear          weight [8, 4]  bias [8]  float32  cpu         40      160 B  trainable",
        "      1                ReLU",
        "      2                Linear          weight [4, 8]  bias [4]  float32  cpu         36      144 B  trainable",
        "      3                ReLU",
        "  1                    Linear          weight [1, 4]  bias [1]  float32  cpu          5       20 B  trainable",
        "",
        "309 values in 18 parameters, 1.21 KiB, all trainable",
        "23 modules",
    ]


def test_the_mixture_is_folded():
    text = shown(mixture(layers=5, experts=7))
    assert re.search(r"0 – 4 +5 × MixtureLayer", text)
    assert re.search(r"0 – 6 +7 × Expert +7 × 192", text)
    assert len(text.splitlines()) == 1 + 16 + 3


def test_ties_repeats_buffers_and_what_is_frozen():
    text = shown(Tied(), buffers=True)
    assert re.search(r"embed .*weight \[10, 4\] \(tied\)", text)
    assert re.search(r"head .*weight \[10, 4\] = embed.weight", text)
    assert re.search(r"again +BatchNorm1d += norm", text)
    assert re.search(r"running_mean \[4\] \(buffer\)", text)
    assert "weight uninitialized  bias uninitialized" in text
    assert re.search(r"norm .* 4 trainable", text)
    assert "48 values in 5 parameters, 192 B, 44 trainable and 4 frozen" in text
    assert "shared storage is counted once: 8 names list 96 values" in text
    assert "9 values in 3 buffers, 40 B" in text
    assert "tied: embed.weight = head.weight" in text
    assert "running_mean" not in shown(Tied())
    assert "all frozen" in shown(nn.Linear(1, 1).requires_grad_(False))


def test_a_state_dict_has_neither_types_nor_frozen_states():
    text = shown(net().state_dict())
    assert "frozen" not in text
    assert "trainable" not in text
    assert "modules" not in text
    assert "309 values in 18 parameters" in text
    assert re.search(r"block 0 – block 3 +4 ×", text)


def test_depth():
    assert len(shown(net(), depth=0).splitlines()) == 1 + 1 + 3
    text = shown(net(), depth=1)
    assert re.search(r"  0 +Sequential +… 20 modules +304", text)
    assert len(shown(net(), depth=99).splitlines()) == len(shown(net()).splitlines())
    with pytest.raises(ValueError, match="depth must not be negative, got -1"):
        show(net(), depth=-1)


def test_a_deep_model_is_cut_and_an_asked_for_depth_is_given():
    model = bare_chain(1000)
    assert "… 744 modules" in shown(model)
    text = shown(model, depth=2000)
    assert "(999) layer" not in text
    assert "(1000) layer" in text
    assert max(map(len, text.splitlines())) < 200


def test_select():
    text = shown(net(), select="*.bias")
    assert "49 values in 9 parameters" in text
    assert "weight" not in text
    assert "75 values" not in shown(net(), select=re.compile("block 2"))
    with pytest.raises(ValueError, match="nothing matches 'x.y' among 18 parameters and buffers"):
        show(net(), select="x.y")


def test_an_inspector_shows_its_part():
    assert "76 values in 4 parameters" in shown(inspect(net())[0][1])
    assert "152 values in 8 parameters" in shown(inspect(net())[0][1:3])
    assert "76 values in 4 parameters" in shown(inspect(net().state_dict())[0][1])


@pytest.mark.parametrize(
    "model",
    [nn.Module(), nn.Sequential(), {}, [], nn.ReLU()],
    ids=["module", "sequential", "dict", "list", "relu"],
)
def test_a_model_without_parameters(model):
    assert "0 values in 0 parameters, 0 B" in shown(model)


def test_names_that_would_break_a_line_are_escaped():
    model = nn.ModuleDict({"a\nb": nn.ReLU(), "\x1b[31m": nn.ReLU()})
    assert len(shown(model).splitlines()) == 1 + 3 + 3
    assert r"a\nb" in shown(model)
    assert r"\x1b[31m" in shown(model)


def test_output_follows_the_file_s_encoding():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(net(), file=file)
    file.flush()
    assert b"block 0 - block 3  4 x Sequential" in file.buffer.getvalue()


def test_colours_only_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    show(net(), file=file)
    assert "\x1b[" in file.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).split() == shown(net()).split()
    assert "\x1b[" not in shown(net())


def test_the_json_form():
    made = json.loads(json.dumps(summarize(Tied()).to_dict()))
    assert made["type"] == "Tied"
    assert made["parameters"] == {
        "names": 8,
        "values": 96,
        "tensors": 5,
        "unique": 48,
        "bytes": 192,
        "trainable": 44,
    }
    assert made["shared"] == [["embed.weight", "head.weight"]]
    rows = {row["name"]: row for row in made["rows"]}
    assert set(rows[""]) == {
        "name", "last", "count", "depth", "type", "modules", "one_module", "repeats", "tensors", "parameters",
        "buffers",
    }  # fmt: skip
    assert rows["again"]["repeats"] == "norm"
    assert rows["head"]["tensors"] == [
        {
            "key": "weight",
            "kind": "parameter",
            "shape": [10, 4],
            "dtype": "float32",
            "device": "cpu",
            "layout": "strided",
            "requires_grad": True,
            "shared_with": "embed.weight",
        }
    ]
    assert rows["lazy"]["tensors"][0]["shape"] is None
    folded = {row["name"]: row for row in summarize(net()).to_dict()["rows"]}["0.block 0"]
    assert (folded["last"], folded["count"], folded["depth"]) == ("0.block 3", 4, 2)
    assert len(summarize(net()).to_dict(1)["rows"]) == 3


def test_a_model_on_the_meta_device():
    with torch.device("meta"):
        text = shown(mixture(2, 2))
    assert "meta" in text
    assert "2 × MixtureLayer" in text


def test_a_transformers_model_on_the_meta_device():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=12)
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config)
    text = shown(model)
    assert re.search(r"0 – 11 +12 × GPT2Block", text)
    assert "124,439,808 values in 148 parameters" in text
    assert "tied: transformer.wte.weight = lm_head.weight" in text


def test_rich_is_not_imported_for_plain_text():
    code = (
        "import sys, io, torch, pyparam\n"
        "pyparam.show(torch.nn.Linear(1, 1), file=io.StringIO())\n"
        "assert not {'rich', 'typer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10 * 2**20, "10.0 MiB"), (2**70, "1024 EiB")],
)
def test_sizes(count, text):
    assert size(count) == text


def test_spans_and_names():
    assert span(["3"]) == "3"
    assert span(["0", "1", "2"]) == "0 – 2"
    assert span(["left", "right"]) == "left, right"
    assert span(["a", "b", "c", "d", "e"]) == "a, b, … e"
    assert span(["b1", "b3"]) == "b1, b3"
    assert plain("größe") == "größe"
    assert plain("\ud800") == "\\ud800"


def test_memory_by_dtype_and_with_adam(capsys) -> None:
    model = nn.Sequential(
        nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256)
    )
    model[1].to(torch.bfloat16)
    show(model, memory=True)
    lines = capsys.readouterr().out.splitlines()
    # 256 KiB + 2 KiB of the norm's own, and of its buffers 2 KiB and a counter of 8 bytes.
    assert lines[-2] == "memory: 260 KiB float32, 128 KiB bfloat16, 8 B int64"
    assert lines[-1] == (
        "training with Adam: 386 KiB parameters + 386 KiB gradients + 772 KiB moments = 1.51 MiB, "
        "each in its parameter's dtype; without activations and buffers"
    )
    model[0].requires_grad_(False)
    told = memory_of(summarize(model).outline)
    assert told.parameters == 4 * 256 * 256 + 2 * 256 * 256 + 2 * 4 * 256
    assert told.gradients == told.parameters - 4 * 256 * 256
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    adam.step()
    moments = [s[name] for s in adam.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert told.moments == sum(moment.nbytes for moment in moments)
    assert told.to_dict()["total"] == told.parameters + 3 * told.gradients


def test_memory_of_what_says_nothing_of_training(capsys) -> None:
    shared = torch.zeros(256, device="cpu", dtype=torch.float32)
    told = memory_of(summarize({"a": shared, "b": shared, "ids": torch.zeros(3, dtype=torch.int64)}).outline)
    assert told.by_dtype == {"float32": 1024, "int64": 24}
    assert (told.parameters, told.gradients, told.moments) == (1048, 1024, 2048)
    show({}, memory=True)
    assert "Adam" not in capsys.readouterr().out
