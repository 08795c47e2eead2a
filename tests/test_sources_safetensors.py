"""The safetensors format: what it reads, against the reference implementation, and all it must refuse."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from safetensors_bytes import entry, write

import pyparam
from pyparam._sources.safetensors import KINDS


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.safetensors"


def test_reads_what_the_reference_writes(file):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "layers.0.weight": torch.randn(4, 3, generator=generator),
        "half": torch.randn(5, generator=generator).half(),
        "brain": torch.randn(2, 2, generator=generator).bfloat16(),
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "flags": torch.tensor([True, False]),
        "counts": torch.arange(5),
        "größe": torch.arange(3, dtype=torch.uint8),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    opened = pyparam.open(file)
    assert isinstance(opened, pyparam.Checkpoint)
    assert set(opened) == set(tensors)
    assert opened.metadata == {"format": "pt"}
    for name, expected in tensors.items():
        assert opened[name].dtype == expected.dtype
        assert torch.equal(opened[name], expected)
        assert opened.tensor_info(name) == (expected.dtype, tuple(expected.shape), expected.nbytes)


@pytest.mark.parametrize("code", [code for code, kind in KINDS.items() if kind.dtype is not None])
@pytest.mark.parametrize("shift", [0, 1])
def test_every_dtype_bit_for_bit_and_at_any_alignment(file, code, shift):
    kind = KINDS[code]
    count = 8
    data = bytes(i % 2 if code == "BOOL" else i * 37 % 251 for i in range(count * kind.bits // 8))
    header = json.dumps({"a": entry(code, [2, 4], [0, len(data)])}).encode()
    header += b" " * (-len(header) % 16 + shift)
    write(file, header, data)
    opened = pyparam.open(file)
    assert opened["a"].dtype == kind.dtype
    assert opened["a"].shape == (2, 4 // kind.packed)
    assert bytes(opened["a"].untyped_storage()) == data
    assert opened["a"].data_ptr() % kind.dtype.itemsize == 0
    with safetensors.safe_open(file, "pt") as reference:
        assert torch.equal(
            opened["a"].view(torch.uint8).flatten(), reference.get_tensor("a").view(torch.uint8).flatten()
        )


def test_every_dtype_the_reference_writes_is_known():
    from safetensors.torch import _TYPES

    assert {code: KINDS[code].dtype for code in _TYPES} == _TYPES


def test_writing_to_a_tensor_never_reaches_the_file(file):
    save_file({"a": torch.zeros(1000)}, file)
    before = file.read_bytes()
    with pyparam.open(file) as opened:
        opened["a"].fill_(7)
        assert opened["a"][3] == 7
    assert file.read_bytes() == before
    assert pyparam.open(file)["a"][3] == 0


def test_a_read_only_file_opens(file):
    save_file({"a": torch.ones(2)}, file)
    file.chmod(0o444)
    assert pyparam.open(file)["a"].add_(1).tolist() == [2, 2]


def test_a_tensor_owns_only_its_own_bytes(file):
    save_file({"a": torch.ones(4), "b": torch.ones(6)}, file)
    opened = pyparam.open(file)
    assert {name: t.untyped_storage().nbytes() for name, t in opened.items()} == {"a": 16, "b": 24}


def test_byte_ranges_lead_to_the_bytes(file):
    save_file({"a": torch.arange(4.0), "b": torch.empty(0)}, file)
    opened = pyparam.open(file)
    path, begin, end = opened.byte_range("a")
    assert path == file
    assert file.read_bytes()[begin:end] == opened["a"].numpy().tobytes()
    assert opened.byte_range("b").begin == opened.byte_range("b").end


@pytest.mark.skipif(sys.platform != "linux", reason="counts reads through /proc")
def test_listing_100_gigabytes_reads_the_header_alone(file):
    count = 100
    each = 2**30
    header = {
        f"layers.{i}.weight": entry("F16", [each // 2], [i * each, (i + 1) * each]) for i in range(count)
    }
    write(file, header)
    os.truncate(file, file.stat().st_size + count * each)
    pyparam.open(file)  # what opening imports and compiles is read once

    def characters_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    before = characters_read()
    opened = pyparam.open(file)
    infos = {name: opened.tensor_info(name) for name in opened}
    assert characters_read() - before < 100_000
    assert sum(info.nbytes for info in infos.values()) == count * each
    assert "100 tensors, 107 GB" in repr(opened)
    assert opened["layers.99.weight"][-1] == 0


def test_pages_can_be_given_back(file):
    save_file({"a": torch.ones(100_000)}, file)
    opened = pyparam.open(file)
    opened["a"].fill_(2)
    opened.release("a")
    assert opened["a"][50_000] == 1


def test_metadata_may_be_null_and_space_may_surround_the_header(file):
    write(file, b' {"__metadata__": null}   ')
    assert len(pyparam.open(file)) == 0


def test_fields_of_later_versions_are_passed_over(file):
    write(file, {"a": entry(quantized={"by": [1, 2.5, None]})}, b"\0" * 4)
    assert pyparam.open(file)["a"].tolist() == [0]


GOOD = json.dumps({"a": entry()}).encode()


BROKEN = {
    "header beyond the file": (GOOD, b"\0" * 4, 2**40, r"header claims 1099511627776 bytes, the file has"),
    "header length of all ones": (GOOD, b"", 2**64 - 1, r"header claims 18446744073709551615 bytes"),
    "no header": (b"", b"", None, r"header is not JSON"),
    "not JSON": (b"{nonsense}", b"", None, r"header is not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", None, r"header is not UTF-8 at byte 2"),
    "NaN": (b'{"a": NaN}', b"", None, r"header is not JSON: expected a value at byte 6"),
    "an array": (b"[1, 2]", b"", None, r"a JSON array, not an object"),
    "endless digits": (b'{"a": ' + b"9" * 5000 + b"}", b"", None, r"entry 'a': .* got a JSON number"),
    "deep nesting": (b'{"a":' * 100_000, b"", None, r"header is not JSON: expected a value at byte 500000"),
    "deep arrays": (b'{"a":' + b"[" * 100_000, b"", None, r"not JSON: expected a value at byte 100005"),
    "duplicate entries": (
        GOOD[:-1] + b", " + GOOD[1:],
        b"\0" * 4,
        None,
        r"two entries of its header are named 'a'",
    ),
    "duplicate fields": (
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b"\0" * 4,
        None,
        r"entry 'a': it has two fields named 'dtype'",
    ),
    "entries that differ in spelling alone": (
        b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "\\u0061": {}}',
        b"",
        None,
        r"two entries of its header are named 'a'",
    ),
    "metadata twice": (b'{"__metadata__": {}, "__metadata__": {}}', b"", None, r"are named '__metadata__'"),
    "metadata that repeats": (
        b'{"__metadata__": {"a": "", "a": ""}}',
        b"",
        None,
        r"its __metadata__ are named 'a'",
    ),
    "text after the header": (b"{} {}", b"", None, r"header is not JSON: expected the end at byte 3"),
    "a control character": (b'{"a\nb": 1}', b"", None, r"a control character inside a string at byte 3"),
    "an unknown escape": (b'{"\\x41": 1}', b"", None, r"an unknown escape at byte 3"),
    "a leading zero": (b'{"a": {"shape": [01]}}', b"", None, r"header is not JSON: expected ','"),
    "a comma too many": (b'{"a": {"shape": [1,]}}', b"", None, r"header is not JSON: expected a value"),
    "an overlong character": (b'{"\xc0\xaf": 1}', b"", None, r"header is not UTF-8 at byte 2"),
    "an encoded surrogate": (b'{"\xed\xa0\x80": 1}', b"", None, r"header is not UTF-8 at byte 2"),
    "a character beyond Unicode": (b'{"\xf4\x90\x80\x80": 1}', b"", None, r"header is not UTF-8 at byte 2"),
    "a character cut short": (b'{"\xe2\x82', b"", None, r"header is not UTF-8 at byte 2"),
    "metadata of numbers": (
        {"__metadata__": {"a": 1}},
        b"",
        None,
        r"__metadata__ is not an object of strings",
    ),
    "metadata as array": ({"__metadata__": []}, b"", None, r"__metadata__ is not an object of strings"),
    "an entry that is text": ({"a": "F32"}, b"", None, r"entry 'a': expected an object .* got a JSON string"),
    "a field missing": (
        {"a": {"dtype": "F32"}},
        b"",
        None,
        r"entry 'a': it has no shape and no data_offsets",
    ),
    "an unknown dtype": (
        {"a": entry("F33")},
        b"\0" * 4,
        None,
        r"entry 'a': unknown dtype \"F33\"; known are BOOL",
    ),
    "a dtype that is no text": (
        {"a": entry(["F32"])},
        b"\0" * 4,
        None,
        r"entry 'a': unknown dtype \[\"F32\"\]",
    ),
    "a dtype torch lacks": ({"a": entry("F6_E2M3", [4], [0, 3])}, b"\0" * 3, None, r"no dtype for F6_E2M3"),
    "half a byte": (
        {"a": entry("F4", [3], [0, 2])},
        b"\0" * 2,
        None,
        r"takes 1 bytes and a part of one, data_offsets",
    ),
    "an odd row of 4-bit": ({"a": entry("F4", [2, 3], [0, 3])}, b"\0" * 3, None, r"must be a multiple of 2"),
    "a 4-bit scalar of no shape": (
        {"a": entry("F4", [], [0, 0])},
        b"",
        None,
        r"takes 0 bytes and a part of one",
    ),
    "a negative extent": (
        {"a": entry(shape=[-1])},
        b"\0" * 4,
        None,
        r"shape must be an array of non-negative",
    ),
    "a fractional extent": (
        {"a": entry(shape=[1.0])},
        b"\0" * 4,
        None,
        r"shape must be an array of non-negative",
    ),
    "an extent that is true": ({"a": entry(shape=[True])}, b"\0" * 4, None, r"shape must be an array"),
    "a shape that is a number": ({"a": {**entry(), "shape": 1}}, b"\0" * 4, None, r"shape must be an array"),
    "an extent of 2^64": ({"a": entry(shape=[2**64])}, b"\0" * 4, None, r"overflows a 64-bit count"),
    "a product of 2^64": ({"a": entry(shape=[2**32, 2**32])}, b"\0" * 4, None, r"overflows a 64-bit count"),
    "a product that wraps to 1": (
        {"a": entry("U8", [3, 12297829382473034411], [0, 1])},
        b"\0",
        None,
        r"overflows a 64-bit count",
    ),
    "an overflow hidden by 0": (
        {"a": entry(shape=[2**63, 0], offsets=[0, 0])},
        b"",
        None,
        r"overflows a 64-bit",
    ),
    "three offsets": ({"a": entry(offsets=[0, 4, 8])}, b"\0" * 4, None, r"data_offsets must be two"),
    "a negative offset": ({"a": entry(offsets=[-4, 0])}, b"\0" * 4, None, r"data_offsets must be two"),
    "offsets reversed": ({"a": entry(offsets=[4, 0])}, b"\0" * 4, None, r"end before they begin"),
    "offsets beyond the file": (
        {"a": entry(offsets=[0, 4])},
        b"\0" * 3,
        None,
        r"beyond the file, which has 3 bytes",
    ),
    "offsets of 2^70": ({"a": entry(offsets=[0, 2**70])}, b"\0" * 4, None, r"beyond the file"),
    "too small for the shape": ({"a": entry(shape=[2])}, b"\0" * 4, None, r"takes 8 bytes, .* span 4"),
    "overlap": (
        {"a": entry(shape=[2], offsets=[0, 8]), "b": entry(shape=[2], offsets=[4, 12])},
        b"\0" * 12,
        None,
        r"entry 'b': its bytes from 4 overlap those of 'a'",
    ),
    # A search that compares neighbours alone sees b after a and c after b.
    "overlap with an earlier one": (
        {"a": entry(shape=[3], offsets=[0, 12]), "b": entry(offsets=[4, 8]), "c": entry(offsets=[8, 12])},
        b"\0" * 12,
        None,
        r"entry 'b': its bytes from 4 overlap those of 'a'",
    ),
    "the same bytes twice": (
        {"a": entry(), "b": entry()},
        b"\0" * 4,
        None,
        r"entry 'b': .* overlap those of 'a'",
    ),
    "an empty one inside another": (
        {"a": entry(shape=[2], offsets=[0, 8]), "b": entry(shape=[0], offsets=[4, 4])},
        b"\0" * 8,
        None,
        r"entry 'b': its bytes from 4 overlap",
    ),
    "a gap": (
        {"a": entry(), "b": entry(offsets=[8, 12])},
        b"\0" * 12,
        None,
        r"entry 'b': 4 bytes between it and 'a' belong to no entry",
    ),
    "a gap at the front": (
        {"a": entry(offsets=[4, 8])},
        b"\0" * 8,
        None,
        r"4 bytes between it and the header",
    ),
    "bytes left over": ({"a": entry()}, b"\0" * 9, None, r"its last 5 bytes, after 'a', belong to no entry"),
    "bytes and no entry": ({}, b"\0" * 4, None, r"its last 4 bytes, after the header, belong to no entry"),
    "half a surrogate pair": (b'{"\\ud800": {}}', b"", None, r"half of a surrogate pair"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_a_clear_error(file, case):
    header, data, length, message = BROKEN[case]
    write(file, header, data, length=length)
    with pytest.raises(ValueError, match=message) as raised:
        pyparam.open(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("size", [1, 7])
def test_a_file_too_short_for_a_length(file, size):
    file.write_bytes(b"\1" * size)
    with pytest.raises(ValueError, match=f"truncated: {size} bytes"):
        pyparam.open(file)


def test_an_empty_file(file):
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.safetensors is empty"):
        pyparam.open(file)


def test_a_header_longer_than_the_format_allows(file):
    write(file, b"", length=100_000_001)
    os.truncate(file, 200_000_000)
    with pytest.raises(ValueError, match="the format allows 100000000"):
        pyparam.open(file)


def test_every_truncation_of_a_valid_file_is_refused(file):
    save_file({"a": torch.arange(3.0), "b": torch.arange(2)}, file)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.safetensors"):
            pyparam.open(file)
