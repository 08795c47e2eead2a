"""Rules: which parameter gets which sampler. And the ready-made rules people look for."""

from __future__ import annotations

import fnmatch
import functools
import glob
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._base.native import _C
from pyparam._base.wrappers import ANYWHERE, WRAPPERS, other_names
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam.init._owners import Owners
from pyparam.init._samplers import normal_, ones_, trunc_normal_, zeros_

Sampler = Callable[..., Any]
Condition = Any  # see initialize_
Rules = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
Match = Callable[[int, str], bool]

# Globs for names that wrappers may have put parts into.
_PARTS = [(f"{word}.", word in ANYWHERE, True) for word in WRAPPERS]
_MAGIC = re.compile(r"[*?\[]")
_FEW_WORDS = 64
_PLAIN = re.compile(r"(\*?)([^*?\[]+)(\*?)")  # one word, with a star before it, after it, or both


class Subject:
    """What rules look at: names, tensors, and the modules that own them, each made only when a rule asks."""

    def __init__(self, table: ParamTable, owners: Owners) -> None:
        self.table = table
        self.count = len(table)
        self.owners = owners

    @functools.cached_property
    def names(self) -> list[str]:
        return self.table.names

    @functools.cached_property
    def other_names(self) -> dict[int, str]:
        """By position, names without the parts that wrappers put into them."""
        # Most models are not wrapped, which is seen without their names in Python.
        if not any(rule >= 0 for rule in _C.assign_words(self.table._native, _PARTS)):
            return {}
        return other_names(self.names)

    @functools.cached_property
    def tensors(self) -> list[Tensor]:
        return self.table.tensors


def pairs_of(rules: Rules) -> list[tuple[Condition, Any]]:
    """Rules as (condition, sampler) pairs in order; raises TypeError for anything else."""
    if not isinstance(rules, Iterable) or isinstance(rules, str):
        fills = "; to fill by one sampler, give {'*': sampler}" if callable(rules) else ""
        raise TypeError(
            f"initialize_: rules must be a mapping or (condition, sampler) pairs, got {shown(rules)}{fills}"
        )
    items = list(rules.items()) if isinstance(rules, Mapping) else list(rules)
    for item in items:
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(
                f"initialize_: rules must be a mapping or (condition, sampler) pairs, got {item!r}"
            )
    return items


def assign(pairs: Sequence[tuple[Condition, Any]], subject: Subject) -> list[int]:
    """The index of the first rule that matches each parameter, -1 where none does."""
    words = [_word(condition) for condition, _ in pairs]
    # A leading run of one-word globs, as most rules are, is matched natively, without names in Python.
    run = next((at for at, word in enumerate(words) if word is None), len(words))
    if run > _FEW_WORDS:
        run = 0  # thousands of exact names are a dictionary's work
    native = [word for word in words[:run] if word is not None]
    chosen = _C.assign_words(subject.table._native, native)
    others = subject.other_names
    if others:
        rows = list(others)
        table = ParamTable(list(others.values()), [subject.tensors[i] for i in rows])
        for i, rule in zip(rows, _C.assign_words(table._native, native), strict=True):
            chosen[i] = min(rule, chosen[i]) if min(rule, chosen[i]) >= 0 else max(rule, chosen[i])
    remaining: Sequence[int] = [i for i, rule in enumerate(chosen) if rule < 0] if -1 in chosen else ()
    at = run
    while at < len(pairs) and remaining:
        exact: dict[str, int] = {}
        while at < len(pairs) and isinstance(pairs[at][0], str) and not _MAGIC.search(pairs[at][0]):
            exact.setdefault(pairs[at][0], at)
            at += 1
        names = subject.names
        if exact:
            never = len(pairs)
            for i in remaining:
                rule = min(exact.get(names[i], never), exact.get(others.get(i, names[i]), never))
                chosen[i] = rule if rule < never else -1
        else:
            matches = _match_of(pairs[at][0], subject)
            for i in remaining:
                if matches(i, names[i]):
                    chosen[i] = at
            at += 1
        remaining = [i for i in remaining if chosen[i] < 0]
    for condition, _ in pairs[at:]:
        _match_of(condition, subject)  # a wrong condition is an error even where nothing is left for it
    return chosen


