"""What measure refuses, its op, and what it may not do: hold the lock, keep anything alive."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measuring import as_bits, assert_row
from torch import Tensor, nn

import pyparam
from pyparam._base.native import _C


def test_gradients() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[0](torch.randn(5, 4)).square().sum().backward()
    stats = pyparam.measure(net, grad=True)
    assert stats.names == ["0.weight", "0.bias"]
    assert stats.missing == ["1.weight", "1.bias"]
    assert net[0].weight.grad is not None
    assert_row(stats["0.weight"], net[0].weight.grad)
    assert pyparam.measure(net).missing == []
    assert pyparam.measure([torch.randn(3)], grad=True).missing == ["0"]


def test_a_gradient_that_is_not_a_leafs_own_is_not_asked_for() -> None:
    leaf = torch.randn(3, requires_grad=True)
    product = leaf * 2
    assert pyparam.measure([leaf, product], grad=True).missing == ["0", "1"]


@pytest.mark.parametrize(
    ("tensor", "error", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), TypeError, r"parameter 'b' is sparse \(layout torch.sparse_coo\)"),
        (
            lambda: torch.eye(3).to_sparse_csr(),
            TypeError,
            r"parameter 'b' is sparse \(layout torch.sparse_csr\)",
        ),
        (
            lambda: torch.empty(3, device="meta"),
            ValueError,
            "parameter 'b' is on the meta device and has no values",
        ),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
            TypeError,
            "parameter 'b' is quantized",
        ),
    ],
    ids=["sparse", "csr", "meta", "quantized"],
)
@pytest.mark.parametrize("verb", [pyparam.measure, pyparam.total_norm])
@pytest.mark.filterwarnings("ignore")
def test_refusals(
    verb: Callable[[Any], object], tensor: Callable[[], Tensor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        verb({"b": tensor()})
    if verb is not pyparam.measure:
        with pytest.raises(error, match=words):
            verb({"a": torch.ones(2), "b": tensor()})


UNREADABLE = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "it is sparse (sparse_coo)"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), "it is sparse (sparse_csr)"),
    "meta": (lambda: torch.empty(3, device="meta"), "it is on the meta device"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), "it is quantized"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "it is a nested tensor"),
    "F4": (lambda: torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "not single numbers"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore")
def test_one_that_cannot_be_measured_costs_its_row(kind: str, tmp_path) -> None:
    make, reason = UNREADABLE[kind]
    first, last = torch.arange(4.0), torch.full((3,), math.nan)
    stats = pyparam.measure({"first": first, "b\n": make(), "last": last}, histogram=True)
    assert stats.names == ["first", "last"]
    assert reason in stats.unread["b\n"]
    assert stats.total.numel == 7
    assert stats.total.max == 3
    assert stats.missing == []
    assert stats.to_dict()["unread"] == stats.unread
    for told in (
        repr(stats),
        stats._repr_html_(),
        repr(stats.sort()),
        repr(pickle.loads(pickle.dumps(stats))),
    ):
        assert r"not read: b\n: " in told
    whole = pyparam.measure({"first": first, "last": last}, histogram=True)
    assert torch.equal(whole.histogram().counts, stats.histogram().counts)
    assert stats.unread.keys() == {"b\n"}
    # Another part of the run may have read what this one could not.
    both = stats + pyparam.measure({"b\n": torch.ones(2)})
    assert both.unread == {}
    assert (stats + whole).unread == stats.unread
    assert pyparam.measure(iter([first, make()])).names == ["0"]  # a source that gives its tensors once
    with pytest.raises((TypeError, ValueError), match="parameter '0' (is|has)"):
        pyparam.measure([make(), make()])
    assert len(pyparam.measure([])) == 0


def test_a_sparse_gradient_costs_its_row() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(4, 2, sparse=True), torch.nn.Linear(2, 1))
    model(torch.tensor([1, 2])).sum().backward()
    stats = pyparam.measure(model, grad=True)
    assert stats.names == ["1.weight", "1.bias"]
    assert list(stats.unread) == ["0.weight"]
    assert stats.missing == []


def test_a_file_with_one_that_cannot_be_measured(tmp_path) -> None:
    torch.save({"a": torch.ones(3), "b": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    stats = pyparam.measure(tmp_path / "a.pt")
    assert (stats.names, list(stats.unread)) == (["a"], ["b"])


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_are_refused() -> None:
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        with pytest.raises(TypeError, match=r"parameter '0' is (nested|a NestedTensor)"):
            pyparam.measure([nested])


def test_types_of_several_numbers_are_refused() -> None:
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(TypeError, match="parameter '0' has dtype .*not single numbers"):
        pyparam.measure([packed])


class Plain(Tensor):
    """A subclass without a dispatch of its own."""


def test_plain_subclasses_are_ordinary() -> None:
    x = torch.randn(100).as_subclass(Plain)
    assert_row(pyparam.measure([x])[0], x.as_subclass(Tensor))


def test_subclasses_with_values_elsewhere_are_refused() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    with pytest.raises(TypeError, match=r"parameter '0' is a TwoTensor, whose values are not in one plain"):
        pyparam.measure([TwoTensor(torch.ones(3), torch.ones(3))])


def test_freed_storage_is_refused() -> None:
    x = torch.ones(10)
    x.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="parameter '0' needs a storage of 40 bytes and has one of 0"):
        pyparam.measure([x])


def test_nothing_is_kept_alive() -> None:
    import gc
    import weakref

    x = torch.ones(10)
    gone = weakref.ref(x)
    stats = pyparam.measure({"x": x}, histogram=True)
    bad = torch.empty(3, device="meta")
    bad_gone = weakref.ref(bad)
    with pytest.raises(ValueError, match="meta"):
        pyparam.measure({"x": bad})
    del x, bad
    gc.collect()
    assert gone() is None
    assert bad_gone() is None
    assert stats["x"].shape == (10,)


@pytest.mark.parametrize("quantiles", [(1.5,), (-0.1, 0.5), (math.nan,)])
def test_quantiles_outside_of_the_unit_interval(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"measure: quantiles must lie in \[0, 1\], got"):
        pyparam.measure([torch.ones(3)], quantiles=quantiles)


def test_the_gil_is_released() -> None:
    """A Python thread makes progress while a kernel runs."""
    x = torch.randn(20_000_000)
    stamps: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            stamps.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        begin = time.perf_counter()
        pyparam.total_norm([x], 3.5)
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    inside = [stamp for stamp in stamps if begin + 0.1 * (end - begin) < stamp < end - 0.1 * (end - begin)]
    assert len(inside) > 3


def test_inside_a_parallel_region_of_torchs_threads() -> None:
    """From a thread of another pool, and from several at once, results are the same."""
    tensors = [torch.randn(100_000), torch.randn(50)]
    expected = as_bits(pyparam.measure(tensors, histogram=True))
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            found = as_bits(pyparam.measure(tensors, histogram=True))
            if not all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_a_hundred_million_elements() -> None:
    x = torch.rand(100_000_001) + 0.5
    row = pyparam.measure([x])[0]
    mean = sum(part.double().sum().item() for part in x.split(10_000_000)) / x.numel()
    spread = sum((part.double() - mean).square().sum().item() for part in x.split(10_000_000))
    assert row.mean == pytest.approx(mean, rel=1e-13)
    assert row.std == pytest.approx(math.sqrt(spread / (x.numel() - 1)), rel=1e-12)


@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    x = torch.zeros(2**31 + 5, dtype=torch.uint8)
    x[-1] = 7
    row = pyparam.measure([x])[0]
    assert (row.zeros, row.max, row.l1, row.numel) == (2**31 + 4, 7.0, 7.0, 2**31 + 5)


# The op

OPCHECK = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def sample() -> list[Tensor]:
    # Nothing that gives a NaN, which opcheck takes for a difference.
    return [torch.randn(5), torch.randn(3, 4).t(), torch.arange(4), torch.ones(2, 2).bfloat16()]


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.pyparam.measure.default, (sample(),), test_utils=OPCHECK)
    with_grad = [torch.randn(3, requires_grad=True)]
    torch.library.opcheck(torch.ops.pyparam.measure.default, (with_grad,), test_utils=OPCHECK)


def test_the_op_has_no_gradient_and_needs_none() -> None:
    values, counts = torch.ops.pyparam.measure([torch.randn(3, requires_grad=True)])
    assert not values.requires_grad
    assert values.shape == (2, 11)
    assert counts.shape == (2, 8)


def test_the_op_refuses_by_place() -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(TypeError, match=r"measure: tensors\[1\] is sparse"):
        torch.ops.pyparam.measure([torch.ones(2), sparse])


def test_meta_gives_shapes() -> None:
    values, counts = torch.ops.pyparam.measure([torch.empty(3, device="meta")] * 4)
    assert values.shape == (5, 11)
    assert values.is_meta
    assert counts.dtype is torch.int64


def test_compiles_in_one_graph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def f(tensors: list[Tensor]) -> Tensor:
        values, _ = torch.ops.pyparam.measure([t * 2 for t in tensors])
        return values[:, 2]

    x = [torch.ones(4), torch.zeros(2)]
    assert torch.equal(f(x)[:2], torch.tensor([2.0, 0.0], dtype=torch.float64))


def means(tensors: list[Tensor]) -> Tensor:
    values, _counts = torch.ops.pyparam.measure(tensors)
    return values[:, 2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts() -> None:
    assert torch.jit.script(means)([torch.ones(4)])[0] == 1.0


def test_the_histogram_op() -> None:
    histogram_op = torch.ops.pyparam.measure_histogram.default
    torch.library.opcheck(histogram_op, (sample(),), test_utils=OPCHECK)
    outputs = torch.ops.pyparam.measure_histogram([torch.ones(4), torch.empty(0)])
    assert [tuple(t.shape) for t in outputs] == [(3, 11), (3, 8), (3, 21), (4,), (2,), (2,)]
    assert outputs[3].tolist() == [0, 1, 1, 2]


def test_native_bindings_take_a_table() -> None:
    table = _C.ParamTable(["x"], [torch.ones(3)])
    assert _C.measure(table, False, False, [], True).counts[0, 0] == 3


def test_progress_counts_what_whole_chunks_hold() -> None:
    pyparam.measure([torch.ones((1 << 22) + 1), torch.ones(3)])
    done, in_all = _C.measure_progress()
    assert (done, in_all) == (4 << 22, 4 * ((1 << 22) + 4))
