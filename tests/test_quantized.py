"""Quantized parameters by what they stand for; each layout packed here as its library packs it."""

import io
import json

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app
from pyparam._measure.readable import measure_dequantized
from pyparam._sources import table_of
from pyparam._sources.quantized import dequantized, quantized

OUT, IN, GROUP = 16, 64, 32


def words(fields, bits):
    """Fields along the last dimension as int32 words, the first in the lowest bits."""
    per = 32 // bits
    grouped = fields.reshape(*fields.shape[:-1], -1, per).long()
    packed = sum(grouped[..., i] << (bits * i) for i in range(per))
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)


def gptq(bits, order):
    q = torch.randint(0, 1 << bits, (OUT, IN))
    zeros = torch.randint(1, 1 << bits, (IN // GROUP, OUT))
    scales = torch.rand(IN // GROUP, OUT).half() + 0.1
    groups = torch.arange(IN) // GROUP
    if order:
        groups = groups[torch.randperm(IN)]
    wanted = torch.stack([(q[:, i] - zeros[g]) * scales[g].float() for i, g in enumerate(groups)], 1)
    state = {
        "l.qweight": words(q, bits).t().contiguous(),
        "l.qzeros": words(zeros - 1, bits),
        "l.scales": scales,
        "l.g_idx": groups.to(torch.int32),
    }
    return state, "l.weight", wanted


def awq():
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    q, zeros = torch.randint(0, 16, (IN, OUT)), torch.randint(0, 16, (IN // GROUP, OUT))
    scales = torch.rand(IN // GROUP, OUT).half()

    def packed(fields):
        return words(fields.reshape(len(fields), -1, 8)[..., order].reshape(len(fields), -1), 4)

    rows = torch.arange(IN) // GROUP
    wanted = ((q - zeros[rows]) * scales.float()[rows]).t()
    return {"l.qweight": packed(q), "l.qzeros": packed(zeros), "l.scales": scales}, "l.weight", wanted


def nf4(nested):
    codes = torch.linspace(-1, 1, 16)
    q = torch.randint(0, 16, (OUT * IN,))
    absmax = torch.rand(OUT * IN // 64)
    state = {"l.weight": (q[0::2] << 4 | q[1::2]).to(torch.uint8).reshape(-1, 1), "l.weight.quant_map": codes}
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [OUT, IN]}
    if nested:
        inner = torch.linspace(-1, 1, 256)
        index = torch.randint(0, 256, absmax.shape).to(torch.uint8)
        outer = torch.rand(4)
        state |= {
            "l.weight.absmax": index,
            "l.weight.nested_absmax": outer,
            "l.weight.nested_quant_map": inner,
        }
        said |= {"nested_blocksize": 4, "nested_dtype": "float32", "nested_offset": 0.25}
        absmax = inner[index.long()] * outer.repeat_interleave(4) + 0.25
    else:
        state["l.weight.absmax"] = absmax
    text = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    state["l.weight.quant_state.bitsandbytes__nf4"] = text
    return state, "l.weight", (codes[q] * absmax.repeat_interleave(64)).reshape(OUT, IN)


def int8():
    q, scale = torch.randint(-127, 128, (OUT, IN)).to(torch.int8), torch.rand(OUT)
    return {"l.weight": q, "l.SCB": scale}, "l.weight", q.float() * scale[:, None] / 127


def compressed(bits):
    q = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (OUT, IN))
    scale = torch.rand(OUT, IN // GROUP).bfloat16()
    state = {
        "l.weight_packed": words(q + (1 << (bits - 1)), bits),
        "l.weight_scale": scale,
        "l.weight_shape": torch.tensor([OUT, IN]),
    }
    return state, "l.weight", q * scale.float().repeat_interleave(GROUP, 1)


def fp8_blocks():
    weight, scale = torch.randn(200, 300).to(torch.float8_e4m3fn), torch.rand(2, 3)
    wanted = weight.float() * scale.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :300]
    return {"l.weight": weight, "l.weight_scale_inv": scale}, "l.weight", wanted


def fp8_rows():
    weight, scale = torch.randn(OUT, IN).to(torch.float8_e4m3fn), torch.rand(OUT, 1)
    return {"l.weight": weight, "l.weight_scale": scale}, "l.weight", weight.float() * scale


def fp8_whole():
    weight, scale = torch.randn(OUT, IN).to(torch.float8_e4m3fn), torch.tensor(0.5)
    return {"l.weight": weight, "l.weight_scale": scale}, "l.weight", weight.float() * 0.5


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def nvfp4(divides):
    q = torch.randint(0, 16, (OUT, IN))
    scale, whole = (torch.rand(OUT, IN // 16) + 0.1).to(torch.float8_e4m3fn), torch.tensor(4.0)
    packed = (q[:, 0::2] | q[:, 1::2] << 4).to(torch.uint8)
    fine = scale.float() / whole if divides else scale.float() * whole
    keys = ("l.weight_packed", "l.weight_global_scale") if divides else ("l.weight", "l.weight_scale_2")
    state = {keys[0]: packed, "l.weight_scale": scale, keys[1]: whole}
    return state, "l.weight", FP4[q] * fine.repeat_interleave(16, 1)


def mxfp4():
    q, scales = torch.randint(0, 16, (2, OUT, IN // 32, 32)), torch.randint(120, 134, (2, OUT, IN // 32))
    state = {
        "e.up_blocks": (q[..., 0::2] | q[..., 1::2] << 4).to(torch.uint8),
        "e.up_scales": scales.to(torch.uint8),
    }
    return state, "e.up", (FP4[q] * torch.exp2(scales - 127.0)[..., None]).reshape(2, OUT, IN)


CASES = {
    **{
        f"gptq {bits} {order}": (lambda b=bits, o=order: gptq(b, o)) for bits in (2, 4, 8) for order in (0, 1)
    },
    "awq": awq,
    "nf4": lambda: nf4(False),
    "nf4 nested": lambda: nf4(True),
    "int8": int8,
    "compressed 4": lambda: compressed(4),
    "compressed 8": lambda: compressed(8),
    "fp8 blocks": fp8_blocks,
    "fp8 rows": fp8_rows,
    "fp8 whole": fp8_whole,
    "nvfp4": lambda: nvfp4(False),
    "nvfp4 compressed": lambda: nvfp4(True),
    "mxfp4": mxfp4,
}


@pytest.mark.parametrize("kind", CASES)
def test_values(kind):
    torch.manual_seed(0)
    state, name, wanted = CASES[kind]()
    found = quantized(table_of({**state, "norm.weight": torch.ones(3)}))
    (one,) = found.logical
    assert (one.name, one.shape) == (name, tuple(wanted.shape))
    assert set(one.stored) == set(state)
    assert one.nbytes == sum(t.numel() * t.element_size() for t in state.values())
    assert found.rest.names == ["norm.weight"]
    assert found.raw == []
    torch.testing.assert_close(one.values(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", CASES)
def test_the_command_line(kind, tmp_path):
    torch.manual_seed(0)
    state, name, wanted = CASES[kind]()
    path = tmp_path / "q.safetensors"
    save_file(state | {"norm.weight": torch.ones(3)}, path)
    done = CliRunner().invoke(app, ["stats", str(path), "--dequantize", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.output)
    rows = {row["name"]: row for row in made["parameters"]}
    assert set(rows) == {name, "norm.weight"}
    assert rows[name]["numel"] == wanted.numel()
    assert rows[name]["mean"] == pytest.approx(float(wanted.double().mean()), rel=1e-5, abs=1e-7)
    assert made["total"]["numel"] == wanted.numel() + 3
    assert [one["name"] for one in made["quantized"]] == [name]
    out = io.StringIO()
    pyparam.show(path, file=out)
    assert f"{name} stands for {list(wanted.shape)}" in out.getvalue()
    text = CliRunner().invoke(app, ["stats", str(path), "--dequantize"]).output
    assert f"1 parameter of {made['quantized'][0]['scheme']}: {wanted.numel():,} values at" in text
    save_file({name: wanted.contiguous(), "norm.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    assert pyparam.compare(path, tmp_path / "w.safetensors", dequantize=True, atol=1e-6).equal
    assert not pyparam.compare(path, tmp_path / "w.safetensors").equal


@pytest.mark.filterwarnings("ignore::UserWarning")  # saved without a process group
def test_in_a_distributed_checkpoint(tmp_path):
    torch.manual_seed(0)
    stored, expected = {"norm.weight": torch.ones(3)}, {"norm.weight": torch.ones(3)}
    for i, make in enumerate(CASES.values()):
        state, name, wanted = make()
        stored |= {f"{i}.{key}": value for key, value in state.items()}
        expected[f"{i}.{name}"] = wanted.contiguous()
    dcp.save(stored, checkpoint_id=tmp_path / "q", no_dist=True)
    opened = pyparam.open(tmp_path / "q")
    in_memory = quantized(table_of(stored))
    found = quantized(opened.listing(), opened)
    assert {one[:5] for one in found.logical} == {one[:5] for one in in_memory.logical}
    assert len(found.logical) == len(CASES)
    assert found.rest.names == ["norm.weight"]
    assert pyparam.compare(opened, expected, dequantize=True, atol=1e-6).equal
    stats, unread, logical, _ = measure_dequantized(tmp_path / "q")
    assert (len(stats), unread, len(logical)) == (len(expected), {}, len(CASES))
    assert all(stats[one.name].l2 == pyparam.measure([one.values()])[0].l2 for one in in_memory.logical)
    out = io.StringIO()
    pyparam.show(opened, file=out)
    assert "GPTQ 4 bit: " in out.getvalue()

    name = next(one.name for one in found.logical if one.scheme == "AWQ 4 bit")
    piece = opened.pieces(name.replace("weight", "scales"))[0]
    data = bytearray(piece.file.read_bytes())
    data[piece.begin + piece.length - 22] ^= 1  # the end of its archive
    piece.file.write_bytes(data)
    compared = pyparam.compare(tmp_path / "q", expected, dequantize=True, atol=1e-6)
    assert list(compared.unread) == [name]
    assert "zip archive" in compared.unread[name]
    assert compared.changed() == []
    stats, unread, _, _ = measure_dequantized(tmp_path / "q")
    assert (len(stats), list(unread)) == (len(expected) - 1, [name])


def test_what_is_no_scheme_is_raw(tmp_path):
    state = {"l.qweight": torch.zeros(3, 5, dtype=torch.int32), "l.scales": torch.ones(2, 2)}
    found = quantized(table_of(state))
    assert (found.logical, found.raw) == ([], ["l.qweight"])
    save_file(state, tmp_path / "q.safetensors")
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "q.safetensors"), "--dequantize"])
    assert "raw values, of no scheme that is known: l.qweight" in done.output


def test_plain_models_have_no_scheme():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    table = table_of(net.state_dict())
    assert dequantized(table) is table


def test_a_group_out_of_range():
    state, _, _ = gptq(4, False)
    state["l.g_idx"][0] = 9
    (one,) = quantized(table_of(state)).logical
    with pytest.raises(ValueError, match=r"l.g_idx has a group outside its 2 groups"):
        one.values()
    found = pyparam.compare(state, {"l.weight": torch.zeros(one.shape)}, dequantize=True)
    assert found.unread == {"l.weight": "l.g_idx has a group outside its 2 groups"}
    assert not found.equal


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_costs_its_row(tmp_path):
    state = {
        "w": torch.ones(3),
        "s": torch.ones(2, 2).to_sparse(),
        "q": torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
    }
    torch.save(state, tmp_path / "m.pt")
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "m.pt"), "--json"])
    assert done.exit_code == 1
    made = json.loads(done.output)
    assert [row["name"] for row in made["parameters"]] == ["w"]
    assert set(made["unread"]) == {"s", "q"}
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "m.pt")])
    assert "not read: s: it is sparse" in done.output
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "m.pt"), "--select", "w"])
    assert done.exit_code == 0
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "m.pt"), "--select", "x"])
    assert done.exit_code == 2
    assert "nothing matches 'x' among 3 parameters" in done.output
    done = CliRunner().invoke(app, ["stats", str(tmp_path / "m.pt"), "--columns", "max", "--select", "w"])
    assert done.output.split()[:2] == ["name", "max"]
