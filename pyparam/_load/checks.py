"""What has to hold before the first byte is written."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.closest import closest, hint
from pyparam._base.extent import require_extent, require_shape
from pyparam._base.rename import suggested
from pyparam._base.words import a_kind
from pyparam._share.shared_memory import conflict, is_held, same_values
from pyparam._share.ties import ties_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import Tie

# Those of which native code knows what copy_ does; a subclass may see to it itself.
PLAIN = (Tensor, nn.Parameter)


def check_readable(verb: str, source: Checkpoint) -> None:
    """Raises ValueError where it is known without reading that a tensor cannot be read."""
    faults = source.faults()
    if faults:
        more = f"; {len(faults):,} tensors cannot be read" if len(faults) > 1 else ""
        raise ValueError(f"{verb}: {next(iter(faults.values()))}{more}")


def check_names(
    verb: str,
    missing: list[str],
    unexpected: list[str],
    where: str,
    own: Collection[str],
    given: Collection[str],
) -> None:
    """Raises ValueError where there are any, with what may help; ``own`` and ``given`` are all the names of
    the model and of what is loaded."""
    for names, others, text in (
        (missing, unexpected, f"the {where} lacks"),
        (unexpected, missing, "the model lacks"),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            remedy = _remedy(own, given, where) or hint(closest(names[0], others))
            raise ValueError(f"{verb}: {text} {', '.join(map(repr, names[:5]))}{more}{remedy}")


def _remedy(own: Collection[str], given: Collection[str], where: str) -> str:
    """The end of a message that says under which names more would match; "" where no rule is seen."""
    found = suggested(own, given)
    if found is None:
        return ""
    text, wanted = found.text, set(own)
    most = min(len(wanted), len(given))
    many = f"all {most:,} match" if found.matched >= most else f"{found.matched:,} of {most:,} match"
    if found.side == 0:
        said = f"; {many} once {text!r} is removed from the model's names"
        plain = all(found.apply(name) == name.removeprefix(text) != name for name in own)
        return f"{said}: rename={('*', f'{text}*')!r} puts it before the {where}'s" if plain else said
    said = f"; {many} once {text!r} is removed from the {where}'s names"
    if found.is_infix:
        return f"{said}: rename=lambda name: name.replace({text!r}, '')"
    if all(name in wanted for name in map(found.apply, given)):
        return f"{said}: rename={text!r}"
    # What else there is has names of its own, such as an optimizer's state.
    return f"{said}: part={text.removesuffix('.')!r}"


def check_agreement(
    verb: str, own: Iterable[Tie], values: Mapping[str, Any], wanted: Mapping[str, Any], where: str
) -> None:
    """Names that the model ties cannot take different values."""
    for tie in own:
        for group in tie.classes("storage"):
            first, *others = [name for name in group if name in values and name in wanted] or [""]
            for name in others:
                a, b = values[first], values[name]
                if not isinstance(a, Tensor) or not isinstance(b, Tensor):
                    continue  # refused by name, or for a module's own code to say
                if a is b or (a.shape == b.shape and same_values(a, b.to(a.dtype))):
                    continue
                raise ValueError(
                    f"{verb}: the model ties {first!r} and {name!r}, and the {where} gives them other "
                    "values; untie_ one of them first"
                )
        if tie.kind == "overlap":
            _check_overlap(verb, tie, values, wanted, where)


def _check_overlap(
    verb: str, tie: Tie, values: Mapping[str, Any], wanted: Mapping[str, Any], where: str
) -> None:
    """Names that share some of their bytes under other layouts cannot take values that differ there."""
    given = [
        (name, layout, values[name])
        for name, layout in zip(tie.names, tie.layouts, strict=False)
        if layout is not None and _fills(values.get(name), wanted.get(name))
    ]
    lost = conflict([layout for _, layout, _ in given], [value for *_, value in given]) if given else None
    if lost is not None:
        name = given[lost][0]
        others = ", ".join(repr(other) for other, *_ in given if other != name)
        sharing = f" with {others}" if others else ""
        raise ValueError(
            f"{verb}: {name!r} shares memory in the model{sharing}, and the {where} gives other values where "
            "it does; untie_ it first"
        )


def _fills(value: Any, target: Any) -> bool:
    plain = type(value) in PLAIN and type(target) in PLAIN
    return plain and not is_lazy(target) and not value.is_meta and value.shape == target.shape


def check_left_out(verb: str, others: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raises TypeError for what is no tensor under the name of one."""
    for name, value in others.items():
        if isinstance(wanted.get(name), Tensor):
            raise _no_tensor(verb, name, value, where)


