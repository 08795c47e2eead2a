"""flatten, flatten_groups, unflatten and scatter_ on every kind of tensor."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref

import pytest
import torch
from dtypes import FLOATS
from flat_models import mlp
from reference_flatten import DTYPES, FLOAT8, filled, flattened, same, zoo
from torch import nn

import pyparam


class TestFlatten:
    def test_is_the_parameters_in_table_order(self) -> None:
        model = mlp()
        vector = pyparam.flatten(model)
        assert torch.equal(vector, torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        assert vector.dtype == torch.float32
        assert vector.is_contiguous()

    def test_is_a_copy_outside_autograd(self) -> None:
        model = mlp()
        vector = pyparam.flatten(model)
        assert not vector.requires_grad
        assert vector.is_leaf
        vector.zero_()
        assert all(p.abs().sum() > 0 for p in model.parameters())

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_layout_of_every_dtype(self, dtype: torch.dtype) -> None:
        tensors = zoo(dtype)
        assert same(pyparam.flatten(tensors), flattened(tensors))

    @pytest.mark.parametrize("source", DTYPES, ids=str)
    @pytest.mark.filterwarnings("ignore:Casting complex values to real")
    def test_converts_as_to_does(self, source: torch.dtype) -> None:
        tensors = zoo(source)
        for target in DTYPES:
            assert same(pyparam.flatten(tensors, dtype=target), flattened(tensors, target)), target

    @pytest.mark.parametrize("source", FLOATS, ids=str)
    @pytest.mark.parametrize("target", [*FLOATS, *FLOAT8], ids=str)
    def test_converts_every_bit_pattern(self, source: torch.dtype, target: torch.dtype) -> None:
        bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
        if source.itemsize == 2:
            values = bits.view(source)
        else:
            spread = torch.randint(
                -(1 << 31), 1 << 31, (1 << 17,), generator=torch.Generator().manual_seed(1)
            )
            halves = torch.cat([bits.view(torch.float16).float(), spread.to(torch.int32).view(torch.float32)])
            ties = halves + halves * 2.0**-12
            values = torch.cat([halves, ties, -ties]).to(source)
        got = pyparam.flatten([values], dtype=target)
        want = values.to(target)
        assert same(got, want)
        assert same(got.float().sign(), want.float().sign())
        strided = torch.stack([values, values], 1)[:, 0]
        assert torch.equal(pyparam.flatten([strided], dtype=target).view(torch.int8), got.view(torch.int8))

    def test_conjugate_and_negative_views(self) -> None:
        z = filled((3, 4), torch.complex64)
        tensors = [z.conj(), z, z.conj().imag, z.t().conj()]
        complexes = [tensors[0], tensors[1], tensors[3]]
        assert same(pyparam.flatten(complexes), flattened(complexes))
        assert tensors[2].is_neg()
        assert same(pyparam.flatten([tensors[2]]), flattened([tensors[2]]))
        assert same(
            pyparam.flatten(complexes, dtype=torch.complex128), flattened(complexes, torch.complex128)
        )

    def test_no_parameters(self) -> None:
        for empty in (nn.ReLU(), [], {}):
            vector = pyparam.flatten(empty)
            assert vector.shape == (0,)
            assert vector.dtype == torch.get_default_dtype()
        assert pyparam.flatten([], dtype=torch.int8).dtype == torch.int8

    def test_only_empty_tensors(self) -> None:
        assert pyparam.flatten([torch.empty(0, 3), torch.empty(2, 0)]).shape == (0,)

    def test_tied_entries_count_as_the_table_lists_them(self) -> None:
        model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        model[1].weight = model[0].weight
        assert pyparam.flatten(model).numel() == 4
        model[1].weight = nn.Parameter(model[0].weight.data)
        assert pyparam.flatten(model).numel() == 8

    def test_plain_subclass_is_ordinary(self) -> None:
        class Tagged(torch.Tensor):
            pass

        tensor = torch.arange(6.0).as_subclass(Tagged)
        vector = pyparam.flatten([tensor, torch.ones(2)])
        assert type(vector) is torch.Tensor
        assert vector.tolist() == [0, 1, 2, 3, 4, 5, 1, 1]

    def test_under_inference_mode_and_deterministic_algorithms(self) -> None:
        model = mlp()
        want = pyparam.flatten(model)
        with torch.inference_mode():
            assert torch.equal(pyparam.flatten(model), want)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(pyparam.flatten(model), want)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_large_and_small_together(self, threads: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            tensors = [torch.randn(n) for n in (3, 1_500_001, 0, 17, 262_144, 1, 700_000)] + [
                torch.randn(1500, 700).t()
            ]
            assert torch.equal(pyparam.flatten(tensors), flattened(tensors))
            assert same(pyparam.flatten(tensors, dtype=torch.bfloat16), flattened(tensors, torch.bfloat16))
        finally:
            torch.set_num_threads(before)

    def test_streamed_output(self) -> None:
        # Large enough to be written past the caches, at odd offsets, in both the copying and converting way.
        tensors = [torch.randn(5), torch.randn(9_000_001), torch.randn(3, 7).t(), torch.randn(100_003)]
        assert torch.equal(pyparam.flatten(tensors), flattened(tensors))
        halves = [t.bfloat16() for t in tensors]
        assert torch.equal(pyparam.flatten(halves, dtype=torch.float32), flattened(halves, torch.float32))

    @pytest.mark.parametrize("verb", ["flatten", "scatter_"])
    def test_another_thread_runs_meanwhile(self, verb: str) -> None:
        tensors = [torch.ones(1 << 24)]
        vector = pyparam.flatten(tensors)
        ticks = 0
        stop = threading.Event()

        def count() -> None:
            nonlocal ticks
            while not stop.is_set():
                ticks += 1
                time.sleep(0)

        thread = threading.Thread(target=count)
        interval = sys.getswitchinterval()
        # From here a thread loses the interpreter only by giving it up.
        sys.setswitchinterval(1000)
        try:
            thread.start()
            for _ in range(200):
                seen = ticks
                _ = pyparam.flatten(tensors) if verb == "flatten" else pyparam.scatter_(tensors, vector)
                if ticks > seen:
                    break
            assert ticks > seen
        finally:
            stop.set()
            sys.setswitchinterval(interval)
            thread.join()

    def test_leaks_nothing(self) -> None:
        model = mlp()
        vector = pyparam.flatten(model)
        reference = weakref.ref(vector)
        parameter = weakref.ref(next(model.parameters()))
        with pytest.raises(ValueError, match="has no gradient"):
            pyparam.flatten(model, grad=True)
        with pytest.raises(ValueError, match="too long"):
            pyparam.scatter_(model, torch.zeros(1000))
        del vector, model
        gc.collect()
        assert reference() is None
        assert parameter() is None


class TestErrors:
    def test_names_the_first_two_dtypes_that_differ(self) -> None:
        model = mlp()
        model[2].half()
        message = (
            r"flatten: parameter '0.weight' is torch.float32 and parameter '2.weight' is torch.float16; "
            r"expected one dtype \(dtype= converts, flatten_groups"
        )
        with pytest.raises(TypeError, match=message):
            pyparam.flatten(model)
        assert pyparam.flatten(model, dtype=torch.float64).dtype == torch.float64

    def test_names_the_first_two_devices_that_differ(self) -> None:
        tensors = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2, device="meta")}
        with pytest.raises(
            TypeError, match=r"flatten: parameter 'a' is on cpu and parameter 'c' on meta; expected one"
        ):
            pyparam.flatten(tensors)
        with pytest.raises(
            TypeError, match=r"parameter 'c' is on cpu and parameter 'a' on meta|on meta and .* on cpu"
        ):
            pyparam.flatten({"c": tensors["c"], "a": tensors["a"]})

    @pytest.mark.filterwarnings("ignore:.*(quantiz|nested|Sparse)")
    def test_refuses_by_name_what_is_not_strided(self) -> None:
        dense = torch.eye(3)
        others = {
            r"is sparse \(layout torch.sparse_coo\)": dense.to_sparse(),
            r"is sparse \(layout torch.sparse_csr\)": dense.to_sparse_csr(),
            "is quantized": torch.quantize_per_tensor(dense, 0.1, 0, torch.quint8),
            "is a nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        }
        for words, tensor in others.items():
            for source in ({"good": dense, "bad": tensor}, {"bad": tensor, "good": dense}):
                with pytest.raises(TypeError, match="flatten: parameter 'bad' " + words):
                    pyparam.flatten(source)
                with pytest.raises(TypeError, match="flatten_groups: parameter 'bad' " + words):
                    pyparam.flatten_groups(source)
                with pytest.raises(TypeError, match=r"flatten: tensors\[\d\] " + words):
                    torch.ops.pyparam.flatten(list(source.values()))
        with pytest.raises(TypeError, match="scatter_: parameter 'bad' is sparse"):
            pyparam.scatter_({"good": dense, "bad": dense.to_sparse()}, torch.ones(18))

    def test_refuses_an_uninitialized_parameter(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
        for call in (pyparam.flatten, lambda m: pyparam.scatter_(m, torch.zeros(6)), pyparam.flatten_groups):
            with pytest.raises(TypeError, match=r"parameter '1.weight' is uninitialized"):
                call(model)
        with pytest.raises(TypeError, match=r"parameter '1.weight' is uninitialized"):
            pyparam.unflatten(torch.zeros(6), model)

    def test_refuses_a_wrapper_by_name(self) -> None:
        from torch.testing._internal.two_tensor import TwoTensor

        wrapped = TwoTensor(torch.ones(2), torch.ones(2))
        with pytest.raises(TypeError, match="parameter 'w' is a TwoTensor, a wrapper around other tensors"):
            pyparam.flatten({"v": torch.ones(1), "w": wrapped})
        with pytest.raises(TypeError, match="scatter_: parameter 'w' is a TwoTensor"):
            pyparam.scatter_({"v": torch.ones(1), "w": wrapped}, torch.ones(3))

    @pytest.mark.filterwarnings("ignore")
    def test_refuses_a_dtensor_with_a_hint(self) -> None:
        distributed = pytest.importorskip("torch.distributed")
        if not distributed.is_available():
            pytest.skip("torch is built without distributed")
        from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
        from torch.testing._internal.distributed.fake_pg import FakeStore

        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
        try:
            mesh = init_device_mesh("cpu", (2,))
            model = nn.Linear(4, 4)
            model.weight = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
            hint = r"full_tensor\(\) gathers it, to_local\(\) gives this rank's part"
            for call in (
                pyparam.flatten,
                pyparam.flatten_groups,
                lambda m: pyparam.scatter_(m, torch.ones(20)),
            ):
                with pytest.raises(TypeError, match=rf"parameter 'weight' is a DTensor, .*{hint}"):
                    call(model)
            with pytest.raises(TypeError, match="pack_: parameter 'weight' is a wrapper without memory"):
                pyparam.pack_(model)
        finally:
            distributed.destroy_process_group()

    def test_refuses_memory_that_was_freed(self) -> None:
        tensor = torch.ones(4)
        tensor.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"parameter 'x' needs a storage of 16 bytes and has one of 0"):
            pyparam.flatten({"x": tensor})
        with pytest.raises(ValueError, match="parameter 'x' needs a storage of 16 bytes"):
            pyparam.scatter_({"x": tensor}, torch.ones(4))
        partial = torch.ones(4)
        partial.untyped_storage().resize_(8)
        with pytest.raises(ValueError, match="needs a storage of 16 bytes and has one of 8"):
            pyparam.flatten([partial])

    def test_refuses_dtypes_that_do_not_convert(self) -> None:
        with pytest.raises(
            TypeError, match=r"parameter '0' is torch.bits8, which does not convert to torch.float32"
        ):
            pyparam.flatten([torch.empty(2, dtype=torch.bits8)], dtype=torch.float32)
        assert pyparam.flatten([torch.empty(2, dtype=torch.bits8)]).dtype == torch.bits8

    def test_refuses_words_it_does_not_know(self) -> None:
        with pytest.raises(ValueError, match="missing is 'zero'; expected 'error' or 'zeros'"):
            pyparam.flatten(mlp(), missing="zero")  # type: ignore[arg-type]


class TestOut:
    def test_fills_and_returns_it(self) -> None:
        model = mlp()
        out = torch.empty(81)
        version = out._version
        assert pyparam.flatten(model, out=out) is out
        assert torch.equal(out, pyparam.flatten(model))
        assert out._version == version + 1

    def test_converts_when_asked(self) -> None:
        model = mlp()
        out = torch.empty(81, dtype=torch.float64)
        with pytest.raises(TypeError, match=r"out is torch.float64; expected torch.float32"):
            pyparam.flatten(model, out=out)
        pyparam.flatten(model, dtype=torch.float64, out=out)
        assert torch.equal(out, pyparam.flatten(model).double())

    def test_checks_it(self) -> None:
        model = mlp()
        for out, error, words in [
            (torch.empty(80), ValueError, r"out has shape \[80\]; expected \[81\]"),
            (torch.empty(9, 9), ValueError, r"out has shape \[9, 9\]; expected \[81\]"),
            (torch.empty(162)[::2], ValueError, r"out has stride \[2\]; expected a contiguous vector"),
            (torch.empty(81, device="meta"), TypeError, "out is on meta; expected cpu"),
            (torch.empty(81).to_sparse(), TypeError, "out is not a strided tensor"),
            ([0.0] * 81, TypeError, "out is a list; expected a torch.Tensor"),
        ]:
            with pytest.raises(error, match=words):
                pyparam.flatten(model, out=out)

    def test_overlap_is_exact_to_the_byte(self) -> None:
        memory = torch.arange(20.0)
        out = memory[5:10]
        for source in (memory[0:5], memory[10:15]):
            pyparam.flatten([source], out=out)
            assert torch.equal(out, source)
        for source in (memory[1:6], memory[9:14], memory[0:20:4]):
            before = memory.clone()
            with pytest.raises(ValueError, match="out overlaps parameter '1' in memory"):
                pyparam.flatten([torch.empty(0), source], out=out)
            assert torch.equal(memory, before)
        even, odd = memory[0:10:2], torch.empty(5)
        with pytest.raises(ValueError, match="out overlaps parameter '0'"):
            pyparam.flatten([even], out=memory[3:8])
        pyparam.flatten([even], out=odd)

    def test_a_parameter_may_lie_at_its_place_in_out(self) -> None:
        out = torch.arange(10.0)
        pyparam.flatten([out[:4], torch.zeros(2), out[6:]], out=out)
        assert out.tolist() == [0, 1, 2, 3, 0, 0, 6, 7, 8, 9]
        with pytest.raises(ValueError, match="out overlaps parameter '0'"):
            pyparam.flatten([out[1:], out[:1]], out=out)

    def test_nothing_is_written_on_error(self) -> None:
        out = torch.full((4,), 7.0)
        with pytest.raises(TypeError, match="is sparse"):
            pyparam.flatten([torch.zeros(2), torch.zeros(2).to_sparse()], out=out)
        assert out.tolist() == [7, 7, 7, 7]

    def test_inference_tensor(self) -> None:
        with torch.inference_mode():
            out = torch.empty(81)
            pyparam.flatten(mlp(), out=out)
        with pytest.raises(ValueError, match="out is an inference tensor"):
            pyparam.flatten(mlp(), out=out)


class TestGrad:
    def test_gathers_gradients(self) -> None:
        model = mlp()
        model(torch.randn(3, 4)).sum().backward()
        want = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        assert torch.equal(pyparam.flatten(model, grad=True), want)
        assert torch.equal(pyparam.flatten(model, grad=True, dtype=torch.float64), want.double())

    def test_missing_gradients(self) -> None:
        model = mlp()
        model[4](torch.ones(2, 4)).sum().backward()
        with pytest.raises(ValueError, match=r"parameter '0.weight' has no gradient; .*missing=\"zeros\""):
            pyparam.flatten(model, grad=True)
        vector = pyparam.flatten(model, grad=True, missing="zeros")
        assert torch.equal(vector[-5:], torch.tensor([2.0] * 5))
        assert not vector[:-5].any()
        out = torch.full((81,), 3.0)
        assert torch.equal(pyparam.flatten(model, grad=True, missing="zeros", out=out), vector)

    def test_names_gradients_in_errors(self) -> None:
        embedding = nn.Embedding(4, 2, sparse=True)
        embedding(torch.tensor([1])).sum().backward()
        with pytest.raises(TypeError, match="the gradient of parameter 'weight' is sparse"):
            pyparam.flatten(embedding, grad=True)


class TestGroups:
    def test_one_vector_for_each_device_and_dtype(self) -> None:
        model = mlp()
        model[2].to(torch.bfloat16)
        groups = pyparam.flatten_groups(model)
        assert list(groups) == [(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.bfloat16)]
        assert same(
            groups[torch.device("cpu"), torch.float32],
            flattened([*model[0].parameters(), *model[4].parameters()]),
        )
        assert same(groups[torch.device("cpu"), torch.bfloat16], flattened(list(model[2].parameters())))

    def test_devices_and_empties(self) -> None:
        sources = {
            "a": torch.ones(2),
            "b": torch.ones(3, device="meta"),
            "c": torch.empty(0, dtype=torch.int8),
        }
        groups = pyparam.flatten_groups(sources)
        assert {key: vector.numel() for key, vector in groups.items()} == {
            (torch.device("cpu"), torch.float32): 2,
            (torch.device("meta"), torch.float32): 3,
            (torch.device("cpu"), torch.int8): 0,
        }
        assert pyparam.flatten_groups([]) == {}
