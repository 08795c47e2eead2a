"""ties: which names share memory."""

import itertools

import reference_share as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tie_words import kinds, names
from torch import nn

import pyparam
from pyparam._share.ties import tie_sets, unique_bytes
from pyparam._sources.table import ParamTable


def interleaved(rows=3, columns=4):
    buffer = torch.zeros(rows, columns)
    return {f"c{i}": buffer[:, i] for i in range(columns)}


# ---------------------------------------------------------------- what a tie is


def test_nothing_is_tied():
    assert pyparam.ties(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []


def test_nothing_at_all():
    assert pyparam.ties(nn.Module()) == []
    assert pyparam.ties({}) == []
    assert unique_bytes({}) == 0


def test_a_layer_in_two_places():
    found = pyparam.ties(reference.sequential())
    assert [tie.names for tie in found] == [("2.weight", "4.weight"), ("2.bias", "4.bias")]
    assert [tie.kind for tie in found] == ["parameter", "parameter"]
    assert all(tie.exact for tie in found)


def test_two_parameters_over_one_storage():
    a = nn.Parameter(torch.zeros(3))
    (tie,) = pyparam.ties({"a": a, "x": torch.zeros(3), "b": nn.Parameter(a.data)})
    assert (tie.names, tie.kind, tie.exact, tie.subgroups) == (("a", "b"), "storage", True, ())


def test_overlapping_slices():
    buffer = torch.zeros(10)
    (tie,) = pyparam.ties({"a": buffer[:6], "b": buffer[5:], "c": torch.zeros(10)})
    assert (tie.names, tie.kind, tie.exact) == (("a", "b"), "overlap", True)


def test_touching_slices_are_no_tie():
    buffer = torch.zeros(10)
    assert pyparam.ties({"a": buffer[:5], "b": buffer[5:]}) == []


def test_a_short_one_inside_a_long_one_hides_nothing():
    buffer = torch.zeros(100)
    assert names({"long": buffer, "short": buffer[1:2], "far": buffer[90:]}) == [("long", "short", "far")]


def test_kinds_nest():
    w = nn.Parameter(torch.zeros(4, 4))
    (tie,) = pyparam.ties({"a": w, "b": w, "c": nn.Parameter(w.data), "d": w.data[1]})
    assert (tie.kind, tie.names) == ("overlap", ("a", "b", "c", "d"))
    (storage,) = tie.subgroups
    assert (storage.kind, storage.names) == ("storage", ("a", "b", "c"))
    (same,) = storage.subgroups
    assert (same.kind, same.names, same.subgroups) == ("parameter", ("a", "b"), ())
    assert list(tie.classes("overlap")) == [("a", "b", "c", "d")]
    assert list(tie.classes("storage")) == [("a", "b", "c"), ("d",)]
    assert list(tie.classes("parameter")) == [("a", "b"), ("c",), ("d",)]


def test_a_transpose_overlaps_and_is_not_the_same_layout():
    w = torch.zeros(4, 4)
    assert kinds({"a": w, "b": w.t()}) == ["overlap"]


def test_another_dtype_over_the_same_bytes_overlaps():
    w = torch.zeros(4)
    assert kinds({"a": w, "b": w.view(torch.int32)}) == ["overlap"]


def test_conjugate_and_negative_views_overlap():
    w = torch.zeros(4, dtype=torch.complex64)
    assert kinds({"a": w, "b": w.conj()}) == ["overlap"]
    assert kinds({"a": w, "b": w.detach()}) == ["storage"]
    assert kinds({"a": w.imag, "b": w.conj().imag}) == ["overlap"]


def test_real_and_imaginary_parts_interleave():
    w = torch.zeros(4, dtype=torch.complex64)
    assert pyparam.ties({"re": w.real, "im": w.imag}) == []


def test_strides_of_single_elements_do_not_count():
    w = torch.zeros(1, 4)
    assert kinds({"a": w, "b": w.as_strided((1, 4), (99, 1))}) == ["storage"]


def test_names_in_table_order_and_ties_by_first_name():
    a, b = torch.zeros(2), torch.zeros(2)
    assert names({"b2": b, "a2": a, "a1": a, "b1": b}) == [("b2", "b1"), ("a2", "a1")]


def test_many_names_of_one():
    a = torch.zeros(2)
    (tie,) = pyparam.ties({str(i): a for i in range(1000)})
    assert tie.names == tuple(str(i) for i in range(1000))


def test_a_tie_can_be_printed_and_hashed():
    (tie,) = pyparam.ties({"a": (a := torch.zeros(2)), "b": a})
    assert repr(tie) == "Tie(names=('a', 'b'), kind='parameter', exact=True, subgroups=())"
    assert {tie} == set(pyparam.ties({"a": a, "b": a}))


# ---------------------------------------------------------------- strided layouts


def test_interleaved_columns_are_no_tie():
    assert pyparam.ties(interleaved()) == []


def test_a_column_and_a_row_cross():
    buffer = torch.zeros(5, 5)
    assert names({"c0": buffer[:, 0], "c1": buffer[:, 1], "r": buffer[2], "c1b": buffer[3:, 1]}) == [
        ("c0", "c1", "r", "c1b")
    ]


def test_columns_and_a_row_beside_them():
    buffer = torch.zeros(5, 6)
    assert names({"c0": buffer[:, 0], "c1": buffer[:, 1], "r": buffer[2, 2:]}) == []


def test_halves_of_a_large_matrix_are_exact():
    # Three million rows: laying out every run would be beyond the bound.
    buffer = torch.empty(3_000_000, 8, device="meta")
    assert pyparam.ties({"l": buffer[:, :4], "r": buffer[:, 4:]}) == []
    (tie,) = pyparam.ties({"l": buffer[:, :5], "r": buffer[:, 4:]})
    assert tie.exact
    assert pyparam.ties({"l": buffer[:, :4], "r": buffer[1:, 4:]}) == []
    (tie,) = pyparam.ties({"l": buffer[:, :5], "r": buffer[1:, 4:]})
    assert tie.exact


def test_other_steps_in_a_large_buffer_are_exact():
    buffer = torch.empty(60_000_000, device="meta")
    assert pyparam.ties({"even": buffer[::2], "odd": buffer[1::4]}) == []
    (tie,) = pyparam.ties({"even": buffer[::3], "odd": buffer[1::4]})
    assert tie.exact
    assert pyparam.ties({"a": buffer[::6], "b": buffer[3::12]}) == []


def test_tiles_of_a_large_matrix_are_exact():
    # Columns and rows cut unevenly: no two tiles have one shape.
    buffer = torch.empty(4000, 5000, device="meta")
    rows, columns = [0, 1, 900, 2000, 2001, 4000], [0, 3, 1000, 1001, 4990, 5000]
    tiles = {
        f"{r}:{c}": buffer[rows[r] : rows[r + 1], columns[c] : columns[c + 1]]
        for r in range(5)
        for c in range(5)
    }
    table = ParamTable(list(tiles), list(tiles.values()))
    assert pyparam.ties(table) == []
    assert tie_sets(table).total_bytes == buffer.nbytes
    tiles["across"] = buffer[1999:2001, 1000:1002]
    (tie,) = pyparam.ties(tiles)
    assert tie.exact
    assert tie.names == ("2:2", "2:3", "3:2", "3:3", "across")


def test_columns_of_uneven_length_are_exact():
    buffer = torch.empty(2000, 1500, device="meta")
    assert pyparam.ties({str(i): buffer[i % 3 : 1999 - i % 2, i] for i in range(1500)}) == []


def test_what_cannot_be_decided_is_said_so():
    # Beyond 2^20 runs together, and more than 1,024 layouts: bounding intervals must do.
    buffer = torch.empty(12_000_000, device="meta")
    views = {str(i): buffer[i :: 1009 + i % 3] for i in range(1100)}
    (tie,) = pyparam.ties(views)
    assert not tie.exact
    assert tie.kind == "overlap"


def test_hundreds_of_columns_at_scale():
    buffer = torch.zeros(50, 20_000)
    table = ParamTable([str(i) for i in range(20_000)], list(buffer.unbind(1)))
    assert pyparam.ties(table) == []
    assert tie_sets(table).total_bytes == buffer.nbytes
    wide = ParamTable([str(i) for i in range(19_999)], [buffer[:, i : i + 2] for i in range(19_999)])
    (tie,) = pyparam.ties(wide)
    assert (len(tie.names), tie.exact) == (19_999, True)


@st.composite
def views(draw):
    """Views of one or two small buffers, with a few kept objects among them."""
    buffers = [torch.zeros(48, dtype=torch.uint8) for _ in range(draw(st.integers(1, 2)))]
    tensors = []
    for _ in range(draw(st.integers(0, 7))):
        if tensors and draw(st.integers(0, 4)) == 0:
            again = draw(st.sampled_from(tensors))
            tensors.append(again if draw(st.booleans()) else again.detach())
            continue
        dtype = draw(st.sampled_from([torch.uint8, torch.int16, torch.float32]))
        buffer = draw(st.sampled_from(buffers)).view(dtype)
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        strides = [draw(st.integers(0, 7)) for _ in shape]
        reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 0)
        if reach >= buffer.numel():
            continue
        offset = draw(st.integers(0, buffer.numel() - reach - 1))
        tensors.append(buffer.as_strided(shape, strides, offset))
    return tensors


