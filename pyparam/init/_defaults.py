"""What PyTorch's own layers start from: the samplers of each class's ``reset_parameters``, as a table.

A subclass counts as its parent unless it has a ``reset_parameters`` of its own, which may do anything.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam.init._fill import ordinary
from pyparam.init._owners import Owners, kind_of, qualified
from pyparam.init._samplers import (
    constant_,
    kaiming_uniform_,
    normal_,
    ones_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)

Sampler = Callable[..., Any]
Default = Callable[[Any, str, Tensor], Sampler | None]


def _symmetric(bound: float) -> Sampler:
    return functools.partial(uniform_, a=-bound, b=bound)


def _inverse_root(count: int) -> float:
    return 1.0 / math.sqrt(count) if count > 0 else 0.0


_LINEAR_WEIGHT = functools.partial(kaiming_uniform_, a=math.sqrt(5))


def _linear(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    """Linear, the convolutions and their transposes: the bias's bound comes from the weight's fan-in."""
    if attribute == "weight":
        return _LINEAR_WEIGHT
    if attribute == "bias":
        return _symmetric(_inverse_root(math.prod(module.weight.shape[1:])))
    return None


def _bilinear(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    return _symmetric(_inverse_root(module.weight.shape[1])) if attribute in ("weight", "bias") else None


def _embedding_(tensor: Tensor, *, padding_idx: int, seed: int, stream: str) -> Tensor:
    normal_(tensor, seed=seed, stream=stream)
    with torch.no_grad():
        tensor[padding_idx].fill_(0)
    return tensor


def _embedding(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    if attribute != "weight":
        return None
    padding = getattr(module, "padding_idx", None)
    return normal_ if padding is None else functools.partial(_embedding_, padding_idx=padding)


def _norm(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    return {"weight": ones_, "bias": zeros_}.get(attribute)


def _recurrent(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    return (
        _symmetric(_inverse_root(module.hidden_size)) if attribute.startswith(("weight_", "bias_")) else None
    )


def _prelu(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    return (
        functools.partial(constant_, val=float(getattr(module, "init", 0.25)))
        if attribute == "weight"
        else None
    )


def _attention(module: Any, attribute: str, parameter: Tensor) -> Sampler | None:
    if attribute in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return xavier_uniform_
    if attribute == "in_proj_bias":
        return zeros_
    return xavier_normal_ if attribute in ("bias_k", "bias_v") else None


# class -> (what writes its defaults, the rule)
_TABLE: dict[type, tuple[str, Default]] = {
    nn.Linear: ("reset_parameters", _linear),
    nn.modules.conv._ConvNd: ("reset_parameters", _linear),
    nn.Bilinear: ("reset_parameters", _bilinear),
    nn.Embedding: ("reset_parameters", _embedding),
    nn.EmbeddingBag: ("reset_parameters", _embedding),
    nn.modules.batchnorm._NormBase: ("reset_parameters", _norm),
    nn.LayerNorm: ("reset_parameters", _norm),
    nn.GroupNorm: ("reset_parameters", _norm),
    nn.RMSNorm: ("reset_parameters", _norm),
    nn.RNNBase: ("reset_parameters", _recurrent),
    nn.RNNCellBase: ("reset_parameters", _recurrent),
    nn.PReLU: ("reset_parameters", _prelu),
    nn.MultiheadAttention: ("_reset_parameters", _attention),
}


def _script_names() -> dict[str, Default]:
    """Every concrete class by qualified name, for TorchScript, which forgets what a class inherits."""
    names: dict[str, Default] = {}
    for kind in vars(nn).values():
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            found = _of_class(kind)
            if found is not None:
                names[qualified(kind)] = found
    dynamic = nn.modules.linear.NonDynamicallyQuantizableLinear
    names[qualified(dynamic)] = _linear
    return names


_CLASSES: dict[Any, Default | None] = {}


def _of_class(kind: Any) -> Default | None:
    if kind not in _CLASSES:
        _CLASSES[kind] = _found(kind)
    return _CLASSES[kind]


def _found(kind: Any) -> Default | None:
    for ancestor in kind.__mro__:
        if ancestor in _TABLE:
            writer, default = _TABLE[ancestor]
            writers = [c for c in kind.__mro__ if writer in vars(c)]
            # A class of torch.nn's own may refine the writer; a user's may do anything with it.
            return default if writers[0].__module__.startswith("torch.nn.modules.") else None
    return None


_SCRIPT: dict[str, Default] = {}


def default_of(kind: Any) -> Default | None:
    """The default rule of a module class, or None where PyTorch has none that we know."""
    if isinstance(kind, type):
        return _of_class(kind)
    if not _SCRIPT:
        _SCRIPT.update(_script_names())
    return _SCRIPT.get(kind)


def _is(module: Any, module_class: type) -> bool:
    kind = kind_of(module)
    return kind == qualified(module_class) if isinstance(kind, str) else issubclass(kind, module_class)


class TorchDefaults:
    """The sampler PyTorch's constructors leave on each parameter of one model, or None where unknown."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._transformed: dict[str, bool] = {}

    def sampler(self, name: str, parameter: Tensor) -> Sampler | None:
        if is_lazy(parameter):
            ordinary(parameter, f"initialize_: parameter {name!r}")  # refuses it in words of ours
        path, _, attribute = name.rpartition(".")
        # nn.Transformer draws every matrix below it anew, whatever its layers did.
        if parameter.dim() > 1 and self._below_transformer(path):
            return xavier_uniform_
        owner = self._owners.module_at(path)
        if owner is None:
            return None
        if attribute == "bias" and path.endswith("out_proj"):
            above = self._owners.module_at(path.rpartition(".")[0])
            if above is not None and above is not owner and _is(above, nn.MultiheadAttention):
                return zeros_
        default = default_of(kind_of(owner))
        return None if default is None else default(owner, attribute, parameter)

    def _below_transformer(self, path: str) -> bool:
        seen = []
        answer = False
        while True:
            if path in self._transformed:
                answer = self._transformed[path]
                break
            seen.append(path)
            module = self._owners.module_at(path)
            if module is not None and _is(module, nn.Transformer):
                answer = True
                break
            if not path:
                break
            path = path.rpartition(".")[0]
        for below in seen:
            self._transformed[below] = answer
        return answer


def default_buffer(module: Any, attribute: str) -> Sampler | None:
    """What a fresh buffer of this module holds, where that is known:

    running statistics and their counters.
    """
    kind = kind_of(module)
    known = default_of(kind) is _norm and (
        isinstance(kind, str) or issubclass(kind, nn.modules.batchnorm._NormBase)
    )
    if not known:
        return None
    return {"running_mean": zeros_, "running_var": ones_, "num_batches_tracked": zeros_}.get(attribute)
