"""Names under other names: rules for ``rename=``, and the rule that two lists of names suggest."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from pyparam._base.words import a_kind
from pyparam._base.wrappers import ANYWHERE

Renaming: TypeAlias = Callable[[str], str]
Rule: TypeAlias = (
    "str | tuple[str | re.Pattern[str], str] | Renaming | Mapping[str, str] | Iterable[Rule] | None"
)

# Of these alone it is plain anywhere in a name that nobody else chose them.
_INFIXES = tuple(f"{word}." for word in ANYWHERE)
_TRIED = 12


def renaming(rule: Rule, *, verb: str) -> Renaming:
    """The function from names to names that a rule stands for.

    Args:
        rule: one of

            - None: names stay.
            - a prefix, which is removed where a name begins with it: ``"module."``.
            - a pair ``(pattern, replacement)``. A glob must match the whole name, and each ``*`` of the
              replacement stands for what the ``*`` in its place took: ``("model.*", "*")``,
              ``("*.gamma", "*.weight")``. A compiled regular expression is replaced wherever it matches, as
              by ``re.sub``.
            - a mapping of globs to replacements, of which the first that matches a name is used; names
              without ``*`` are globs too, that match themselves.
            - a function that gives a name for a name.
            - a list of these, applied one after the other.
        verb: who asks, for messages.

    Raises:
        TypeError: for any other rule.
        ValueError: for a replacement with more ``*`` than its glob, or groups that its expression lacks.
    """
    if rule is None:
        return _same
    if isinstance(rule, str):
        prefix = rule
        return lambda name: name.removeprefix(prefix)
    if isinstance(rule, tuple) and len(rule) == 2 and isinstance(rule[1], str):
        return _replacing(rule[0], rule[1], verb)
    if isinstance(rule, Mapping):
        return _first_of([_glob(glob, replacement, verb) for glob, replacement in rule.items()])
    if callable(rule):
        return _checked(rule, verb)
    if _is_no_list(rule):
        raise TypeError(
            f"{verb}: rename takes a prefix to remove, a pair (pattern, replacement), a mapping of globs to "
            f"replacements, a function from name to name or a list of these, not {_described(rule)}"
        )
    steps = [renaming(step, verb=verb) for step in rule]

    def every(name: str) -> str:
        for step in steps:
            name = step(name)
        return name

    return every


def renamed(names: Sequence[str], rule: Rule, *, verb: str) -> list[str]:
    """The names under a rule, in their order.

    Raises what ``renaming`` raises, and ValueError where two different names become one.
    """
    if rule is None:
        return list(names)
    new = renaming(rule, verb=verb)
    found: dict[str, str] = {}
    out = []
    for name in names:
        made = new(name)
        first = found.setdefault(made, name)
        if first != name:
            raise ValueError(f"{verb}: rename gives {first!r} and {name!r} one name, {made!r}")
        out.append(made)
    return out


def parse_rule(text: str) -> Rule:
    """A rule as a command line writes it.

    ``module.`` is a prefix to remove, ``GLOB=REPLACEMENT`` and ``/EXPRESSION/=REPLACEMENT`` are pairs.

    Raises ValueError for an empty rule or an expression that does not compile.
    """
    pattern, equals, replacement = text.rpartition("=") if not text.startswith("/") else _expression(text)
    if not equals:
        pattern = text
    if not pattern:
        raise ValueError(
            f"{text!r} is no rule: expected PREFIX, GLOB=REPLACEMENT or /EXPRESSION/=REPLACEMENT"
        )
    if not equals:
        return text
    if not text.startswith("/"):
        return pattern, replacement
    try:
        return re.compile(pattern), replacement
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _expression(text: str) -> tuple[str, str, str]:
    pattern, slash, replacement = text[1:].rpartition("/=")
    if not slash:
        raise ValueError(f"{text!r} is no rule: an expression is written /EXPRESSION/=REPLACEMENT")
    return pattern, slash, replacement


def _same(name: str) -> str:
    return name


def _is_no_list(rule: object) -> bool:
    return isinstance(rule, (re.Pattern, bytes)) or not isinstance(rule, Iterable)


def _described(rule: object) -> str:
    if isinstance(rule, re.Pattern):
        return "a regular expression without a replacement"
    return a_kind(rule)


def _checked(function: Callable[[str], object], verb: str) -> Renaming:
    def new(name: str) -> str:
        made = function(name)
        if not isinstance(made, str):
            raise TypeError(f"{verb}: rename gave {a_kind(made)} for {name!r}; expected a name")
        return made

    return new


def _replacing(pattern: object, replacement: str, verb: str) -> Renaming:
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        expression = pattern
        _check_groups(expression, replacement, verb)
        return lambda name: expression.sub(replacement, name)
    if not isinstance(pattern, str):
        raise TypeError(
            f"{verb}: a rule's pattern is a glob or a compiled regular expression over str, not "
            f"{a_kind(pattern)}"
        )
    return _first_of([_glob(pattern, replacement, verb)])


def _check_groups(pattern: re.Pattern[str], replacement: str, verb: str) -> None:
    try:
        # An alternative that always matches: the replacement is parsed, whatever the pattern is.
        re.compile(f"(?:{pattern.pattern})|", pattern.flags).sub(replacement, "")
    except (re.error, IndexError) as error:
        raise ValueError(
            f"{verb}: the replacement {replacement!r} does not fit {pattern.pattern!r}: {error}"
        ) from None


def _first_of(rules: list[Callable[[str], str | None]]) -> Renaming:
    def new(name: str) -> str:
        for rule in rules:
            made = rule(name)
            if made is not None:
                return made
        return name

    return new


def _glob(glob: object, replacement: object, verb: str) -> Callable[[str], str | None]:
    if not isinstance(glob, str) or not isinstance(replacement, str):
        raise TypeError(
            f"{verb}: a rule of globs maps text to text, got {type(glob).__name__} to "
            f"{type(replacement).__name__}"
        )
    pieces = glob.split("*")
    expression = re.compile("(.*)".join(_without_ends(piece) for piece in pieces), re.DOTALL)
    wanted = replacement.split("*")
    if len(wanted) > len(pieces):
        raise ValueError(f"{verb}: the replacement {replacement!r} has more '*' than its pattern {glob!r}")

    def new(name: str) -> str | None:
        found = expression.fullmatch(name)
        if found is None:
            return None
        parts = [wanted[0]]
        for i, piece in enumerate(wanted[1:], start=1):
            parts += [found[i], piece]
        return "".join(parts)

    return new


def _without_ends(piece: str) -> str:
    """A glob without ``*`` as a part of an expression: ``?`` and sets as fnmatch has them."""
    start, end = fnmatch.translate("x").split("x")
    return fnmatch.translate(piece)[len(start) : -len(end)]


# --- what two lists of names suggest --------------------------------------------------------------------


class Suggestion(NamedTuple):
    """A rule under which more names of two lists are the same."""

    matched: int
    """How many are the same then."""

    text: str
    """What is removed from names: a prefix, or a wrapper's part of them anywhere."""

    side: int
    """Of which list: 0 or 1."""

    @property
    def rule(self) -> Rule:
        """The same, as ``rename=`` takes it."""
        return (re.compile(rf"(?:^|(?<=\.)){re.escape(self.text)}"), "") if self.is_infix else self.text

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"matched": self.matched, "remove": self.text, "from": "ab"[self.side]}

    @property
    def is_infix(self) -> bool:
        """Whether it is removed wherever it stands, and not from the front alone."""
        return self.text in _INFIXES

    def apply(self, name: str) -> str:
        """The name without it."""
        if self.is_infix:
            return without_infix(name, self.text)
        return name.removeprefix(self.text)