@given(views())
@settings(max_examples=400, deadline=None)
def test_against_the_bytes_themselves(tensors):
    pairs = [(str(i), tensor) for i, tensor in enumerate(tensors)]
    table = ParamTable([name for name, _ in pairs], tensors)
    found = pyparam.ties(table)
    assert [tie.names for tie in found] == reference.groups(pairs)
    at = dict(pairs)
    for tie in found:
        assert tie.exact
        assert tie.kind == reference.kind([at[name] for name in tie.names])
        for group in tie.classes("storage"):
            assert all(
                at[name] is at[group[0]] or reference.same_bytes(at[name], at[group[0]]) for name in group
            )
        leaders = [at[group[0]] for group in tie.classes("storage")]
        assert not any(reference.same_bytes(a, b) for i, a in enumerate(leaders) for b in leaders[:i])
        assert [{id(at[n]) for n in g} for g in tie.classes("parameter")].count(set()) == 0
        assert all(len({id(at[n]) for n in g}) == 1 for g in tie.classes("parameter"))
        first = min(at[name].data_ptr() for name in tie.names)
        offsets = [at[name].data_ptr() - first for name in tie.names]
        assert [layout.offset for layout in tie.layouts] == (offsets if tie.kind != "parameter" else [])
    seen = [reference.unique_bytes(tensors[:i]) for i in range(len(tensors) + 1)]
    assert tie_sets(table).bytes.tolist() == [b - a for a, b in itertools.pairwise(seen)]
    assert tie_sets(table).total_bytes == seen[-1]


