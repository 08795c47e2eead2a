"""The outline under ``show`` and an Inspector's repr: folding, totals, shared memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.models import mixture, net, tree
from pyparam import ParamTable
from pyparam._inspect.outline import outline_of_module, outline_of_table
from pyparam._view.text import summarize
from tests.reference_view import bare_chain, fold, held


def holding(summary, node=0, buffers=False):
    h = summary.outline.holding(node, buffers)
    return {k: getattr(h, k) for k in ("names", "values", "tensors", "unique", "bytes", "trainable")}


def folded(source):
    return [(row.depth, row.keys, row.type) for row in summarize(source).rows()]


def tensor_module(*tensors):
    module = nn.Module()
    for i, tensor in enumerate(tensors):
        module.register_parameter(f"p{i}", nn.Parameter(tensor, requires_grad=False))
    return module


# --- properties ------------------------------------------------------------------------------------------

LEAVES = st.sampled_from(
    [
        lambda: nn.Linear(2, 3),
        lambda: nn.Linear(3, 2),
        lambda: nn.Linear(2, 3, bias=False),
        lambda: nn.Linear(2, 3).requires_grad_(False),
        lambda: nn.Linear(2, 3, dtype=torch.float64),
        lambda: nn.Linear(2, 3, device="meta"),
        lambda: nn.BatchNorm1d(3),
        nn.ReLU,
    ]
)
NAMES = st.sampled_from(["0", "1", "2", "block 3", "block 4", "left", "right", "é", "9", "10"])


@st.composite
def modules(draw, depth=4):
    if depth == 0 or draw(st.booleans()):
        return draw(LEAVES)()
    parent = draw(st.sampled_from([nn.Sequential, nn.ModuleList, nn.Module]))()
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    for name in names:
        parent.add_module(name, draw(modules(depth=depth - 1)))
    return parent


@given(modules())
@settings(max_examples=150, deadline=None)
def test_folds_and_counts_what_the_reference_does(model):
    summary = summarize(model)
    assert len(summary.outline) == sum(1 for _ in model.modules())
    todo = [(0, model)]
    while todo:
        node, module = todo.pop()
        groups = [
            list(summary.outline.series(first, last)) for first, last, _, _ in summary.outline.groups(node)
        ]
        assert groups == fold(module)
        for buffers in (False, True):
            assert holding(summary, node, buffers) == held(module, buffers=buffers)
        todo += [
            (child, module._modules[summary.outline.key(child)]) for child in summary.outline.children(node)
        ]


@given(modules(), st.data())
@settings(max_examples=150, deadline=None)
def test_totals_count_shared_modules_and_parameters_once(model, data):
    """Makes some modules and parameters stand in several places, then compares every subtree."""
    everything = [m for m in model.modules() if type(m) in (nn.Sequential, nn.ModuleList, nn.Module)]
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and not m.weight.is_meta]
    if not everything or not linears:
        return
    for i in range(data.draw(st.integers(1, 3))):
        data.draw(st.sampled_from(everything)).add_module(f"again {i}", data.draw(st.sampled_from(linears)))
        data.draw(st.sampled_from(linears)).register_parameter(
            f"w{i}", data.draw(st.sampled_from(linears)).weight
        )
    summary = summarize(model)
    todo = [(0, model)]
    while todo:
        node, module = todo.pop()
        for buffers in (False, True):
            assert holding(summary, node, buffers) == held(module, buffers=buffers)
        if summary.outline.repeats(node) < 0:
            todo += [(c, module._modules[summary.outline.key(c)]) for c in summary.outline.children(node)]


@given(st.lists(modules(depth=2), min_size=1, max_size=3), st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_folded_is_alike_in_ties_too(parts, data):
    model = nn.ModuleList([*parts, *(type(p)() if isinstance(p, nn.Sequential) else p for p in parts)])
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for _ in range(data.draw(st.integers(0, 2))):
        if linears:
            a, b = data.draw(st.sampled_from(linears)), data.draw(st.sampled_from(linears))
            a.weight = b.weight
    outline = summarize(model).outline
    first_name = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        first_name.setdefault(id(p), name)
    for first, last, count, one_module in outline.groups(0):
        if count == 1 or one_module:
            continue
        shapes = []
        for key in outline.series(first, last):
            block = model._modules[key]
            entries = []
            for name, p in block.named_parameters(remove_duplicate=False):
                start = first_name[id(p)]
                inside = start.startswith(key + ".")
                entries.append(
                    (name, p.shape, p.dtype, p.requires_grad, start[len(key) :] if inside else start)
                )
            shapes.append(entries)
        absolute = [[e[:4] for e in entries] for entries in shapes]
        assert all(a == absolute[0] for a in absolute)


# --- folding ---------------------------------------------------------------------------------------------


def test_the_mixture_is_sixteen_rows():
    rows = folded(mixture(layers=3, experts=5))
    assert (2, ("0", "1", "2"), "MixtureLayer") in rows
    assert (4, ("0", "1", "2", "3", "4"), "Expert") in rows
    assert len(rows) == 16
    assert rows == [row for row in rows if len(row[1]) in (1, 2, 3, 5)]


def test_a_tree_folds_to_its_height():
    assert len(folded(tree(4096))) == 12 + 2


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[1][0].weight.requires_grad_(False),
        lambda m: m[1][0].to(torch.float64),
        lambda m: m[1].__setitem__(0, nn.Linear(2, 2, bias=False)),
        lambda m: m[1].__setitem__(1, nn.Tanh()),
        lambda m: m[1].add_module("more", nn.ReLU()),
        lambda m: m[1].register_buffer("b", torch.zeros(1)),
        lambda m: m[1][0].to("meta"),
        lambda m: setattr(m[1][0], "weight", m[2][0].weight),
    ],
)
def test_any_difference_ends_a_fold(change):
    model = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3))
    assert [keys for depth, keys, _ in folded(model) if depth == 1] == [("0", "1", "2")]
    change(model)
    assert ("0", "1", "2") not in [keys for _, keys, _ in folded(model)]


def test_settings_that_are_no_tensors_do_not_end_a_fold():
    model = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Dropout(p / 10)) for p in range(3))
    for i, block in enumerate(model):
        block.layer_idx = i
    assert [keys for depth, keys, _ in folded(model) if depth == 1] == [("0", "1", "2")]


def test_blocks_tied_alike_fold_and_others_do_not():
    def block(weight=None):
        made = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        made["b"].weight = made["a"].weight if weight is None else weight
        return made

    inside = nn.ModuleList(block() for _ in range(3))
    assert [keys for depth, keys, _ in folded(inside) if depth == 1] == [("0", "1", "2")]
    common = nn.Parameter(torch.zeros(2, 2))
    to_one = nn.ModuleList(block(common) for _ in range(3))
    assert [keys for depth, keys, _ in folded(to_one) if depth == 1] == [("0", "1", "2")]
    # Tied across in a ring: every weight is tied, yet each to another's.
    ring = nn.ModuleList(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}) for _ in range(3))
    for i in range(3):
        ring[i]["b"].weight = ring[(i + 1) % 3]["a"].weight
    assert [len(keys) for depth, keys, _ in folded(ring) if depth == 1] != [3]


def test_one_module_many_times_is_one_row():
    layer = nn.Linear(2, 2)
    summary = summarize(nn.ModuleList([layer] * 12))
    _, row = summary.rows()
    assert (row.count, row.one_module, row.parameters.unique) == (12, True, 6)
    assert (summary.parameters.names, summary.parameters.values) == (24, 72)
    assert (summary.parameters.tensors, summary.parameters.unique) == (2, 6)


def test_a_cycle_of_modules_ends():
    a = nn.Module()
    a.inner = nn.Linear(2, 2)
    a.inner.back = a
    rows = list(summarize(a).rows())
    assert [row.repeats for row in rows] == [None, None, ""]
    assert rows[0].parameters.unique == 6


def test_names_that_double_at_every_level_do_not_overflow():
    module = nn.Linear(1, 1)
    for _ in range(80):
        module = nn.ModuleList([module, module])
    held_by = summarize(module).parameters
    assert (held_by.tensors, held_by.unique) == (2, 2)
    assert held_by.names == 2**63 - 1


def test_depth_is_not_bounded_by_a_stack():
    depth = 100_000
    summary = summarize(bare_chain(depth))
    assert summary.modules == depth + 1
    assert summary.parameters.unique == 6
    rows = list(summary.rows())
    assert rows[-1].depth <= 257
    assert any(row.cut for row in rows)


# --- shared memory -----------------------------------------------------------------------------------------


def clusters(*tensors):
    return summarize(tensor_module(*tensors)).tied_names()


def test_disjoint_slices_of_one_storage_share_nothing():
    flat = torch.zeros(10)
    assert clusters(flat[:4], flat[4:]) == []


def test_overlap_is_found_by_ranges():
    flat = torch.zeros(10)
    model = tensor_module(flat[:6], flat[4:], flat[8:], torch.zeros(3))
    summary = summarize(model)
    assert summary.tied_names() == [["p0", "p1", "p2"]]
    assert summary.parameters.bytes == (10 + 3) * 4
    assert summary.parameters.unique == 13


def test_a_buffer_over_all_parameters_counts_once():
    flat = torch.zeros(100)
    model = tensor_module(flat, *flat.split(7))
    assert summarize(model).parameters.unique == 100
    assert summarize(model).parameters.tensors == 1


def test_meta_tensors_share_by_storage_and_offset():
    flat = torch.zeros(10, device="meta")
    assert clusters(flat[:4], flat[4:], torch.zeros(3, device="meta")) == []
    assert clusters(flat, flat.view(2, 5)) == [["p0", "p1"]]


def test_one_storage_made_twice_over_one_address_is_shared():
    import numpy

    array = numpy.zeros(8, dtype=numpy.float32)
    assert clusters(torch.from_numpy(array), torch.from_numpy(array)) == [["p0", "p1"]]


def test_empty_tensors_share_only_by_identity():
    empty = torch.zeros(0)
    assert clusters(empty, torch.zeros(0), torch.zeros(3)) == []
    model = tensor_module(empty)
    model.again = model.p0
    model.register_parameter("again2", model.p0)
    assert summarize(model).tied_names() == [["p0", "again", "again2"]]


def test_a_transposed_view_is_shared_and_an_expanded_one_costs_its_memory():
    weight = torch.zeros(3, 2)
    assert clusters(weight, weight.t()) == [["p0", "p1"]]
    assert summarize(tensor_module(torch.zeros(1).expand(5))).parameters.unique == 5


KINDS = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "csc": lambda: torch.eye(3).to_sparse_csc(),
    "complex": lambda: torch.zeros(2, 2, dtype=torch.complex64),
    "conjugated": lambda: torch.zeros(2, 2, dtype=torch.complex64).conj(),
    "fp8": lambda: torch.zeros(2, 2, dtype=torch.float8_e4m3fn),
    "bool": lambda: torch.zeros(2, 2, dtype=torch.bool),
    "scalar": lambda: torch.zeros((), dtype=torch.int64),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.strided),
    "jagged": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    "channels last": lambda: torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_tensor_has_a_row(kind):
    tensor = KINDS[kind]()
    summary = summarize({"a.x": tensor, "b.y": torch.zeros(2)})
    names = [entry.key for row in summary.rows() for entry in row.entries]
    assert names == ["x", "y"]
    assert summary.parameters.values == tensor.numel() + 2
    assert summary.parameters.bytes >= 8
    assert summary.to_dict()["rows"]
    assert summarize({"a.x": tensor, "b.y": tensor}).tied_names() == [["a.x", "b.y"]]


def test_fake_tensors_count_and_symbolic_sizes_have_a_row():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    fake = FakeTensorMode().from_tensor(torch.zeros(4, 3))
    assert summarize({"a": fake, "b": fake}).parameters.unique == 12
    symbolic = FakeTensorMode(shape_env=ShapeEnv()).from_tensor(torch.zeros(4, 3))
    _, entry = next(summarize({"a": symbolic, "b": fake}).rows()).entries[::-1]
    assert all(isinstance(size, str) for size in entry.shape)


class Wrapper(torch.Tensor):
    """A subclass without memory of its own, as DTensor is one."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran")


