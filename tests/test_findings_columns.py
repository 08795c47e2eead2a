"""The columns that checks are made of say of every row what asking it alone says."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pyparam
from pyparam._findings import buffers, constant, families, nonfinite, survey
from pyparam._findings.families import family_key, role_key
from pyparam._findings.layouts import Layouts
from pyparam._findings.named import Named, grouped
from pyparam._measure.bins import steps_of
from pyparam._sources.table import ParamTable

WORDS = ["weight", "bias", "0", "12", "3", "", "w1", "bn2", "layers", "experts", "norm", "original0", "٣", "a b", "\ud800"]  # fmt: skip
NAMES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(".".join), max_size=30)


def table_of_names(names: list[str]) -> ParamTable:
    return ParamTable(names, [torch.zeros(1)] * len(names))


def groups_of(keys: list[object]) -> list[list[int]]:
    found: dict[object, list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return list(found.values())


@given(NAMES)
def test_roles_and_families(names):
    named = Named(table_of_names(names))
    rows, same = torch.arange(len(names)), torch.zeros(len(names), dtype=torch.int64)
    for key, numbered, made in (
        (role_key, named.roles, named.role_families),
        (family_key, named.families, named.numbered_families),
    ):
        expected = groups_of([key(name) for name in names])
        assert [group.tolist() for group in grouped(rows, numbered, same)] == expected
        found = made(rows, same)
        assert [list(family.rows) for family in found] == expected
        assert [family.key for family in found] == [key(names[some[0]]) for some in expected]


@given(NAMES)
def test_the_tree_of_names(names):
    named = Named(table_of_names(names))
    parents, keys = named.tree.parents.tolist(), named.tree.keys.tolist()
    paths: list[tuple[str, ...]] = [()]
    for parent, key in zip(parents[1:], keys[1:], strict=True):
        paths.append((*paths[parent], named.words[key]))
    assert len(set(paths)) == len(paths)
    owners, attributes = named.tree.owners.tolist(), named.tree.attributes.tolist()
    told = [
        ".".join((*paths[node], named.words[word])) for node, word in zip(owners, attributes, strict=True)
    ]
    assert told == names


PATTERNS = [
    pattern
    for module in (families, buffers, constant, nonfinite)
    for name, pattern in vars(module).items()
    if isinstance(pattern, re.Pattern) and name not in ("NUMBERS", "INDICES", "BARE")
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:30])
@given(names=NAMES)
def test_a_pattern_says_the_same_of_all_names_of_a_role(pattern, names):
    found = Named(table_of_names(names)).where(pattern).tolist()
    assert found == [pattern.search(name) is not None for name in names]


def test_layouts_of_every_kind_of_tensor():
    lazy = nn.LazyLinear(3).weight
    tensors = [
        torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float16),
        torch.zeros(()), torch.zeros(0), torch.zeros(0, 3), torch.zeros(2, 3, device="meta"), lazy,
        torch.eye(3).to_sparse(), torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        torch.zeros(1).expand(2, 3), torch.zeros(2, 3).t(),
    ]  # fmt: skip
    freed = torch.zeros(2, 3)
    freed.untyped_storage().resize_(0)
    tensors.append(freed)
    layouts = Layouts(ParamTable([str(i) for i in range(len(tensors))], tensors))
    assert len(layouts) == len(tensors)
    for row, tensor in enumerate(tensors):
        told = layouts[row]
        assert (told.dtype, told.device) == (tensor.dtype, tensor.device)
        assert told.sizes == (None if tensor is lazy or tensor.is_nested else tuple(tensor.shape)), row
    assert {5, 6, 7, 8, 9, 10, 13} == set(layouts.odd)
    assert layouts.of[0] == layouts.of[1] == layouts.of[11]
    floats = layouts.where(lambda kind: kind.dtype == torch.float32)
    assert floats.tolist() == [tensor.dtype == torch.float32 for tensor in tensors]


def test_measured_rows_are_the_first_of_each_tensor():
    shared = nn.Parameter(torch.randn(4))
    seen = survey({"a": shared, "b": torch.zeros(2, device="meta"), "c": shared, "d": torch.ones(3)})
    assert seen.measured.tolist() == [True, False, False, True]
    assert seen.rows == [0, 3]
    column = seen.column("numel")
    assert (column[0], column[1], column[2], column[3]) == (4, 0, 4, 3)
    assert Counter(map(type, seen.column("rms"))) == {float: 4}


@pytest.mark.parametrize("dropped", [0, 4, 7])
def test_wider_bins_hold_what_the_narrow_ones_do(dropped):
    bins = pyparam.measure([torch.zeros(0), torch.randn(300), torch.ones(2)], histogram=True)._bins
    assert bins is not None
    lengths, steps, counts = steps_of(bins, dropped)
    ends = bins.offsets.tolist()
    for row, own in enumerate(
        zip(steps.split(lengths.tolist()), counts.split(lengths.tolist()), strict=True)
    ):
        expected: Counter[int] = Counter()
        for entry in range(ends[row], ends[row + 1]):
            expected[int(bins.bins[entry]) >> dropped] += int(bins.counts[entry])
        assert dict(zip(own[0].cumsum(0).tolist(), own[1].tolist(), strict=True)) == expected
