"""GGUF files: names, shapes, types and metadata by the header, values by the package that writes them."""

from __future__ import annotations

import random
import struct

import numpy
import pytest
import torch

import pyparam
from pyparam._sources.gguf import _BLOCKS

gguf = pytest.importorskip("gguf")

QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"]


def values(rows=4, width=256):
    return numpy.random.default_rng(0).standard_normal((rows, width)).astype(numpy.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file with a tensor of every type that the package can write, and what their values are."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list([f"token {i}" for i in range(1000)])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_bool("some.flag", True)
    expected = {}
    for i, name in enumerate(["blk.0.attn_q.weight", "blk.10.attn_q.weight", "blk.2.attn_q.weight"]):
        writer.add_tensor(name, values() + i)
        expected[name] = ("F32", torch.from_numpy(values() + i))
    half = values().astype(numpy.float16)
    writer.add_tensor("half", half)
    expected["half"] = ("F16", torch.from_numpy(half))
    rounded = torch.from_numpy(values()).to(torch.bfloat16)
    raw = rounded.view(torch.uint8).numpy()
    writer.add_tensor("bf16", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    expected["bf16"] = ("BF16", rounded)
    for name in QUANTIZED:
        kind = gguf.GGMLQuantizationType[name]
        packed = gguf.quants.quantize(values(), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        expected[name] = (name, torch.from_numpy(gguf.quants.dequantize(packed, kind)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


def test_what_is_listed_and_what_it_holds(written):
    path, expected = written
    opened = pyparam.open(path)
    assert list(opened) == list(expected)
    for name, (kind, tensor) in expected.items():
        assert opened.stored_type(name) == kind
        info = opened.tensor_info(name)
        assert info.shape == tuple(tensor.shape) == (4, 256)
        assert info.dtype == tensor.dtype
        assert torch.equal(opened[name], tensor)
        begin, end = opened.byte_range(name)[1:]
        assert end - begin == info.nbytes
    assert opened.tensor_info("Q4_0").nbytes == 4 * 256 // 32 * 18
    with pytest.raises(KeyError, match="Q4"):
        opened.stored_type("Q4")


def test_metadata(written):
    metadata = pyparam.open(written[0]).metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.block_count"] == 2
    assert metadata["llama.rope.freq_base"] == 10000.0
    assert metadata["tokenizer.ggml.tokens"] == "<1000 texts>"
    assert metadata["some.numbers"] == [1, 2, 3]
    assert metadata["some.flag"] is True


def test_it_is_measured_compared_and_fingerprinted_by_its_values(written, monkeypatch):
    path, expected = written
    tensors = {name: tensor for name, (_, tensor) in expected.items()}
    alike = pyparam.measure(tensors, histogram=True)
    for batch in (1 << 30, 5000, 1):
        monkeypatch.setattr("pyparam._measure.measure._BATCH", batch)
        stats = pyparam.measure(path, histogram=True, quantiles=[0.5])
        assert stats.names == alike.names
        assert [row.mean for row in stats] == [row.mean for row in alike]
        assert stats.total.numel == alike.total.numel
        assert stats.total.mean == pytest.approx(alike.total.mean, rel=1e-12)
        assert torch.equal(stats.histogram().counts, alike.histogram().counts)
    assert pyparam.compare(path, tensors).equal
    assert pyparam.fingerprint(path) == pyparam.fingerprint(tensors)


def test_the_types_have_the_sizes_that_the_package_says():
    known = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    for kind, (name, count, nbytes) in _BLOCKS.items():
        if kind in known:
            assert (gguf.GGMLQuantizationType(kind).name, *known[kind]) == (name, count, nbytes)


def test_values_that_cannot_be_told(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(small(kind=9, shape=(32,), nbytes=40))  # Q8_1 is for sums alone
    opened = pyparam.open(path)
    assert opened.stored_type("w") == "Q8_1"
    with pytest.raises(ValueError, match=r"x\.gguf: the values of 'w' \(Q8_1\) cannot be told"):
        opened["w"]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def small(version=3, kind=0, shape=(2,), nbytes=8, begin=0, names=("w",), pairs=b"", count=0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(names), count) + pairs
    for name in names:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, begin)
    return head + b"\0" * (-len(head) % 32) + bytes(nbytes)


MISTAKES = {
    "a version": (small(version=1), r"version 1 is not known"),
    "big-endian": (small(version=3 << 24), r"it is big-endian"),
    "a type": (small(kind=99), r"entry 'w' has the unknown type 99"),
    "blocks": (small(kind=2, shape=(31,)), r"entry 'w' of shape \[31\] is no whole blocks of 32"),
    "truncated": (small(nbytes=7), r"entry 'w' reaches beyond the end: the file is truncated"),
    "in the header": (small()[:30], r"it is truncated"),
    "dimensions": (small(shape=(1,) * 9), r"entry 'w' has 9 dimensions"),
    "a shape": (small(shape=(2**62, 2**62)), r"entry 'w' has shape"),
    "alignment": (small(begin=1), r"entry 'w' begins at 1, which is no multiple of 32"),
    "two names": (small(names=("w", "w")), r"two entries are named 'w'"),
    "two keys": (
        small(pairs=2 * (text("k") + struct.pack("<IB", 0, 1)), count=2),
        r"two entries of its metadata are named 'k'",
    ),
    "a kind of metadata": (
        small(pairs=text("k") + struct.pack("<I", 77), count=1),
        r"'k' has the unknown type 77",
    ),
    "many pairs": (
        small(count=2**60, pairs=text("k") + struct.pack("<IB", 0, 1)),
        r"two entries|truncated|text is not",
    ),
    "an odd alignment": (
        small(pairs=text("general.alignment") + struct.pack("<II", 4, 3), count=1),
        r"its alignment is 3",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_damaged_file(tmp_path, case):
    data, message = MISTAKES[case]
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.gguf is not a valid GGUF file: .*" + message):
        pyparam.open(tmp_path / "x.gguf")


def test_any_damage_is_a_value_error(written, tmp_path):
    data, choose = written[0].read_bytes(), random.Random(0)
    path = tmp_path / "x.gguf"
    for _ in range(300):
        made = bytearray(data)
        for _ in range(3):
            made[choose.randrange(2000)] = choose.randrange(256)
        path.write_bytes(made[: choose.choice([len(made), choose.randrange(len(made))])])
        try:
            opened = pyparam.open(path)
            [opened.tensor_info(name) for name in opened]
        except ValueError:
            continue


def test_a_selection_is_measured_some_tensors_at_a_time(written):
    path, expected = written
    opened = pyparam.open(path)
    chosen = opened.picked(["half", "Q4_0"], ["a", "b"])
    assert [name for batch in chosen.batches(1) for name in batch] == ["a", "b"]
    found = pyparam.measure(chosen)
    assert found["b"].mean == pyparam.measure({"b": expected["Q4_0"][1]})["b"].mean


def test_a_fingerprint_is_that_of_the_values(written, monkeypatch):
    path, expected = written
    state = {name: tensor for name, (_, tensor) in expected.items()}
    monkeypatch.setattr("pyparam._compare.fingerprint._BATCH", 1)
    found = pyparam.fingerprint(path)
    assert found == pyparam.fingerprint(state)
    assert dict(found) == dict(pyparam.fingerprint(state))