def _word(condition: Condition) -> tuple[str, bool, bool] | None:
    """A glob of one word: the word, and whether it is open before and after it."""
    if not isinstance(condition, str):
        return None
    if condition == "*":
        return "", True, True
    plain = _PLAIN.fullmatch(condition)
    return None if plain is None else (plain[2], bool(plain[1]), bool(plain[3]))


def _match_of(condition: Condition, subject: Subject) -> Match:
    if isinstance(condition, str):
        return _by_name(re.compile(fnmatch.translate(condition)).match, subject)
    if isinstance(condition, re.Pattern):
        return _by_name(condition.search, subject)
    if (
        isinstance(condition, tuple)
        and len(condition) == 2
        and isinstance(condition[0], type)
        and isinstance(condition[1], str)
    ):
        of_class = _match_of(condition[0], subject)
        attribute = re.compile(fnmatch.translate(condition[1])).match
        return lambda i, name: of_class(i, name) and attribute(name.rpartition(".")[2]) is not None
    if isinstance(condition, type):
        if not issubclass(condition, nn.Module):
            raise TypeError(f"initialize_: {condition.__name__} in a rule is no nn.Module class")
        owned_by, module_class = subject.owners.owned_by, condition
        return lambda i, name: owned_by(name, module_class)
    if callable(condition):
        tensors, predicate = subject.tensors, condition
        return lambda i, name: bool(predicate(name, tensors[i]))
    raise TypeError(
        "initialize_: a rule's condition must be a glob, a regular expression, a module class, a pair of a "
        f"module class and an attribute, or a predicate (name, parameter), got {condition!r}"
    )


def _by_name(matches: Callable[[str], object], subject: Subject) -> Match:
    others = subject.other_names
    return lambda i, name: bool(matches(name)) or (i in others and bool(matches(others[i])))


def shown(sampler: Any) -> str:
    """A sampler as a person would write it."""
    if isinstance(sampler, functools.partial):
        words = [repr(a) for a in sampler.args]
        words += [f"{k}={_short(v)}" for k, v in sampler.keywords.items()]
        return f"{shown(sampler.func)}({', '.join(words)})"
    return str(getattr(sampler, "__name__", None) or repr(sampler))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


# ---- ready-made rules -------------------------------------------------------------------------------------

_NORM_CLASSES = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def _norm_rules() -> dict[Condition, Sampler]:
    """Biases to zero, and the gains of norms, known by class or by being vectors called weight, to one."""
    rules: dict[Condition, Sampler] = {"*bias": zeros_}
    for norm in _NORM_CLASSES:
        rules[norm] = ones_
    rules[_is_gain] = ones_
    return rules


def _is_gain(name: str, parameter: Tensor) -> bool:
    return (
        not is_lazy(parameter)
        and parameter.dim() == 1
        and name.rpartition(".")[2] in ("weight", "gamma", "scale", "g")
    )


def gpt2_rules(
    n_layer: int,
    *,
    std: float = 0.02,
    residual: Sequence[str] = (
        "*.c_proj.weight",
        "*.out_proj.weight",
        "*.o_proj.weight",
        "*.down_proj.weight",
        "*.linear2.weight",
        "*.dense_4h_to_h.weight",
    ),
) -> dict[Condition, Sampler]:
    """GPT-2's initialisation (Radford et al., 2019).

    Weights and embeddings are normal with ``std``; the projections that end in the residual stream with ``std
    / sqrt(2 * n_layer)``, since each block adds two of them; biases are zero and the gains of norms one.

    Args:
        n_layer: the number of blocks.
        std: the standard deviation of weights and embeddings.
        residual: globs on qualified names of the projections that end in the residual stream.

    Returns:
        Rules for :func:`initialize_`: a dict, to change or to put others in front of.

    Raises:
        TypeError: an ``n_layer`` that is no integer.
        ValueError: an ``n_layer`` below 1.
    """
    if isinstance(n_layer, bool) or not isinstance(n_layer, int):
        raise TypeError(f"gpt2_rules: n_layer must be an integer, got {type(n_layer).__name__}")
    if n_layer < 1:
        raise ValueError(f"gpt2_rules: n_layer must be positive, got {n_layer}")
    rules = _norm_rules()
    for pattern in residual:
        rules[pattern] = functools.partial(normal_, std=std / math.sqrt(2 * n_layer))
    rules["*"] = functools.partial(normal_, std=std)
    return rules


