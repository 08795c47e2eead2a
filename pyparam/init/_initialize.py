"""initialize_:

every parameter of a model, from one seed, in one native call; and the report of what it did.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyparam._base.closest import missing
from pyparam._base.modes import require_written
from pyparam._base.native import _C
from pyparam._base.words import plain, shape_text
from pyparam._base.wrappers import Names
from pyparam._parts.parts import has_parts, refuse_flat
from pyparam._sources import table_of
from pyparam.init._defaults import TorchDefaults
from pyparam.init._fill import seed_of, wanted
from pyparam.init._job import KEPT, Job, Sampler, fill, resolved
from pyparam.init._materialize import Materialized, materialized
from pyparam.init._owners import Owners
from pyparam.init._parts import is_part
from pyparam.init._rules import Rules, Subject, assign, pairs_of, shown
from pyparam.init._samplers import ROWS

_WORDS = ("error", "keep", "torch")


@dataclass(frozen=True)
class Filled:
    """One line of what :func:`initialize_` gives: a parameter, and what it was filled with.

    Attributes:
        name: its qualified name.
        shape, dtype: its own.
        sampler: the sampler's name, or "torch" or "keep".
        wanted_mean, wanted_std: of the distribution; None where the sampler is not a plain one.
        mean, std: of the values that were written (the population's, not unbiased); None where nobody summed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    sampler: str
    wanted_mean: float | None
    wanted_std: float | None
    mean: float | None
    std: float | None


class Initialized:
    """What :func:`initialize_` did: a sequence of :class:`Filled`, also by name; its repr is a table.

    ``mean`` and ``std`` (of the population, not unbiased) were summed while the values were written; of
    16-bit parameters, before the rounding. ``seed`` is the seed that was given, or drawn; ``unused`` lists
    the rules that matched nothing; ``rebuilt`` the buffers made anew. It holds no tensor of the model, and
    can be copied and pickled.
    """

    def __init__(
        self,
        lines: Callable[[], list[Filled]],
        count: int,
        seed: int,
        unused: list[Any],
        rebuilt: list[str],
    ) -> None:
        self._make: Callable[[], list[Filled]] | None = lines
        self._count = count
        self._made: list[Filled] = []
        self.seed = seed
        self.unused = unused
        self.rebuilt = rebuilt

    def __getstate__(self) -> dict[str, Any]:
        # A condition may be a function of a class or a closure, which no pickle takes: it is told as text.
        return {
            "_make": None,
            "_count": self._count,
            "_made": self._lines,
            "seed": self.seed,
            "unused": [
                condition if isinstance(condition, str) else told(condition) for condition in self.unused
            ],
            "rebuilt": self.rebuilt,
        }

    @property
    def _lines(self) -> list[Filled]:
        if self._make is not None:
            self._made, self._make = self._make(), None
        return self._made

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Filled]:
        return iter(self._lines)

    def __getitem__(self, key: int | str) -> Filled:
        if isinstance(key, str):
            names = [line.name for line in self._lines]
            row = Names({name: i for i, name in enumerate(names)}).find(key)
            if row is None:
                raise missing(key, names, "a report")
            return self._lines[row]
        return self._lines[key]

    def __repr__(self) -> str:
        shown_lines = self._lines[:40]
        rows: list[tuple[str, ...]] = [
            ("name", "shape", "sampler", "mean wanted", "got", "std wanted", "got")
        ]
        for line in shown_lines:
            numbers = (line.wanted_mean, line.mean, line.wanted_std, line.std)
            rows.append((plain(line.name), shape_text(line.shape), line.sampler, *map(_number, numbers)))
        widths = [max(len(row[column]) for row in rows) for column in range(7)]
        text = [
            "  ".join(
                c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        if self._count > len(shown_lines):
            text.append(f"… and {self._count - len(shown_lines):,} more")
        if self.unused:
            text.append(f"matched nothing: {', '.join(map(told, self.unused))}")
        return "\n".join(text)


def told(condition: Any) -> str:
    """A rule's condition in words."""
    if isinstance(condition, str):
        return repr(condition)
    if isinstance(condition, re.Pattern):
        return f"re.compile({condition.pattern!r})"
    if isinstance(condition, tuple):
        return f"({', '.join(map(told, condition))})"
    return condition.__name__ if isinstance(condition, type) else shown(condition)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def initialize_(
    model: Any,
    rules: Rules | None = None,
    *,
    seed: int | None = None,
    default: Sampler | str = "error",
    device: torch.device | str | None = None,
    buffers: Rules | None = None,
) -> Initialized:
    """Fills every parameter of a model: the same weights for one seed on any machine.

    The stream of a parameter is its qualified name, for tied parameters the first one. Its Python object,
    ``requires_grad`` and strides stay. Of a DTensor each rank fills its own part, in the same native call as
    all the rest and without communication: the whole is what the unsharded parameter would be.

    Args:
        model: a module, or any other source whose tensors can be written.
        rules: a mapping (or pairs) from a condition to a sampler; the first that matches a parameter wins,
            and one that matches nothing is told in the report. None: every parameter gets ``"torch"``.

            A condition is a glob on the qualified name (``*`` matches dots too), a compiled regular
            expression (searched for in it), a module class (the parameters its instances own directly; in
            TorchScript, of that very class), a pair ``(module class, glob on the attribute)``, or a predicate
            ``(name, parameter) -> bool``. Globs and expressions match the name also without the parts that
            wrappers (``torch.compile``, data parallelism, activation checkpointing) put into it, where no
            other parameter has the name that is left.

            A sampler is one of this module's, a ``functools.partial`` of one, any callable ``(tensor, *,
            seed, stream)`` that fills in place, ``"torch"`` (PyTorch's own default for the layer) or
            ``"keep"``.
        seed: an integer in [0, 2**64); left out, one is drawn from PyTorch's default generator and told in
            the report.
        default: the sampler of parameters that no rule matches; ``"error"`` raises instead and lists them.
        device: of a model with meta parameters, where to materialise them. Ties are kept, and so is each
            Parameter object, unless something in C++ or a weak reference holds it: then a new Parameter takes
            its place in every module. Of meta buffers the running statistics of norms are rebuilt.
        buffers: rules like the others, for the other meta buffers.

    Returns:
        An :class:`Initialized`: what each parameter was filled with. It has no mean and deviation of
        DTensors.

    Raises:
        TypeError: a wrong kind of rule, sampler or parameter, which is named.
        ValueError: parameters without a sampler, buffers that cannot be rebuilt, wrong arguments of a
            sampler. Nothing is written, and nothing materialised, unless every rule is good.
    """
    seed = seed_of(seed, what="initialize_")
    if isinstance(model, (str, os.PathLike)):
        raise TypeError("initialize_: expected a model to write to, got a path")
    table = table_of(model)
    refuse_flat("initialize_", table)
    require_written("initialize_", table)
    owners = Owners(model)
    subject = Subject(table, owners)
    samplers, picks, unused = _picked(rules, default, subject)
    job = resolved(samplers, picks, table)
    with materialized(model, table, subject, job, device, buffers) as made:
        moments = fill(job, made, seed)
    return _report(job, made, moments, seed, unused)


# ---- which sampler ----------------------------------------------------------------------------------------


def _picked(
    rules: Rules | None, default: Sampler | str, subject: Subject
) -> tuple[list[Sampler | str], list[int], list[Any]]:
    """The distinct samplers, the index among them of each parameter's, and the rules that matched nothing."""
    if rules is None:
        if default == "error":
            pairs: list[tuple[Any, Any]] = [("*", "torch")]
        else:
            pairs = []
            torch_first = TorchDefaults(subject.owners)
            chosen = [torch_first.sampler(n, t) for n, t in zip(subject.names, subject.tensors, strict=True)]
            return _with_defaults(chosen, default, subject)
    else:
        pairs = pairs_of(rules)
    samplers: list[Sampler | str] = [_checked(sampler, condition) for condition, sampler in pairs]
    picks = assign(pairs, subject)
    if -1 in picks:
        unmatched = [i for i, pick in enumerate(picks) if pick < 0]
        if default == "error":
            raise ValueError(
                f"initialize_: no rule matches {_listed([subject.names[i] for i in unmatched])}; "
                "add a rule, or say default="
            )
        samplers.append(_checked(default, "default"))
        for i in unmatched:
            picks[i] = len(samplers) - 1
    used = set(picks)
    unused = [condition for at, (condition, _) in enumerate(pairs) if at not in used]
    if "torch" in samplers:
        _expand_torch(samplers, picks, subject)
    return samplers, picks, unused


def _with_defaults(
    chosen: Sequence[Sampler | None], default: Sampler | str, subject: Subject
) -> tuple[list[Sampler | str], list[int], list[Any]]:
    """PyTorch's default where there is one, and the caller's where there is none."""
    samplers: list[Sampler | str] = [_checked(default, "default")]
    picks = []
    index: dict[Any, int] = {}
    for sampler in chosen:
        if sampler is None:
            picks.append(0)
            continue
        key = _key(sampler)
        if key not in index:
            index[key] = len(samplers)
            samplers.append(sampler)
        picks.append(index[key])
    if samplers[0] == "torch" and 0 in picks:
        _expand_torch(samplers, picks, subject)
    return samplers, picks, []


def _expand_torch(samplers: list[Sampler | str], picks: list[int], subject: Subject) -> None:
    """Puts PyTorch's own sampler in place of the word."""
    defaults = TorchDefaults(subject.owners)
    index: dict[Any, int] = {}
    unknown = []
    for i, pick in enumerate(picks):
        if samplers[pick] != "torch":
            continue
        sampler = defaults.sampler(subject.names[i], subject.tensors[i])
        if sampler is None:
            owner = subject.owners.of(subject.names[i])
            unknown.append(
                f"{subject.names[i]} (of {'no module' if owner is None else type(owner).__name__})"
            )
            continue
        key = _key(sampler)
        if key not in index:
            index[key] = len(samplers)
            samplers.append(sampler)
        picks[i] = index[key]
    if unknown:
        raise ValueError(
            f"initialize_: PyTorch has no default for {_listed(unknown)}; "
            "give rules for them, or say default="
        )


def _key(sampler: Sampler) -> Any:
    if isinstance(sampler, functools.partial):
        return (sampler.func, tuple((name, _told_apart(v)) for name, v in sorted(sampler.keywords.items())))
    return sampler


def _told_apart(value: Any) -> Any:
    """What differs where the value does: 0.0 from -0.0, and 1 from True."""
    return (type(value), value.hex()) if isinstance(value, float) else (type(value), value)


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) if "(" not in name else name for name in names[:20])
    return text if len(names) <= 20 else f"{text} and {len(names) - 20:,} more"


