"""Comparisons as people mean them: names under rules, casts, tolerances, transposes, structure, states."""

import json

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from typer.testing import CliRunner

import pyparam
from pyparam import compare, fingerprint
from pyparam._cli import app


def net():
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model."])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_prefix_is_said_and_removed(prefix, side):
    state = net().state_dict()
    pair = [prefixed(state, prefix), state] if side == "a" else [state, prefixed(state, prefix)]
    found = compare(*pair)
    assert not found.equal
    assert f"all 8 match once {prefix!r} is removed from {side}" in repr(found)
    assert found.to_dict()["suggestion"] == {"matched": 8, "remove": prefix, "from": side}
    assert compare(*pair, rename=prefix).equal
    assert compare(*pair, **{f"rename_{side}": prefix}).equal


def test_rules():
    state = net().state_dict()
    other = {name.replace("weight", "gamma"): tensor for name, tensor in state.items()}
    assert compare(state, other, rename=("*.gamma", "*.weight")).equal
    assert compare(state, other, rename_a=lambda name: name.replace("weight", "gamma")).equal
    with pytest.raises(ValueError, match="compare: rename gives '0.weight' and '0.bias' one name, 'x'"):
        compare(state, other, rename=lambda name: "x")
    with pytest.raises(TypeError, match="compare: rename takes a prefix"):
        compare(state, other, rename=3)


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (torch.float32, torch.float16, "a rounded to float16"),
        (torch.float32, torch.bfloat16, "a rounded to bfloat16"),
        (torch.float64, torch.float32, "a rounded to float32"),
        (torch.float32, torch.float8_e4m3fn, "a rounded to float8_e4m3fn"),
    ],
)
def test_a_cast_is_a_cast(one, other, words):
    a = {"w": torch.randn(7, 5, dtype=torch.float64).to(one), "n": torch.ones(2)}
    a["w"][0, 0] = float("nan")
    b = {"w": a["w"].to(other), "n": torch.ones(2)}
    found = compare(a, b)
    assert found.recognised == {"w": words}
    assert not found.equal
    assert found.changed() == ["w"]
    assert f"1 {words}: w" in repr(found)
    back = compare(b, a)
    assert back.recognised == {"w": words.replace("a rounded", "b rounded")}
    for pair in ((a, b), (b, a)):
        cast = compare(*pair, cast=True)
        assert cast.equal
        assert cast.changed() == []
        assert repr(cast).startswith("Comparison(no difference: 2 parameters, 1 of them accepted)")
    widened = compare({"w": b["w"]}, {"w": b["w"].to(one)})
    assert widened.recognised["w"].endswith("exactly")
    b["w"][1, 1] = 100
    assert compare(a, b).recognised == {}
    assert not compare(a, b, cast=True).equal


