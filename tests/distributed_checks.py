"""Checks that run on several ranks. The program reads lines ``CASE FOLDER``, forks the ranks of each case, and
answers with a line of their exit statuses, once all have ended.

A case is a function of a Ranks. What fails is an exception, which the rank writes to ``FOLDER/RANK.log``. All are
forks of one process, which has imported what they need: of twenty-five processes that import it each by itself,
most of the time went there.
"""

from __future__ import annotations

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
from typing import Any

import torch
import torch.distributed as dist
from distributed_nets import (
    PLAN,
    SECONDS,
    Ranks,
    columns,
    filled,
    fsdp2,
    refused,
    same_as_whole,
    with_gradients,
)
from distributed_training import files, meta, stages, training
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import parallelize_module

import pyparam
from pyparam._sources.part import part_of


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