@st.composite
def large_pairs(draw):
    """Two views of a meta buffer that is too large to lay out, and the same two in miniature arithmetic."""
    out = []
    for _ in range(2):
        dims = draw(st.lists(st.tuples(st.integers(2, 6), st.integers(1, 40)), min_size=1, max_size=3))
        out.append((draw(st.integers(0, 60)), dims))
    return out


@given(large_pairs(), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_the_search_against_enumeration(pair, width):
    # A common outer dimension of two million makes both too large to lay out; different sizes keep it from
    # being dropped, so that the bounded search decides.
    dtype = [torch.uint8, torch.int16, torch.float32][width - 1]
    buffer = torch.empty(3_000_000_000, dtype=dtype, device="meta")
    tensors, sets = [], []
    for i, (offset, dims) in enumerate(pair):
        shape = [2_000_000 + i, *(n for n, _ in dims)]
        strides = [1000, *(s for _, s in dims)]
        tensors.append(buffer.as_strided(shape, strides, offset))
        inner = {offset}
        for n, s in dims:
            inner = {at + k * s for at in inner for k in range(n)}
        # An inner reach of under 1000 lets the two meet in the same or a neighbouring repetition only.
        sets.append({at + k * 1000 for at in inner for k in range(-2, 3)})
    expected = [("0", "1")] if sets[0] & sets[1] else []
    (found,) = [pyparam.ties(dict(zip("01", tensors, strict=True)))]
    assert [tie.names for tie in found] == expected
    assert all(tie.exact for tie in found)
