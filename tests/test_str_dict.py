"""What the bulk walk reads of dicts and sets is what Python says, by the mirrored layout and without it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from host_kernels import COMPILER

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"mirrored": ["-DLOOK_FIRST"], "not as expected": [], "public API": ["-DPYPARAM_PUBLIC_DICT_API"]}


@pytest.fixture(scope="module", params=WAYS)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("native") / "str_dict.so"
    command = [COMPILER, "-std=c++20", "-O1", "-fPIC", "-shared", *WAYS[request.param]]
    command += [f"-I{ROOT / 'csrc'}", f"-I{sysconfig.get_path('include')}"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "native" / "str_dict.cpp"), "-o", str(target)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loader = importlib.machinery.ExtensionFileLoader("str_dict", str(target))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("str_dict", loader))
    module.way = request.param
    return module


class Named(str):
    __slots__ = ()


class Plain:
    pass


def names(count: int) -> list[str]:
    return [sys.intern(f"name{i}") for i in range(count)]


def instance(order: list[str]) -> dict[str, object]:
    made = Plain()
    for name in order:
        setattr(made, name, object())
    return vars(made)


def with_holes(count: int) -> dict[str, object]:
    made = {name: object() for name in names(count)}
    for name in names(count)[::3]:
        del made[name]
    return made


def test_the_layout_of_this_python_is_the_mirrored_one(native: Any) -> None:
    """False is no mistake of an unknown version, which is slower; of these it is one."""
    known = (3, 11) <= sys.version_info[:2] <= (3, 14) and not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert native.knows() == (known and native.way == "mirrored")


# Indices of one, two and four bytes; tables with places of what was deleted; instances that share their keys.
@pytest.mark.parametrize(
    "made",
    [
        {},
        {"name0": None},
        {name: object() for name in names(5)},
        {name: object() for name in names(200)},
        {name: object() for name in names(70_000)},
        with_holes(6),
        with_holes(500),
        instance(names(4)),
        instance(names(4)[::-1]),
        instance(names(29)),
    ],
    ids=[
        "empty",
        "one",
        "5",
        "200",
        "70000",
        "6 with holes",
        "500 with holes",
        "shared",
        "shared, turned",
        "29",
    ],
)
def test_look_ups_are_those_of_python(native: Any, made: dict[str, object]) -> None:
    assert native.str_keys(made)
    assert native.entries(made) == list(made.items())
    for name in [*names(600), sys.intern("absent"), *names(70_000)[-3:]]:
        assert native.find(made, name) is made.get(name, NotImplemented)


def test_keys_that_are_not_strs_are_seen(native: Any) -> None:
    first = sys.intern("name0")
    assert not native.str_keys({None: 1})
    assert not native.str_keys({first: 1, 2: 3})
    assert not native.str_keys({first: 1, Named("x"): 2})
    turned = instance([first])
    turned[Named("x")] = 2
    assert not native.str_keys(turned)


def test_a_hint_believes_only_what_it_finds(native: Any) -> None:
    some = names(4)
    dicts = [
        instance(some),
        instance(some),
        {},
        {some[1]: 7},
        instance(some[:1]),
        with_holes(9),
        {some[2]: 8},
    ]
    for name in [*some, sys.intern("absent")]:
        expected = [made.get(name, NotImplemented) for made in dicts]
        found = native.hinted(dicts, name)
        assert all(a is b for a, b in zip(found, expected, strict=True))


def test_shared_keys_are_told_where_they_are_known(native: Any) -> None:
    made = instance(names(3))
    # Another form than shared keys is allowed.
    assert native.shared(made, sys.intern("name1")) in (True, None)
    assert native.shared(made, sys.intern("absent")) in (False, None)
    assert native.shared({sys.intern("name1"): 1}, sys.intern("name1")) is None


def test_sets_of_strs_are_told_from_others(native: Any) -> None:
    left = {*names(40), 1}
    left.discard(1)
    assert native.strs(set())
    assert native.strs(set(names(300)))
    assert native.strs(left)
    assert not native.strs({*names(40), 1})
    assert not native.strs({Named("x")})
    assert not native.strs({None, *names(3)})
