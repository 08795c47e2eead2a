"""Every kind of tensor, and every kind of source, in ties."""

import copy
import gc
import warnings
import weakref

import numpy as np
import pytest
import reference_share as reference
import torch
from tie_words import kinds, names
from torch import nn

import pyparam
from pyparam._share.ties import tie_sets, unique_bytes
from pyparam._sources.table import ParamTable

# ---------------------------------------------------------------- the zoo


def test_empty_tensors_tie_only_as_one_object():
    empty = torch.zeros(0, 3)
    buffer = torch.zeros(4)
    assert pyparam.ties({"a": empty, "b": empty.detach(), "c": buffer[2:2], "d": buffer}) == []
    assert names({"a": empty, "m": buffer, "b": empty}) == [("a", "b")]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_empty_tensors_first_middle_last(place):
    w = torch.zeros(2)
    source = [("a", w), ("b", w)]
    source.insert(place, ("empty", torch.zeros(0)))
    assert names(source) == [("a", "b")]


def test_zero_dimensional():
    w = torch.zeros(3)
    assert kinds({"a": w[1], "b": w[1], "c": w[2]}) == ["storage"]


def test_expanded():
    w = torch.zeros(1)
    table = ParamTable(["a", "b"], [w.expand(5), w])
    (tie,) = pyparam.ties(table)
    assert tie.kind == "overlap"
    assert tie_sets(table).total_bytes == 4


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.int8,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.complex128,
    ],
    ids=str,
)
def test_dtypes(dtype):
    w = torch.zeros(6, dtype=dtype)
    assert kinds({"a": w[:4], "b": w[3:], "c": torch.zeros(6, dtype=dtype)}) == ["overlap"]
    assert pyparam.ties({"a": w[:3], "b": w[3:]}) == []


def test_channels_last_is_dense():
    w = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    table = ParamTable(["a", "b"], [w, w.permute(0, 2, 3, 1)])
    assert kinds(table) == ["overlap"]
    assert tie_sets(table).total_bytes == w.nbytes


def test_sparse_by_its_parts():
    s = torch.eye(3).to_sparse()
    (tie,) = pyparam.ties(
        {"a": s, "b": s.detach(), "v": s._values(), "same": s, "other": torch.eye(3).to_sparse()}
    )
    assert tie.names == ("a", "b", "v", "same")
    assert list(tie.classes("storage")) == [("a", "b", "same"), ("v",)]
    assert list(tie.classes("parameter")) == [("a", "same"), ("b",), ("v",)]


def test_compressed_sparse_by_its_parts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = torch.eye(3).to_sparse_csr()
    assert names({"a": s, "v": s.values(), "o": torch.zeros(3)}) == [("a", "v")]


def test_nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        n = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
        j = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    assert names({"a": n, "x": torch.zeros(2), "b": n}) == [("a", "b")]
    (tie,) = pyparam.ties({"a": n, "b": n.unbind()[1]})
    assert not tie.exact
    assert names({"a": j, "v": j.values(), "x": torch.zeros(2)}) == [("a", "v")]


def test_quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q = torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)
    assert kinds({"a": q, "b": q.detach(), "c": torch.zeros(4)}) == ["storage"]


def test_uninitialized_parameters():
    lazy = nn.LazyLinear(3)
    assert pyparam.ties(nn.Sequential(lazy, nn.LazyLinear(3))) == []
    assert names(nn.Sequential(lazy, lazy)) == [("0.weight", "1.weight"), ("0.bias", "1.bias")]


def test_meta_by_object_and_storage():
    m = torch.empty(10, device="meta")
    p = nn.Parameter(torch.empty(3, device="meta"))
    found = pyparam.ties(
        {
            "a": m[:5],
            "b": m[5:],
            "c": m[4:6],
            "d": torch.empty(10, device="meta"),
            "p": p,
            "q": p,
            "r": p.data,
        }
    )
    assert [(tie.names, tie.kind) for tie in found] == [
        (("a", "b", "c"), "overlap"),
        (("p", "q", "r"), "storage"),
    ]


def test_fake_tensors():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        w = torch.zeros(10)
        source = {"a": w, "b": w, "c": w[5:], "d": torch.zeros(10)}
    assert names(source) == [("a", "b", "c")]


def test_symbolic_shapes_by_storage():
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv())
    w = mode.from_tensor(torch.zeros(10, 3))
    with mode:
        source = {"a": w, "b": w, "c": w[2:], "d": torch.zeros(10)}
    (tie,) = pyparam.ties(source)
    assert tie.names == ("a", "b", "c")
    assert not tie.exact


def test_inside_a_transform():
    def inside(x):
        assert names({"a": x, "b": x, "c": x + 1}) == [("a", "b")]
        return x

    torch.vmap(inside)(torch.zeros(3, 2))
    torch.func.grad(lambda x: inside(x).sum())(torch.zeros(3))


def test_a_freed_storage():
    w = torch.zeros(10)
    views = {"a": w[:5], "b": w[5:], "c": w[4:6], "d": torch.zeros(3)}
    w.untyped_storage().resize_(0)
    assert names(views) == [("a", "b", "c")]


