"""What a training checkpoint is made of: the model, an average of it, an optimizer's state, and the rest."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import chain, islice
from numbers import Number
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

Kind = Literal["model", "average", "optimizer", "other"]

# What optimizers of torch.optim and of the common libraries call their state.
_OWN = {
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "exp_avg_diff", "exp_avg_slow", "momentum_buffer",
    "square_avg", "acc_delta", "grad_avg", "master_param", "exp_avg_sq_row", "exp_avg_sq_col",
}  # fmt: skip
SECOND_MOMENTS = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "exp_avg_sq_row", "exp_avg_sq_col"}

# The first words of names in what training frameworks save (Lightning, DeepSpeed, timm, fairseq).
_OPTIMIZER = re.compile(
    r"^((\w+_)?optim\w*|opt|opts|base_optimizer_state|(single_partition_of_)?fp(16|32)_(flat_)?groups\w*)\.",
    re.I,
)
_OTHER = re.compile(
    r"^(callbacks?|loops|lr_schedulers?|schedulers?|scaler|grad_scaler|amp|rng_\w*|random_\w*|hyper_parameters"
    r"|args|trainer_state|best_\w*|metrics?|sampler|data_sampler|dataloader|\w*rng_states?|generator_state"
    r"|rng|cpu|cuda|torch_(\w+_)?manual_seed|extra_state|averaging_state)(\.|$)",
    re.I,
)
_AVERAGE = re.compile(r"^(\w+_)?(ema|shadow|swa|avg|averaged?|polyak)(_\w+)?$", re.I)
# The same anywhere in what a name begins with: "callbacks.EMACallback.ema_state_dict.".
_SAYS_AVERAGE = re.compile(r"EMA|SWA|Averag|(?<![a-zA-Z])(ema|shadow|swa|avg|averaged?|polyak)(?![a-z])")
# Where a run keeps the state of its callbacks, an average maybe among them.
_KEEPERS = {"callback", "callbacks", "extra_state"}
# What those who average count beside it (torch's AveragedModel, mmengine, LitEma).
_COUNTED = {"n_averaged", "steps", "step", "initted", "decay", "num_updates"}
_DOT = re.compile(r"\.")
_DEEPEST = 12
"""Behind so many dots no average is looked for."""
_LISTS = ("shadow_params", "params", "parameters", "weights")
_NUMBERED = re.compile(rf"({'|'.join(_LISTS)})?\d+")
# Lightning's WeightAveraging saves the average as the state dict, and the model beside it.
_BESIDE_AVERAGE = "current_model_state"
_MODEL = re.compile(
    r"^(model|module|net|network|state_dict|state|weights|params|(model|net|module)_(state|state_dict|weights))$"
)


class Section(NamedTuple):
    """One thing that a checkpoint holds."""

    kind: Kind
    prefix: str
    """What its names begin with, with the dot; "" where it is all of the file or has no one beginning."""

    rows: tuple[int, ...]
    """The positions of its names."""


def sections_of(
    names: Sequence[str], *, saved: bool, extras: Mapping[str, Any] | None = None
) -> list[Section]:
    """What the names of a source are of, the model first.

    Args:
        names: qualified names.
        saved: whether it may be a checkpoint, whose first words are known, and not a model, whose modules may
            be called anything.
        extras: what a checkpoint holds besides tensors.
    """
    groups = _told(names, saved)
    if saved and extras and "param_groups" in extras and ("model", "state") in groups:
        # torch.optim's own layout, whatever words an optimizer has for what it keeps.
        groups["optimizer", "state"] = groups.pop(("model", "state"))
    training = any(kind != "model" for kind, _ in groups) or bool(extras)
    if saved:
        _move_averages(names, groups)
        _move_kept_averages(names, groups)
        heads = [head for kind, head in groups if kind == "model"]
        if training and len(heads) == 1 and heads[0]:
            _move_averages_within(names, groups, heads[0])
    model = [rows for (kind, _), rows in groups.items() if kind == "model"]
    found = []
    if model:
        heads = [head for kind, head in groups if kind == "model"]
        whole = model[0] if len(model) == 1 else sorted(chain.from_iterable(model))
        found.append(Section("model", _prefix(heads, "model", training), tuple(whole)))
    for kind in ("average", "optimizer", "other"):
        own = [(head, rows) for (other, head), rows in groups.items() if other == kind]
        own.sort(key=lambda group: group[1][0])
        found += [Section(kind, _prefix([head], kind, training), tuple(rows)) for head, rows in own]
    return found


def kinds_of(names: Sequence[str], *, saved: bool, extras: Mapping[str, Any] | None = None) -> list[Kind]:
    """What each name is of; see :func:`sections_of`."""
    kinds: list[Kind] = ["model"] * len(names)
    for section in sections_of(names, saved=saved, extras=extras):
        for row in section.rows:
            kinds[row] = section.kind
    return kinds


# Rows, in order, by what they are of and the first word of their names ("" for a name of one word).
_Groups = dict[tuple[Kind, str], list[int]]


def _told(names: Sequence[str], saved: bool) -> _Groups:
    """What first words and an optimizer's own words say of names."""
    states = {name.rpartition(".")[0] for name in names if name[name.rfind(".") + 1 :] in _OWN}
    groups: _Groups = {}
    for head, rows in _by_head(names, range(len(names)), 0).items():
        kind = _first_word(f"{head}.") if saved else "model"
        if not states and head:
            groups[kind, head] = rows
            continue
        for row in rows:
            if names[row].rpartition(".")[0] in states:
                own: Kind = "optimizer"
            else:
                own = _first_word(names[row]) if saved and not head else kind
            groups.setdefault((own, head), []).append(row)
    return groups


