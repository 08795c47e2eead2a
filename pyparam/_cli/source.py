"""What a command line's SOURCE means."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pyparam._base.closest import closest, hint
from pyparam._base.words import a_kind
from pyparam._cli.config import config_file, model_of
from pyparam._cli.mistake import Mistake
from pyparam._sources.part import part_of

_FACTORY = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def load(
    source: str, *, meta: bool = False, part: str | None = None, arguments: Sequence[str] | None = None
) -> Any:
    """The source that SOURCE names: a path as it is, or what a factory makes with ``--arg``'s arguments; or a
    part of it.

    ``demo`` is the nested network of the demonstration, the same each time. What exists as a file is a path,
    whatever it looks like.
    """
    found = _load(source, meta, _named(arguments or ()))
    return found if part is None else part_of(found, part)


def _named(arguments: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as keywords: a value is a literal of Python (4, 0.5, None, [1, 2]), or else a string."""
    made: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name.isidentifier():
            raise Mistake(f"--arg: expected NAME=VALUE, got {argument!r}")
        if name in made:
            raise Mistake(f"--arg: {name} is given twice")
        try:
            made[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            made[name] = text
    return made


def _load(source: str, meta: bool, arguments: dict[str, Any]) -> Any:
    if source == "demo":
        from pyparam._cli.demo import net

        with _on_meta(meta), torch.random.fork_rng(devices=()):
            torch.manual_seed(1)
            return net()
    factory = None if os.path.exists(source) else _FACTORY.fullmatch(source)
    if factory is not None:
        return _from_factory(factory["module"], factory["name"], meta, arguments)
    if arguments:
        raise Mistake(f"--arg is for package.module:factory, and {source!r} is no such name")
    if meta:
        config = config_file(source)
        if config is None:
            raise Mistake(
                f"--meta builds what package.module:factory names or a config.json describes, and {source!r} "
                "is neither"
            )
        return model_of(config)
    if os.path.exists(source):
        if source.endswith(".py"):
            name = os.path.basename(source).removesuffix(".py")
            raise Mistake(f"{source} is a program: name what makes the model in it, as in {name}:build")
        return source
    if "://" in source:
        raise Mistake(f"{source!r} is no path, and nothing is downloaded: name a file that lies here")
    if os.sep in source or os.path.splitext(source)[1]:
        raise Mistake(f"there is no file {source!r}{_close_file(source)}")
    raise Mistake(
        f"{source!r} is neither a file, nor package.module:factory, nor 'demo'{_close_file(source)}"
    )


def _on_meta(meta: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.device("meta") if meta else contextlib.nullcontext()


def _close_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return ""
    return hint([os.path.join(folder, other) for other in closest(name, names)])


def _from_factory(module_name: str, name: str, meta: bool, arguments: dict[str, Any]) -> Any:
    where = f"{module_name}:{name}"
    module = _imported(module_name)
    made: Any = module
    for part in name.split("."):
        if not hasattr(made, part):
            close = closest(part, [other for other in dir(made) if not other.startswith("_")])
            raise Mistake(f"{module_name} has no {name!r}{hint(close)}")
        made = getattr(made, part)
    if not callable(made) or isinstance(made, nn.Module):
        if meta:
            raise Mistake(f"--meta builds a model, and {where} is one already ({type(made).__name__})")
        if arguments:
            raise Mistake(f"--arg is for a factory, and {where} is {a_kind(made)}")
        return made
    _check_arguments(made, where, arguments)
    with _on_meta(meta):
        try:
            return made(**arguments)
        except Exception as error:
            raise Mistake(f"{where} failed: {_told(error)}") from None


def _imported(name: str) -> ModuleType:
    """Imports a module as ``python -m`` would, with the current directory first."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.endswith(".py"):
            raise Mistake(
                f"a module is named as in an import, without .py: {name.removesuffix('.py')}"
            ) from None
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise Mistake(
                f"there is no module {error.name!r} to import (searched: the current directory and sys.path)"
            ) from None
        raise Mistake(f"importing {name} failed: {_told(error)}") from None
    except Exception as error:
        raise Mistake(f"importing {name} failed: {_told(error)}") from None


def _check_arguments(factory: Any, where: str, arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # a builtin that does not say
    try:
        signature.bind(**arguments)
    except TypeError as error:
        how = f"with {', '.join(arguments)}" if arguments else "without arguments"
        raise Mistake(
            f"{where} is called {how}: {error}{'' if arguments else ' (--arg NAME=VALUE)'}"
        ) from None


def _told(error: BaseException) -> str:
    """An error of someone else's code, with the line it came from."""
    text = "".join(traceback.format_exception_only(error)).strip()
    every = traceback.extract_tb(error.__traceback__)
    frames = [f for f in every if f.filename != __file__ and not f.filename.startswith("<frozen ")]
    if not frames:
        return text
    # The line of the user's own code: the last outside torch and the standard library.
    last = next((frame for frame in reversed(frames) if not _is_library(frame.filename)), frames[-1])
    line = f"\n    {last.line}" if last.line else ""
    return f"{text}\n  at {last.filename}:{last.lineno}, in {last.name}{line}"


def _is_library(filename: str) -> bool:
    standard = os.path.dirname(os.__file__)
    in_standard = filename.startswith(standard + os.sep) and "site-packages" not in filename
    return in_standard or filename.startswith(os.path.dirname(torch.__file__) + os.sep)
