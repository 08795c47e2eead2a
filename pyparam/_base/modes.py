"""PyTorch's modes that change what an operation gives, and what verbs do about them.

A default device or dtype needs nothing here: whatever the package makes names its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_Key = torch._C._TorchDispatchModeKey
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


def require_memory(verb: str) -> None:
    """Raises TypeError under FakeTensorMode and inside a transform of torch.func.

    For verbs that read or write memory: what they make on the way would have none there. It is asked first,
    before anything is written.
    """
    if torch._C._get_dispatch_mode(_Key.FAKE) is not None:
        raise TypeError(
            f"{verb}: under FakeTensorMode tensors have no values, and this reads or writes them; "
            "call it outside the mode"
        )
    require_untransformed(verb)


def require_untransformed(verb: str) -> None:
    """Raises TypeError inside a transform of torch.func."""
    innermost = torch._C._functorch.peek_interpreter_stack()
    if innermost is not None:
        raise TypeError(
            f"{verb}: inside torch.func's {innermost.key().name.lower()}, and this reads or writes memory, "
            "which is not transformed; call it outside the transformed function"
        )


def require_unbatched(verb: str, named: Iterable[tuple[str, Tensor]]) -> None:
    """Raises TypeError, naming the parameter, for one that torch.func's vmap or functionalize has wrapped.

    For operations over whole tensors, which have no rule for either.
    """
    if torch._C._functorch.peek_interpreter_stack() is None:
        return
    functorch: Any = torch._C._functorch
    for name, tensor in named:
        inner = tensor
        while functorch.is_functorch_wrapped_tensor(inner):
            for wrapped, transform in (
                (functorch.is_batchedtensor, "vmap"),
                (functorch.is_functionaltensor, "functionalize"),
            ):
                if wrapped(inner):
                    raise TypeError(
                        f"{verb}: parameter {name!r} is an argument of a function that torch.func's "
                        f"{transform} transforms, for which there is no rule; call it outside the function"
                    )
            inner = functorch.get_unwrapped(inner)


def mixed_error(tensor: object) -> str | None:
    """Why an operation cannot take a tensor under FakeTensorMode, as words after its name; None if it can.

    For verbs that are operations, which the mode traces. Where something else traces above the mode, that
    decides what is made of a tensor.
    """
    mode: Any = torch._C._get_dispatch_mode(_Key.FAKE)
    if mode is None or mode.allow_non_fake_inputs or type(tensor) not in _PLAIN:
        return None
    if any(torch._C._get_dispatch_mode(key) is not None for key in (_Key.FUNCTIONAL, _Key.PROXY)):
        return None
    return (
        "has values, and under FakeTensorMode an operation takes fake tensors alone; "
        "call it outside the mode, or make the model under it"
    )


def require_fake(verb: str, named: Iterable[tuple[str, Tensor]]) -> None:
    """Raises TypeError, naming the parameter, for one that ``mixed_error`` is about."""
    if torch._C._get_dispatch_mode(_Key.FAKE) is None:
        return
    for name, tensor in named:
        words = mixed_error(tensor)
        if words is not None:
            raise TypeError(f"{verb}: parameter {name!r} {words}")


def captured_error(tensor: object) -> str | None:
    """Why a transform of torch.func lets nobody write a tensor, as words after its name; None if it can be.

    Only vmap takes writes to tensors from outside the function; the others would lose or refuse them.
    """
    innermost = torch._C._functorch.peek_interpreter_stack()
    if innermost is None or not isinstance(tensor, Tensor):
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    for level in torch._C._functorch.get_interpreter_stack():
        if level.key() != torch._C._functorch.TransformType.Vmap:
            return (
                f"is from outside a function that torch.func's {level.key().name.lower()} transforms, which "
                "takes no writes to it; write it before or after"
            )
    return None


def require_written(verb: str, named: Iterable[tuple[str, Tensor]]) -> None:
    """Raises TypeError, naming the parameter, for one that cannot be written under the modes that are on."""
    if (
        torch._C._get_dispatch_mode(_Key.FAKE) is None
        and torch._C._functorch.peek_interpreter_stack() is None
    ):
        return
    for name, tensor in named:
        words = mixed_error(tensor) or captured_error(tensor)
        if words is not None:
            raise TypeError(f"{verb}: parameter {name!r} {words}")


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """What is made within may be trained later, also where inference mode is on; nothing is recorded."""
    with torch.inference_mode(False), torch.no_grad():
        yield