def test_lazy_clones_are_copies():
    w = torch.zeros(10)
    assert pyparam.ties({"a": w, "b": torch._lazy_clone(w)}) == []


def test_two_storages_over_one_memory():
    array = np.zeros(10, dtype=np.float32)
    a, b = torch.from_numpy(array), torch.from_numpy(array[4:])
    assert a.untyped_storage()._cdata != b.untyped_storage()._cdata
    assert kinds({"a": a, "b": b}) == ["overlap"]
    assert kinds({"a": a, "b": torch.from_numpy(array)}) == ["storage"]


class Plain(torch.Tensor):
    """A subclass that changes nothing."""


def test_a_plain_subclass_is_an_ordinary_tensor():
    w = torch.zeros(3)
    assert kinds({"a": w, "b": w.as_subclass(Plain)}) == ["storage"]


class Wrapper(torch.Tensor):
    """A tensor that keeps its data in another, as DTensor does."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner):
        self.inner = inner

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Wrapper(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(str(func))


def test_wrappers_share_what_they_hold():
    w = torch.zeros(10)
    source = {
        "a": Wrapper(w[:5]),
        "b": Wrapper(w[:5]),
        "c": Wrapper(w[5:]),
        "twice": Wrapper(Wrapper(w[4:6])),
        "other": Wrapper(torch.zeros(10)),
    }
    (tie,) = pyparam.ties(source)
    assert tie.names == ("a", "b", "c", "twice")
    assert list(tie.classes("storage")) == [("a", "b"), ("c",), ("twice",)]


class Silent(torch.Tensor):
    """A wrapper that tells nothing of itself."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2,), dispatch_sizes_strides_policy="sizes")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(str(func))


def test_a_tensor_that_tells_nothing_is_an_object():
    silent = Silent()
    table = ParamTable(["a", "b", "c"], [silent, Silent(), silent])
    assert names(table) == [("a", "c")]


def test_more_than_two_to_the_31_elements():
    m = torch.empty(1 << 33, dtype=torch.float64, device="meta")
    (tie,) = pyparam.ties(
        {"a": m[: 1 << 32], "b": m[(1 << 32) - 1 :], "c": torch.empty(1 << 33, device="meta")}
    )
    assert (tie.names, tie.layouts[1].offset) == (("a", "b"), 8 * ((1 << 32) - 1))


# ---------------------------------------------------------------- sources


def test_buffers_on_request():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3))
    model.register_buffer("shadow", model.weight.data)
    assert pyparam.ties(model) == []
    assert names(model, buffers=True) == [("weight", "shadow")]


def test_a_mapping_and_pairs_and_tensors():
    w = torch.zeros(3)
    assert names({"a": w, "b": w}) == [("a", "b")]
    assert names([("a", w), ("b", w)]) == [("a", "b")]
    assert names([w, torch.zeros(2), w]) == [("0", "2")]


def test_a_state_dict_ties_by_storage():
    assert kinds(reference.sequential().state_dict()) == ["storage", "storage"]


def test_a_scripted_model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(reference.sequential())
    assert names(scripted) == [("2.weight", "4.weight"), ("2.bias", "4.bias")]


def test_an_exported_program():
    program = torch.export.export(reference.sequential(), (torch.zeros(2, 4),))
    assert [set(tie.names) for tie in pyparam.ties(program.state_dict)] == [
        {"2.weight", "4.weight"},
        {"2.bias", "4.bias"},
    ]


def test_a_checkpoint_of_torch_save(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(reference.sequential().state_dict(), path)
    loaded = torch.load(path, mmap=True, weights_only=True)
    assert names(loaded) == [("2.weight", "4.weight"), ("2.bias", "4.bias")]


def test_a_deep_copy_keeps_ties():
    model = reference.sequential()
    assert pyparam.ties(copy.deepcopy(model)) == pyparam.ties(model)


# ---------------------------------------------------------------- columns, references


def test_columns_of_tie_sets():
    w = torch.zeros(4)
    sets = tie_sets(ParamTable(["x", "a", "e", "b", "c"], [torch.zeros(3), w, torch.zeros(0), w, w[1:2]]))
    assert sets.group.tolist() == [0, 1, 2, 1, 1]
    assert sets.layout.tolist() == [0, 1, 2, 1, 4]
    assert sets.bytes.tolist() == [12, 16, 0, 0, 0]
    assert sets.total_bytes == 28
    assert len(sets) == 5


def test_every_byte_counts_where_it_is_seen_first():
    buffer = torch.zeros(6, 6)
    views = [buffer[2:4], buffer[:, 1], buffer[3:5], buffer, buffer[0]]
    sets = tie_sets(ParamTable(list("abcde"), views))
    assert sets.bytes.tolist() == [48, 16, 20, 60, 0]


def test_unique_bytes_counts_a_shared_layer_once():
    model = reference.sequential()
    assert unique_bytes(model) == sum(p.nbytes for p in model.parameters())


def test_nothing_is_kept_alive():
    w = torch.zeros(3)
    gone = weakref.ref(w)
    pyparam.ties({"a": w, "b": w, "c": w.detach()})
    del w
    gc.collect()
    assert gone() is None
