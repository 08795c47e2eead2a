"""Checks of several ranks: training, averages, files, and models whose parts are made late."""

# ruff: noqa: PT018 - pytest does not see these

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import torch.distributed as dist
from distributed_nets import (
    Net,
    Ranks,
    bits,
    columns,
    filled,
    fsdp2,
    refused,
    same_as_whole,
    with_gradients,
)
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import pyparam


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
