"""A table as the parts of it that lie on this rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pyparam._base.native import _C
from pyparam._parts.place import Cut, Place, dtensor_type, place_of, told_by_dim, whole_place
from pyparam._sources.table import ParamTable


class Share(NamedTuple):
    """Rows that the ranks of a process group hold between them: parts of them, or the same part."""

    group: Any
    rows: Tensor
    """int64, ascending."""


class Parts:
    """The local tensors of a table's entries, and where each lies in its whole.

    ``locals`` has the entries of ``table`` as this rank holds them: of a DTensor its local tensor, of any
    other tensor the tensor. ``kinds`` are the different places, ``kind_of`` (int64 ``[rows]``) which of them
    each entry has. ``splits`` are the groups whose sums make wholes of them, in an order that is the same on
    all ranks, ``repeats`` those whose ranks hold the same. ``mistake`` is what a Meeting about them raises,
    as the ranks that hold the other parts cannot know of it.
    """

    def __init__(
        self,
        table: ParamTable,
        locals: ParamTable,
        kinds: Sequence[Place],
        kind_of: Tensor,
        mistake: Exception | None = None,
    ) -> None:
        self.table = table
        self.mistake = mistake
        self.locals = locals
        self.kinds = kinds
        self.kind_of = kind_of
        self.splits = self._shares(lambda place: place.splits)
        self.repeats = self._shares(lambda place: place.repeats)

    def __len__(self) -> int:
        return len(self.kind_of)

    def place(self, row: int) -> Place:
        """Where an entry lies."""
        return self.kinds[int(self.kind_of[row])]

    def of_rows(self, values: Sequence[int]) -> Tensor:
        """What each kind has, as an int64 column of the rows."""
        return torch.tensor(values, dtype=torch.int64, device="cpu")[self.kind_of]

    def digest(self, share: Share) -> bytes:
        """A hash of what all ranks of the group must say alike: names, shapes, dtypes and placements of its
        rows."""
        names: Sequence[str] = self.table.names
        if len(share.rows) < len(names):
            names = [names[i] for i in share.rows.tolist()]
        # By its hash, a kind has the same number on every rank.
        texts = [hashlib.blake2b(place.text.encode(), digest_size=7).digest() for place in self.kinds]
        kinds = self.of_rows([int.from_bytes(text, "little") for text in texts])[share.rows]
        hashed = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16)
        hashed.update(kinds.numpy().tobytes())
        return hashed.digest()

    @property
    def cuts(self) -> list[Cut]:
        """How the whole of each kind is cut."""
        return [place.cut for place in self.kinds]

    def _shares(self, groups_of: Callable[[Place], tuple[Any, ...]]) -> list[Share]:
        kinds: dict[Any, list[int]] = {}
        for kind, place in enumerate(self.kinds):
            for group in groups_of(place):
                kinds.setdefault(group, []).append(kind)
        out = []
        for group, members in kinds.items():
            chosen = torch.zeros(len(self.kinds), dtype=torch.bool, device="cpu")
            chosen[members] = True
            out.append(Share(group, chosen[self.kind_of].nonzero().flatten()))
        return out


def has_parts(table: ParamTable) -> bool:
    """Whether some entry is a DTensor."""
    kind = dtensor_type()
    if kind is None:
        return False
    return any(isinstance(table._tensor(i), kind) for i in table._python_tensors())


def split(table: ParamTable) -> tuple[_C.ParamTable, Tensor, list[int]]:
    """The local tensors of a table, the kind of each row (int64 ``[rows]``), and the first row of each kind.
    Rows of one kind lie alike."""
    with torch.no_grad():
        return _C.local_parts(table._native, dtensor_type(), told_by_dim(), local_of)


def parts_of(verb: str, table: ParamTable, whose: str = "", *, tells: bool = False) -> Parts:
    """The parts of a table on this rank; ``whose`` follows a parameter's name in errors.

    Raises TypeError or ValueError that names the verb and the parameter for a DTensor without a block here,
    and for a part of another shape than its placements give it; the latter, with ``tells``, not before the
    Meeting that is about these parts, since other ranks' parts may be right.
    """
    kind = dtensor_type()
    mistake: Exception | None = None
    locals, kind_of, first = split(table)
    with torch.no_grad():
        places = []
        for row in first:
            tensor: Any = table._tensor(row)
            if kind is None or not isinstance(tensor, kind):
                places.append(whole_place(tensor))
                continue
            what = f"{verb}: parameter {table.names[row]!r}{whose}"
            place = place_of(tensor, what)
            local = locals.tensor(row)
            if local.shape != place.sizes and (local.numel() > 0 or 0 not in place.sizes):
                mistake = mistake or ValueError(
                    f"{what} is a DTensor whose part here has the shape "
                    f"{list(local.shape)}; by its placements {tensor.placements} it would have "
                    f"{list(place.sizes)}"
                )
            places.append(place)
    if mistake is not None and not tells:
        raise mistake
    return Parts(table, ParamTable.from_native(locals), places, kind_of, mistake)


def local_of(tensor: Any) -> Tensor:
    """The local tensor of a DTensor, once it is there. Under no_grad."""
    # What to_local() gives, without a view of it for each Parameter.
    local = getattr(tensor, "_local_tensor", None)
    if local is None:
        local = tensor.to_local()
    wait = getattr(local, "wait", None)
    out: Tensor = local if wait is None else wait()
    return out


def replaced(tensor: Any, placements: Sequence[Any]) -> Any:
    """A DTensor with other placements on its mesh; its ranks communicate. Under no_grad."""
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize > 1:
        return tensor.redistribute(tensor.device_mesh, placements)
    # Collectives do not take every dtype of eight bits.
    bits = as_part(local_of(tensor).view(torch.uint8), tensor)
    found = replaced(bits, placements)
    return as_part(local_of(found).view(tensor.dtype), found)


def replicated(tensor: Any) -> Any:
    """A DTensor of which each rank has all."""
    from torch.distributed.tensor import Replicate

    return replaced(tensor, [Replicate()] * tensor.device_mesh.ndim)


def as_part(local: Tensor, like: Any) -> Tensor:
    """A local tensor as the part of a DTensor that ``like``'s is; as it is where that is no DTensor."""
    kind = dtensor_type()
    if kind is None or not isinstance(like, kind):
        return local
    local = local.detach()
    out: Tensor
    if local.dtype != like.dtype:
        out = kind.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
    else:
        # The same of a tensor without a graph, once a parameter in a training step.
        out = kind(local, like._spec, requires_grad=False)
    return out


