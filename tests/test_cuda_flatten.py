"""flatten, scatter_ and pack_ on a CUDA device: the bytes that the CPU gives."""

from __future__ import annotations

import pytest
import torch
from cuda_helpers import bits, captured, churn, fill_pools, launches, no_waiting, on_device
from dtypes import FLOATS
from reference_flatten import COMPLEX, DTYPES, filled, same, zoo
from torch import Tensor, nn

import pyparam

pytestmark = pytest.mark.cuda

ops = torch.ops.pyparam


def writable(dtype: torch.dtype) -> list[Tensor]:
    return [t for t in zoo(dtype) if 0 not in t.stride() or t.numel() == 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_layout_flattens(dtype: torch.dtype) -> None:
    tensors = zoo(dtype)
    got = ops.flatten(on_device(tensors))
    assert got.is_cuda
    assert torch.equal(bits(got), bits(ops.flatten(tensors)))


@pytest.mark.parametrize("to", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_conversions_are_those_of_the_cpu(source: torch.dtype, to: torch.dtype) -> None:
    tensors = [*zoo(source)[:4], filled((70_001,), source, 9)[3:], filled((0,), source)]
    assert same(ops.flatten(on_device(tensors), to).cpu(), ops.flatten(tensors, to))


@pytest.mark.parametrize("to", [*FLOATS, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_roundings_are_those_of_the_cpu(source: torch.dtype, to: torch.dtype) -> None:
    """Also of subnormals, ties, infinities and NaN. Every pattern of the 16-bit dtypes, many of the others."""
    if source.itemsize == 2:
        values = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(source)
    else:
        generator = torch.Generator().manual_seed(1)
        patterns = torch.randint(-(1 << 62), 1 << 62, (1 << 18,), generator=generator)
        values = torch.cat([patterns, patterns << 1]).view(source)
    assert same(ops.flatten([values.cuda()], to).cpu(), ops.flatten([values], to))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_layout_scatters(dtype: torch.dtype) -> None:
    theirs = writable(dtype)
    ours = on_device(theirs)
    vector = filled((sum(t.numel() for t in theirs) + 1,), dtype, 11)[1:]
    ops.scatter_(theirs, vector)
    ops.scatter_(ours, vector.cuda())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("skip", range(17))
def test_slices_that_begin_anywhere(skip: int) -> None:
    source = torch.randint(0, 256, (200_000,), dtype=torch.uint8)
    tensors = [source[:skip], source[skip:100_000], source[100_001:100_002], source[100_003:]]
    there = source.cuda()
    moved = [there[:skip], there[skip:100_000], there[100_001:100_002], there[100_003:]]
    out = torch.zeros(sum(t.numel() for t in tensors) + 40, dtype=torch.uint8, device="cuda")
    ops.flatten(moved, out=out[17:-23])
    assert torch.equal(out[17:-23].cpu(), torch.cat(tensors))
    assert not out[:17].any()
    assert not out[-23:].any()


def test_a_model_by_the_faces_and_back() -> None:
    model = nn.Sequential(nn.Linear(33, 7), nn.Conv2d(3, 5, 3), nn.LayerNorm(9)).cuda()
    reference = torch.cat([p.detach().view(-1) for p in model.parameters()])
    vector = pyparam.flatten(model)
    assert torch.equal(vector, reference)
    half = pyparam.flatten(model, dtype=torch.bfloat16)
    assert torch.equal(half, reference.bfloat16())
    pyparam.scatter_(model, vector * 2)
    assert torch.equal(pyparam.flatten(model), reference * 2)
    versions = [p._version for p in model.parameters()]
    pyparam.scatter_(model, vector)
    assert [p._version for p in model.parameters()] == [v + 1 for v in versions]


def test_packed_models_stay_on_their_device() -> None:
    model = nn.Sequential(nn.Linear(33, 7), nn.Linear(7, 2, bias=False)).cuda()
    model[1].weight = nn.Parameter(model[0].weight.detach()[:2, :7])  # shares memory
    before = [p.detach().clone() for p in model.parameters()]
    packed = pyparam.pack_(model)
    assert all(p.is_cuda for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    del packed


def test_autograd_goes_through() -> None:
    leaves = [
        torch.randn(5, 3, device="cuda", requires_grad=True),
        torch.randn(4, device="cuda", requires_grad=True),
    ]
    weights = torch.randn(19, device="cuda")
    (pyparam.parameters_to_vector(leaves) * weights).sum().backward()
    assert torch.equal(torch.cat([leaf.grad.view(-1) for leaf in leaves]), weights)


def test_tensors_that_share_memory_are_written_in_order() -> None:
    base = torch.zeros(50_000, device="cuda")
    ops.scatter_([base, base[:100], base[50:150]], torch.arange(50_200.0, device="cuda"))
    expected = torch.arange(50_000.0)
    expected[:100] = torch.arange(50_000.0, 50_100.0)
    expected[50:150] = torch.arange(50_100.0, 50_200.0)
    assert torch.equal(base.cpu(), expected)
    # A vector that lies in what is written is read first.
    ops.scatter_([base[1:]], base[:-1])
    assert torch.equal(base[1:].cpu(), expected[:-1])


def test_refusals_are_those_of_the_cpu() -> None:
    a, b = torch.zeros(3, device="cuda"), torch.zeros(3)
    with pytest.raises(
        TypeError, match=r"flatten: tensors\[0\] is on cuda:0 and tensors\[1\] on cpu; expected one device"
    ):
        ops.flatten([a, b])
    with pytest.raises(TypeError, match=r"tensors\[1\] is sparse \(layout torch.sparse_coo\)"):
        ops.flatten([a, a.to_sparse()])
    with pytest.raises(TypeError, match=r"flatten: out is on cpu; expected cuda:0, where the tensors are"):
        ops.flatten([a], out=b)
    out = torch.zeros(6, device="cuda")
    with pytest.raises(ValueError, match=r"flatten: out overlaps tensors\[0\] in memory"):
        ops.flatten([out[1:4], a], out=out)
    with pytest.raises(ValueError, match=r"scatter_: tensors\[1\] has elements that share memory"):
        ops.scatter_([a, a[:1].expand(4)], torch.ones(7, device="cuda"))
    with pytest.raises(ValueError, match=r"scatter_: the vector is too long: it has 7 values; expected 3"):
        ops.scatter_([a], torch.ones(7, device="cuda"))
    assert not a.any()
    freed = torch.zeros(100, device="cuda")
    freed.untyped_storage().resize_(0)
    with pytest.raises(
        ValueError, match=r"flatten: tensors\[1\] needs a storage of 400 bytes and has one of 0"
    ):
        ops.flatten([a, freed])


def test_lazy_conjugates_and_negatives() -> None:
    for dtype in COMPLEX:
        value = filled((6, 5), dtype)
        tensors = [value, value.conj(), value.conj().imag.T.contiguous().to(dtype)]
        assert same(
            ops.flatten([t.cuda() if not t.is_conj() else value.cuda().conj() for t in tensors]).cpu(),
            ops.flatten(tensors),
        )


def test_nothing_and_empty_tensors() -> None:
    assert ops.flatten([torch.zeros(0, 3, device="cuda"), torch.zeros(0, device="cuda")]).shape == (0,)
    ops.scatter_([torch.zeros(0, 3, device="cuda")], torch.zeros(0, device="cuda"))


def test_many_tensors_take_as_many_launches_as_few() -> None:
    def tiny(count: int) -> list[Tensor]:
        return [torch.full((k % 70,), float(k), device="cuda") for k in range(count)]

    few, many = tiny(50), tiny(20_000)
    assert torch.equal(ops.flatten(many), torch.cat(many))
    assert launches(lambda: ops.flatten(few)) == launches(lambda: ops.flatten(many)) == 1
    vector = ops.flatten(many)
    assert launches(lambda: ops.scatter_(many, vector)) == 1


def test_nobody_waits_for_the_device() -> None:
    tensors = [torch.zeros(1000, device="cuda"), torch.zeros(3, 5, device="cuda").t()]
    vector = ops.flatten(tensors)

    def work() -> Tensor:
        ops.scatter_(tensors, vector)
        return ops.flatten(tensors, torch.float16)

    fill_pools(work)
    with no_waiting():
        got = work()
    assert not got.any()


def test_the_current_stream_is_used() -> None:
    """Work put on a side stream before and after is in order with it, and the default stream is not held up."""
    tensors = [torch.zeros(100_000, device="cuda") for _ in range(3)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(1 << 28)
        for tensor in tensors:
            tensor.fill_(1)
        vector = ops.flatten(tensors)
        ops.scatter_(tensors, vector + 1)
        again = ops.flatten(tensors)
    assert torch.cuda.default_stream().query()
    side.synchronize()
    assert vector.eq(1).all()
    assert again.eq(2).all()


@pytest.mark.cuda(devices=2)
def test_tensors_of_another_device_than_the_current_one() -> None:
    tensors = on_device(zoo(), "cuda:1")
    assert torch.cuda.current_device() == 0
    got = ops.flatten(tensors)
    assert got.device == torch.device("cuda", 1)
    assert torch.equal(bits(got), bits(ops.flatten(zoo())))
    assert torch.cuda.current_device() == 0
    with pytest.raises(TypeError, match="is on cuda:1 and"):
        ops.flatten([tensors[1], torch.zeros(3, device="cuda:0")])


def test_a_captured_graph_reads_the_tensors_of_each_replay() -> None:
    model = nn.Sequential(*(nn.Linear(17, 17) for _ in range(100))).cuda()
    table = pyparam.walk(model)
    graph, vector = captured(lambda: pyparam.flatten(table))
    for value in (1.0, 2.0, 3.0):
        churn()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        graph.replay()
        assert vector.eq(value).all()
    graph, _ = captured(lambda: pyparam.scatter_(table, vector))
    churn()
    vector.fill_(7)
    graph.replay()
    assert all(parameter.eq(7).all() for parameter in model.parameters())


def test_opcheck() -> None:
    tensors = [torch.randn(3, 4, device="cuda").t(), torch.randn(5, device="cuda")]
    torch.library.opcheck(ops.flatten.default, (tensors, None))
    torch.library.opcheck(ops.flatten.default, (tensors, torch.float16))
    torch.library.opcheck(ops.scatter_.default, (tensors, torch.zeros(17, device="cuda")))


@pytest.mark.slow
def test_beyond_two_to_the_31() -> None:
    large = torch.zeros((1 << 31) + 5, dtype=torch.uint8, device="cuda")
    large[-3:] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    tail = torch.tensor([9, 8], dtype=torch.uint8, device="cuda")
    vector = ops.flatten([large, tail])
    assert vector[-6:].tolist() == [0, 1, 2, 3, 9, 8]
    assert int(vector.count_nonzero()) == 5
    transposed = large[: 1 << 31].view(2, 1 << 30).t()
    transposed[-1, -1] = 77
    assert ops.flatten([transposed])[-1].item() == 77
    vector[-7:] = 5
    ops.scatter_([large, tail], vector)
    assert large[-5:].tolist() == [5, 5, 5, 5, 5]
    assert tail.tolist() == [5, 5]
