"""torch.ops.pyparam.flatten and its siblings: schema, Meta, autograd, TorchScript, torch.compile."""

from __future__ import annotations

import pytest
import torch
from reference_flatten import flattened, same, zoo
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pyparam

ops = torch.ops.pyparam

# torch itself scripts its forward-mode formulas when they are first used.
scripts = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


class TestOpcheck:
    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_flatten(self, requires_grad: bool) -> None:
        tensors = [torch.randn(s, requires_grad=requires_grad) for s in ((2, 3), (0,), (), (4,))]
        torch.library.opcheck(ops.flatten.default, (tensors,))
        torch.library.opcheck(ops.flatten.default, (tensors, torch.float64))

    def test_flatten_out(self) -> None:
        tensors = [torch.randn(2, 3), torch.randn(4)]
        torch.library.opcheck(ops.flatten.out, (tensors,), {"out": torch.empty(10)})

    def test_scatter(self) -> None:
        torch.library.opcheck(ops.scatter_.default, ([torch.randn(2, 3), torch.randn(4)], torch.randn(10)))

    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_unflatten(self, requires_grad: bool) -> None:
        vector = torch.randn(10, requires_grad=requires_grad)
        torch.library.opcheck(ops.unflatten.default, (vector, [torch.randn(2, 3), torch.randn(4)]))


class TestValues:
    def test_flatten(self) -> None:
        tensors = zoo()
        assert torch.equal(ops.flatten(tensors), flattened(tensors))
        assert same(ops.flatten(tensors, dtype=torch.bfloat16), flattened(tensors, torch.bfloat16))
        assert ops.flatten([]).shape == (0,)
        out = torch.empty(sum(t.numel() for t in tensors))
        assert ops.flatten.out(tensors, out=out) is None
        assert torch.equal(out, flattened(tensors))

    def test_scatter_and_unflatten(self) -> None:
        tensors = [torch.zeros(2, 3), torch.zeros(0), torch.zeros(())]
        vector = torch.arange(7.0)
        ops.scatter_(tensors, vector)
        assert torch.equal(flattened(tensors), vector)
        assert [v.shape for v in ops.unflatten(vector, tensors)] == [t.shape for t in tensors]
        ops.scatter_([], torch.empty(0))
        assert ops.unflatten(torch.empty(0), []) == []

    def test_errors_speak_of_positions(self) -> None:
        with pytest.raises(TypeError, match=r"tensors\[0\] is torch.float32 and tensors\[2\] is torch.int64"):
            ops.flatten([torch.ones(1), torch.ones(1), torch.ones(1, dtype=torch.int64)])
        with pytest.raises(ValueError, match=r"scatter_: the vector is too long"):
            ops.scatter_([torch.zeros(2)], torch.zeros(3))


class TestMeta:
    def test_flatten(self) -> None:
        model = nn.Linear(3, 4, device="meta")
        vector = pyparam.flatten(model)
        assert vector.shape == (16,)
        assert vector.is_meta
        assert pyparam.flatten(model, dtype=torch.bfloat16).dtype == torch.bfloat16
        assert pyparam.flatten(model, out=torch.empty(16, device="meta")).is_meta
        assert [v.shape for v in pyparam.unflatten(vector, model)] == [(4, 3), (4,)]
        pyparam.scatter_(model, vector)
        with pytest.raises(ValueError, match="the vector is too short"):
            pyparam.scatter_(model, vector[1:])

    def test_meta_takes_terabytes(self) -> None:
        assert pyparam.flatten([torch.empty(1 << 20, 1 << 20, device="meta")] * 3).numel() == 3 << 40

    def test_fake_tensors(self) -> None:
        with FakeTensorMode():
            model = nn.Linear(3, 4)
            vector = pyparam.flatten(model)
            assert type(vector).__name__ == "FakeTensor"
            assert vector.device.type == "cpu"
            assert vector.shape == (16,)
            pyparam.scatter_(model, vector)
            assert [v.shape for v in pyparam.unflatten(vector, model)] == [(4, 3), (4,)]