def local_table(verb: str, table: ParamTable) -> ParamTable:
    """The table with this rank's parts in place of DTensors."""
    return parts_of(verb, table).locals if has_parts(table) else table


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _flat(table: ParamTable) -> str | None:
    """The first name of what FullyShardedDataParallel flattened."""
    joined = "\n".join([*table.names, ""])
    if "_fsdp_wrapped_module." not in joined and "_flat_param\n" not in joined:
        return None
    return next(
        (name for name in table.names if "_fsdp_wrapped_module." in name or name.endswith("_flat_param")),
        None,
    )


def is_flat(table: ParamTable) -> bool:
    """Whether FullyShardedDataParallel flattened some entries, as their names tell."""
    return is_distributed() and _flat(table) is not None


def refuse_flat(verb: str, table: ParamTable) -> None:
    """Refuses, by name, the pieces of flattened parameters that FullyShardedDataParallel leaves in a model.

    They are plain tensors, and nothing in them tells that other ranks hold the rest. Names tell: those of
    whole parameters, as within ``summon_full_params``, are without the wrapper's.
    """
    name = _flat(table) if is_distributed() else None
    if name is not None:
        raise TypeError(
            f"{verb}: parameter {name!r} is FullyShardedDataParallel's, of which each rank holds an "
            "unmarked part: shard with fully_shard, or work within "
            "FullyShardedDataParallel.summon_full_params"
        )
