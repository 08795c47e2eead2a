"""The samplers and the operator: what stays, what is refused, what the operator promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from samplers import WHOLE, drawn
from torch import Tensor, nn

from pyparam import init

# ---- what stays, and what is refused ----------------------------------------------------------------------


def test_a_parameter_is_written_in_place_with_its_version() -> None:
    p = nn.Parameter(torch.zeros(4, 4))
    version = p._version
    assert init.kaiming_normal_(p, seed=0, stream="p") is p
    assert p.requires_grad
    assert p.grad_fn is None
    assert p._version == version + 1
    loss = (p * p).sum()
    init.zeros_(p)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op:UserWarning")
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_tensors_are_left_as_they_are(name: str, shape: tuple[int, int]) -> None:
    assert drawn(WHOLE[name], *shape).shape == shape


@pytest.mark.parametrize("name", WHOLE)
def test_meta_tensors_are_checked_and_left(name: str) -> None:
    t = torch.empty(6, 4, device="meta")
    assert WHOLE[name](t, seed=1, stream="x") is t


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda t: init.normal_(t, seed=-1, stream="x"),
            ValueError,
            r"normal_: seed must be in \[0, 2\*\*64\), got -1",
        ),
        (lambda t: init.normal_(t, seed=2**64, stream="x"), ValueError, "seed must be in"),
        (lambda t: init.normal_(t, seed=1.5, stream="x"), TypeError, "seed must be an integer, got float"),
        (lambda t: init.normal_(t, seed=True, stream="x"), TypeError, "seed must be an integer, got bool"),
        (
            lambda t: init.normal_(t, seed=1, stream=None),
            TypeError,
            "stream must be a qualified name or an integer",
        ),
        (lambda t: init.normal_(t, seed=1, stream=-2), ValueError, "stream must be in"),
        (
            lambda t: init.normal_(t, std=-1, seed=1, stream="x"),
            ValueError,
            "normal_: expected std >= 0, got -1",
        ),
        (
            lambda t: init.normal_(t, float("nan"), seed=1, stream="x"),
            ValueError,
            "mean must be finite, got nan",
        ),
        (lambda t: init.normal_(t, "a", seed=1, stream="x"), TypeError, "mean must be a number, got str"),
        (lambda t: init.uniform_(t, 2, 1, seed=1, stream="x"), ValueError, "expected a <= b, got a=2, b=1"),
        (lambda t: init.uniform_(t, -1e308, 1e308, seed=1, stream="x"), ValueError, "b - a must be finite"),
        (lambda t: init.trunc_normal_(t, a=2, b=1, seed=1, stream="x"), ValueError, "expected a <= b"),
        (lambda t: init.kaiming_normal_(t[0], seed=1, stream="x"), ValueError, "fewer than 2 dimensions"),
        (lambda t: init.xavier_uniform_(t[0], seed=1, stream="x"), ValueError, "fewer than 2 dimensions"),
        (
            lambda t: init.kaiming_normal_(t, mode="fan", seed=1, stream="x"),
            ValueError,
            "'fan' not supported",
        ),
        (
            lambda t: init.kaiming_normal_(t, nonlinearity="?", seed=1, stream="x"),
            ValueError,
            "kaiming_normal_: Unsupported nonlinearity",
        ),
        (
            lambda t: init.constant_(t.to(torch.int8), 300),
            ValueError,
            r"constant_: 300 is beyond what torch\.int8 can hold",
        ),
        (lambda t: init.ones_(t, offset=3), ValueError, "ones_: offset and strides need shape"),
        (lambda t: init.orthogonal_(t[0], seed=1, stream="x"), ValueError, "2 or more dimensions"),
        (lambda t: init.sparse_(t[0], 0.5, seed=1, stream="x"), ValueError, "only tensors with 2 dimensions"),
        (
            lambda t: init.sparse_(t, 1.5, seed=1, stream="x"),
            ValueError,
            "expected 0 <= sparsity <= 1, got 1.5",
        ),
        (lambda t: init.eye_(t[0]), ValueError, "eye_: only tensors with 2 dimensions"),
        (lambda t: init.dirac_(t), ValueError, "3, 4 or 5 dimensions"),
        (lambda t: init.dirac_(t[None], 2), ValueError, "divisible by groups"),
        (
            lambda t: init.normal_(t, seed=1, stream="x", offset=3),
            ValueError,
            "need shape, the shape of the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=(3, 0)),
            ValueError,
            "leaves the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=(9, 0)),
            ValueError,
            "not a point of",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=-1),
            ValueError,
            "offset -1 leaves",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), offset=16),
            ValueError,
            "offset 16 leaves",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), strides=(13, 1)),
            ValueError,
            "leaves the whole",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4), strides=(4,)),
            ValueError,
            "strides must be 2",
        ),
        (
            lambda t: init.normal_(t, seed=1, stream="x", shape=(4, 4, 4)),
            ValueError,
            "needs strides to lie in",
        ),
        (lambda t: init.normal_([1.0], seed=1, stream="x"), TypeError, "expected a Tensor, got list"),
        (lambda t: init.normal_(t.expand(3, 2, 4), seed=1, stream="x"), ValueError, "share memory"),
        (
            lambda t: init.normal_(t.to(torch.int32), seed=1, stream="x"),
            TypeError,
            "dtype Int; random fills write float32",
        ),
        (lambda t: init.normal_(t.to(torch.complex64), seed=1, stream="x"), TypeError, "dtype ComplexFloat"),
        (lambda t: init.normal_(t.to(torch.float8_e5m2), seed=1, stream="x"), TypeError, "Float8_e5m2"),
        (
            lambda t: init.normal_(t.to_sparse(), seed=1, stream="x"),
            TypeError,
            r"is sparse \(layout Sparse\)",
        ),
        (lambda t: init.normal_(torch._neg_view(t), seed=1, stream="x"), TypeError, "lazy negative"),
        (
            lambda t: init.normal_(nn.parameter.UninitializedParameter(), seed=1, stream="x"),
            TypeError,
            "lazy module has no shape yet",
        ),
    ],
)
def test_errors_say_what_is_wrong_and_write_nothing(
    call: Callable[[Tensor], object], error: type[Exception], words: str
) -> None:
    t = torch.ones(2, 4)
    with pytest.raises(error, match=words):
        call(t)
    assert t.eq(1).all()


class _Wrapper(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("nothing may run on it")


def test_a_subclass_with_dispatch_of_its_own_is_refused_by_name() -> None:
    t = torch.Tensor._make_wrapper_subclass(_Wrapper, (2, 3))
    with pytest.raises(TypeError, match="_Wrapper is a tensor subclass with storage of its own"):
        init.normal_(t, seed=1, stream="x")


def test_a_plain_subclass_is_a_tensor() -> None:
    class Named(torch.Tensor):
        pass

    t = torch.empty(3, 3).as_subclass(Named)
    assert torch.equal(
        init.normal_(t, seed=7, stream="layer.weight").as_subclass(torch.Tensor), drawn(init.normal_, 3, 3)
    )


# ---- the operator -----------------------------------------------------------------------------------------


def operands(*tensors: Tensor) -> tuple[Any, ...]:
    n = len(tensors)
    return (list(tensors), [2] * n, [0.0, 1.0, 0.0, 0.0] * n, 3, list(range(n)), [], [], True)


def test_opcheck() -> None:
    torch.library.opcheck(
        torch.ops.pyparam.fill_.default, operands(torch.empty(5), torch.empty(2, 3, dtype=torch.bfloat16))
    )
    without_moments = (*operands(torch.empty(3, 4).t(), torch.empty(0))[:-1], False)
    torch.library.opcheck(torch.ops.pyparam.fill_.default, without_moments)
    one = (torch.empty(4, 5)[:, 1:], 2, [0.0, 1.0, 0.0, 0.0], 3, 5, 2, [5, 1])
    torch.library.opcheck(torch.ops.pyparam.fill_.one, one)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_operator_runs_in_torchscript_and_under_compile() -> None:
    def fill(t: Tensor) -> Tensor:
        torch.ops.pyparam.fill_(t, 1, [0.0, 1.0, 0.0, 0.0], 3, 5)
        return t

    def fill_list(t: Tensor) -> Tensor:
        torch.ops.pyparam.fill_([t], [1], [0.0, 1.0, 0.0, 0.0], 3, [5], [], [], False)
        return t

    expected = init.uniform_(torch.empty(7), seed=3, stream=5)
    assert torch.equal(
        torch.compile(fill_list, fullgraph=True, backend="aot_eager")(torch.empty(7)), expected
    )
    assert torch.equal(torch.jit.script(fill)(torch.empty(7)), expected)
    assert torch.equal(torch.compile(fill, fullgraph=True, backend="aot_eager")(torch.empty(7)), expected)


def test_moments_are_those_of_what_was_written() -> None:
    ts = [
        torch.empty(100_003),
        torch.empty(0),
        torch.empty(5, dtype=torch.float64),
        torch.empty(7, 9)[:, ::2],
    ]
    moments = torch.ops.pyparam.fill_(
        ts, [2, 2, 1, 3], [1e3, 0.5, 0, 0, 0, 1, 0, 0, 2, 3, 0, 0, 0, 1, -1, 1], 3, [0, 1, 2, 3], [], [], True
    )
    assert moments[1].isnan().all()
    for t, (mean, std) in zip([ts[0], *ts[2:]], moments[[0, 2, 3]].tolist(), strict=True):
        assert mean == pytest.approx(t.double().mean().item(), abs=1e-7)
        assert std == pytest.approx(t.double().std(correction=0).item(), rel=1e-5)


def test_overlapping_tensors_keep_the_later_ones_values() -> None:
    base = torch.empty(300_000)
    for _ in range(3):
        torch.ops.pyparam.fill_(
            [base, base[1000:200_000], base[5:7]],
            [2, 1, 0],
            [0, 1, 0, 0, 0, 1, 0, 0, 9, 0, 0, 0],
            3,
            [0, 1, 2],
            [],
            [],
            False,
        )
        assert torch.equal(base[1000:200_000], init.uniform_(torch.empty(199_000), seed=3, stream=1))
        assert base[5:7].eq(9).all()
        assert torch.equal(base[200_000:], init.normal_(torch.empty(300_000), seed=3, stream=0)[200_000:])


@pytest.mark.parametrize(
    ("operand", "value", "words"),
    [
        (1, [2], "2 tensors, but 1 kinds"),
        (1, [2, 9], r"tensors\[1\]: unknown kind 9"),
        (2, [0.0], "so 8 parameters expected, got 1"),
        (
            2,
            [0, 1, 0, 0, 0, -1, 0, 0],
            r"tensors\[1\]: a normal needs a finite mean and std >= 0; got mean=0, std=-1",
        ),
        (4, [1], "2 tensors, but 1 streams"),
        (5, [1], "2 tensors, but 1 offsets"),
        (5, [0, -1], r"tensors\[1\]: the offset in the whole is negative"),
        (5, [0, 2**63 - 4], r"tensors\[1\]: the whole must have fewer than 2\^63 elements; got the offset"),
        (6, [1, 2, 3], "2 dimensions in all, but there are 3 strides"),
        (6, [1, -1], r"tensors\[1\]: strides of the whole must be non-negative"),
        (6, [1, 2**62], r"tensors\[1\]: strides of the whole"),
    ],
)
def test_the_operator_checks_its_columns_before_it_writes(
    operand: int, value: list[float], words: str
) -> None:
    ts = [torch.ones(3), torch.ones(4)]
    given_operands = list(operands(*ts))
    given_operands[operand] = value
    with pytest.raises(ValueError, match=words):
        torch.ops.pyparam.fill_(*given_operands)
    assert ts[0].eq(1).all()


@pytest.mark.parametrize("strides", [[], [1, 1]])
def test_the_farthest_part_of_a_whole_that_can_be(strides: list[int]) -> None:
    ts = [torch.ones(3), torch.ones(4)]
    columns = [2, 2], [0.0, 1.0, 0.0, 0.0] * 2, 7, [1, 2]
    torch.ops.pyparam.fill_(ts, *columns, [0, 2**63 - 5], strides)
    assert ts[1].ne(1).any()
    ts = [torch.ones(3), torch.ones(4)]
    with pytest.raises(ValueError, match=r"fill_: tensors\[1\]: .* 2\^63.*; got"):
        torch.ops.pyparam.fill_(ts, *columns, [0, 2**63 - 4], strides)
    assert ts[0].eq(1).all()


def test_a_constant_that_a_dtype_cannot_hold_is_refused_before_anything_is_written() -> None:
    tensors = [torch.zeros(3), torch.zeros(0, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8)]
    columns = ([0] * 3, [1000.0, 0.0, 0.0, 0.0] * 3, 0, [0] * 3, [], [])
    with pytest.raises(ValueError, match=r"fill_: tensors\[2\] has dtype Byte, which cannot hold 1000"):
        torch.ops.pyparam.fill_(tensors, *columns)
    assert not tensors[0].any()
    torch.ops.pyparam.fill_(
        tensors[:2], *(c[: len(c) // 3 * 2] if isinstance(c, list) else c for c in columns)
    )
    assert tensors[0].eq(1000).all()


def test_the_operator_refuses_what_requires_grad_outside_no_grad() -> None:
    with pytest.raises(ValueError, match=r"tensors\[0\] requires grad; fill it under torch.no_grad\(\)"):
        torch.ops.pyparam.fill_(*operands(nn.Parameter(torch.ones(3))))


def test_meta_and_real_tensors_do_not_mix() -> None:
    with pytest.raises(ValueError, match="others are on meta; fill them in separate calls"):
        torch.ops.pyparam.fill_(*operands(torch.empty(3), torch.empty(3, device="meta")))
