"""Files that hold a program besides its weights: TorchScript archives and exported programs (.pt2)."""

from __future__ import annotations

import ast
import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

# What torch prints symbolic sizes with. Names alone are harmless: only a call can do something.
_FUNCTIONS = frozenset(
    "Abs Add And BitwiseFn_bitwise_and BitwiseFn_bitwise_or BitwiseFn_bitwise_xor CeilDiv CeilToInt CleanDiv Eq "
    "ExprCondPair Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt Identity IntTrueDiv Integer "
    "IsNonOverlappingAndDenseIndicator LShift Le Lt Max Min Mod ModularIndexing Mul Ne Not Or Piecewise Pow "
    "PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt ToFloat TruncToFloat TruncToInt Where Xor "
    "ceiling exp floor log sign sqrt".split()
)
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Tuple,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
    ast.Name,
)
_LONGEST_EXPRESSION = 100_000
_LARGEST_POWER = 64


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
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
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
        f"{path} is refused: it needs code to load ({what}). If you trust the file, load it with "
        "torch.export.load and pass the program"
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
                _check_expressions(name, json.loads(archive.read(member)))
            elif name.endswith(".pt") or ("/data/" in name and _is_pickle(archive, member)):
                data = archive.read(member)
                if data:
                    torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
        except _Refused as refused:
            _needs_code(path, str(refused))
        except RecursionError:
            raise ValueError(
                f"{path} cannot be loaded as an exported program: {name} is nested too deeply"
            ) from None
        except (zipfile.BadZipFile, ValueError) as error:
            raise ValueError(
                f"{path} cannot be loaded as an exported program: {name}: {_brief(error)}"
            ) from None
        except Exception:
            _needs_code(path, f"{name} is a pickle that holds more than tensors")


class _Refused(Exception):
    pass


def _is_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a payload is what torch.save writes, rather than a tensor's bytes."""
    with archive.open(member) as payload:
        start = payload.read(4)
    return start == b"PK\x03\x04" or start[:1] == b"\x80"


def _check_expressions(name: str, parsed: Any) -> None:
    for text in _expressions(parsed):
        if not _is_arithmetic(text):
            raise _Refused(f"{name} has {text[:80]!r} where a size belongs")


def _expressions(parsed: Any) -> Iterator[str]:
    """The texts that loading evaluates."""
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


def _is_arithmetic(text: str) -> bool:
    """Whether evaluating ``text`` can only compute with numbers and symbols, and not for ever."""
    if len(text) > _LONGEST_EXPRESSION:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_harmless(node) for node in ast.walk(tree))


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.Call):
        called = node.func
        return isinstance(called, ast.Name) and called.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
        exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
        if not isinstance(exponent, ast.Constant):
            return not isinstance(node.left, ast.Constant)
        return isinstance(exponent.value, (int, float)) and exponent.value <= _LARGEST_POWER
    return isinstance(node, _ARITHMETIC)
