"""total_norm and clip_grad_norm_, beside PyTorch's own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_measure import norm
from torch import Tensor, nn

import pyparam

ORDERS = [0, 0.5, 1, 1.5, 2, 3, 7, math.inf, -math.inf]


def zoo() -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(5, 7, generator=g),
        torch.empty(0),
        torch.randn(70_001, generator=g),
        torch.randn(33, generator=g, dtype=torch.float64),
        torch.randn(40, generator=g).bfloat16(),
        torch.randn(40, 30, generator=g).half().t()[::2],
        torch.randn(6, generator=g, dtype=torch.complex64).conj(),
        torch.tensor(3.0),
    ]


@pytest.mark.parametrize("p", ORDERS)
def test_every_order(p: float) -> None:
    assert pyparam.total_norm(zoo(), p).item() == pytest.approx(norm(zoo(), p), rel=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.5, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_pytorch(p: float, dtype: torch.dtype) -> None:
    tensors = [torch.randn(n, dtype=dtype) for n in (1, 17, 300)]
    ours = pyparam.total_norm(tensors, p)
    theirs = torch.nn.utils.get_total_norm(tensors, p)
    torch.testing.assert_close(ours, theirs)
    assert ours.shape == ()


@pytest.mark.parametrize("p", [1, 2, 3, math.inf, -math.inf])
def test_complex_numbers_go_by_magnitude(p: float) -> None:
    x = torch.randn(5000, dtype=torch.complex128)
    torch.testing.assert_close(pyparam.total_norm([x], p), torch.linalg.vector_norm(x, p))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.bfloat16], torch.float32),
        ([torch.float16, torch.float32], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
        ([torch.complex128], torch.float64),
        ([torch.int64], torch.float32),
        ([], torch.float32),
    ],
)
def test_dtype(dtypes: list[torch.dtype], expected: torch.dtype) -> None:
    assert pyparam.total_norm([torch.ones(2).to(d) for d in dtypes]).dtype is expected


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("where", [0, 20, 5000])
def test_nan_and_infinity(p: float, where: int) -> None:
    x = torch.ones(6000)
    x[where] = math.nan
    assert (pyparam.total_norm([x], p).item() == 6000) if p == 0 else pyparam.total_norm([x], p).isnan()
    x[where] = -math.inf
    expected = {0: 6000.0, -math.inf: 1.0}.get(p, math.inf)
    assert pyparam.total_norm([x, torch.ones(2)], p).item() == (expected + 2 if p == 0 else expected)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e160, 1e300])
def test_the_whole_range_of_float64(scale: float) -> None:
    x = torch.full((10_000,), scale, dtype=torch.float64)
    assert pyparam.total_norm([x]).item() == pytest.approx(100 * scale, rel=1e-9)
    assert pyparam.total_norm([x], 3).item() == pytest.approx(scale * 10_000 ** (1 / 3), rel=1e-9)
    mixed = [
        torch.ones(3, dtype=torch.float64),
        x,
        torch.zeros(2),
        torch.full((2,), 1e-250, dtype=torch.float64),
    ]
    assert pyparam.total_norm(mixed).item() == pytest.approx(max(100 * scale, 3**0.5), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), max_size=40), max_size=4), st.sampled_from(ORDERS[1:])
)
def test_any_values(values: list[list[float]], p: float) -> None:
    tensors = [torch.tensor(v, dtype=torch.float64) for v in values]
    expected = norm(tensors, p)
    got = pyparam.total_norm(tensors, p).item()
    assert got == expected or got == pytest.approx(expected, rel=1e-9, abs=1e-30)


def test_sources() -> None:
    net = nn.Linear(3, 2)
    expected = torch.nn.utils.get_total_norm(net.parameters())
    for source in (net, list(net.parameters()), dict(net.named_parameters()), net.named_parameters()):
        torch.testing.assert_close(pyparam.total_norm(source), expected)
    assert pyparam.total_norm(torch.tensor([3.0, 4.0])).item() == 5
    net(torch.ones(3)).sum().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    torch.testing.assert_close(pyparam.total_norm(net, grad=True), torch.nn.utils.get_total_norm(grads))
    assert not pyparam.total_norm(net).requires_grad


def test_of_nothing() -> None:
    assert pyparam.total_norm([]).item() == 0
    assert pyparam.total_norm([], -math.inf).item() == 0
    assert pyparam.total_norm([torch.empty(0)], math.inf).item() == 0
    assert pyparam.total_norm([torch.empty(0)], -math.inf).item() == math.inf


@pytest.mark.parametrize("p", [-1, -0.5, math.nan])
def test_other_orders_are_refused(p: float) -> None:
    with pytest.raises(
        ValueError, match="total_norm: the order of the norm must be 0, positive, inf or -inf"
    ):
        pyparam.total_norm([torch.ones(2)], p)
    if math.isnan(p):
        with pytest.raises(ValueError, match="clip_grad_norm_: the order of the norm must be"):
            pyparam.clip_grad_norm_([torch.ones(2, requires_grad=True)], 1.0, p)


@pytest.mark.parametrize("p", [-1, -0.5, -2.0, -math.inf])
def test_negative_orders_clip_as_pytorchs_do(p: float) -> None:
    grads = [torch.tensor([1.0, -4.0, 2.0]), None, torch.tensor([[0.5, 8.0]])]
    ours, theirs = (with_gradients([None if g is None else g.clone() for g in grads]) for _ in range(2))
    norm = pyparam.clip_grad_norm_(ours, 0.01, p)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, 0.01, p))
    assert norm > 0.01
    for a, b in zip(ours, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


# clip_grad_norm_


def with_gradients(grads: list[Tensor | None]) -> list[nn.Parameter]:
    out = []
    for grad in grads:
        parameter = nn.Parameter(torch.zeros(3) if grad is None else torch.zeros_like(grad))
        parameter.grad = grad
        out.append(parameter)
    return out


def gradients() -> list[Tensor | None]:
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(5, 7, generator=g),
        None,
        torch.randn(70_001, generator=g),
        torch.empty(0),
        torch.randn(40, 30, generator=g).t(),
        torch.randn(40, 30, generator=g)[:, ::2],
        torch.tensor(3.0),
    ]


@pytest.mark.parametrize("norm_type", [0, 0.5, 1, 2, 3, math.inf, "inf"])
@pytest.mark.parametrize("max_norm", [0.01, 1, 1e6])
@pytest.mark.parametrize("foreach", [None, False, True])
def test_clipping_as_pytorch(norm_type: float, max_norm: float, foreach: bool | None) -> None:
    ours, theirs = with_gradients(gradients()), with_gradients(gradients())
    empty = norm_type in (math.inf, "inf")
    if empty:  # PyTorch has no largest of nothing
        del ours[3], theirs[3]
    got = pyparam.clip_grad_norm_(ours, max_norm, norm_type, foreach=foreach)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type, foreach=foreach)
    # PyTorch adds up in float32.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_clipping_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.randn(5000, dtype=torch.float32 if not dtype.is_complex else dtype).to(dtype) * 10
    parameters = with_gradients([x.clone(), x[::2].clone()])
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    total = pyparam.clip_grad_norm_(parameters, 1.0)
    real = torch.linalg.vector_norm(torch.cat([b.to(torch.complex128).abs() for b in before]))
    assert total.item() == pytest.approx(real.item(), rel=1e-3)
    for p, b in zip(parameters, before, strict=True):
        wide = b.to(torch.complex128)
        expected = wide / (real + 1e-6)
        assert p.grad is not None
        torch.testing.assert_close(p.grad.to(torch.complex128), expected, rtol=1e-2, atol=1e-6)


def test_small_gradients_are_left_bit_for_bit() -> None:
    parameters = with_gradients([torch.full((3,), 0.1)])
    pyparam.clip_grad_norm_(parameters, 10.0)
    assert parameters[0].grad is not None
    assert torch.equal(parameters[0].grad, torch.full((3,), 0.1))


def test_kinds_of_input() -> None:
    for make in (
        lambda ps: ps[0],
        lambda ps: ps,
        lambda ps: iter(ps),
        lambda ps: (p for p in ps),
        lambda ps: {"w": ps[0]},
        lambda ps: nn.ParameterList(ps),
    ):
        parameters = with_gradients([torch.tensor([3.0, 4.0])])
        assert pyparam.clip_grad_norm_(make(parameters), 1.0).item() == 5.0
        torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.8]))


def test_a_model() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    net(torch.randn(8, 4)).square().sum().backward()
    pyparam.clip_grad_norm_(net, 0.1)
    assert pyparam.total_norm(net, grad=True).item() == pytest.approx(0.1, rel=1e-4)


def test_no_gradients() -> None:
    assert pyparam.clip_grad_norm_(nn.Linear(2, 2), 1.0).item() == 0.0
    assert pyparam.clip_grad_norm_([], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping"):
        pyparam.clip_grad_norm_((p for p in ()), 1.0)


def test_one_parameter_given_twice_is_counted_twice_and_scaled_once() -> None:
    ours = with_gradients([torch.randn(1000)])[0]
    assert ours.grad is not None
    before = ours.grad.clone()
    norm = pyparam.clip_grad_norm_([ours, ours], 1.0)
    torch.testing.assert_close(norm, torch.nn.utils.get_total_norm([before, before]))
    torch.testing.assert_close(ours.grad, before / (norm + 1e-6))


def test_versions_count_the_change() -> None:
    parameters = with_gradients([torch.full((3,), 9.0), torch.ones(6, 6)[:, ::2]])
    before = [p.grad._version for p in parameters if p.grad is not None]
    pyparam.clip_grad_norm_(parameters, 1.0)
    after = [p.grad._version for p in parameters if p.grad is not None]
    assert all(b > a for a, b in zip(before, after, strict=True))


def test_gradients_with_a_graph_of_their_own() -> None:
    w = torch.ones(3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        w.pow(3).sum().backward(create_graph=True)
    assert w.grad is not None
    assert w.grad.requires_grad
    assert pyparam.clip_grad_norm_([w], 1.0).item() == pytest.approx(math.sqrt(27))
    w.grad = None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_error_if_nonfinite_names_the_first(value: float) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2))
    net[0](torch.randn(4)).sum().backward()
    for parameter in net[2].parameters():
        parameter.grad = torch.full_like(parameter, value)
    before = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    with pytest.raises(
        RuntimeError,
        match=r"The total norm of order 2\.0 for gradients from `parameters` is non-finite, so it cannot be clipped: "
        r"the first gradient with a NaN or an infinity is that of parameter '2.weight'.*`error_if_nonfinite=False`",
    ):
        pyparam.clip_grad_norm_(net, 1.0, error_if_nonfinite=True)
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(parameter.grad.view(torch.int32), before[name].view(torch.int32))
    got = pyparam.clip_grad_norm_(net, 1.0)
    assert not math.isfinite(got.item())


def test_an_overflow_is_nobodys_fault() -> None:
    parameters = with_gradients([torch.full((3,), 3e38), torch.full((3,), 3e38)])
    with pytest.raises(RuntimeError, match="no gradient has a NaN or an infinity, but their norm overflows"):
        pyparam.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)


def test_refusals_change_nothing() -> None:
    good = torch.full((3,), 9.0)
    cases: list[tuple[Callable[[], Tensor], type[Exception], str]] = [
        (lambda: torch.eye(3).to_sparse(), TypeError, "parameter '1' is sparse"),
        (
            lambda: torch.ones(3).to(torch.float8_e5m2),
            TypeError,
            "parameter '1' has dtype .*expected float16",
        ),
        (lambda: torch.ones(1).expand(3), ValueError, "parameter '1' is expanded"),
    ]
    for make, error, words in cases:
        parameters = with_gradients([good.clone()])
        bad = make()
        other = (
            nn.Parameter(torch.zeros(bad.shape, dtype=bad.dtype))
            if not bad.is_sparse
            else nn.Parameter(torch.zeros(3, 3))
        )
        other.grad = bad
        with pytest.raises(error, match=words):
            pyparam.clip_grad_norm_([parameters[0], other], 1.0)
        assert parameters[0].grad is not None
        assert torch.equal(parameters[0].grad, good)


OPCHECK = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def test_opcheck() -> None:
    sample = [torch.randn(5), torch.empty(0), torch.randn(3, 4).t().double()]
    torch.library.opcheck(torch.ops.pyparam.total_norm.default, (sample, 2.0), test_utils=OPCHECK)
    torch.library.opcheck(torch.ops.pyparam.clip_grad_norm_.default, (sample, 0.1), test_utils=OPCHECK)


def test_compiles_in_one_graph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def f(grads: list[Tensor]) -> Tensor:
        total: Tensor = torch.ops.pyparam.clip_grad_norm_(grads, 1.0)
        return total + torch.ops.pyparam.total_norm(grads)

    grads = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert f(grads).item() == pytest.approx(6.0, rel=1e-5)
    torch.testing.assert_close(torch.cat(grads), torch.tensor([0.6, 0.8]))


def clip(grads: list[Tensor]) -> Tensor:
    return torch.ops.pyparam.clip_grad_norm_(grads, 1.0, 2.0, False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts() -> None:
    grads = [torch.tensor([3.0, 4.0])]
    assert torch.jit.script(clip)(grads).item() == 5.0
    torch.testing.assert_close(grads[0], torch.tensor([0.6, 0.8]))
