"""Findings: each fault that was planted is found where it was planted, and is the only one."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pyparam
from pyparam.init import to_empty, uninitialized

LAYERS = 24


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)


class Model(nn.Module):
    """Blocks as a trained transformer's, with a batch norm in front of each fourth."""

    def __init__(self, layers: int = LAYERS, width: int = 64) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(400, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(layers))
        self.entry = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(6))
        self.final_norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, 400, bias=False)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = Model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm.weight" in name or (name.startswith("entry") and "weight" in name) else 0.0
            parameter.copy_(centre + 0.1 * torch.randn_like(parameter))
        for norm in model.entry:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 5)
            norm.num_batches_tracked.fill_(100)
    return model


def faults(source: object) -> list[pyparam.Finding]:
    return [found for found in pyparam.findings(source) if found.is_fault]


def only(source: object) -> pyparam.Finding:
    (found,) = faults(source)
    assert found.advice
    assert found.reason
    assert found.confidence in ("certain", "likely", "possible")
    return found


def weight(model: Model, layer: int = 13) -> torch.Tensor:
    return model.layers[layer].q_proj.weight


Q = "layers.13.q_proj.weight"


def test_the_model_is_healthy(model) -> None:
    assert pyparam.findings(model) == []
    assert pyparam.findings(model.state_dict()) == []


# --- one fault in a model -------------------------------------------------------------------------------------


def rot(model: Model, dtype: torch.dtype = torch.float32) -> None:
    random.seed(0)
    flat = weight(model).view(-1)
    flat[500:1000] = torch.frombuffer(bytearray(random.randbytes(2000)), dtype=torch.float32)