def _by_head(names: Sequence[str], rows: Iterable[int], skipped: int) -> dict[str, list[int]]:
    """Rows by the first word of their names behind so many characters; "" for one word."""
    found: dict[str, list[int]] = {}
    start, own = "", None
    for row in rows:
        name = names[row]
        # Neighbours mostly begin alike.
        if own is None or not name.startswith(start, skipped):
            end = name.find(".", skipped) + 1
            start = name[skipped:end]
            own = found.setdefault(start[:-1], [])
            own.append(row)
            if not end:
                own = None
        else:
            own.append(row)
    return found


def _first_word(word: str) -> Kind:
    if _OPTIMIZER.match(word):
        return "optimizer"
    return "other" if _OTHER.match(word) else "model"


def _move_averages(names: Sequence[str], groups: _Groups) -> None:
    model = {head: rows for (kind, head), rows in groups.items() if kind == "model"}
    found = _averages(names, model, 0)
    if _BESIDE_AVERAGE in model and "state_dict" in model:
        found.append("state_dict")
    for head in found:
        groups["average", head] = groups.pop(("model", head))


def _move_kept_averages(names: Sequence[str], groups: _Groups) -> None:
    """The same of the rows of callbacks: those below a beginning that is called an average, if most of them
    have the names of the model behind it, or are numbered and no more than the model's.
    """
    kept = [head for kind, head in groups if kind == "other" and head.lower() in _KEEPERS]
    if not kept:
        return
    model = [(head, rows) for (kind, head), rows in groups.items() if kind == "model"]
    known = {name for head, rows in model for name in _plain_names(names, rows, len(head) + bool(head))}
    most = max((len(rows) for _, rows in model), default=0)
    for head in kept:
        below: dict[str, list[int]] = {}
        for row in groups["other", head]:
            end = _end_of_average(names[row], known)
            if end:
                below.setdefault(names[row][: end - 1], []).append(row)
        beside_it = Counter(
            names[row][: end - 1] for row in groups["other", head] for end in _ends_of_words(names[row])
        )
        moved: set[int] = set()
        for start, rows in below.items():
            beside = beside_it[start]
            last = start.rpartition(".")[2]
            numbered = all(names[row][len(start) + 1 :].isdigit() for row in rows)
            fits = len(rows) <= most and (_AVERAGE.match(last) or last in _LISTS)
            if len(rows) * 10 >= 8 * beside and (fits or not numbered):
                groups["average", start] = rows
                moved.update(rows)
        if moved:
            left = [row for row in groups.pop(("other", head)) if row not in moved]
            if left:
                groups["other", head] = left


def _plain_names(names: Sequence[str], rows: Sequence[int], skipped: int) -> set[str]:
    """Names behind so many characters, and behind the word that all begin with there; dots left out."""
    inner = _by_head(names, rows, skipped)
    starts = [skipped, *(skipped + len(head) + 1 for head in inner if head and len(inner) == 1)]
    return {names[row][start:].replace(".", "") for row in rows for start in starts}


def _end_of_average(name: str, known: Collection[str]) -> int:
    """Where a name of the model begins in a name, behind what is called an average; 0 if nowhere."""
    for end in _ends_of_words(name):
        rest = name[end:].removeprefix("module.").replace(".", "")
        if (rest in known or rest.isdigit()) and _SAYS_AVERAGE.search(name, 0, end):
            return end
    return 0


def _ends_of_words(name: str) -> Iterator[int]:
    """Behind each of the first dots of a name."""
    return (dot.end() for dot in islice(_DOT.finditer(name), _DEEPEST))


def _move_averages_within(names: Sequence[str], groups: _Groups, head: str) -> None:
    """The same of the words behind the one that all names of the model begin with."""
    rows = groups["model", head]
    inner = _by_head(names, rows, len(head) + 1)
    averages = {row for own in _averages(names, inner, len(head) + 1) for row in inner[own]}
    if averages:
        del groups["model", head]
        groups["model", head] = [row for row in rows if row not in averages]
        groups["average", head] = sorted(averages)


