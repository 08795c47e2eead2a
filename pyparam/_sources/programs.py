"""Files that hold a program besides its weights: TorchScript archives and exported programs (.pt2)."""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

# What torch writes symbolic sizes with. A name alone is harmless: only a call can do something.
_FUNCTIONS = frozenset(
    """
    Abs Add And BitwiseFn_bitwise_and BitwiseFn_bitwise_or BitwiseFn_bitwise_xor CeilDiv CeilToInt CleanDiv
    Eq Equality ExprCondPair Float FloatPow FloatTrueDiv FloorDiv FloorToInt Ge GreaterThan Gt Identity
    IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min Mod ModularIndexing Mul
    Ne Not Or Piecewise Pow PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt StrictGreaterThan
    StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where Xor ceiling exp floor log sign sqrt
    """.split()  # noqa: SIM905
)
_POWERS = frozenset(["FloatPow", "LShift", "Pow", "PowByNatural"])
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
_WORD = re.compile(r"[A-Za-z_]\w*|[+-]?[\d.]+(?:e[+-]?\d+)?", re.ASCII)
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
            # Which of the two depends on the version of torch.
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
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
            with open(path, "rb") as file:  # by its path, torch.export warns where that has another suffix
                return torch.export.load(file)
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
    raw = _raw_payloads(archive)
    for member in archive.infolist():
        name = member.filename
        if "/aotinductor/" in name or name.endswith((".so", ".dll", ".dylib")):
            _needs_code(path, f"{name} is compiled code")
        stem = name.rpartition("/")[2]
        if "/constants/" in name and stem.startswith(("custom_obj_", "opaque_obj_")):
            _needs_code(path, f"{name} is a pickled object")
        try:
            if name.lower().endswith(".json"):
                _check_expressions(name, json.loads(archive.read(member)))
            elif name.endswith(".pt") or (_stem(name) not in raw and _is_pickle(archive, member)):
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


def _stem(name: str) -> str:
    # torch finds a member whatever its case.
    return name.replace("\\", "/").rpartition("/")[2].lower()


def _raw_payloads(archive: zipfile.ZipFile) -> set[str]:
    """The payloads that are a tensor's bytes, which may begin like a pickle: those that some configuration in
    the archive names, and that none says to unpickle."""
    raw: set[str] = set()
    pickled: set[str] = set()
    for member in archive.infolist():
        if not member.filename.lower().endswith(".json"):
            continue
        try:
            stack = [json.loads(archive.read(member))]
        except (zipfile.BadZipFile, ValueError, RecursionError):  # told when the member's turn comes
            continue
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                if isinstance(value.get("path_name"), str):
                    as_bytes = value.get("use_pickle") is False
                    (raw if as_bytes else pickled).add(_stem(value["path_name"]))
                stack.extend(value.values())
            elif isinstance(value, list):
                stack.extend(value)
    return raw - pickled


def _is_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a payload begins as what torch.save writes does."""
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
        value = node.value
        return isinstance(value, (int, float)) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            return False
        return node.func.id not in _POWERS or all(_is_small(argument) for argument in node.args[1:])
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
        return _is_small(node.right)
    return isinstance(node, _ARITHMETIC)


def _is_small(exponent: ast.expr) -> bool:
    """Whether an exponent is so small that a power cannot take for ever: no large number, no power in it."""
    for node in ast.walk(exponent):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, (int, float))
            and node.value > _LARGEST_POWER
        ):
            return False
        if isinstance(node, (ast.Pow, ast.LShift)) or (isinstance(node, ast.Name) and node.id in _POWERS):
            return False
    return True
