"""Files that hold a program besides its weights: TorchScript archives and exported programs (.pt2)."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

# What a size in an exported program is made of: names, numbers, operators, calls of sympy's functions.
_SAFE_EXPRESSION = re.compile(r"(?:[A-Za-z_]\w*|\d+(?:\.\d*)?(?:e[+-]?\d+)?|[\s+\-*/%(),<>=!&|~^])*", re.I)


def is_torchscript(names: list[str]) -> bool:
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names)


def is_exported(names: list[str]) -> bool:
    return "serialized_exported_program.json" in names or any(
        name.count("/") == 1 and name.endswith("/archive_format") for name in names
    )


def open_torchscript(path: Path) -> Any:
    """Raises ValueError for an archive that torch cannot load."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded as a TorchScript archive: {_brief(error)}") from error


def open_exported(path: Path, archive: zipfile.ZipFile) -> Any:
    """Raises ValueError for a file that needs code to load, and for one that torch cannot load.

    ``torch.export.load`` unpickles parts of the file with no restriction, evaluates the text of its symbolic
    sizes as Python, and loads compiled libraries: each is looked for beforehand, and refused.
    """
    _check_exported(path, archive)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded as an exported program: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _needs_code(path: Path, what: str) -> NoReturn:
    raise ValueError(
        f"{path} is refused: it needs code to load ({what}). If you trust the file, load it with torch.export.load "
        "and pass the program"
    )


def _check_exported(path: Path, archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        name = member.filename
        if "/aotinductor/" in name or name.endswith((".so", ".dll", ".dylib")):
            _needs_code(path, f"{name} is compiled code")
        stem = name.rpartition("/")[2]
        if "/constants/" in name and stem.startswith(("custom_obj_", "opaque_obj_")):
            _needs_code(path, f"{name} is a pickled object")
        try:
            if name.endswith(".json"):
                _check_expressions(path, name, json.loads(archive.read(member)))
            elif name.endswith(".pt") or ("/data/" in name and _is_pickle(archive, member)):
                data = archive.read(member)
                if data:
                    torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
        except _Refused as refused:
            _needs_code(path, str(refused))
        except RecursionError:
            raise ValueError(f"{path} cannot be loaded as an exported program: {name} is nested too deeply") from None
        except (zipfile.BadZipFile, ValueError) as error:
            raise ValueError(f"{path} cannot be loaded as an exported program: {name}: {_brief(error)}") from None
        except Exception:
            _needs_code(path, f"{name} is a pickle that holds more than tensors")


class _Refused(Exception):
    pass


def _is_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a payload is what torch.save writes, rather than a tensor's bytes."""
    with archive.open(member) as payload:
        start = payload.read(4)
    return start == b"PK\x03\x04" or start[:1] == b"\x80"


def _check_expressions(path: Path, name: str, parsed: Any) -> None:
    for text in _expressions(parsed):
        if "__" in text or not _SAFE_EXPRESSION.fullmatch(text):
            raise _Refused(f"{name} has {text[:80]!r} where a size belongs")


def _expressions(parsed: Any) -> Iterator[str]:
    stack = [parsed]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "expr_str" and isinstance(inner, str):
                    yield inner
                else:
                    stack.append(inner)
        elif isinstance(value, list):
            stack.extend(value)