def _no_tensor(verb: str, name: str, value: Any, where: str) -> TypeError:
    return TypeError(f"{verb}: {name!r} is {a_kind(value)} in the {where}, expected a tensor")


def check_fits(
    verb: str,
    name: str,
    value: Any,
    target: Any,
    *,
    assign: bool,
    cast: bool,
    device: torch.device | None,
    where: str,
) -> None:
    """Whether a value can go into a tensor without loss."""
    if not isinstance(target, Tensor):
        return
    if not isinstance(value, Tensor):
        raise _no_tensor(verb, name, value, where)
    if is_lazy(target):
        return
    require_shape(f"{verb}: {name!r}", target)
    require_shape(f"{verb}: the value of {name!r}", value)
    if value.shape != target.shape:
        raise ValueError(
            f"{verb}: {name!r} has shape {list(value.shape)} in the {where}, expected {list(target.shape)}"
        )
    if not assign or device is not None:
        check_has_values(verb, name, value, where)
    require_extent(f"{verb}: the value of {name!r}", value)
    if assign:
        return
    require_extent(f"{verb}: {name!r}", target)
    if target.is_meta and device is None:
        raise ValueError(
            f"{verb}: {name!r} is on the meta device and can take no values; use assign=True, or device= to "
            "make memory for it"
        )
    if not cast and not keeps_values(value.dtype, target.dtype):
        raise lossy(verb, name, value.dtype, target.dtype, where)
    if type(target) in PLAIN and type(value) in PLAIN and not target.is_meta and not is_held(target, value):
        raise ValueError(
            f"{verb}: elements of {name!r} share places in the model (strides {list(target.stride())}), and "
            f"the {where} gives them other values"
        )


def check_conversions(
    verb: str, conversions: Iterable[tuple[str, torch.dtype, torch.dtype]], where: str
) -> None:
    """Raises ValueError for the first name whose values go from a dtype to one that does not hold them."""
    for name, of, to in conversions:
        if not keeps_values(of, to):
            raise lossy(verb, name, of, to, where)


def check_has_values(verb: str, name: str, value: Tensor, where: str) -> None:
    if value.is_meta:
        raise ValueError(f"{verb}: {name!r} is on the meta device in the {where} and has no values")


def check_extents(verb: str, name: str, value: Any, target: Any) -> None:
    """Whether the memory of a value and of its target is there, whatever becomes of the value on the way."""
    for what, tensor in (("the value of ", value), ("", target)):
        if isinstance(tensor, Tensor) and not is_lazy(tensor) and not tensor.is_meta:
            require_extent(f"{verb}: {what}{name!r}", tensor)


def lossy(verb: str, name: str, of: torch.dtype, to: torch.dtype, where: str) -> ValueError:
    """What to raise for it."""
    return ValueError(
        f"{verb}: {name!r} is {of} in the {where} and {to} in the model, which would lose values; "
        "use cast=True"
    )


@functools.cache
def keeps_values(of: torch.dtype, to: torch.dtype) -> bool:
    """Whether every value of one dtype is one of the other."""
    if of == to or of == torch.bool:
        return True
    if to == torch.bool or (of.is_complex and not to.is_complex):
        return False
    try:
        if of.is_floating_point or of.is_complex:
            if not (to.is_floating_point or to.is_complex):
                return False
            a, b = torch.finfo(of), torch.finfo(to)
            return b.eps <= a.eps and b.max >= a.max and b.smallest_normal <= a.smallest_normal
        low, high = torch.iinfo(of).min, torch.iinfo(of).max
        if to.is_floating_point or to.is_complex:
            exact = 2 / torch.finfo(to).eps
            return -low <= exact and high <= exact and high <= torch.finfo(to).max
        return torch.iinfo(to).min <= low and high <= torch.iinfo(to).max
    except (TypeError, NotImplementedError):
        return False


def check_memory(verb: str, values: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ValueError where a value lies in memory of the model that is not its own target."""
    pairs = [
        (name, wanted[name], value)
        for name, value in values.items()
        if isinstance(value, Tensor) and isinstance(wanted.get(name), Tensor)
    ]
    names = [f"t{i}" for i in range(len(pairs))] + [f"s{i}" for i in range(len(pairs))]
    tensors = [target for _, target, _ in pairs] + [value for _, _, value in pairs]
    for tie in ties_of(ParamTable(names, tensors)):
        for group in tie.classes("storage"):
            written = {name[1:] for name in group if name[0] == "t"}
            for name in group:
                if name[0] == "s" and any(n[0] == "t" for n in tie.names):
                    if name[1:] in written:
                        continue
                    raise ValueError(
                        f"{verb}: the value of {pairs[int(name[1:])][0]!r} lies in the model's own memory, "
                        "which is written; clone it first"
                    )
