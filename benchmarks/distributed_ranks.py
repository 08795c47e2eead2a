"""What one rank of a distributed benchmark does; ``bench_distributed.py`` starts them.

    python distributed_ranks.py norms RANK WORLD FOLDER     per-parameter norms and clipping against PyTorch's
    python distributed_ranks.py monitor RANK WORLD FOLDER   a watched training loop against an unwatched one
    python distributed_ranks.py pretended                   each verb on one of 1,024 ranks that are not there

Rank 0 prints one JSON object.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

import pyparam

LAYERS = 500  # two parameters each
WIDTH = 64
ROUNDS = 7
EVERY = 10
PRETENDED = 50_000


def met_seconds(run: Callable[[], Any]) -> float:
    """One call that all ranks begin together, on this rank."""
    dist.barrier()
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def alternately(runs: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(met_seconds(run))
    return {name: statistics.median(found) for name, found in times.items()}


def norms(world: int) -> dict[str, float]:
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    parameters: list[Any] = list(model.parameters())

    def looped() -> Tensor:
        return torch.stack([p.full_tensor().detach().norm() for p in parameters])

    def clipped() -> Any:
        # Above the norm: it scales nothing, so that each round finds the same gradients.
        found: Any = torch.nn.utils.clip_grad_norm_(parameters, 1e6)
        return found.full_tensor() if isinstance(found, DTensor) else found

    assert torch.allclose(pyparam.measure(model).l2.float(), looped(), rtol=1e-5)
    assert torch.allclose(pyparam.clip_grad_norm_(model, 1e6), clipped(), rtol=1e-5)
    one = torch.zeros(1)
    packed = torch.zeros(16 * len(parameters), dtype=torch.int64)
    return alternately(
        {
            "measure": lambda: pyparam.measure(model),
            "full_tensor": looped,
            "clip": lambda: pyparam.clip_grad_norm_(model, 1e6),
            "torch_clip": clipped,
            "latency": lambda: dist.all_reduce(one),
            "packed": lambda: dist.all_reduce(packed),
        }
    )


def monitor(world: int) -> dict[str, float]:
    mesh = init_device_mesh("cpu", (world,))

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        for block in model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model, torch.optim.AdamW(model.parameters(), 1e-4)

    inputs = torch.randn(8, 64, 256)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(EVERY):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    watched, peer = made(), made()
    watching = pyparam.Monitor(watched[0], every=EVERY).attach(watched[1])
    steps(*watched)
    steps(*peer)
    before = watching.seconds
    found = alternately({"watched": lambda: steps(*watched), "peer": lambda: steps(*peer)}, 5)
    assert len(watching.history) == 6
    for a, b in zip(watched[0].parameters(), peer[0].parameters(), strict=True):
        assert torch.equal(a.to_local(), b.to_local())  # type: ignore[attr-defined]
    return {**found, "own": (watching.seconds - before) / 5}


class _Sent(TorchDispatchMode):
    """Counts reductions and their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "allreduce" in str(func):
            self.calls += 1
            self.bytes += sum(t.nbytes for t in args[0])
        return func(*args, **(kwargs or {}))


def pretended() -> dict[str, Any]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=5, world_size=1024)
    mesh = init_device_mesh("cpu", (128, 8), mesh_dim_names=("dp", "tp"))["dp"]
    model = nn.Module()
    for i in range(PRETENDED):
        part = DTensor.from_local(
            torch.ones(1, 4), mesh, [Shard(0)], run_check=False, shape=torch.Size((128, 4)), stride=(4, 1)
        )
        model.register_parameter(f"p{i}", nn.Parameter(part))
    verbs: dict[str, Callable[[], Any]] = {
        "named_parameters": lambda: list(pyparam.named_parameters(model)),
        "show": lambda: pyparam.show(model, file=io.StringIO()),
        "ties": lambda: pyparam.ties(model),
        "measure(local=True)": lambda: pyparam.measure(model, local=True),
        "measure": lambda: pyparam.measure(model),
        "measure(histogram=True)": lambda: pyparam.measure(model, histogram=True),
        "total_norm": lambda: pyparam.total_norm(model),
        "fingerprint": lambda: pyparam.fingerprint(model),
        "compare": lambda: pyparam.compare(model, model),
        "init.uninitialized": lambda: pyparam.init.uninitialized(model),
        "init.initialize_": lambda: pyparam.init.initialize_(model, {"*": pyparam.init.normal_}, seed=1),
    }
    out: dict[str, Any] = {}
    for name, run in verbs.items():
        run()
        with _Sent() as sent:
            run()
        times = []
        for _ in range(3):
            # Of this process: a rank's host has a core for it, whatever else this machine does.
            begin = time.process_time()
            run()
            times.append(time.process_time() - begin)
        out[name] = {"seconds": min(times), "calls": sent.calls, "bytes": sent.bytes}
    return out


def main(job: str, rank: int = 0, world: int = 1, folder: str = "") -> None:
    torch.set_num_threads(1)
    if job == "pretended":
        found: Any = pretended()
    else:
        store = dist.FileStore(str(Path(folder) / "group"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        found = {"norms": norms, "monitor": monitor}[job](world)
        dist.barrier()
        dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:5])
