"""Each public verb once, on a small model, so that a test can run all of them under something.

A verb is a function of a ``World``, which is made beforehand, and answers with anything that ``told`` can
turn into plain data. It reads its answer to the end: what a ``Stats`` gives is part of the verb.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pyparam
from pyparam import init


class World:
    """A model with a tie, a buffer and gradients, its twin, a stepped optimizer, and their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = self._model(1)
        self.twin = self._model(2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.optimizer.step()
        self.state = {name: tensor.clone() for name, tensor in self.twin.state_dict().items()}
        self.vector = torch.linspace(-1, 1, sum(p.numel() for p in self.floats))
        self.kernel = torch.full((6, 3, 2), 0.5)
        self.fresh = nn.Parameter(torch.ones(6, 6))
        self.file = folder / "twin.safetensors"
        pyparam.save_file(self.twin, self.file)
        self.pickled = folder / "twin.pt"
        torch.save(self.twin.state_dict(), self.pickled)

    @staticmethod
    def _model(seed: int) -> nn.Module:
        random = torch.Generator().manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 2, dtype=torch.float64)
        )
        model[2].weight = model[0].weight
        for parameter in model.parameters():
            with torch.no_grad():
                parameter.normal_(generator=random)
            parameter.grad = torch.empty_like(parameter).normal_(generator=random)
        return model

    @property
    def floats(self) -> list[Tensor]:
        return [p for p in self.model.parameters() if p.dtype == torch.float32]