def vit_rules(*, std: float = 0.02) -> dict[Condition, Sampler]:
    """The vision transformer's initialisation, as in timm and transformers.

    Weights, position embeddings and tokens are normal with ``std`` cut at two deviations; biases are zero and
    the gains of norms one. (timm writes ``trunc_normal_(w, std=.02)``, whose bounds of +-2 cut nothing; the
    cut at two deviations is what the original code in JAX does.)

    Args:
        std: the standard deviation before the cut.

    Returns:
        Rules for :func:`initialize_`, as a dict.
    """
    rules = _norm_rules()
    rules["*"] = functools.partial(trunc_normal_, std=std, a=-2 * std, b=2 * std)
    return rules


def mup_rules(
    model: Any,
    base: Any,
    *,
    std: float = 0.02,
    readout: Sequence[str] = ("*lm_head.weight", "*head.weight", "*classifier.weight"),
    embedding: Sequence[str] = ("*wte.weight", "*wpe.weight", "*embed*.weight", "*pos_embed*", "*token"),
    readout_zero: bool = False,
) -> dict[Condition, Sampler]:
    """Maximal update parametrisation ("Tensor Programs V", Yang et al., 2022, table 8): std by width.

    A dimension that differs between the model and its base grows with width. With m the ratio of fan-ins,
    weights being (out, in, ...) as in nn.Linear: a matrix that grows on both sides gets ``std / sqrt(m)``;
    one that grows on its input alone, or is named by ``readout``, ``std / m``; all others, embeddings and
    input layers among them, ``std``. Vectors called weight are gains and get ones, biases zeros. The learning
    rates that muP asks for are the optimizer's, not ours.

    Args:
        model: the model to fill.
        base: the same model at the width where ``std`` was tuned: a module, on the meta device if you like,
            or a mapping of names to shapes.
        std: the standard deviation at that width.
        readout: globs on qualified names of what maps to the output.
        embedding: globs on qualified names of what is an embedding, besides modules of class nn.Embedding.
        readout_zero: whether the readout is zero instead.

    Returns:
        Rules for :func:`initialize_`, as a dict, one a parameter.

    Raises:
        TypeError: a model or a base that is no source.
        ValueError: two models that differ in names or in numbers of dimensions.
    """
    shapes, base_shapes = _shapes(model), _shapes(base)
    if shapes.keys() != base_shapes.keys():
        odd = sorted(shapes.keys() ^ base_shapes.keys())
        raise ValueError(f"mup_rules: model and base differ in parameters: {', '.join(odd[:10])}")
    owners = Owners(model)

    def sampler(name: str, shape: tuple[int, ...], narrow: tuple[int, ...]) -> Sampler:
        leaf = name.rpartition(".")[2]
        if leaf.endswith("bias"):
            return zeros_
        if len(shape) == 1 and leaf == "weight":
            return ones_
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in readout):
            ratio = math.prod(shape[1:]) / math.prod(narrow[1:])
            return zeros_ if readout_zero else functools.partial(normal_, std=std / ratio)
        embeds = owners.owned_by(name, nn.Embedding) or owners.owned_by(name, nn.EmbeddingBag)
        if len(shape) < 2 or embeds or any(fnmatch.fnmatchcase(name, pattern) for pattern in embedding):
            return functools.partial(normal_, std=std)
        ratio = math.prod(shape[1:]) / math.prod(narrow[1:])
        return functools.partial(normal_, std=std / (math.sqrt(ratio) if shape[0] != narrow[0] else ratio))

    rules: dict[Condition, Sampler] = {}
    for name, shape in shapes.items():
        narrow = base_shapes[name]
        if len(shape) != len(narrow):
            raise ValueError(f"mup_rules: {name!r} has shape {shape} in the model and {narrow} in the base")
        rules[glob.escape(name) if _MAGIC.search(name) else name] = sampler(name, shape, narrow)
    return rules


def _shapes(source: Any) -> dict[str, tuple[int, ...]]:
    if isinstance(source, Mapping):
        return {n: tuple(v.shape if isinstance(v, Tensor) else v) for n, v in source.items()}
    return {name: tuple(tensor.shape) for name, tensor in table_of(source)}