class TestAutograd:
    def test_gradient_and_its_gradient(self) -> None:
        tensors = leaves((2, 3), (0,), (), (4, 1))
        assert torch.autograd.gradcheck(lambda *t: ops.flatten(t), tensors)
        assert torch.autograd.gradgradcheck(lambda *t: ops.flatten(t), tensors)
        with torch.no_grad():
            vector = ops.flatten(tensors)
        assert torch.autograd.gradcheck(lambda v: ops.unflatten(v, tensors), vector.requires_grad_())

    def test_gradient_has_the_tensors_dtype_and_shape(self) -> None:
        tensors = [torch.randn(2, 3).bfloat16().requires_grad_(), torch.randn(3, 2).t().requires_grad_()]
        ops.flatten(tensors, dtype=torch.float32).mul(torch.arange(12.0)).sum().backward()
        assert tensors[0].grad.dtype == torch.bfloat16
        assert torch.equal(tensors[0].grad.float(), torch.arange(6.0).view(2, 3))
        assert torch.equal(tensors[1].grad, torch.arange(6.0, 12.0).view(2, 3))

    def test_expanded_gradient(self) -> None:
        tensors = leaves((2, 3), (4,))
        ops.flatten(tensors).sum().backward()
        assert all(torch.equal(t.grad, torch.ones_like(t)) for t in tensors)

    def test_only_what_requires_grad(self) -> None:
        fixed, free = torch.ones(3), torch.ones(2, requires_grad=True)
        vector = ops.flatten([fixed, free])
        assert vector.grad_fn is not None
        vector.backward(torch.arange(5.0))
        assert free.grad.tolist() == [3, 4]
        assert fixed.grad is None
        assert ops.flatten([fixed]).grad_fn is None
        assert ops.flatten([free], dtype=torch.int64).requires_grad is False
        with torch.no_grad():
            assert ops.flatten([free]).grad_fn is None

    def test_non_leaves(self) -> None:
        x = torch.randn(4, requires_grad=True)
        ops.flatten([x * 2, x[:2]]).sum().backward()
        assert x.grad.tolist() == [3, 3, 2, 2]

    def test_out_refuses_to_record(self) -> None:
        free = torch.ones(2, requires_grad=True)
        with pytest.raises(RuntimeError, match="with out= nothing is recorded for autograd"):
            ops.flatten.out([free], out=torch.empty(2))
        with pytest.raises(RuntimeError, match="out requires grad"):
            ops.flatten.out([torch.ones(2)], out=torch.ones(2, requires_grad=True))
        with torch.no_grad():
            ops.flatten.out([free], out=torch.empty(2))

    def test_scatter_writes_as_an_optimizer_does(self) -> None:
        free = torch.ones(2, requires_grad=True)
        version = free._version
        ops.scatter_([free], torch.zeros(2))
        assert free.is_leaf
        assert free._version == version + 1
        with pytest.raises(RuntimeError, match="the vector requires grad, but the write is not recorded"):
            ops.scatter_([free], torch.zeros(2, requires_grad=True))
        derived = free * 2
        with pytest.raises(RuntimeError, match=r"tensors\[1\] is the result of a recorded operation"):
            ops.scatter_([free, derived], torch.zeros(4))
        with torch.no_grad():
            ops.scatter_([free, derived], torch.ones(4))

    @scripts
    def test_function_transforms(self) -> None:
        a, b = torch.randn(2, 3), torch.randn(4)

        def energy(a: Tensor, b: Tensor) -> Tensor:
            return ops.flatten([a, b]).pow(2).sum()

        grad_a, grad_b = torch.func.grad(energy, argnums=(0, 1))(a, b)
        assert torch.allclose(grad_a, 2 * a)
        assert torch.allclose(grad_b, 2 * b)
        assert torch.func.hessian(energy, argnums=1)(a, b).allclose(2 * torch.eye(4))
        batch = torch.func.vmap(lambda a, b: ops.flatten([a, b]))(torch.randn(5, 2, 3), torch.randn(5, 4))
        assert batch.shape == (5, 10)
        views = torch.func.vmap(lambda v: ops.unflatten(v, [a, b])[0])(batch)
        assert torch.equal(views, batch[:, :6].view(5, 2, 3))
        value, tangent = torch.func.jvp(energy, (a, b), (a, b))
        assert torch.allclose(tangent, 2 * value)

    @scripts
    def test_forward_mode(self) -> None:
        import torch.autograd.forward_ad as forward

        with forward.dual_level():
            dual = forward.make_dual(torch.ones(2), torch.full((2,), 3.0))
            tangent = forward.unpack_dual(ops.flatten([dual, torch.ones(1)])).tangent
            assert tangent.tolist() == [3, 3, 0]


class TestScript:
    @scripts
    def test_callable_from_torchscript(self) -> None:
        @torch.jit.script
        def roundtrip(tensors: list[Tensor], out: Tensor) -> tuple[Tensor, list[Tensor]]:
            vector = torch.ops.pyparam.flatten(tensors)
            wide = torch.ops.pyparam.flatten(tensors, dtype=torch.float64)
            torch.ops.pyparam.flatten(tensors, out=out)
            torch.ops.pyparam.scatter_(tensors, vector * 2)
            return wide, torch.ops.pyparam.unflatten(out, tensors)

        tensors, out = [torch.ones(2, 2), torch.ones(3)], torch.empty(7)
        wide, views = roundtrip(tensors, out)
        assert wide.dtype == torch.float64
        assert [v.shape for v in views] == [(2, 2), (3,)]
        assert flattened(tensors).eq(2).all()
        assert out.eq(1).all()


class TestCompile:
    def test_fullgraph(self) -> None:
        def step(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
            vector = torch.ops.pyparam.flatten(tensors)
            out = torch.empty_like(vector)
            torch.ops.pyparam.flatten.out(tensors, out=out)
            torch.ops.pyparam.scatter_(tensors, vector * 2)
            return out, torch.ops.pyparam.unflatten(vector, tensors)[1] + 1

        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            want_tensors, got_tensors = [[torch.arange(6.0).view(2, 3), torch.ones(3)] for _ in range(2)]
            want, got = step(want_tensors), compiled(got_tensors)
            assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
            assert torch.equal(flattened(got_tensors), flattened(want_tensors))

    def test_gradient_and_dynamic_shapes(self) -> None:
        def energy(a: Tensor, b: Tensor) -> Tensor:
            vector = torch.ops.pyparam.flatten([a, b])
            return (vector * vector).sum() + torch.ops.pyparam.unflatten(vector, [a, b])[0].sum()

        compiled = torch.compile(energy, fullgraph=True, backend="aot_eager", dynamic=True)
        for n in (2, 5):
            a, b = leaves((n, 3), (n,))
            compiled(a, b).backward()
            assert torch.allclose(a.grad, 2 * a.detach() + 1)
            assert torch.allclose(b.grad, 2 * b.detach())


def test_a_transform_that_is_over_changes_no_later_call() -> None:
    tensors = [torch.full((4,), 1e-40)]
    torch.func.vmap(torch.sin)(torch.ones(2, 2))
    assert torch.set_flush_denormal(True) or pytest.skip("this machine flushes no denormals")
    try:
        vector = torch.ops.pyparam.flatten(tensors, torch.float64)
    finally:
        torch.set_flush_denormal(False)
    assert vector.tolist() == tensors[0].double().tolist()  # torch's own conversion would give zeros