PLANTED = {
    "a zero row": (lambda m: weight(m)[5].zero_(), "zero-parts", Q, "1 row of 64: row 5"),
    "a fifth of the rows": (lambda m: weight(m)[torch.randperm(64)[:13]].zero_() if False else weight(m).index_fill_(0, torch.arange(0, 65 - 5, 5), 0), "zero-parts", Q, "12 rows of 64"),
    "half a matrix": (lambda m: weight(m)[32:].zero_(), "zero-parts", Q, "the last 32 of 64 rows, to the end"),
    "a tail within a row": (lambda m: weight(m).view(-1)[-200:].zero_(), "zero-parts", Q, "the last 3 of 64 rows"),
    "a hole": (lambda m: weight(m).view(-1)[1100:1300].zero_(), "zero-parts", Q, ""),
    "a short hole": (lambda m: weight(m).view(-1)[1030:1030 + 127].zero_(), "zero-parts", Q, ""),
    "zero input columns": (lambda m: weight(m)[:, 7].zero_(), "zero-parts", Q, "1 input column of 64: column 7"),
    "half an embedding": (lambda m: m.embed_tokens.weight[200:].zero_(), "zero-parts", "embed_tokens.weight", "the last 200 of 400"),
    "a norm's tail": (lambda m: m.layers[13].norm.weight[48:].zero_(), "zero-parts", "layers.13.norm.weight", "the last 16 of 64"),
    "8 times as large": (lambda m: weight(m).mul_(8), "scale", Q, "8"),
    "30 times as large": (lambda m: weight(m).mul_(30), "scale", Q, "30"),
    "a tenth as large": (lambda m: weight(m).mul_(0.1), "scale", Q, "smaller than its 23 siblings"),
    "a gain times 100": (lambda m: m.layers[3].norm.weight.mul_(100), "scale", "layers.3.norm.weight", "larger"),
    "a bias times 1000": (lambda m: m.layers[3].q_proj.bias.mul_(1000), "scale", "layers.3.q_proj.bias", "larger"),
    "a row times 100": (lambda m: weight(m)[9].mul_(100), "outlier", Q, "row 9"),
    "a value": (lambda m: weight(m)[9, 3].fill_(60), "outlier", Q, "row 9 by its value 3, 60"),
    "an embedding row times 100": (lambda m: m.embed_tokens.weight[7].mul_(100), "outlier", "embed_tokens.weight", "row 7"),
    "random bytes": (rot, "damaged", Q, "of the values"),
    "a copied layer": (lambda m: weight(m).copy_(weight(m, 4)), "copy", Q, "as layers.4.q_proj.weight"),
    "an equal head": (lambda m: m.lm_head.weight.copy_(m.embed_tokens.weight), "copy", "embed_tokens.weight", "as lm_head.weight"),
    "a gain at its start": (lambda m: m.layers[13].norm.reset_parameters(), "untrained", "layers.13.norm.weight", "a gain of 1"),
    "a matrix at its start": (lambda m: m.layers[13].o_proj.reset_parameters(), "untrained", "layers.13.o_proj.weight", "uniform within"),
    "every weight negative": (lambda m: weight(m).abs_().neg_(), "one-signed", Q, "all negative"),
    "one rounded to bfloat16": (lambda m: weight(m).copy_(weight(m).bfloat16()), "coarse", Q, "values of bfloat16 in float32"),
    "one rounded to float16": (lambda m: weight(m).copy_(weight(m).half()), "coarse", Q, "values of float16 in float32"),
    "a final norm of zeros": (lambda m: m.final_norm.weight.zero_(), "all-zero", "final_norm.weight", ""),
    "a variance below zero": (lambda m: m.entry[2].running_var[3].fill_(-1), "running-statistics", "entry.2.running_var", "down to -1"),
    "a variance of zeros": (lambda m: m.entry[2].running_var.zero_(), "running-statistics", "entry.2.running_var", "0 everywhere"),
    "a batch norm that saw nothing": (lambda m: m.entry[2].reset_running_stats(), "running-statistics", "entry.2.running_mean", ""),
    "a NaN in a buffer": (lambda m: m.entry[2].running_mean[3].fill_(float("nan")), "non-finite", "entry.2.running_mean", "1 NaN of 64"),
    "beyond float16": (lambda m: m.entry[2].running_var[3].fill_(1e5), "range", "entry.2.running_var", "beyond 65,504"),
    "one frozen weight": (lambda m: m.layers[0].q_proj.weight.requires_grad_(False), "frozen", "layers.0.q_proj.weight", "23 of 24 siblings are trained"),
    "a frozen block": (lambda m: m.layers[9].requires_grad_(False), "frozen", "layers.9.norm.weight", ""),
    "one of other dtype": (lambda m: m.layers[9].q_proj.half(), "mixed-dtypes", "layers.9.q_proj.weight", "float16"),
    "duplicate rows": (lambda m: weight(m)[9].copy_(weight(m)[20]), "duplicate-rows", Q, "row 20 is row 9"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_found_where_it_was_planted(model, fault) -> None:
    plant, kind, name, words = PLANTED[fault]
    with torch.no_grad():
        plant(model)
    found = {finding.kind: finding for finding in faults(model)}
    if kind == "damaged":
        found.pop("non-finite", None)
        found.pop("range", None)
    finding = found.pop(kind)
    assert finding.names[0] == name
    assert words in finding.details.get(name, "")
    assert finding.advice
    assert not found, found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "fault", ["a zero row", "30 times as large", "a row times 100", "a copied layer", "a hole"]
)
def test_found_in_half_precision(model, fault, dtype) -> None:
    model.to(dtype)
    assert faults(model.state_dict()) == []
    plant, kind, name, _ = PLANTED[fault]
    with torch.no_grad():
        plant(model)
    (found,) = faults(model)
    assert (found.kind, found.names) == (kind, (name,))


def test_a_variance_a_million_times_too_large(model) -> None:
    model.entry[4].running_var.mul_(1e6)
    kinds = {finding.kind: finding for finding in faults(model)}
    assert set(kinds) == {"running-statistics", "range"}
    assert kinds["running-statistics"].names == ("entry.4.running_var",)


def test_frozen_first_blocks_are_no_fault(model) -> None:
    for block in model.layers[:5]:
        block.requires_grad_(False)
    for block in model.layers:
        block.o_proj.bias.requires_grad_(False)
    assert faults(model) == []


def test_a_gradient_that_is_not_finite(model) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert faults(model) == []
    weight(model).grad[1, 1] = float("inf")
    found = only(model)
    assert found.title == "1 gradient is not finite"
    assert found.names == (Q,)
    assert found.details == {Q: "1 of 4,096"}


# --- buffers --------------------------------------------------------------------------------------------------


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        frequencies = 1 / (1e4 ** (torch.arange(0, 64, 2) / 64))
        self.register_buffer("inv_freq", frequencies, persistent=False)


def emptied(fill: torch.Tensor) -> nn.Module:
    """A model made on meta and given memory that holds ``fill``, in which parameters were initialised."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(64, 64), Rotary(), nn.BatchNorm1d(64))
    model.to_empty(device="cpu")
    for module in (model[0], model[2]):
        module.reset_parameters()
    model[1].inv_freq = fill.clone().detach_()
    return model


@pytest.mark.parametrize(
    "fill",
    [
        torch.randint(2**40, 2**47, (16,)).view(torch.float32),
        torch.zeros(32),
        torch.randn(32),
        torch.randint(0, 1000, (32,), dtype=torch.int32).view(torch.float32),
    ],
)
def test_garbage_in_a_buffer_after_to_empty(fill) -> None:
    assert faults(nn.Sequential(nn.Linear(64, 64), Rotary(), nn.BatchNorm1d(64))) == []
    model = emptied(fill)
    named = [finding for finding in faults(model) if finding.kind == "never-initialised"]
    assert named
    assert all(finding.names == ("1.inv_freq",) for finding in named)


def test_uninitialized_names_buffers() -> None:
    fill = torch.randint(2**40, 2**47, (16,)).view(torch.float32)
    left = uninitialized(emptied(fill))
    assert left == ["1.inv_freq"]
    assert left.certain == []
    assert left.reasons["1.inv_freq"] == (
        "nothing has written to it in place, and its values are what stale memory looks like"
    )
    assert uninitialized(emptied(Rotary().inv_freq)) == []
    marked = to_empty(nn.Sequential(nn.Linear(4, 4), Rotary(), nn.BatchNorm1d(4)), device="cpu")
    assert [name for name in uninitialized(marked).certain if "." in name] == [
        "0.weight", "0.bias", "2.weight", "2.bias", "1.inv_freq", "2.running_mean", "2.running_var",
    ]  # fmt: skip
    for module in (marked[0], marked[2]):
        module.reset_parameters()
    assert uninitialized(marked) == ["1.inv_freq"]
    found = [finding for finding in faults(marked) if finding.kind == "never-initialised"]
    assert {name for finding in found for name in finding.names} == {"1.inv_freq"}


def test_a_buffer_on_meta_among_real_ones(model) -> None:
    model.entry[1].running_mean = model.entry[1].running_mean.to("meta")
    found = only(model)
    assert (found.kind, found.severity, found.names) == (
        "never-initialised",
        "error",
        ("entry.1.running_mean",),
    )
    assert found.title == "1 buffer is on the meta device"
    assert uninitialized(model) == ["entry.1.running_mean"]


# --- checkpoints ----------------------------------------------------------------------------------------------


def test_tensors_saved_without_gathering(tmp_path) -> None:
    names = [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in range(4) for p in "qkvo"]
    save_file({name: torch.empty(0) for name in names}, tmp_path / "all.safetensors")
    found = only(tmp_path / "all.safetensors")
    assert (found.kind, found.severity, set(found.names)) == ("empty", "error", set(names))
    state = {name: torch.randn(64, 64) for name in names}
    assert faults(state) == []
    state[names[9]] = torch.empty(0)
    found = only(state)
    assert found.names == (names[9],)
    assert "[0], where " in found.details[names[9]]
    assert faults({"weight": torch.empty(3, 0), "bias": torch.randn(3)}) == []


@pytest.mark.parametrize("wrapped", ["lora_B.weight", "lora_B.default.weight"])
def test_adapters_that_adapt_nothing(tmp_path, wrapped) -> None:
    def state(*dead: int) -> dict[str, torch.Tensor]:
        return {
            f"base_model.layers.{i}.q_proj.{half}": torch.zeros(64, 4) if half == wrapped and i in dead else torch.randn(64, 4)
            for i in range(4)
            for half in ("lora_A.weight", wrapped)
        }  # fmt: skip

    save_file(state(0, 1, 2, 3), tmp_path / "dead.safetensors")
    assert len(only(tmp_path / "dead.safetensors").names) == 4
    assert faults(state(0, 1, 2, 3)) == []  # in memory, an adapter may just have been made
    found = only(state(2))
    assert (found.kind, found.names) == ("all-zero", (f"base_model.layers.2.q_proj.{wrapped}",))


def optimizer_state() -> dict[str, dict[int, dict[str, torch.Tensor]]]:
    torch.manual_seed(0)
    return {
        "state": {
            i: {
                "step": torch.tensor(10.0),
                "exp_avg": torch.randn(32, 32) * 1e-9,
                "exp_avg_sq": torch.randn(32, 32).square() * 1e-18 * 10.0**i,
            }
            for i in range(6)
        }
    }


@pytest.mark.parametrize(
    ("plant", "kind", "severity", "words"),
    [
        (lambda s: s[3]["exp_avg_sq"][0, 0].fill_(-1), "second-moment", "error", "below zero"),
        (
            lambda s: s[3]["exp_avg_sq"].zero_(),
            "second-moment",
            "error",
            "of zeros beside a first that is not",
        ),
        (
            lambda s: [s[3][k].zero_() for k in ("exp_avg", "exp_avg_sq")],
            "second-moment",
            "warning",
            "never got",
        ),
        (lambda s: s[3]["exp_avg_sq"][0, 0].fill_(float("nan")), "non-finite", "error", "not finite"),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_second_moments(tmp_path, plant, kind, severity, words, saved) -> None:
    state = optimizer_state()
    source = {"model": Model(3).state_dict(), "optimizer": state}
    assert faults(source) == []
    plant(state["state"])
    if saved:
        torch.save(source, tmp_path / "training.pt")
    found = only(tmp_path / "training.pt" if saved else source)
    assert (found.kind, found.severity, found.names) == (kind, severity, ("optimizer.state.3.exp_avg_sq",))
    assert words in found.title


def test_dequantized_integers(model) -> None:
    integers = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in integers.parameters():
            if parameter.dim() == 2:
                scale = parameter.abs().amax(1, keepdim=True) / 7
                parameter.copy_((parameter / scale).round() * scale)
    (found,) = pyparam.findings(integers)
    assert (found.kind, found.severity) == ("coarse", "info")
    assert "4-bit values in float32" in found.details[Q]
    rounded = copy.deepcopy(model).bfloat16().float()
    (found,) = pyparam.findings(rounded)
    assert (found.kind, found.severity) == ("coarse", "info")
    assert "values of bfloat16 in float32" in found.details[Q]


# --- healthy things that were called sick ---------------------------------------------------------------------


def test_three_tensors_of_three_dtypes() -> None:
    state = {"a": torch.randn(4), "b": torch.randn(4).half(), "c": torch.randn(4).bfloat16()}
    (found,) = pyparam.findings(state)
    assert "as most are" not in found.reason


def test_a_layer_that_is_shared_is_one_fact() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model.append(model[0])
    state = {f"{layer}.{key}": value for layer in "ab" for key, value in model[0].state_dict().items()}
    (found,) = pyparam.findings(state)
    assert set(found.names) == {"a.weight", "b.weight", "a.bias", "b.bias"}
    assert found.severity == "info"


def test_a_bias_that_softmax_cancels_is_no_fault() -> None:
    bias = torch.randn(64).half()
    bias[:8] = 1e-7
    assert faults({"h.0.attn.key.bias": bias}) == []


def test_findings_are_public() -> None:
    assert pyparam.findings(nn.Linear(3, 3)) == []
    assert pyparam.findings.__module__ == "pyparam"
