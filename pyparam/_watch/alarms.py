"""The rules of a Monitor at work: what each finds at a record, told when it comes up."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch.optim import Optimizer

from pyparam._base.words import a_kind
from pyparam._watch.records import Record
from pyparam._watch.rules import Alarm, Rule, SecondMoment, comparable
from pyparam._watch.second_moments import second_moments

OnAlarm = Literal["warn"] | Callable[[Alarm], object]


class Alarms:
    def __init__(self, rules: Iterable[Rule], on_alarm: OnAlarm) -> None:
        self.rules = tuple(rules)
        for rule in self.rules:
            if not callable(rule) or not isinstance(getattr(rule, "name", None), str):
                raise TypeError(
                    f"Monitor: alarms holds {a_kind(rule)}; expected rules, such as UpdateRatio()"
                )
        if on_alarm != "warn" and not callable(on_alarm):
            raise TypeError(f"Monitor: on_alarm is {on_alarm!r}; expected 'warn' or a function of the Alarm")
        self.on_alarm: OnAlarm = on_alarm
        self.found: list[Alarm] = []
        self._sounding: dict[int, set[tuple[str, str]]] = {}  # by the number of the optimizer

    def without_rules(self) -> Alarms:
        """What was found, for a copy that watches nothing: rules and functions need not be picklable."""
        made = Alarms((), "warn")
        made.found = list(self.found)
        return made

    def look(
        self, record: Record, before: Sequence[Record], optimizer: Optimizer, model: Any, stacklevel: int
    ) -> Record:
        """Lets the rules look at a record; tells of what was not so at the one before. Gives the record, with
        what had to be read for a rule."""
        if not self.rules:
            return record
        earlier = comparable(record, before)
        if any(isinstance(rule, SecondMoment) for rule in self.rules):
            moments = second_moments(optimizer, model, record, earlier)
            record = replace(record, second_moments=moments) if moments else record
        sounding = self._sounding.get(record.optimizer, set())
        now: set[tuple[str, str]] = set()
        for rule in self.rules:
            found = dict(rule(record, earlier))
            now.update((rule.name, name) for name in found)
            fresh = {name: words for name, words in found.items() if (rule.name, name) not in sounding}
            if not fresh:
                continue
            since = earlier[-1].step if earlier else None
            alarm = Alarm(rule.name, record.step, fresh, len(record.weights), since)
            self.found.append(alarm)
            if self.on_alarm == "warn":
                warnings.warn(f"Monitor: {alarm}", RuntimeWarning, stacklevel=stacklevel + 1)
            else:
                self.on_alarm(alarm)
        self._sounding[record.optimizer] = now
        return record
