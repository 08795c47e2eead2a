"""Names without a partner whose values the other side holds in another structure.

Experts in one stack against one tensor an expert, projections fused against apart, a LoRA adapter against the
weights it was merged into. Names and shapes say what to look at; values decide what is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyparam._base.words import plain
from pyparam._compare.alike import pieces
from pyparam._sources.stand_in import Untold, Values

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_PROJECTIONS = (
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
    ("query", "key", "value"),
    ("wq", "wk", "wv"),
    ("to_q", "to_k", "to_v"),
    ("q_lin", "k_lin", "v_lin"),
    ("k_proj", "v_proj"),
    ("to_k", "to_v"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
_LORA = re.compile(r"^(?P<base>.*)\.lora_A(\.(?P<adapter>[^.]+))?\.weight$")


class Restructured(NamedTuple):
    """Tensors of one side that hold what tensors of the other hold in another structure."""

    kind: str
    """ "stacked", "fused" or "merged"."""

    a: tuple[str, ...]
    """The names on the one side."""
    b: tuple[str, ...]
    """The names on the other side."""
    rel_l2: float
    """||difference|| over ||the larger structure||, 0 for the same values."""

    note: str
    """In words: what is stacked, fused or merged, and along which dimension."""

    @property
    def equal(self) -> bool:
        """Whether they hold the same values."""
        return self.rel_l2 == 0

    def text(self) -> str:
        """A line."""
        sides = []
        for names in (self.a, self.b):
            first = plain(names[0]) + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
            sides.append(first)
        how = "the same values" if self.equal else f"rel. L2 {self.rel_l2:.2g}"
        return f"{self.note}: {sides[0]} in a, {sides[1]} in b: {how}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self._asdict(), "a": list(self.a), "b": list(self.b), "equal": self.equal}


# rel. L2 of pairs; 0 where they are the same values, infinite where one cannot be told.
Distance: TypeAlias = Callable[[Iterator[Tensor], Iterator[Tensor]], float]


def restructured(
    missing: Sequence[str], unexpected: Sequence[str], a: Values, b: Values, distance: Distance | None = None
) -> list[Restructured]:
    """What is found among names that one side alone has. ``a`` and ``b`` hold the readable tensors, of which
    one after the other is asked for; ``distance`` is ``relative_distance`` unless given. What turns out to be
    none of them is left out."""
    while True:
        try:
            return _restructured(missing, unexpected, a, b, distance or relative_distance)
        except Untold:  # from now on it is in neither a nor b
            continue


def _restructured(
    missing: Sequence[str], unexpected: Sequence[str], a: Values, b: Values, distance: Distance
) -> list[Restructured]:
    own = [[n for n in names if n in table] for names, table in ((missing, a), (unexpected, b))]
    made: list[Restructured] = []
    for side in (0, 1):
        parts, wholes = (own[0], own[1]) if side == 0 else (own[1], own[0])
        table_parts, table_wholes = (a, b) if side == 0 else (b, a)

        def add(
            kind: str, names: Sequence[str], whole: str, rel: float, note: str, flipped: int = side
        ) -> None:
            apart, one = tuple(names), (whole,)
            in_a, in_b = (apart, one) if flipped == 0 else (one, apart)
            made.append(Restructured(kind, in_a, in_b, rel, note))

        for names, whole, rel, note in _stacked(parts, wholes, table_parts, table_wholes, distance):
            add("stacked", names, whole, rel, note)
        for names, whole, rel, note in _fused(parts, wholes, table_parts, table_wholes, distance):
            add("fused", names, whole, rel, note)
        for names, whole, rel, note in _merged(parts, table_parts, table_wholes):
            add("merged", names, whole, rel, note)
    return made


Found = tuple[Sequence[str], str, float, str]


def _stacked(
    parts: Sequence[str], wholes: Sequence[str], a: Values, b: Values, distance: Distance
) -> Iterator[Found]:
    """``experts.0.up.weight`` ... against one tensor with a dimension more."""
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for name in parts:
        for found in _NUMBER.finditer(name):
            key = name[: found.start()], name[found.end() :].removeprefix(".")
            groups.setdefault(key, {})[int(found[0])] = name
    for (before, after), members in groups.items():
        if len(members) < 2 or sorted(members) != list(range(len(members))):
            continue
        names = [members[i] for i in range(len(members))]
        shape = a.layout(names[0]).shape
        if any(a.layout(name).shape != shape for name in names):
            continue
        words = set(after.split(".")) - {"weight"}
        for whole in wholes:
            stack = b.layout(whole).shape
            fits = len(stack) == len(shape) + 1 and stack[0] == len(names)
            if not fits or not whole.startswith(before.rstrip(".").rpartition(".")[0]):
                continue
            plainly = whole in (f"{before}{after}", f"{before}{after.removesuffix('.weight')}") or (
                whole.startswith(before) and words <= set(re.split(r"[._]", whole))
            )
            for more in ("", ", transposed") if len(shape) == 2 else ("",):
                if stack[1:] != (shape[::-1] if more else shape):
                    continue
                views = ((a[name].t() if more else a[name]) for name in names)
                rel = distance(views, iter(b[whole]))
                if rel == 0 or (plainly and rel < 1):
                    yield names, whole, rel, f"{len(names):,} experts or blocks stacked into one{more}"
                    break


def _fused(
    parts: Sequence[str], wholes: Sequence[str], a: Values, b: Values, distance: Distance
) -> Iterator[Found]:
    """``q``, ``k`` and ``v`` against one tensor in their module that holds them one after the other."""
    known = set(parts)
    by_module: dict[str, list[str]] = {}
    for whole in wholes:
        module, _, last = whole.rpartition(".")
        by_module.setdefault(module.rpartition(".")[0], []).append(whole)
        if last.startswith("in_proj"):
            by_module.setdefault(module, []).append(whole)
    for name in parts:
        module, _, last = name.rpartition(".")
        above, _, own = module.rpartition(".")
        for words in _PROJECTIONS:
            if own != words[0]:
                continue
            names = [".".join(filter(None, (above, word, last))) for word in words]
            if not known.issuperset(names):
                continue
            found = _concatenated(
                names, [w for w in by_module.get(above, ()) if w.endswith(last)], a, b, distance
            )
            if found is not None:
                whole, rel, more = found
                yield names, whole, rel, f"{', '.join(words)} in one{more}"
                break


def _concatenated(
    names: list[str], wholes: list[str], a: Values, b: Values, distance: Distance
) -> tuple[str, float, str] | None:
    best: tuple[str, float, str] | None = None
    shapes = [tuple(a.layout(name).shape) for name in names]
    rest = shapes[0][1:]
    if not all(shapes) or any(shape[1:] != rest for shape in shapes):
        return None
    lengths = [shape[0] for shape in shapes]
    for whole in wholes:
        fused = tuple(b.layout(whole).shape)
        for more in ("", ", transposed") if len(fused) == 2 else ("",):
            if (fused[::-1] if more else fused) != (sum(lengths), *rest):
                continue
            tensor = b[whole].t() if more else b[whole]
            rel = distance((a[name] for name in names), iter(torch.split(tensor, lengths)))
            if rel < 1 and (best is None or rel < best[1]):
                best = whole, rel, more
    return best


def _merged(parts: Sequence[str], a: Values, b: Values) -> Iterator[Found]:
    """``x.lora_A``, ``x.lora_B`` and ``x.base_layer`` (or ``x``) against the ``x`` they were merged into, or
    that they were made for.

    The scale, which is no part of a state, is the one that leaves least.
    """
    known = set(parts)
    for name in parts:
        found = _LORA.match(name)
        if found is None:
            continue
        up = name.replace(".lora_A", ".lora_B")
        base = next(
            (n for n in (f"{found['base']}.base_layer.weight", f"{found['base']}.weight") if n in a), None
        )
        if up not in known or base is None:
            continue
        wanted = f"{found['base']}.weight"
        whole = next((n for n in (wanted, wanted.removeprefix("base_model.model.")) if n in b), None)
        if whole is None:
            continue
        first, second, shape = (tuple(a.layout(n).shape) for n in (name, up, base))
        if len(first) != 2 or len(second) != 2 or shape != tuple(b.layout(whole).shape):
            continue
        if (second[0], first[1]) != shape:
            continue
        low, high, old, new = (t.detach() for t in (a[name], a[up], a[base], b[whole]))
        product = high.double() @ low.double()
        change = new.double() - old.double()
        if not change.any():
            yield [base, name, up], whole, 0.0, "a LoRA adapter beside its weight, not merged"
            continue
        size = float(product.square().sum())
        scale = float((change * product).sum()) / size if size else 0.0
        near = round(scale, 4)
        if abs(near - scale) <= 1e-3 * abs(scale):
            scale = near
        left = float((change - scale * product).norm()) / max(float(new.double().norm()), 1e-300)
        if left < 0.01:
            rounding = torch.finfo(new.dtype).eps if new.dtype.is_floating_point else 0.0
            rel = 0.0 if left <= rounding else left
            yield [base, name, up], whole, rel, f"a LoRA adapter merged with scale {scale:g}"


def relative_distance(parts: Iterator[Tensor], wholes: Iterator[Tensor], *, patient: bool = False) -> float:
    """``Distance`` of values that are here. Unless ``patient``, none are read once it is infinite."""
    difference = norm = 0.0
    for x, y in zip(parts, wholes, strict=True):
        x, y = x.detach(), y.detach().to(x.device)
        if x.dtype == y.dtype and torch.equal(x, y):
            norm += float(x.double().square().sum()) if difference else 0.0
            continue
        for left, right in pieces(x, y):
            difference += float((left.double() - right.double()).square().sum())
            norm += float(left.double().square().sum())
        if difference > norm and not patient:
            return float("inf")
    if difference > norm:
        return float("inf")
    if difference == 0:
        return 0.0
    return float((difference / norm) ** 0.5) if norm else float("inf")
