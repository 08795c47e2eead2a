"""Ranks agree on what they are about to do before any of them waits in a collective.

They meet in the store of their process group, which every group has, whatever its backend: each rank says
which verb it calls and on what, and the first one compares. So ranks that differ, or one that found a mistake
in what it was given, end in an error on all of them, and a rank that nobody joins says whom it waited for.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from pyparam._parts.parts import Parts

_PREFIX = "pyparam"
# Errors that keep their type on the other ranks.
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (TypeError, ValueError, RuntimeError, KeyError, AttributeError)
}

# How many meetings each group has had, which numbers their keys.
_MEETINGS: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class Meeting:
    """A context in which a rank does its own work before the groups of some parts reduce.

    On leaving it, all ranks of the groups have done theirs. An error of one is raised on all, with the rank's
    number; so is one that names ranks where they call different verbs, or with other parameters.
    """

    def __init__(self, verb: str, parts: Parts | None, options: object = "", group: Any = None) -> None:
        self._verb = verb
        self._mistake = None if parts is None else parts.mistake
        self._topics: list[_Topic] = []
        if parts is not None:
            known: set[Any] = set()
            for share in (*parts.splits, *parts.repeats):
                if share.group not in known and _meets(share.group):
                    known.add(share.group)
                    self._topics.append(_Topic(share.group, len(share.rows), parts.digest(share)))
        if group is not None and _meets(group):
            self._topics.append(_Topic(group, 0, b""))
        self._options = repr(options)

    def __enter__(self) -> None:
        if self._mistake is not None:
            self.__exit__(type(self._mistake), self._mistake, None)
            raise self._mistake

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, where: TracebackType | None
    ) -> None:
        if raised is not None and not isinstance(raised, Exception):
            return
        trouble = None if raised is None else (type(raised).__name__, str(raised), dist.get_rank())
        # What one group finds the next one hears of; after as many rounds as there are groups, all have.
        rounds = 1 if len(self._topics) < 2 else 2
        for turn in range(rounds):
            for topic in self._topics:
                asked = topic if turn == 0 else _Topic(topic.group, 0, b"")
                trouble = _meet(asked, self._verb, self._options, trouble)
        if raised is None and trouble is not None:
            name, words, _ = trouble
            raise _KINDS.get(name, RuntimeError)(words)


Trouble = tuple[str, str, int]


class _Topic(NamedTuple):
    """What a group meets about: so many parameters, and what must be the same of them."""

    group: Any
    parameters: int
    digest: bytes


def _meets(group: Any) -> bool:
    """Whether somebody else is there."""
    return bool(group.size() > 1 and dist.get_backend(group) != "fake")


def _meet(topic: _Topic, verb: str, options: str, trouble: Trouble | None) -> Trouble | None:
    """One meeting of a group; the trouble that any rank brings to it, or that comes of it."""
    group = topic.group
    number = _MEETINGS.get(group, 0)
    _MEETINGS[group] = number + 1
    store = group.get_group_store()
    rank, size = group.rank(), group.size()
    digest = hashlib.blake2b(options.encode("utf-8", "surrogatepass") + b"\n" + topic.digest, digest_size=16)
    mine = json.dumps(
        {"verb": verb, "count": topic.parameters, "digest": digest.hexdigest(), "trouble": trouble}
    )
    verdict = f"{_PREFIX}/{number}/verdict"
    keys = [f"{_PREFIX}/{number}/{r}" for r in range(size)]
    _forget(store, number, rank)
    store.set(keys[rank], mine)
    wait = _timeout(group)
    if rank == 0:
        try:
            store.wait(keys, wait)
            found = _verdict(verb, [json.loads(said) for said in _read(store, keys)], group)
        except RuntimeError:
            absent = [r for r in range(size) if not store.check([keys[r]])]
            found = _alone(verb, absent, group, wait)
        store.set(verdict, json.dumps(found))
    else:
        try:
            store.wait([verdict], wait)
            found = json.loads(store.get(verdict))
        except RuntimeError:
            absent = [r for r in range(size) if not store.check([keys[r]])] or [0]
            found = _alone(verb, absent, group, wait)
            store.set(keys[rank], json.dumps({"verb": verb, "count": 0, "digest": "", "trouble": found}))
    return trouble or (None if found is None else (found[0], found[1], found[2]))


def _read(store: Any, keys: Sequence[str]) -> list[bytes]:
    """What lies under keys that are there: of a store that can, in one go, however many ranks there are."""
    if store.has_extended_api():
        out: list[bytes] = store.multi_get(keys)
        return out
    return [store.get(key) for key in keys]


def _forget(store: Any, number: int, rank: int) -> None:
    """Deletes what this rank wrote at the meeting before the last, which everybody has left."""
    old = number - 2
    if old < 0:
        return
    store.delete_key(f"{_PREFIX}/{old}/{rank}")
    if rank == 0:
        store.delete_key(f"{_PREFIX}/{old}/verdict")


def _verdict(verb: str, said: Sequence[dict[str, Any]], group: Any) -> Trouble | None:
    """What the first rank of a group makes of what all said."""
    ranks = dist.get_process_group_ranks(group)
    for one in said:
        if one["trouble"] is not None:
            kind, words, rank = one["trouble"]
            told = words if words.startswith("on rank ") else f"on rank {rank}: {words}"
            return kind, told, rank
    for key in ("verb", "count", "digest"):
        by_value: dict[Any, list[int]] = {}
        for rank, one in zip(ranks, said, strict=True):
            by_value.setdefault(one[key], []).append(rank)
        if len(by_value) > 1:
            return "ValueError", _differ(verb, key, by_value), ranks[0]
    return None


def _differ(verb: str, key: str, by_value: dict[Any, list[int]]) -> str:
    if key == "digest":
        odd = min(by_value.values(), key=len)
        return (
            f"{verb}: {_ranks(odd)} and the others call it with other names, shapes, placements or options; "
            "all ranks must pass the same parameters"
        )
    what = {"verb": "calls {}", "count": "has {} sharded parameters"}[key]
    told = "; ".join(f"{_ranks(ranks)} {what.format(value)}" for value, ranks in by_value.items())
    return f"{verb}: the ranks differ: {told}"


def _alone(verb: str, absent: Sequence[int], group: Any, wait: timedelta) -> Trouble:
    ranks = dist.get_process_group_ranks(group)
    missing = [ranks[r] for r in absent]
    return (
        "RuntimeError",
        f"{verb}: waited {wait.total_seconds():g} s for {_ranks(missing)}, which did not call {verb}; all "
        "ranks that hold parts of the parameters must call it",
        dist.get_rank(),
    )


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _timeout(group: Any) -> timedelta:
    """How long the group waits for a collective."""
    for device in group._device_types:
        options = getattr(group._get_backend(torch.device(device)), "options", None)
        timeout = getattr(options, "_timeout", None)
        if isinstance(timeout, timedelta):
            return timeout
    found: timedelta = group.get_group_store().timeout
    return found