@pytest.mark.parametrize(("atol", "rtol"), [(1e-3, None), (None, 1e-2), (1e-4, 1e-3), (0.0, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.complex64, torch.bool])
def test_tolerances_are_those_of_allclose(dtype, atol, rtol):
    torch.manual_seed(0)
    a = (torch.randn(40) * 3).to(dtype)
    for step in (1e-5, 1e-4, 1e-3, 1e-1):
        b = (a + step * a).to(dtype) if dtype != torch.bool else ~a
        wanted = (
            torch.allclose(a.float(), b.float(), atol=atol or 0, rtol=rtol or 0)
            if dtype
            in (
                torch.bfloat16,
                torch.bool,
            )
            else torch.allclose(a, b, atol=atol or 0, rtol=rtol or 0)
        )
        assert compare({"w": a}, {"w": b}, atol=atol, rtol=rtol).equal == wanted


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_tolerances_that_are_none(bad):
    with pytest.raises(ValueError, match="compare: atol must be a number from 0 on, got"):
        compare({}, {}, atol=bad)
    with pytest.raises(ValueError, match="compare: rtol must be a number from 0 on, got"):
        compare({}, {}, rtol=bad)


def test_another_dtype_is_within_no_tolerance():
    a = torch.ones(3)
    assert not compare({"w": a}, {"w": a.double()}, atol=1.0).equal


def test_transposes():
    w, s, c = torch.randn(3, 5), torch.randn(80, 80), torch.randn(2, 3, 4)
    a = {"w": w, "s": s, "c": c, "r": torch.arange(6.0), "o": torch.randn(3, 2)}
    b = {
        "w": w.t(),
        "s": s.t(),
        "c": c.permute(2, 0, 1),
        "r": torch.arange(6.0).view(2, 3),
        "o": torch.randn(2, 3),
    }
    found = compare(a, b)
    assert found.recognised == {
        "w": "a transposed",
        "s": "a transposed",
        "c": "a permuted by [2, 0, 1]",
        "r": "a reshaped to 2×3",
    }
    assert not found.equal
    assert not compare({"w": w}, {"w": w.t()}, cast=True).equal


# --- structure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("same", [True, False])
def test_stacked_experts(flip, same):
    parts = {f"layer.experts.{i}.up.weight": torch.randn(3, 2) for i in range(4)}
    stack = torch.stack(list(parts.values()))
    other = {"layer.experts.up": stack if same else stack + 1e-4, "n": torch.ones(1)}
    parts["n"] = torch.ones(1)
    pair = (other, parts) if flip else (parts, other)
    (found,) = compare(*pair).structure
    assert found.kind == "stacked"
    assert found.equal == same
    assert len(found.a if not flip else found.b) == 4
    assert ("the same values" if same else "rel. L2") in repr(compare(*pair))
    assert not compare(*pair).equal


@pytest.mark.parametrize("fused", ["attn.qkv.weight", "attn.in_proj_weight"])
def test_fused_projections(fused):
    parts = {f"attn.{word}_proj.weight": torch.randn(4, 6) for word in "qkv"}
    whole = torch.cat(list(parts.values()))
    (found,) = compare(parts, {fused: whole}).structure
    assert (found.kind, found.equal, found.b) == ("fused", True, (fused,))
    assert found.a == tuple(parts)
    (found,) = compare({"attn.c.weight": whole.t()}, parts).structure
    assert found.note == "q_proj, k_proj, v_proj in one, transposed"
    assert compare(parts, {fused: torch.randn(12, 6)}).structure == []


def test_a_merged_adapter():
    base, low, high = torch.randn(8, 6), torch.randn(2, 6), torch.randn(8, 2)
    lora = {
        "q.base_layer.weight": base,
        "q.lora_A.default.weight": low,
        "q.lora_B.default.weight": high,
    }
    (found,) = compare(lora, {"q.weight": base + 2 * high @ low}).structure
    assert (found.kind, found.b) == ("merged", ("q.weight",))
    assert found.note == "a LoRA adapter merged with scale 2"
    assert found.equal or found.rel_l2 < 1e-6
    (found,) = compare(lora, {"q.weight": base}).structure
    assert found.equal
    assert found.note == "a LoRA adapter beside its weight, not merged"
    assert compare(lora, {"q.weight": torch.randn(8, 6)}).structure == []


def test_roles():
    a = {f"h.{i}.attn.weight": torch.ones(4) for i in range(4)} | {"h.0.norm": torch.ones(1)}
    b = {name: t + 0.01 * (i + 1) if "attn" in name else t for i, (name, t) in enumerate(a.items())}
    assert "h.*.attn.weight: 4 of 4 changed, rel. L2 0.01 to 0.04" in repr(compare(a, b))
    (role,) = compare(a, b).to_dict()["roles"]
    assert (role["name"], role["count"], role["changed"]) == ("h.*.attn.weight", 4, 4)


# --- states ------------------------------------------------------------------------------------------------


class Extra(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def get_extra_state(self):
        return self.value

    def set_extra_state(self, value):
        self.value = value


def test_wrapped_modules_are_their_checkpoints(tmp_path):
    model = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert compare(model, tmp_path / "m.pt").equal
    assert fingerprint(model) == fingerprint(tmp_path / "m.pt")
    assert fingerprint(model).names == ("0.weight", "0.bias")


@pytest.mark.parametrize(
    "values", [(1, 2), (torch.tensor(1), torch.tensor(2)), ({"a": [1]}, {"a": [2]}), (1, 1.0)]
)
def test_extra_state_counts(values):
    one, other = map(Extra, values)
    assert compare(one, Extra(values[0])).equal
    assert fingerprint(one) == fingerprint(Extra(values[0]))
    found = compare(one, other)
    assert not found.equal
    assert fingerprint(one) != fingerprint(other)
    assert "_extra_state" in repr(found)
    assert fingerprint(one) == pyparam.Fingerprint.from_dict(
        json.loads(json.dumps(fingerprint(one).to_dict()))
    )


def test_what_is_not_looked_at_is_never_called_equal():
    class Opaque:
        def __eq__(self, other):
            raise AssertionError("its code runs")

    value = Opaque()
    found = compare(Extra(value), Extra(value))
    assert found.unseen == {"_extra_state": "an Opaque"}
    assert not found.equal
    assert "1 not looked at, so not called equal: _extra_state (an Opaque)" in repr(found)
    assert fingerprint(Extra(value)) != fingerprint(Extra(value))
    assert not compare({"w": torch.ones(1), "x": value}, {"w": torch.ones(1), "x": value}).equal


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules():
    from torch.ao.quantization import quantize_dynamic

    def made(seed):
        torch.manual_seed(seed)
        return quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})

    assert compare(made(0), made(0)).equal
    assert fingerprint(made(0)) == fingerprint(made(0))
    assert not compare(made(0), made(1)).equal
    assert fingerprint(made(0)) != fingerprint(made(1))