def _averages(names: Sequence[str], groups: Mapping[str, list[int]], skipped: int) -> list[str]:
    """First words that are called an average and have the names of a sibling, or of all else; dots may be
    left out.

    A module may be called ``ema`` too: its names alone do not make an average of it.
    """
    called = [head for head in groups if _AVERAGE.match(head)]
    if not called or len(called) == len(groups):
        return []
    plain = {
        head: {names[row][skipped + len(head) :].replace(".", "") for row in rows}
        for head, rows in groups.items()
    }
    others = [found for head, found in plain.items() if head not in called]
    whole = {
        names[row][skipped:].replace(".", "")
        for head, rows in groups.items()
        if head not in called
        for row in rows
    }
    # Numbered ones may be the parameters of a module too, but not of one beside "model".
    most = max((len(own) for head, own in plain.items() if _MODEL.match(head)), default=0)

    def is_one(own: set[str]) -> bool:
        numbered = 0 < len(own) <= most and all(map(_NUMBERED.fullmatch, own))
        return numbered or any(len(own & other) * 10 >= 8 * len(own) > 0 for other in (*others, whole))

    return [head for head in called if is_one({n.removeprefix("module") for n in plain[head] - _COUNTED})]


def _prefix(heads: Sequence[str], kind: Kind, training: bool) -> str:
    if len(heads) != 1:
        return ""
    head = heads[0]
    if not head or (kind == "model" and not (training or _MODEL.match(head))):
        return ""
    return f"{head}." if kind != "model" or training else ""


# What BatchNorm and the like register as buffers, each set of them in one module.
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")
# What torch.optim.swa_utils.AveragedModel registers beside its module.
_AVERAGED = "n_averaged"


def buffer_rows(names: Sequence[str], section: Section, extras: Mapping[str, Any]) -> list[int]:
    """The positions of a section's names that are sure to be buffers, which a state dict does not tell.

    DeepSpeed lists them (``buffer_names``); else they are running statistics, of which a module has two, and
    the count of an AveragedModel.
    """
    listed = extras.get("buffer_names")
    known = set(listed) if isinstance(listed, list) and all(isinstance(n, str) for n in listed) else set()
    if not known and not any(names[row].endswith((*_RUNNING, _AVERAGED)) for row in section.rows):
        return []
    own = {names[row] for row in section.rows}

    def is_buffer(name: str) -> bool:
        module, _, last = name.rpartition(".")
        before = f"{module}." if module else ""
        if last == _AVERAGED:
            return any(other.startswith(f"{before}module.") for other in own)
        running = last in _RUNNING and {f"{before}{word}" for word in _RUNNING[:2]} <= own
        return running or name.removeprefix(section.prefix) in known

    return [row for row in section.rows if is_buffer(names[row])]


def partitioned(extras: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many parameters and values DeepSpeed's ``param_shapes`` list, whichever rank's file holds them."""
    groups = extras.get("param_shapes")
    if not isinstance(groups, (list, tuple)) or not groups:
        return None
    listed = [*groups, extras.get("frozen_param_shapes") or {}]
    if not all(isinstance(group, Mapping) for group in listed):
        return None
    shapes = {name: shape for group in listed for name, shape in group.items()}
    if not all(isinstance(s, tuple) and all(type(n) is int for n in s) for s in shapes.values()):
        return None
    return len(shapes), sum(map(math.prod, shapes.values()))


# --- facts ------------------------------------------------------------------------------------------------

_COUNTERS = re.compile(
    r"(^|\.)(epoch|step|global_step|global_steps|iteration|iter|it|best(_\w+)?|[\w-]*version|global_samples|seed)$"
)
_SETTINGS = re.compile(r"^(hyper_parameters|hparams|args|config|cfg|model_args|ds_config)(\.|$)")
# What schedulers, callbacks and optimizers count for themselves.
_INNER = re.compile(r"(^|\.)param_groups\.|^(callbacks?|loops|lr_schedulers?|schedulers?)\.")
_LONGEST = 160


def facts_of(extras: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is worth a line of a checkpoint's extras and metadata: counters, settings, plain values only."""
    counters, settings = [], []
    for name, value in extras.items():
        if _SETTINGS.match(name):
            settings += _plain_items(name, value)
        elif _COUNTERS.search(name) and not _INNER.search(name) and _is_plain(value):
            counters.append(f"{name} {value}")
    found = []
    if counters:
        found.append(("progress", _short(counters)))
    if settings:
        found.append(("settings", _short(settings)))
    said = [
        f"{key} {value}"
        for key, value in metadata.items()
        if _is_plain(value) and not str(key).startswith("pyparam.")
    ]
    if said:
        found.append(("metadata", _short(said)))
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, Number, PurePath, date, timedelta))


def _plain_items(name: str, value: Any) -> list[str]:
    head, _, rest = name.partition(".")
    if isinstance(value, Mapping):
        return [f"{key}={item}" for key, item in value.items() if isinstance(key, str) and _is_plain(item)]
    return [f"{rest or head}={value}"] if _is_plain(value) else []


def _short(items: Sequence[str]) -> str:
    text = ""
    for i, item in enumerate(items):
        item = item if len(item) <= 60 else f"{item[:59]}…"
        if len(text) + len(item) > _LONGEST:
            return f"{text}, and {len(items) - i} more"
        text = f"{text}, {item}" if text else item
    return text