def told(value: Any) -> Any:
    """An answer as plain data: of a tensor its place, dtype, shape and bytes."""
    if isinstance(value, Tensor):
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return type(value).__name__, value.device.type, value.dtype, tuple(value.shape), bytes(bits.tolist())
    if isinstance(value, nn.Module):
        held = [tensor for tensor in (*value.parameters(), *value.buffers()) if tensor.is_inference()]
        return type(value).__name__, told(value.state_dict()), len(held)
    if isinstance(value, pyparam.Stats):
        return repr(value), [told(getattr(value, name)) for name in ("mean", "std", "l2", "numel", "zeros")]
    if isinstance(value, pyparam.ParamTable):
        return told(list(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return told(dict(vars(value)))
    if isinstance(value, Mapping):
        return {str(key): told(item) for key, item in value.items()}
    if isinstance(value, (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)):
        return repr(value)
    if isinstance(value, Iterable):
        return [told(item) for item in value]
    return repr(value)


def _measure(world: World) -> Any:
    stats = pyparam.measure(world.model, quantiles=[0.25, 0.5], histogram=True)
    return [
        stats,
        stats.sort("std"),
        stats + stats,
        stats.quantiles,
        stats.quantile(0.1),
        stats.histogram(),
        stats.underflow(torch.float16),
        stats.total.mean,
        repr(stats.by("role")),
    ]


def _compare(world: World) -> Any:
    found = pyparam.compare(world.model, world.twin, atol=0.1)
    return repr(found), found.l2, found.rel_l2, pyparam.compare(world.model, world.state).cosine


def _report(world: World) -> Any:
    made = pyparam.report(world.model, world.folder / "r.html", against=world.twin)
    return made.findings, len(made.path.read_bytes())


def _shown(world: World) -> Any:
    out = io.StringIO()
    pyparam.show(world.model, buffers=True, file=out)
    return out.getvalue()


def _drawn(sampler: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[World], Any]:
    def verb(world: World) -> Any:
        tensor = world.model[0].weight
        part = world.model[2].bias
        sampler(tensor, *arguments, **options)
        return tensor, part

    return verb


def _initialize(world: World) -> Any:
    rules = {"*.bias": init.zeros_, nn.Linear: init.kaiming_normal_, "*": init.ones_}
    return repr(init.initialize_(world.model, rules, seed=3)), world.model


def _initialize_default(world: World) -> Any:
    return repr(init.initialize_(world.model, seed=3)), world.model


def _load(world: World, source: Any, **options: Any) -> Any:
    return repr(pyparam.load_(world.model, source, **options)), world.model


def _average(world: World) -> Any:
    average = pyparam.EMA(world.model, 0.9)
    pyparam.load_(world.model, world.state)
    average.update()
    average.swap()
    return average.state_dict(), world.model


def _monitor(world: World) -> Any:
    monitor = pyparam.Monitor(world.model, every=1, histogram=True).attach(world.optimizer)
    world.optimizer.step()
    record = monitor.history[-1]
    return repr(record.weights), repr(record.gradients), record.update_norms, record.update_ratios


def _pack(world: World) -> Any:
    packed = pyparam.pack_(world.model, grads=True)
    return packed.flat, packed.flat_grad, bool(packed.intact()), world.model


def _keep(world: World) -> Any:
    with pyparam.keep_ties(world.model) as kept:
        world.model[2].weight = world.fresh
    return kept, world.model, world.model[0].weight is world.model[2].weight


def _saved(world: World) -> Any:
    path = world.folder / "made.safetensors"
    pyparam.save_file(world.model, path)
    saved = path.read_bytes()
    begin = 8 + int.from_bytes(saved[:8], "little")
    return json.loads(saved[8:begin]), saved[begin:]  # the order in the header is safetensors' own


def _indexed(world: World) -> Any:
    found = pyparam.index(world.model)
    return {name: found[name] for name in found}


def _walked(world: World) -> Any:
    model = world.model
    return list(model.named_parameters()), model.state_dict(), model.load_state_dict(world.state), model


def _installed(world: World) -> Any:
    with pyparam.installed():
        return _walked(world)


def _done(world: World, _: object) -> Any:
    return world.model, [p.grad for p in world.model.parameters()], world.optimizer.state_dict()["state"]


VERBS: dict[str, Callable[[World], Any]] = {
    "EMA": _average,
    "Monitor": _monitor,
    "buffers": lambda w: list(pyparam.buffers(w.model)),
    "clip_grad_norm_": lambda w: (pyparam.clip_grad_norm_(w.floats, 0.5), _done(w, None)),
    "clip_grad_norm_ inf": lambda w: (pyparam.clip_grad_norm_(w.floats, 0.5, torch.inf), _done(w, None)),
    "clip_grad_norm_ -1": lambda w: (pyparam.clip_grad_norm_(w.floats, 0.5, -1.0), _done(w, None)),
    "compare": _compare,
    "copy_": lambda w: _done(w, pyparam.copy_(w.model, w.twin)),
    "copy_ lerp": lambda w: _done(w, pyparam.copy_(w.model, w.twin, lerp=0.25)),
    "findings": lambda w: pyparam.findings(w.model),
    "departures": lambda w: pyparam.departures([]),
    "fingerprint": lambda w: (repr(pyparam.fingerprint(w.model)), str(pyparam.fingerprint(w.state))),
    "flatten": lambda w: pyparam.flatten(w.floats),
    "flatten dtype": lambda w: pyparam.flatten(w.model, dtype=torch.float64),
    "flatten_groups": lambda w: pyparam.flatten_groups(w.model),
    "get_buffer": lambda w: pyparam.get_buffer(w.model, "1.running_mean"),
    "get_parameter": lambda w: pyparam.get_parameter(w.model, "0.weight"),
    "get_submodule": lambda w: pyparam.get_submodule(w.model, "0"),
    "index": _indexed,
    "inspect": lambda w: (repr(pyparam.inspect(w.model)), pyparam.inspect(w.model)["0.weight"]),
    "install": _installed,
    "installed": _installed,
    "keep_ties": _keep,
    "load_": lambda w: _load(w, w.state),
    "load_ assign": lambda w: _load(w, w.state, assign=True),
    "load_ file": lambda w: _load(w, w.file),
    "load_ pickle": lambda w: _load(w, w.pickled),
    "load_file_": lambda w: (repr(pyparam.load_file_(w.model, w.file)), w.model),
    "load_file_ assign": lambda w: (repr(pyparam.load_file_(w.model, w.file, assign=True)), w.model),
    "measure": _measure,
    "measure grad": lambda w: pyparam.measure(w.model, grad=True),
    "measure file": lambda w: pyparam.measure(w.file, quantiles=[0.5]),
    "measure pickle": lambda w: pyparam.measure(w.pickled, quantiles=[0.5]),
    "modules": lambda w: [type(m).__name__ for m in pyparam.modules(w.model)],
    "named_buffers": lambda w: list(pyparam.named_buffers(w.model)),
    "named_modules": lambda w: [name for name, _ in pyparam.named_modules(w.model)],
    "named_parameters": lambda w: list(pyparam.named_parameters(w.model)),
    "open": lambda w: (list(pyparam.open(w.file).items()), list(pyparam.open(w.pickled).items())),
    "optimizer_state": lambda w: pyparam.optimizer_state(w.optimizer, w.model),
    "pack_": _pack,
    "parameters": lambda w: list(pyparam.parameters(w.model)),
    "parameters_to_vector": lambda w: pyparam.parameters_to_vector(w.floats),
    "plot": lambda w: len(pyparam.plot(w.model).axes),
    "plot hist": lambda w: len(pyparam.plot(w.model, "hist").axes),
    "plot norms": lambda w: len(pyparam.plot(w.model, "norms").axes),
    "plot spectrum": lambda w: len(pyparam.plot(w.model, "spectrum").axes),
    "plot tree": lambda w: len(pyparam.plot(w.model, "tree").axes),
    "report": _report,
    "requires_grad_": lambda w: list(pyparam.requires_grad_(w.model, "*.bias", False).names),
    "retie_": lambda w: _done(w, pyparam.retie_(w.model, pyparam.ties(w.twin))),
    "save_file": _saved,
    "scatter_": lambda w: _done(w, pyparam.scatter_(w.floats, w.vector)),
    "show": _shown,
    "spectrum": lambda w: pyparam.spectrum(w.model, 2).to_dict(),
    "state_dict": lambda w: pyparam.state_dict(w.model),
    "tie_": lambda w: (pyparam.tie_(w.model, "0.bias", "2.bias", optimizer=w.optimizer), _done(w, None)),
    "ties": lambda w: repr(pyparam.ties(w.model)),
    "total_norm": lambda w: [pyparam.total_norm(w.model, p) for p in (0, 1, 2, 3.5, torch.inf, -torch.inf)],
    "total_norm grad": lambda w: pyparam.total_norm(w.model, grad=True),
    "unflatten": lambda w: list(pyparam.unflatten(w.vector, w.floats)),
    "untie_": lambda w: (pyparam.untie_(w.model, "2.weight", optimizer=w.optimizer), _done(w, None)),
    "vector_to_parameters": lambda w: _done(w, pyparam.vector_to_parameters(w.vector, w.floats)),
    "walk": lambda w: (repr(pyparam.walk(w.model)), list(pyparam.walk(w.model, buffers=True))),
    "zero_grad": lambda w: _done(w, pyparam.zero_grad(w.model, set_to_none=False)),
    "init.constant_": _drawn(init.constant_, 0.25),
    "init.dirac_": lambda w: init.dirac_(w.kernel),
    "init.eye_": _drawn(init.eye_),
    "init.eye_ part": lambda w: init.eye_(w.model[0].bias, shape=(6, 6), offset=6),
    "init.initialize_": _initialize,
    "init.initialize_ default": _initialize_default,
    "init.kaiming_normal_": _drawn(init.kaiming_normal_, seed=1),
    "init.kaiming_uniform_": _drawn(init.kaiming_uniform_, seed=1),
    "init.normal_": _drawn(init.normal_, seed=1),
    "init.ones_": _drawn(init.ones_),
    "init.orthogonal_": _drawn(init.orthogonal_, seed=1),
    "init.sparse_": _drawn(init.sparse_, 0.5, seed=1),
    "init.to_empty": lambda w: list(init.to_empty(w.model, device="cpu").parameters()),
    "init.trunc_normal_": _drawn(init.trunc_normal_, seed=1),
    "init.uniform_": _drawn(init.uniform_, seed=1),
    "init.uninitialized": lambda w: repr(init.uninitialized(w.model)),
    "init.xavier_normal_": _drawn(init.xavier_normal_, seed=1),
    "init.xavier_uniform_": _drawn(init.xavier_uniform_, seed=1),
    "init.zeros_": _drawn(init.zeros_),
}

# What a drop-in stands for, where it raises what PyTorch's own raises.
TORCHS_OWN: dict[str, Callable[[World], Any]] = {
    "install": _walked,
    "installed": _walked,
    "state_dict": lambda w: w.model.state_dict(),
    "zero_grad": lambda w: _done(w, w.model.zero_grad(set_to_none=False)),
}
