"""Checks that run on several ranks. The program reads lines ``CASE FOLDER``, forks the ranks of each case, and
answers with a line of their exit statuses, once all have ended.

A case is a function of a Ranks. What fails is an exception, which the rank writes to ``FOLDER/RANK.log``. All are
forks of one process, which has imported what they need: of twenty-five processes that import it each by itself,
most of the time went there.
"""

# ruff: noqa: PT017, PT018 - pytest does not see these

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import pyparam
from pyparam._sources.part import part_of

SECONDS = 5  # how long a collective, or a rank, is waited for
FIGURES = (
    "min",
    "max",
    "mean",
    "std",
    "rms",
    "l1",
    "l2",
    "max_abs",
    "numel",
    "nbytes",
    "zeros",
    "subnormals",
)


class Ranks(NamedTuple):
    rank: int
    world: int
    folder: Path


class Net(nn.Module):
    """Sizes that no number of ranks divides, a norm, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.down = nn.Linear(7, 3)
        self.register_buffer("scale", torch.tensor([1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.norm(self.up(x))))


def filled(dtype: torch.dtype = torch.float32) -> Net:
    """Values of many binades, zeros of both signs, a subnormal."""
    torch.manual_seed(7)
    model = Net()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * torch.exp2(torch.randint_like(p, -15, 10)))
            if p.numel() > 4:
                p.view(-1)[1:4] = torch.tensor([0.0, -0.0, 1e-40])
    return model.to(dtype)


def with_gradients(model: nn.Module) -> nn.Module:
    """Each its own parameter's values: placed alike, and the same on any number of ranks."""
    for p in model.parameters():
        p.grad = p.detach().clone()
    return model