def test_a_wrapper_subclass_is_counted_without_running_its_code():
    wrapped = Wrapper(torch.zeros(4, 3))
    summary = summarize({"a": wrapped, "b": Wrapper(torch.zeros(4, 3)), "c": wrapped})
    assert summary.parameters.unique == 24
    assert summary.tied_names() == [["a", "c"]]


# --- tables ----------------------------------------------------------------------------------------------


def test_a_table_gives_the_tree_its_names_describe():
    table = ParamTable(
        ["layers.10.w", "layers.2.w", "x", "layers.2.b", "a..b", ".c"], [torch.zeros(i) for i in range(6)]
    )
    outline = outline_of_table(table)
    names = [outline.entry_name(e) for e in range(outline.entry_count())]
    assert names == ["x", "layers.2.w", "layers.2.b", "layers.10.w", "a..b", ".c"]
    assert outline.name(outline.child(0, "layers")) == "layers"
    assert outline.child(0, "nothing") == -1


def test_a_table_tells_buffers():
    table = ParamTable(["w", "b"], [torch.zeros(2), torch.zeros(3)])
    outline = outline_of_table(table, ["b"])
    assert outline.holding(0, False).unique == 2
    assert outline.holding(0, True).unique == 3


def test_names_of_any_script_come_back():
    module = nn.ModuleDict({"größe": nn.Linear(1, 1), "層": nn.ReLU(), "\ud800": nn.ReLU()})
    outline = outline_of_module(module)
    assert [outline.key(child) for child in outline.children(0)] == ["größe", "層", "\ud800"]


def test_what_is_no_tensor_is_named():
    module = nn.Linear(1, 1)
    module._buffers["odd"] = 3
    with pytest.raises(TypeError, match="'odd' of a Linear is no tensor but an int"):
        outline_of_module(module)


def test_an_outline_keeps_no_module_alive():
    model = net()
    dead = weakref.ref(model[1])
    outline = outline_of_module(model)
    del model
    gc.collect()
    assert dead() is None
    assert len(outline) == 23


def test_bad_indices_are_errors():
    outline = outline_of_module(net())
    with pytest.raises(IndexError):
        outline.entry_tensor(99)
    with pytest.raises(IndexError):
        outline.key(-1)
    with pytest.raises(ValueError, match="mask"):
        outline.restricted([True], 0)
