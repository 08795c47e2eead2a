"""Builds ``pyparam._C`` with torch.utils.cpp_extension. Metadata lives in pyproject.toml.

Environment: ``PYPARAM_SANITIZE=1`` builds under AddressSanitizer and UndefinedBehaviorSanitizer,
``PYPARAM_DEBUG=1`` keeps assertions and symbols, ``MAX_JOBS`` bounds the parallel compiles.
"""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)


def stop(message: str) -> None:
    sys.exit(f"pyparam: {message}")


try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths
except ImportError:
    stop(
        "PyTorch is not importable in this environment. Install it first (pip install torch), "
        "then build with: pip install --no-build-isolation ."
    )

version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
if version < OLDEST_TORCH:
    stop(f"PyTorch {torch.__version__} is too old; {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer is needed.")

compiler = os.environ.get("CXX", "c++")
if shutil.which(compiler.split()[-1]) is None and shutil.which("g++") is None:
    stop(f"no C++ compiler found (looked for {compiler!r} and 'g++'). Install one, or name it in CXX.")


def enabled(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags of every C++ file."""
    # Warnings are errors in our files, not in torch's and Python's headers.
    system_headers = [*include_paths(), sysconfig.get_path("include")]
    compile_flags = [
        *(flag for path in system_headers for flag in ("-isystem", path)),
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-fvisibility=hidden",
        "-fopenmp",
        # A product and a sum stay two roundings on every machine: results may not depend on FMA.
        "-ffp-contract=off",
        # Neither errno nor a floating-point trap is ever read; square roots and selections vectorise without.
        "-fno-math-errno",
        "-fno-trapping-math",
    ]
    link_flags = ["-fopenmp"]
    if enabled("PYPARAM_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        # vptr and function checks need the type information of torch's own classes, which it hides.
        compile_flags += [*sanitize, "-fno-sanitize=vptr", "-fno-omit-frame-pointer", "-O1", "-g"]
        link_flags += sanitize
    elif enabled("PYPARAM_DEBUG"):
        compile_flags += ["-O1", "-g", "-UNDEBUG"]
    else:
        compile_flags += ["-O3", "-g0"]
    return compile_flags, link_flags


def extension() -> "CppExtension":
    compile_flags, link_flags = flags()
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    return CppExtension(
        "pyparam._C",
        sources,
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={"cxx": compile_flags},
        extra_link_args=link_flags,
    )


# One folder for the objects of every kind of build (in place, editable, wheel), so that the second one
# recompiles nothing, and another for the sanitizer build, whose flags differ.
objects = "build/sanitize/temp" if enabled("PYPARAM_SANITIZE") else "build/temp"

setup(
    ext_modules=[extension()],
    options={"build_ext": {"build_temp": objects}},
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=True)},
)