def fsdp2(model: nn.Module, mesh: DeviceMesh, **options: Any) -> nn.Module:
    for child in model.children():
        fully_shard(child, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def columns(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    def cut(_: str, module: nn.Module, mesh: DeviceMesh) -> None:
        for name, p in list(module.named_parameters(recurse=False)):
            place = [Shard(p.dim() - 1)]
            module.register_parameter(name, nn.Parameter(distribute_tensor(p.data, mesh, place)))

    return distribute_module(model, mesh, cut)


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def refused(run: Callable[[], Any], *words: str, kind: type[Exception] = Exception) -> None:
    try:
        run()
    except kind as error:
        for word in words:
            assert word in str(error), (word, str(error))
    else:
        raise AssertionError(f"no error with {words}")


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist())


def same_as_whole(sharded: nn.Module, plain: nn.Module) -> None:
    """Every verb gives what it gives of the model before it was distributed: the same bits."""
    got = pyparam.measure(sharded, histogram=True, quantiles=(0.0, 0.3, 1.0))
    wanted = pyparam.measure(plain, histogram=True, quantiles=(0.0, 0.3, 1.0))
    assert got.names == wanted.names and got.shape == wanted.shape and got.dtype == wanted.dtype
    for figure in FIGURES:
        assert bits(getattr(got, figure)) == bits(getattr(wanted, figure)), figure
        assert getattr(got.total, figure) == getattr(wanted.total, figure), f"total {figure}"
    assert torch.equal(got.quantiles, wanted.quantiles)
    for name in (None, *got.names):
        x, y = got.histogram(name), wanted.histogram(name)
        assert all(torch.equal(i, j) for i, j in zip(x, y, strict=True)), name
    for dtype in (torch.float16, torch.float8_e4m3fn):
        x, y = got.underflow(dtype), wanted.underflow(dtype)
        assert torch.equal(x.zero, y.zero) and torch.equal(x.overflow, y.overflow)
    assert dict(pyparam.fingerprint(sharded)) == dict(pyparam.fingerprint(plain))
    assert pyparam.fingerprint(sharded).diverged == []
    for p in (0.0, 1.0, 2.0, math.inf):
        norm = pyparam.total_norm(sharded, p)
        assert type(norm) is Tensor and bits(norm) == bits(pyparam.total_norm(plain, p)), p
    assert torch.allclose(pyparam.total_norm(sharded, 3.0), pyparam.total_norm(plain, 3.0))
    assert pyparam.compare(sharded, plain).equal and pyparam.compare(plain, sharded).equal
    assert pyparam.compare(sharded, sharded).equal

    whole = with_gradients(sharded)
    norm = pyparam.clip_grad_norm_(whole, 0.5)
    expected = pyparam.clip_grad_norm_(with_gradients(plain), 0.5)
    assert torch.equal(norm, expected)
    clipped = {n: p.grad for n, p in plain.named_parameters()}
    for name, p in sharded.named_parameters():
        gradient = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
        assert torch.equal(gradient, clipped[name]), name

    pyparam.init.initialize_(sharded, {"*": pyparam.init.normal_}, seed=3)
    pyparam.init.initialize_(plain, {"*": pyparam.init.normal_}, seed=3)
    assert dict(pyparam.fingerprint(sharded)) == dict(pyparam.fingerprint(plain))


def layouts_of_two(r: Ranks) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        same_as_whole(fsdp2(filled(dtype), mesh), filled(dtype))
        same_as_whole(columns(filled(dtype), mesh), filled(dtype))
    same_as_whole(distribute_module(filled(), mesh), filled())
    same_as_whole(parallelize_module(filled(), mesh, dict(PLAN)), filled())


def layouts_of_three(r: Ranks) -> None:
    mesh = init_device_mesh("cpu", (3,), mesh_dim_names=("one",))
    same_as_whole(fsdp2(filled(), mesh), filled())
    same_as_whole(columns(filled(torch.bfloat16), mesh), filled(torch.bfloat16))
    for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e5m2):
        whole = (torch.arange(33).view(3, 11) % 5 - 2).to(
            torch.complex64 if dtype.is_complex else torch.float32
        )
        whole = whole.to(dtype)
        for dim in (0, 1):
            state = {"w": distribute_tensor(whole, mesh, [Shard(dim)])} if dtype.itemsize > 1 else {}
            if not state:  # broadcast does not take every dtype
                part = list(whole.split(-(-whole.shape[dim] // 3), dim))
                local = part[r.rank] if r.rank < len(part) else whole.narrow(dim, 0, 0)
                stride = whole.stride()
                state["w"] = DTensor.from_local(
                    local, mesh, [Shard(dim)], run_check=False, shape=whole.shape, stride=stride
                )
            assert dict(pyparam.fingerprint(state)) == dict(pyparam.fingerprint({"w": whole})), (dtype, dim)
            got, wanted = pyparam.measure(state)["w"], pyparam.measure({"w": whole})["w"]
            assert got.to_dict() == wanted.to_dict(), (dtype, dim)


def layouts_of_four(r: Ranks) -> None:
    flat = init_device_mesh("cpu", (4,), mesh_dim_names=("all",))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    same_as_whole(fsdp2(filled(), flat), filled())  # down has three rows: the last part is empty
    same_as_whole(fsdp2(filled(torch.bfloat16), square), filled(torch.bfloat16))  # replicated over dp

    def over_tensor_parallel(model: nn.Module) -> nn.Module:
        parallelize_module(model, square["tp"], dict(PLAN))
        return fsdp2(model, square["dp"])

    torch.manual_seed(1)
    even = nn.Sequential()
    even.add_module("up", nn.Linear(8, 12))
    even.add_module("down", nn.Linear(12, 4))
    twice = over_tensor_parallel(copy.deepcopy(even))
    assert "StridedShard" in str(twice.up.weight.placements) or "_S(" in str(twice.up.weight.placements)
    same_as_whole(twice, even)

    two = filled()
    fully_shard(two.down, mesh=square["tp"])
    fully_shard(two.up, mesh=flat)
    fully_shard(two, mesh=flat)
    same_as_whole(two, filled())


def replicas(r: Ranks) -> None:
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = fsdp2(filled(), square)
    if r.rank == 3:
        model.norm.weight.to_local().detach().view(torch.int32)[0] ^= 1
    diverged = pyparam.fingerprint(model).diverged
    assert diverged == [("norm.weight", (3,))], diverged
    plain = filled()
    if r.rank == 2:
        with torch.no_grad():
            plain.down.bias[1] += 1
    diverged = pyparam.fingerprint(plain, group=dist.group.WORLD).diverged
    assert diverged == [("down.bias", (2,))], diverged
    assert pyparam.fingerprint(filled(), group=dist.group.WORLD).diverged == []
    saved_in_pieces(r, square)


def saved_in_pieces(r: Ranks, square: DeviceMesh) -> None:
    """What ``dcp.save`` of several ranks writes is the whole: uneven, replicated, of an optimizer, and as
    safetensors."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    line = init_device_mesh("cpu", (4,), mesh_dim_names=("one",))
    whole = filled().state_dict()
    for name, model in (
        ("uneven", fsdp2(filled(), line)),
        ("hybrid", fsdp2(filled(), square)),
        ("columns", columns(filled(), line)),
    ):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.25)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        now, of_optimizer = get_state_dict(model, optimizer)
        state = {"model": now, "optimizer": of_optimizer, "step": 17}
        dcp.save(state, checkpoint_id=str(r.folder / name))
        gathered = {key: t.full_tensor() if isinstance(t, DTensor) else t for key, t in now.items()}
        moment = of_optimizer["state"]["up.weight"]["exp_avg"].full_tensor()
        if r.rank == 0:
            opened = pyparam.open(r.folder / name)
            read = {key: opened[f"model.{key}"] for key in whole}
            assert all(torch.equal(read[key], gathered[key]) for key in whole), name
            assert torch.equal(opened["optimizer.state.up.weight.exp_avg"], moment)
            assert opened.extras["step"] == 17
            assert any(value == 0.25 for value in opened.extras.values())
            assert pyparam.compare(part_of(opened, "model"), gathered).equal
            pieces = sum(0 not in piece.sizes for piece in opened.pieces("model.up.weight"))
            assert pieces == {"uneven": 4, "hybrid": 2, "columns": 3}[name], pieces
            assert pyparam.measure(opened)["model.up.weight"].numel == 35
        dist.barrier()
    model = fsdp2(filled(), line)
    writer = dcp.HuggingFaceStorageWriter(str(r.folder / "hf"), save_distributed=True)
    dcp.save(model.state_dict(), storage_writer=writer)
    if r.rank == 0:
        assert pyparam.compare(r.folder / "hf", whole).equal
        assert pyparam.open(r.folder / "hf").format == "torch.distributed.checkpoint (safetensors)"
    dist.barrier()


def mistakes(r: Ranks) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    terms = DTensor.from_local(torch.ones(5, 3), mesh, [Partial()], run_check=False)
    for verb in (pyparam.measure, pyparam.total_norm, pyparam.fingerprint):
        refused(lambda verb=verb: verb({"w": terms}), "parameter 'w'", "redistribute()", kind=TypeError)
    wrong = DTensor.from_local(
        torch.ones(2, 3), mesh, [Shard(0)], run_check=False, shape=(9, 3), stride=(3, 1)
    )
    refused(lambda: pyparam.measure({"w": wrong}), "parameter 'w'", "[2, 3]", kind=ValueError)

    model = fsdp2(filled(), mesh)
    table = pyparam.walk(model)
    part = table.select("up.*" if r.rank == 0 else "*")
    refused(lambda: pyparam.measure(part), "measure: the ranks differ", "rank 0 has 2", kind=ValueError)
    refused(
        lambda: pyparam.measure(table.select("up.*" if r.rank == 0 else "norm.*")), "rank", kind=ValueError
    )
    verb = pyparam.measure if r.rank == 0 else pyparam.fingerprint
    refused(lambda: verb(model), "rank 0 calls measure", kind=ValueError)

    # What one rank finds is raised on all: here its part is of a kind that cannot be read.
    local = torch.ones(2, 3) if r.rank == 0 else torch.ones(2, 3).to_sparse()
    if r.rank == 1:
        odd = DTensor.from_local(torch.ones(2, 3), mesh, [Shard(0)], run_check=False)
        odd._local_tensor = local
    else:
        odd = DTensor.from_local(local, mesh, [Shard(0)], run_check=False)
    refused(lambda: pyparam.measure({"w": odd}), "parameter 'w'", "sparse", kind=TypeError)

    # Nor can others know that the part of one rank is of another shape than its placements say.
    fits = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])
    if r.rank == 1:
        fits._local_tensor = torch.ones(3, 3)
    for verb in (pyparam.measure, pyparam.fingerprint, pyparam.total_norm, lambda s: pyparam.compare(s, s)):
        refused(lambda verb=verb: verb({"w": fits}), "parameter 'w'", "[3, 3]", kind=ValueError)

    # A gradient that is no DTensor, not finite on one rank alone: that rank stays in step with the others.
    beside = nn.Module()
    beside.w = nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)]))
    beside.own = nn.Parameter(torch.ones(3))
    with_gradients(beside)
    if r.rank == 1:
        beside.own.grad[0] = math.nan
    assert math.isnan(pyparam.total_norm(beside, grad=True)) == (r.rank == 1)
    refused(lambda: pyparam.clip_grad_norm_(beside, 1.0, error_if_nonfinite=True), "'own'", kind=RuntimeError)
    assert torch.equal(beside.w.grad.full_tensor(), torch.ones(4, 3))

    # A rank that nobody joins says whom it waited for; what needs no communication answers.
    assert len(pyparam.measure(model, local=True)) == len(table)
    if r.rank == 1:
        pyparam.show(model, local=True, file=io.StringIO())
        refused(
            lambda: pyparam.total_norm(model),
            "total_norm: waited",
            "rank 0",
            "did not call",
            kind=RuntimeError,
        )
    else:
        time.sleep(SECONDS + 2)
        refused(lambda: pyparam.total_norm(model), "waited", "rank 0", kind=RuntimeError)
    # Both are in step again.
    assert pyparam.fingerprint(model) == pyparam.fingerprint(filled())

    flat = FullyShardedDataParallel(filled(), device_id=torch.device("cpu"), use_orig_params=True)
    for verb in (pyparam.measure, pyparam.total_norm, pyparam.fingerprint, pyparam.clip_grad_norm_):
        arguments = (1.0,) if verb is pyparam.clip_grad_norm_ else ()
        refused(lambda verb=verb, a=arguments: verb(flat, *a), "FullyShardedDataParallel", kind=TypeError)
    refused(lambda: pyparam.init.initialize_(flat, {"*": pyparam.init.normal_}, seed=1), "FullySharded")


def collectives(r: Ranks) -> None:
    """One minimum and one sum a group for all parameters; none where nothing is split."""
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    model = with_gradients(fsdp2(filled(), mesh))
    repeated = distribute_module(filled(), mesh)

    def count(run: Callable[[], Any]) -> int:
        with CommDebugMode() as counter:
            run()
        return counter.get_total_counts()

    assert count(lambda: pyparam.measure(model)) == 2
    assert count(lambda: pyparam.measure(model, histogram=True)) == 2
    assert count(lambda: pyparam.total_norm(model)) == 2
    assert count(lambda: pyparam.clip_grad_norm_(model, 1.0)) == 2
    assert count(lambda: pyparam.fingerprint(model)) == 1
    sent = []
    reduce = dist.all_reduce
    dist.all_reduce = lambda tensor, **options: (sent.append(tensor.nbytes), reduce(tensor, **options))[1]
    try:
        even = [f"p{i}" for i in range(20)]
        for place in (Shard(0), Replicate()):
            pyparam.fingerprint({n: distribute_tensor(torch.ones(4, 4), mesh, [place]) for n in even})
    finally:
        dist.all_reduce = reduce
    assert sent == [16 * len(even) + 8, 16 * len(even)], sent
    assert count(lambda: pyparam.compare(model, model)) == 2
    assert count(lambda: pyparam.measure(repeated)) == 0
    for run in (
        lambda: pyparam.show(model, file=io.StringIO()),
        lambda: list(pyparam.named_parameters(model)),
        lambda: pyparam.ties(model),
        lambda: pyparam.measure(model, local=True),
        lambda: pyparam.init.uninitialized(model),
        lambda: pyparam.init.initialize_(model, {"*": pyparam.init.normal_}, seed=1),
    ):
        assert count(run) == 0


def averages(model: nn.Module) -> None:
    """Each rank moves its own parts, and asks nobody."""
    plain, moved = filled(), filled()
    with torch.no_grad():
        for p in moved.parameters():
            p.mul_(2)
    with CommDebugMode() as counter:
        ours, theirs = pyparam.EMA(model, 0.75), pyparam.EMA(plain, 0.75)
        pyparam.copy_(model, moved)
        pyparam.copy_(plain, moved)
        ours.update()
        theirs.update()
        ours.swap()
        theirs.swap()
    assert counter.get_total_counts() == 0
    same_as_whole(model, plain)
    ours.swap()
    same_as_whole(model, moved)
    refused(
        lambda: pyparam.copy_(plain, model), "copy_: 'up.weight' is a DTensor in the source", kind=TypeError
    )
    pyparam.copy_(model, filled())


def training(r: Ranks) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    model = fsdp2(filled(), mesh)
    averages(model)
    with_gradients(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pyparam.Monitor(model, every=2).attach(optimizer) as monitor:
        with CommDebugMode() as counter:
            optimizer.step()
        assert counter.get_total_counts() <= 6
        with CommDebugMode() as counter:
            optimizer.step()
        assert counter.get_total_counts() == 0
    plain = pyparam.measure(filled())
    assert bits(monitor.history[0].weights.l2) == bits(plain.l2)
    assert bits(monitor.history[0].gradients.l2) == bits(plain.l2)

    # The last element of the last rank's part of up.weight.
    if r.rank == 1:
        model.up.weight.grad.to_local().view(-1)[-1] = math.nan
    found = pyparam.measure(model, grad=True).first_nonfinite
    assert found["up.weight"].index == (6, 4) and found["up.weight"].rank == 1, found
    with pyparam.Monitor(model).attach(optimizer):
        refused(optimizer.step, "'up.weight'", "[6, 4] on rank 1", kind=pyparam.NonFiniteError)
    refused(
        lambda: pyparam.clip_grad_norm_(model, 1.0, error_if_nonfinite=True), "'up.weight'", kind=RuntimeError
    )

    # Gradients that add up over two batches, reduced with the second, as of one process.
    def accumulated(model: nn.Module, **options: Any) -> list[pyparam.Record]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        with pyparam.Monitor(model, every=2, **options).attach(optimizer) as monitor:
            for step in range(3):
                for last in (False, True):
                    if isinstance(model, FSDPModule):
                        model.set_requires_gradient_sync(last)
                    ddp = isinstance(model, nn.parallel.DistributedDataParallel)
                    with model.no_sync() if ddp and not last else contextlib.nullcontext():
                        model(torch.full((2, 5), 1.0 + step + last)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return monitor.history

    wanted = accumulated(filled())
    world = dist.group.WORLD
    for given in (
        accumulated(fsdp2(filled(), mesh)),
        accumulated(nn.parallel.DistributedDataParallel(filled()), group=world, check="every"),
    ):
        for x, y in zip(given, wanted, strict=True):
            assert torch.allclose(x.gradients.l2, y.gradients.l2, rtol=1e-4), (x, y)
            assert torch.allclose(x.weights.l2, y.weights.l2, rtol=1e-5)

    # A gradient that is a term of a sum on each rank costs its row.
    terms = nn.Module()
    terms.w = nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh, [Replicate()]))
    terms.v = nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)]))
    with_gradients(terms)
    terms.w.grad = DTensor.from_local(torch.ones(4, 3), mesh, [Partial()], run_check=False)
    optimizer = torch.optim.SGD(terms.parameters(), lr=0.1)
    with pyparam.Monitor(terms).attach(optimizer) as monitor:
        optimizer.step()
    assert monitor.history[0].gradients.names == ["v"] and monitor.history[0].weights.names == ["w", "v"]
    assert "P(sum)" in monitor.history[0].left_out["the gradient of 'w'"], monitor.history[0].left_out

    replica = with_gradients(nn.parallel.DistributedDataParallel(filled()))
    if r.rank == 1:
        replica.module.down.bias.grad[0] = math.inf
    optimizer = torch.optim.SGD(replica.parameters(), lr=0.0)
    for check, every in (("measured", 1), ("every", 5)):
        with pyparam.Monitor(replica, every=every, check=check, group=dist.group.WORLD).attach(optimizer):
            refused(optimizer.step, "module.down.bias", "rank 1", kind=pyparam.NonFiniteError)


def files(r: Ranks) -> None:
    import torch.distributed.checkpoint as dcp

    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    path = r.folder / f"{r.rank}.safetensors"
    pyparam.save_file(filled(), path)
    for assign in (False, True):
        model = fsdp2(Net(), mesh)
        pyparam.load_file_(model, path, assign=assign)
        assert isinstance(model.up.weight, DTensor)
        assert dict(pyparam.fingerprint(model)) == dict(pyparam.fingerprint(filled()))
        model(torch.ones(2, 5)).sum().backward()
    # FSDP's hooks see the values: what is of another shape is refused all the same.
    wrong = {n: t.clone() for n, t in filled().state_dict().items()} | {"norm.weight": torch.ones(9)}
    torch.save(wrong, r.folder / f"{r.rank}.pt")
    refused(lambda: pyparam.load_(model, r.folder / f"{r.rank}.pt"), "'norm.weight' has shape [9]")
    assert dict(pyparam.fingerprint(model)) == dict(pyparam.fingerprint(filled()))
    refused(lambda: pyparam.save_file(model, r.folder / "sharded.safetensors"), "'up.weight'", kind=TypeError)
    assert not (r.folder / "sharded.safetensors").exists()

    # A checkpoint in pieces beside another cut of the model; two cuts of one model.
    dcp.save(model.state_dict(), checkpoint_id=str(r.folder / "pieces"))
    other = columns(filled(), mesh)
    assert pyparam.compare(other, r.folder / "pieces").equal
    read = fsdp2(
        Net(), mesh, shard_placement_fn=lambda p: Shard(p.dim() - 1) if p.shape[-1] % 2 == 0 else None
    )
    refused(lambda: pyparam.load_(read, filled(), rename=("up.weight", "off")), "the model lacks 'off'")
    pyparam.load_(read, r.folder / "pieces")
    assert dict(pyparam.fingerprint(read)) == dict(pyparam.fingerprint(filled()))
    refused(lambda: pyparam.load_(read, other), "is a DTensor", kind=TypeError)
    assert pyparam.compare(other, model).equal
    assert pyparam.compare(model, distribute_module(filled(), mesh)).equal
    with torch.no_grad():
        if r.rank == 1:
            other.up.weight.to_local()[4, 1] += 1.0
    found = pyparam.compare(other, r.folder / "pieces")
    assert found.changed() == ["up.weight"]
    assert found["up.weight"].first_index == (4, 4) and found["up.weight"].differing == 1

    # What one rank's element decides is decided on all.
    assert not pyparam.compare(other, r.folder / "pieces", atol=0.5).equal
    near = pyparam.compare(other, r.folder / "pieces", atol=1.5)
    assert near.equal and near.accepted == {"up.weight": "within atol 1.5 and rtol 0"}
    wide, half = {n: p.detach() for n, p in model.named_parameters()}, filled().bfloat16()
    narrow = {n: p.detach() for n, p in half.named_parameters()}
    cast = pyparam.compare(wide, narrow, cast=True)
    assert cast.equal and set(cast.accepted.values()) == {"a rounded to bfloat16"}, cast
    assert pyparam.compare({f"module.{n}": p for n, p in wide.items()}, wide, rename="module.").equal
    with torch.no_grad():
        if r.rank == 1:
            wide["up.weight"].to_local()[-1, 0] = 1.2345
    off = pyparam.compare(wide, narrow, cast=True)
    assert off.changed() == ["up.weight"] and "up.weight" not in off.recognised

    # What is stacked, fused, transposed or reshaped.
    torch.manual_seed(3)
    experts = {f"experts.{i}.up.weight": torch.randn(5, 4) for i in range(3)}
    stack = {"experts.up": torch.stack(list(experts.values()))}
    apart = {f"attn.{n}.weight": torch.randn(2, 6) for n in ("q_proj", "k_proj", "v_proj")}
    fused = {"attn.qkv.weight": torch.cat(list(apart.values()))}
    tensors = {"square": torch.randn(5, 5), "wide": torch.randn(3, 4), "flat": torch.randn(6, 2)}
    moved = {"square": tensors["square"].t(), "wide": tensors["wide"].t(), "flat": tensors["flat"].view(12)}
    a, b = {**experts, **apart, **tensors}, {**stack, **fused, **moved}
    placed = [
        {n: distribute_tensor(t.contiguous(), mesh, [Shard(dim % t.dim())]) for n, t in side.items()}
        for side, dim in ((a, 0), (b, 1))
    ]
    wanted = pyparam.compare(a, b)
    assert len(wanted.structure) == 2 and len(wanted.recognised) == 3, wanted
    for one, other_side in (placed, (a, placed[1]), (placed[0], b)):
        found = pyparam.compare(one, other_side)
        assert found.structure == wanted.structure and found.recognised == wanted.recognised, found

    # What cannot be read beside DTensors costs its row.
    odd = {**wide, "sparse": torch.eye(3).to_sparse(), "meta": torch.empty(2, device="meta")}
    beside = pyparam.compare(odd, odd)
    assert beside.changed() == [] and not beside.equal
    assert beside.unread == {"sparse": "it is sparse (sparse_coo)", "meta": "it is on the meta device"}


def stages(r: Ranks) -> None:
    whole = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    torch.manual_seed(2)
    for p in whole.parameters():
        nn.init.normal_(p)
    stage = nn.Sequential()
    stage.add_module(str(r.rank), whole[r.rank])
    stage.register_parameter("shared", nn.Parameter(torch.full((3,), 2.0)))
    whole.register_parameter("shared", nn.Parameter(torch.full((3,), 2.0)))
    got, wanted = pyparam.measure(stage, group=dist.group.WORLD), pyparam.measure(whole)
    assert sorted(got.names) == sorted(wanted.names)
    assert (
        math.isclose(got.total.l2, wanted.total.l2, rel_tol=1e-14) and got.total.numel == wanted.total.numel
    )
    assert all(got[name].l2 == wanted[name].l2 for name in wanted.names)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    # Sharded over the same ranks too: what several of them have counts once.
    stage.register_parameter("split", nn.Parameter(distribute_tensor(torch.ones(5, 2), mesh, [Shard(0)])))
    whole.register_parameter("split", nn.Parameter(torch.ones(5, 2)))
    for p in (0.0, 2.0, 3.0, math.inf):
        norm = pyparam.total_norm(stage, p, group=dist.group.WORLD)
        assert torch.allclose(norm, pyparam.total_norm(whole, p)), p


def meta(r: Ranks) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("one",))
    with torch.device("meta"):
        model = Net()
    fsdp2(model, mesh)
    rules = {"*": pyparam.init.normal_}
    refused(lambda: pyparam.init.initialize_(model, rules, seed=3), "up.weight", kind=ValueError)
    assert set(dict(model.named_parameters())) <= set(pyparam.init.uninitialized(model).certain)
    refused(
        lambda: pyparam.init.initialize_(
            model, rules, seed=3, device="cuda", buffers={"*": pyparam.init.ones_}
        ),
        "mesh of 'cpu'",
        kind=ValueError,
    )
    pyparam.init.initialize_(model, rules, seed=3, device="cpu", buffers={"*": pyparam.init.ones_})
    plain = Net()
    pyparam.init.initialize_(plain, rules, seed=3)
    for name, p in model.named_parameters():
        assert torch.equal(p.full_tensor(), dict(plain.named_parameters())[name]), name
    model(torch.ones(2, 5)).sum().backward()
    pyparam.init.to_empty(model, device="cpu")
    certain = pyparam.init.uninitialized(model).certain
    assert set(dict(model.named_parameters())) <= set(certain), certain


CASES = {
    layouts_of_two: 2,
    layouts_of_three: 3,
    layouts_of_four: 4,
    replicas: 4,
    mistakes: 2,
    collectives: 2,
    training: 2,
    files: 2,
    stages: 2,
    meta: 2,
}


LIMIT = 240  # seconds that a rank may take


def run(name: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "group"), world)
    if name == "training":
        # The store that torchrun gives, which reads many keys at once.
        if rank == 0:
            serving = dist.TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
            store.set("port", str(serving.port))
        port = int(store.get("port"))
        store = serving if rank == 0 else dist.TCPStore("127.0.0.1", port, world)
    dist.init_process_group(
        "gloo",
        store=store,
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=SECONDS if name == "mistakes" else 60),
    )
    case = next(case for case in CASES if case.__name__ == name)
    case(Ranks(rank, world, folder))
    dist.barrier()
    dist.destroy_process_group()


def forked(name: str, rank: int, world: int, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(LIMIT)
        log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run(name, rank, world, folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for line in sys.stdin:
        name, folder = line.split(" ", 1)
        world = next(world for case, world in CASES.items() if case.__name__ == name)
        ranks = [forked(name, rank, world, Path(folder.strip())) for rank in range(world)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