def without_infix(name: str, infix: str) -> str:
    """A name without a wrapper's part, wherever it stands as a part of its own."""
    name = name.replace(f".{infix}", ".")
    return name.removeprefix(infix)


def suggested(first: Collection[str], second: Collection[str]) -> Suggestion | None:
    """What to remove from the names of one list so that most are in the other; None where nothing helps.

    Tried are wrappers' parts of names and whatever stands before names that otherwise end alike. It is
    suggested where it makes more names match than did, and at least half of what could.
    """
    lists = (first, second)
    sets = (set(first), set(second))
    have = len(sets[0] & sets[1])
    most = min(map(len, sets))
    best: Suggestion | None = None
    for side in (1, 0):
        names, others = sets[side], sets[1 - side]
        missing = [name for name in lists[1 - side] if name not in names]
        for text in _candidates(lists[side], missing, others):
            found = Suggestion(0, text, side)
            count = len({found.apply(name) for name in names} & others)
            if count > (best.matched if best else have):
                best = found._replace(matched=count)
    return best if best is not None and best.matched * 2 >= most else None


def _candidates(names: Collection[str], missing: Sequence[str], known: Collection[str]) -> list[str]:
    """Prefixes and infixes that may be too much in ``names``, by those of the ``known`` that are missing."""
    found: dict[str, None] = {}
    text = "\n".join(("", *names, ""))  # searched as a whole, which is faster than name by name
    for infix in _INFIXES:
        if f"\n{infix}" in text or f".{infix}" in text:
            found[infix] = None
    step = max(1, len(missing) // _TRIED)
    for wanted in missing[::step][:_TRIED]:
        for name in _ending(f".{wanted}", names, text):
            if name not in known:
                found.setdefault(name[: -len(wanted)])
                if len(found) > 4 * _TRIED:
                    return list(found)
    return list(found)


def _ending(ending: str, names: Collection[str], text: str) -> Iterator[str]:
    """Those of the names that end so; ``text`` has a line for each."""
    if "\n" in ending or text.count("\n") != len(names) + 1:  # a name of several lines
        yield from (name for name in names if name.endswith(ending))
        return
    line = f"{ending}\n"
    at = text.find(line)
    while at >= 0:
        yield text[text.rfind("\n", 0, at) + 1 : at + len(ending)]
        at = text.find(line, at + 1)