def _checked(sampler: Any, where: Any) -> Any:
    """The sampler, if it is of the right kind; TypeError or ValueError that shows the rule, if not."""
    if isinstance(sampler, str):
        if sampler not in _WORDS[1:]:
            raise ValueError(
                f"initialize_: rule {where!r}: a sampler is a callable, 'torch' or 'keep', got {sampler!r}"
            )
        return sampler
    if not callable(sampler):
        raise TypeError(
            f"initialize_: rule {where!r}: a sampler is a callable, 'torch' or 'keep', "
            f"got {type(sampler).__name__}"
        )
    function = sampler
    while isinstance(function, functools.partial):
        if function.args:
            raise TypeError(
                f"initialize_: rule {where!r}: {shown(sampler)} fixes the tensor; use keywords only"
            )
        function = function.func
    if getattr(function, "__module__", "") == "torch.nn.init":
        name = function.__name__
        raise TypeError(
            f"initialize_: rule {where!r}: torch.nn.init.{name} draws from the global generator; "
            f"use pyparam.init.{name}"
        )
    if function in ROWS:
        return sampler
    try:
        taken = inspect.signature(sampler).parameters
    except (TypeError, ValueError):
        return sampler
    keywords = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    missing = [word for word in ("seed", "stream") if word not in taken and not keywords]
    if missing:
        raise TypeError(
            f"initialize_: rule {where!r}: {shown(sampler)} takes no {' and no '.join(missing)}; "
            "a sampler is called as sampler(tensor, seed=..., stream=...)"
        )
    return sampler


def _report(job: Job, made: Materialized, moments: Tensor, seed: int, unused: list[Any]) -> Initialized:
    # No table: it would keep the model's tensors alive, and from being swapped, as long as the report.
    names, layouts = made.table.names, _C.layouts(made.table._native)
    class_of, rows, samplers = job.class_of, job.rows, job.samplers
    parts = (
        {i for i, tensor in enumerate(made.table.tensors) if is_part(tensor)} if has_parts(made.table) else ()
    )

    def lines() -> list[Filled]:
        got = moments.tolist()
        out = []
        for i, name in enumerate(names):
            row = rows[class_of[i]]
            mean = std = wanted_mean = wanted_std = None
            if row is not KEPT:
                wanted_mean, wanted_std = wanted(row)
                mean, std = (None, None) if i in parts else got[i]
            label, shape, dtype = samplers[class_of[i]], layouts.shape(i), layouts.dtype(i)
            out.append(Filled(name, shape, dtype, label, wanted_mean, wanted_std, mean, std))
        return out

    return Initialized(lines, len(names), seed, unused, made.rebuilt)
