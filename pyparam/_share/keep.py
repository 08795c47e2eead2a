"""Keeping ties through what breaks them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from pyparam._share.optimizers import check_optimizer, follow
from pyparam._share.shared_memory import Worth
from pyparam._share.slots import Slots
from pyparam._share.tie import restore
from pyparam._share.ties import ties
from pyparam._sources.tied import Tie


@contextlib.contextmanager
def keep_ties(model: nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> Iterator[list[Tie]]:
    """Records a model's ties, buffers too, and restores them after the block.

    Gives the recorded ties. What the block gave to a name stays: of names that were tied, the one that was
    written in the block (loaded, assigned, changed in place) has the values, then one that was left as it
    was, and last one whose memory was made anew and not written (``to_empty``). Where the block raises, the
    ties are restored as far as the model allows and the block's error is what is seen.

    Args:
        model: the module to keep.
        optimizer: mended where given: it holds the model's parameters afterwards, those that were replaced
            in their groups and with their state.

    Raises:
        ValueError: two names that were tied were both given values, and those differ.
        AttributeError, TypeError, ValueError: as :func:`retie_`.

    Examples:
        >>> with pyparam.keep_ties(model):
        ...     model.to_empty(device="cuda")
    """
    check_optimizer("keep_ties", optimizer)
    recorded = ties(model, buffers=True)
    slots = Slots(model, "keep_ties")
    before = {name: _Seen.of(slots[name].get()) for tie in recorded for name in tie.names}
    trained = _trained(model, optimizer)
    made = _MadeEmpty()

    def worth(name: str, tensor: Tensor) -> Worth:
        return _worth(before[name], tensor, made)

    try:
        with made:
            yield recorded
    except BaseException:
        with contextlib.suppress(Exception):
            _restored(model, recorded, optimizer, worth, trained)
        raise
    _restored(model, recorded, optimizer, worth, trained)


def _restored(
    model: nn.Module,
    recorded: list[Tie],
    optimizer: Any,
    worth: Callable[[str, Tensor], Worth],
    trained: dict[str, Tensor],
) -> None:
    restore(model, recorded, None, worth)
    if trained:
        now = dict(model.named_parameters(remove_duplicate=False))
        renewed = {id(old): now[name] for name, old in trained.items() if now.get(name, old) is not old}
        follow(optimizer, renewed)


def _trained(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """The model's parameters that an optimizer holds; none without one."""
    if optimizer is None:
        return {}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {n: p for n, p in model.named_parameters(remove_duplicate=False) if id(p) in held}


class _Seen(NamedTuple):
    """A tensor as it was, without keeping it alive."""

    tensor: weakref.ref[Tensor]
    address: int
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Seen:
        return cls(weakref.ref(tensor), _address(tensor), _version(tensor))


def _address(tensor: Tensor) -> int:
    try:
        return 0 if is_lazy(tensor) else tensor.data_ptr()
    except RuntimeError:  # its values are not in one memory: sparse, wrappers, fake tensors
        return 0


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # made in inference mode
        return 0


def _worth(before: _Seen, tensor: Tensor, made: _MadeEmpty) -> Worth:
    if tensor.is_meta:
        return Worth.NONE
    if before.tensor() is tensor and before.address == _address(tensor):
        return Worth.WRITTEN if _version(tensor) > before.version else Worth.HELD
    if before.tensor() is tensor:
        # Moved or cast as it is, by module.to(); one that had no memory was not.
        moved = Worth.HELD if before.address and _version(tensor) <= before.version else Worth.WRITTEN
        return Worth.FRESH if made.unwritten(tensor) else moved
    return Worth.FRESH if made.unwritten(tensor) else Worth.WRITTEN


class _MadeEmpty(TorchFunctionMode):
    """Remembers the memory that torch.empty and its like gave while it is on."""

    _MAKERS = frozenset(
        {
            torch.empty,
            torch.empty_like,
            torch.empty_strided,
            torch.empty_permuted,
            Tensor.new_empty,
            Tensor.new_empty_strided,
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, StorageWeakRef] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self._MAKERS and isinstance(result, Tensor) and not result.is_meta:
            with contextlib.suppress(RuntimeError, NotImplementedError):
                reference = StorageWeakRef(result.untyped_storage())  # type: ignore[no-untyped-call]
                self._storages[reference.cdata] = reference
        return result

    def unwritten(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in such memory and nothing was written to it in place."""
        try:
            known = self._storages.get(tensor.untyped_storage()._cdata)
        except (RuntimeError, NotImplementedError):
            return False
        if known is None or known.expired():  # type: ignore[no-untyped-call]
            return False
        return _version(tensor) == 0