def test_a_strict_export_has_all_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(6, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.emb.weight

        def forward(self, x):
            return self.head(self.emb(x))

    model = Tied()
    program = torch.export.export(model, (torch.tensor([1]),), strict=True)
    assert compare(model, program).equal
    assert [tie.names for tie in pyparam.ties(program)] == [("emb.weight", "head.weight")]


def test_a_state_dict_method_of_its_own():
    class Own(nn.Linear):
        def state_dict(self, *args, **kwargs):
            return {f"own.{name}": tensor for name, tensor in super().state_dict(*args, **kwargs).items()}

    model = Own(2, 2)
    assert compare(model, model.state_dict()).equal
    assert compare(model, model.state_dict()).names == ("own.weight", "own.bias")


# --- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = net().state_dict()
    torch.save(state, "a.pt")
    torch.save(prefixed(state, "module."), "b.pt")
    torch.save({name: tensor.half() for name, tensor in state.items()}, "half.pt")
    torch.save({name: tensor + 1e-6 for name, tensor in state.items()}, "near.pt")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["a.pt", "b.pt"], 1),
        (["a.pt", "b.pt", "--map", "module."], 0),
        (["a.pt", "b.pt", "--map", "b:module.*=*"], 0),
        (["a.pt", "b.pt", "--map", "a:/^/=module."], 0),
        (["a.pt", "b.pt", "--map", "a:module."], 1),
        (["a.pt", "half.pt"], 1),
        (["a.pt", "half.pt", "--cast"], 0),
        (["a.pt", "near.pt"], 1),
        (["a.pt", "near.pt", "--atol", "1e-5"], 0),
        (["a.pt", "near.pt", "--rtol", "1e-9"], 1),
        (["a.pt", "near.pt", "--atol", "-1"], 2),
        (["a.pt", "near.pt", "--map", "=x"], 2),
        (["a.pt", "near.pt", "--fingerprint", "--cast"], 2),
        (["demo", "demo"], 0),
    ],
)
def test_compare_on_the_command_line(arguments, status):
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert done.exit_code == status, done.output
    assert json.loads(CliRunner().invoke(app, ["compare", "a.pt", "b.pt", "--json"]).output)["equal"] is False


@pytest.mark.usefixtures("files")
def test_columns():
    def head(*more):
        lines = CliRunner().invoke(app, ["compare", "a.pt", "near.pt", *more]).output.splitlines()
        return next(line.split() for line in lines if line.lstrip().startswith("parameter"))

    assert head("--columns", "rel_l2") == ["parameter", "rel", "L2"]
    assert head("--columns", "first, shape") == ["parameter", "first", "shape"]
    assert "cosine" in head()
    done = CliRunner().invoke(app, ["compare", "a.pt", "near.pt", "--columns", "colour"])
    assert done.exit_code == 2
    assert "--columns: there is no column 'colour'; there is parameter, shape" in done.output


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.int64], ids=str)
def test_a_transposed_square_among_other_shapes(dtype: torch.dtype) -> None:
    """Its first element stays; that of others too, which are none."""
    square = torch.arange(16).reshape(4, 4).to(dtype)
    a = {
        "scalar": square[0, 0],
        "empty": square[:0],
        "square": square,
        "vector": square[0],
        "edge": square.clone(),
    }
    b = {name: tensor.clone() for name, tensor in a.items()}
    b["square"] = square.t().contiguous()
    b["edge"][3, 0] += 1
    b["vector"][1] += 1
    found = pyparam.compare(a, b)
    assert found.recognised == {"square": "a transposed"}
    assert found.changed() == ["square", "vector", "edge"]
    assert not found.equal
