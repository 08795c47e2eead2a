"""Quantized parameters as the libraries themselves pack them and give them back."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from safetensors.torch import save_file

import pyparam
from pyparam._sources import table_of
from pyparam._sources.quantized import quantized

OUT, IN, GROUP = 64, 96, 32


def only(state, source=None):
    (one,) = quantized(table_of(state), source).logical
    assert set(one.stored) == set(state)
    return one


# --- compressed-tensors -----------------------------------------------------------------------------------


def compressor(name):
    pytest.importorskip("compressed_tensors", minversion="0.20")
    from compressed_tensors.compressors.base import BaseCompressor

    return BaseCompressor.get_value_from_registry(name)


def scheme(**of_weights):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**of_weights))


def compressed(name, state, of_weights):
    """What the library's compressor stores of a layer, and what it makes of that again."""
    how = scheme(**of_weights)
    made = compressor(name).compress(state, how)
    back = compressor(name).decompress(made, how)["weight"]
    return {f"l.{key}": value.contiguous() for key, value in made.items()}, back.float()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["group", "channel"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_compressed_tensors_packed(bits, strategy, symmetric):
    pytest.importorskip("compressed_tensors", minversion="0.20")
    torch.manual_seed(bits)
    groups = IN // GROUP if strategy == "group" else 1
    state = {"weight": torch.randn(OUT, IN), "weight_scale": torch.rand(OUT, groups) * 0.1 + 0.05}
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    if not symmetric:
        state["weight_zero_point"] = torch.randint(low, high, (OUT, groups)).to(torch.int8)
    of_weights = {"num_bits": bits, "symmetric": symmetric, "strategy": strategy}
    if strategy == "group":
        of_weights["group_size"] = GROUP
    stored, wanted = compressed("pack-quantized", state, of_weights)
    one = only(stored)
    assert one.scheme == f"compressed-tensors {bits} bit"
    assert (one.name, one.shape) == ("l.weight", (OUT, IN))
    assert torch.equal(one.values(), wanted)


def test_compressed_tensors_with_an_order_of_groups():
    pytest.importorskip("compressed_tensors", minversion="0.20")
    torch.manual_seed(0)
    state = {"weight": torch.randn(OUT, IN), "weight_scale": torch.rand(OUT, IN // GROUP) * 0.1 + 0.05}
    of_weights = {"num_bits": 4, "symmetric": True, "strategy": "group", "group_size": GROUP}
    # The library sorts the columns by their group, quantizes, and puts them back.
    index = torch.randperm(IN) % (IN // GROUP)
    order = torch.argsort(index, stable=True)
    stored, wanted = compressed("pack-quantized", {**state, "weight": state["weight"][:, order]}, of_weights)
    from compressed_tensors.compressors.pack_quantized import pack_to_int32, unpack_from_int32

    back = torch.argsort(order)
    fields = unpack_from_int32(stored["l.weight_packed"], 4, torch.Size((OUT, IN)))
    stored["l.weight_packed"] = pack_to_int32(fields[:, back].contiguous(), 4)
    stored["l.weight_g_idx"] = index.to(torch.int32)
    assert torch.equal(only(stored).values(), wanted[:, back])
    stored["l.weight_g_idx"] = torch.full((IN,), -1, dtype=torch.int32)  # as layers have it that use none
    assert torch.equal(
        only(stored).values(), fields[:, back] * state["weight_scale"].repeat_interleave(GROUP, 1)
    )


FORMATS = {
    "NVFP4": (
        "nvfp4-pack-quantized",
        16,
        {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
    ),
    "MXFP4": (
        "mxfp4-pack-quantized",
        32,
        {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
    ),
    "MXFP8": (
        "mxfp8-quantized",
        32,
        {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_compressed_tensors_floating(kind):
    pytest.importorskip("compressed_tensors", minversion="0.20")
    torch.manual_seed(0)
    name, group, of_weights = FORMATS[kind]
    state = {"weight": torch.randn(OUT, IN)}
    if kind == "NVFP4":
        # As the library's observers choose it: so that a group's scale fits into float8.
        state["weight_global_scale"] = torch.tensor([448 * 6 / float(state["weight"].abs().max())])
        state["weight_scale"] = (
            (state["weight"].unflatten(1, (-1, group)).abs().amax(-1) / 6 * state["weight_global_scale"])
            .to(torch.float8_e4m3fn)
            .float()
        )
    else:
        state["weight_scale"] = torch.exp2(torch.randint(-6, 3, (OUT, IN // group)).float())
    stored, wanted = compressed(name, state, of_weights)
    one = only(stored)
    assert one.scheme == kind
    assert one.shape == (OUT, IN)
    torch.testing.assert_close(one.values(), wanted, rtol=2**-7, atol=0)  # the library's are bfloat16


@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors_int8(symmetric):
    pytest.importorskip("compressed_tensors", minversion="0.20")
    torch.manual_seed(0)
    state = {"weight": torch.randn(OUT, IN), "weight_scale": torch.rand(OUT, 1) * 0.1 + 0.01}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-100, 100, (OUT, 1)).to(torch.int8)
    of_weights = {"num_bits": 8, "symmetric": symmetric, "strategy": "channel"}
    stored, wanted = compressed("naive-quantized", state, of_weights)
    assert torch.equal(only(stored).values(), wanted)


# --- GPTQ: AutoGPTQ's QuantLinear.pack, one field after the other -------------------------------------------


def gptq_words(fields, bits):
    """uint32 words of fields along the first dimension, as its loops write them: at 3 bits, 32 fields take
    three words, and the 11th and the 22nd are cut."""
    words = numpy.zeros((len(fields) // 32 * bits, *fields.shape[1:]), dtype=numpy.uint32)
    fields = fields.astype(numpy.uint32)
    if bits != 3:
        per = 32 // bits
        for row in range(len(words)):
            for j in range(per):
                words[row] |= fields[row * per + j] << numpy.uint32(bits * j)
        return words.view(numpy.int32)
    i = 0
    for row in range(0, len(words), 3):
        for j in range(10):
            words[row] |= fields[i + j] << numpy.uint32(3 * j)
        words[row] |= fields[i + 10] << numpy.uint32(30)
        words[row + 1] |= (fields[i + 10] >> numpy.uint32(2)) & numpy.uint32(1)
        for j in range(10):
            words[row + 1] |= fields[i + 11 + j] << numpy.uint32(3 * j + 1)
        words[row + 1] |= fields[i + 21] << numpy.uint32(31)
        words[row + 2] |= (fields[i + 21] >> numpy.uint32(1)) & numpy.uint32(3)
        for j in range(10):
            words[row + 2] |= fields[i + 22 + j] << numpy.uint32(3 * j + 2)
        i += 32
    return words.view(numpy.int32)


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits, v2, tmp_path):
    rng = numpy.random.default_rng(bits)
    weights = rng.integers(0, 1 << bits, (IN, OUT))
    zeros = rng.integers(1, 1 << bits, (IN // GROUP, OUT))
    scales = (rng.random((IN // GROUP, OUT)) + 0.1).astype(numpy.float16)
    groups = rng.permutation(IN) // GROUP
    state = {
        "l.qweight": torch.from_numpy(gptq_words(weights, bits)),
        "l.qzeros": torch.from_numpy(gptq_words((zeros if v2 else zeros - 1).T, bits).T.copy()),
        "l.scales": torch.from_numpy(scales),
        "l.g_idx": torch.from_numpy(groups.astype(numpy.int32)),
    }
    save_file(state, tmp_path / "model.safetensors")
    config = {
        "quantization_config": {"quant_method": "gptq", "checkpoint_format": "gptq_v2" if v2 else "gptq"}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = torch.from_numpy((weights - zeros[groups]) * scales.astype(numpy.float32)[groups]).float().T
    opened = pyparam.open(tmp_path)
    one = only(dict(opened), opened)
    assert one.scheme == f"GPTQ {'v2 ' if v2 else ''}{bits} bit"
    assert torch.equal(one.values(), wanted)
    assert pyparam.compare(tmp_path, {"l.weight": wanted.contiguous()}, dequantize=True).equal


# --- AWQ: AutoAWQ's WQLinear_GEMM.from_linear -------------------------------------------------------------


def test_awq():
    torch.manual_seed(0)
    weights, zeros = torch.randint(0, 16, (IN, OUT)), torch.randint(0, 16, (IN // GROUP, OUT))
    scales = torch.rand(IN // GROUP, OUT).half()

    def packed(fields):
        words = torch.zeros(len(fields), OUT // 8, dtype=torch.int32)
        for column in range(OUT // 8):
            for i, place in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                words[:, column] |= fields[:, column * 8 + place].int() << (i * 4)
        return words

    state = {"l.qweight": packed(weights), "l.qzeros": packed(zeros), "l.scales": scales}
    of = torch.arange(IN) // GROUP
    one = only(state)
    assert one.scheme == "AWQ 4 bit"
    assert torch.equal(one.values(), ((weights - zeros[of]) * scales.float()[of]).t())


# --- transformers ------------------------------------------------------------------------------------------


def test_mxfp4_of_transformers():
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    state = {
        "e.up_blocks": torch.randint(0, 256, (2, 8, 3, 16), dtype=torch.uint8),
        "e.up_scales": torch.randint(100, 140, (2, 8, 3), dtype=torch.uint8),
    }
    one = only(state)
    assert (one.name, one.scheme, one.shape) == ("e.up", "MXFP4", (2, 8, 96))
    wanted = convert_moe_packed_tensors(state["e.up_blocks"], state["e.up_scales"], dtype=torch.float32)
    assert torch.equal(one.values(), wanted.transpose(1, 2))  # which it turns for its own products


def test_fp8_of_transformers():
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    torch.manual_seed(0)
    weight, scale = torch.randn(256, 384).to(torch.float8_e4m3fn), torch.rand(2, 3)
    wanted = Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
    assert torch.equal(only({"l.weight": weight, "l.weight_scale_inv": scale}).values(), wanted)


@pytest.mark.parametrize("lead", [(), (3,)], ids=["a layer", "experts"])
@pytest.mark.parametrize("kind", ["int8 as fp4", "fp8", "mxfp8"])
def test_scales_of_transformers(kind, lead):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    torch.manual_seed(0)
    if kind == "int8 as fp4":
        weight = torch.randint(-128, 128, (*lead, 64, 48)).to(torch.int8)
        scale = torch.randint(100, 140, (*lead, 64, 3), dtype=torch.uint8).view(torch.float8_e8m0fnu)
    else:
        weight = torch.randn(*lead, 64, 96).to(torch.float8_e4m3fn)
        scale = torch.rand(*lead, 2, 3)
        if kind == "mxfp8":
            scale = torch.randint(100, 140, (*lead, 64, 3), dtype=torch.uint8)
    wanted = Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
    one = only({"l.weight": weight, "l.weight_scale_inv": scale})
    assert one.shape == tuple(wanted.shape)
    assert one.scheme == {"int8 as fp4": "MXFP4", "fp8": "fp8 with scale_inv"}.get(kind, "MXFP8")
    assert torch.equal(one.values(), wanted)


# --- bitsandbytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_4bit(kind, nested):
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(0)
    weight = torch.randn(OUT, 128)  # whole blocks a row, which the library's CPU kernel takes for granted
    packed, said = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    state = {f"l.weight.{key}": value for key, value in said.as_dict(packed=True).items()}
    one = only({"l.weight": packed, **state})
    assert (one.scheme, one.shape) == (f"bitsandbytes {kind}", (OUT, 128))
    torch.testing.assert_close(one.values(), functional.dequantize_4bit(packed, said), rtol=1e-6, atol=1e-7)


def test_bitsandbytes_8bit():
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(0)
    packed, scale, _ = functional.int8_vectorwise_quant(torch.randn(OUT, IN).half())
    wanted = functional.int8_vectorwise_dequant(packed, scale)
    one = only({"l.weight": packed, "l.SCB": scale})
    torch.testing.assert_close(one.values(), wanted.float(), rtol=1e-6, atol=1e-7)
