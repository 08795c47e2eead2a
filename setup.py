"""Builds ``pyparam._C`` with torch.utils.cpp_extension. Metadata lives in pyproject.toml.

Environment: ``PYPARAM_SANITIZE=1`` builds under AddressSanitizer and UndefinedBehaviorSanitizer,
``PYPARAM_DEBUG=1`` keeps assertions and symbols, ``PYPARAM_WERROR=1`` makes warnings errors,
``PYPARAM_JUMBO=0`` compiles each source by itself, ``MAX_JOBS`` bounds the parallel compiles.

The CUDA kernels are built where torch was built for CUDA and a toolkit is found: in ``CUDA_HOME``, or where
``nvcc`` on the path really lies. ``FORCE_CUDA=1`` makes it an error if they cannot be built (that takes no
GPU), ``FORCE_CUDA=0`` leaves them out. ``TORCH_CUDA_ARCH_LIST`` says for which GPUs, as for any extension of
torch. ``PYPARAM_PTXAS_VERBOSE=1`` has nvcc print each kernel's registers and spills, and makes its warnings
errors.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from setuptools import __version__ as setuptools_version
from setuptools import setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)
OLDEST_SETUPTOOLS = 77


def stop(message: str) -> None:
    sys.exit(f"pyparam: {message}")


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, or where ``nvcc`` really lies.

    What is on the path may be a link, or a script that starts the real one: so it is asked.
    """
    candidates = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = shutil.which("nvcc")
    if not candidates and found is not None:
        told = subprocess.run([found, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
        candidates = [Path(top.strip()).resolve() for top in re.findall(r"^#\$ TOP=(.*)$", told.stderr, re.M)]
        candidates.append(Path(found).resolve().parent.parent)
    candidates = candidates or [Path("/usr/local/cuda")]
    for folder in candidates:
        if (folder / "bin" / "nvcc").is_file() and (folder / "include" / "cuda_runtime_api.h").is_file():
            return folder
    return None


# Before torch looks: it would take the folder above a script named nvcc for the toolkit.
found_toolkit = toolkit()
if found_toolkit is not None:
    os.environ["CUDA_HOME"] = str(found_toolkit)

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths
except ImportError as error:
    stop(
        "PyTorch is not importable in this environment. Install it first (pip install torch), "
        f"then build with: pip install --no-build-isolation . (the import said: {error})"
    )

version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
if version < OLDEST_TORCH:
    stop(f"PyTorch {torch.__version__} is too old; {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer is needed.")

if shutil.which("ninja") is None:
    # Installed as a package it lies beside an interpreter that need not be on the path. Without it torch
    # compiles one file after the other, and all of them again each time.
    with suppress(ImportError):
        from ninja import BIN_DIR

        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), BIN_DIR])

compiler = os.environ.get("CXX", "c++")
if shutil.which(compiler.split()[-1]) is None and shutil.which("g++") is None:
    stop(f"no C++ compiler found (looked for {compiler!r} and 'g++'). Install one, or name it in CXX.")

# pip does not ask without build isolation, and an older one calls pyproject.toml invalid.
if int(setuptools_version.split(".")[0]) < OLDEST_SETUPTOOLS:
    stop(
        f"setuptools {setuptools_version} is too old; {OLDEST_SETUPTOOLS} or newer is needed: "
        f"pip install 'setuptools>={OLDEST_SETUPTOOLS}' wheel ninja"
    )


def enabled(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def is_gcc() -> bool:
    told = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in told.stdout


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags of every C++ file."""
    # Warnings are for our files, not for torch's and Python's headers.
    system_headers = [*include_paths(), sysconfig.get_path("include")]
    compile_flags = [
        *(flag for path in system_headers for flag in ("-isystem", path)),
        "-Wall",
        "-Wextra",
        # A newer compiler has new warnings, which are to stop nobody but us.
        *(["-Werror"] if enabled("PYPARAM_WERROR") else []),
        "-Wno-unknown-pragmas",
        "-fvisibility=hidden",
        "-fopenmp",
        # A product and a sum stay two roundings on every machine: results may not depend on FMA.
        "-ffp-contract=off",
        # Neither errno nor a floating-point trap is ever read; square roots and selections vectorise without.
        "-fno-math-errno",
        "-fno-trapping-math",
    ]
    if together and is_gcc():
        # How much is inlined is not to hang on how many sources are one unit (UNITS).
        compile_flags += ["--param", "inline-unit-growth=400"]
    link_flags = ["-fopenmp"]
    if enabled("PYPARAM_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        # vptr and function checks need the type information of torch's own classes, which it hides. A report
        # names functions and lines, which -g1 has.
        compile_flags += [*sanitize, "-fno-sanitize=vptr", "-fno-omit-frame-pointer", "-O1", "-g1"]
        link_flags += sanitize
    elif enabled("PYPARAM_DEBUG"):
        compile_flags += ["-O1", "-g", "-UNDEBUG"]
    else:
        compile_flags += ["-O3", "-g0"]
    return compile_flags, link_flags


def cuda_toolkit() -> Path | None:
    """The toolkit to build the CUDA kernels with; None for a CPU-only build."""
    wanted = os.environ.get("FORCE_CUDA", "")
    if wanted == "0" or enabled("PYPARAM_SANITIZE"):
        return None
    if torch.version.cuda is None:
        if enabled("FORCE_CUDA"):
            stop(
                f"FORCE_CUDA=1, but PyTorch {torch.__version__} was built without CUDA. Install one with it."
            )
        return None
    folder = found_toolkit
    if folder is None:
        named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        if named:
            stop(
                f"CUDA_HOME is {named}, but bin/nvcc and include/cuda_runtime_api.h are not there. "
                "Name the toolkit's folder, or build without CUDA: FORCE_CUDA=0."
            )
        if enabled("FORCE_CUDA"):
            stop("FORCE_CUDA=1, but no CUDA toolkit was found: set CUDA_HOME, or put nvcc on the path.")
        return None
    told = subprocess.run([str(folder / "bin" / "nvcc"), "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", told)
    if release is None:
        stop(f"{folder}/bin/nvcc --version names no release.")
    if release[1] != torch.version.cuda.split(".")[0]:
        needed = torch.version.cuda.split(".")[0]
        stop(
            f"PyTorch {torch.__version__} was built for CUDA {torch.version.cuda}, but the toolkit in "
            f"{folder} is CUDA {release[1]}.{release[2]}: their major versions must be the same. "
            f"Name a toolkit of version {needed} in CUDA_HOME, or build without CUDA: FORCE_CUDA=0."
        )
    return folder


def nvcc_flags() -> list[str]:
    """Flags of every .cu file; cpp_extension adds the architectures."""
    return [
        "-O3",
        # A product and a sum stay two roundings, as on the CPU, and divisions and roots are the IEEE ones.
        "--fmad=false",
        "--prec-div=true",
        "--prec-sqrt=true",
        "--ftz=false",
        "--expt-relaxed-constexpr",
        "-Xcompiler=-fvisibility=hidden,-Wall,-Wno-unknown-pragmas",
        # Whoever has another toolkit is not to be stopped by a warning that ours does not know.
        *(["-Xptxas=-v", "-Werror=all-warnings"] if enabled("PYPARAM_PTXAS_VERBOSE") else []),
    ]


def of_cpu(names: str) -> tuple[str, ...]:
    return tuple(f"csrc/kernels/cpu/{name}.cpp" for name in names.split())


# The sources that are compiled as one, because torch's and pybind11's headers take most of the time that each
# of them takes; those that take longest first. A source that stands in none is compiled by itself.
UNITS = {
    "bindings": ("csrc/*.cpp", "csrc/bindings/*.cpp"),
    "kernels": ("csrc/kernels/*.cpp",),
    "walk": ("csrc/walk/*.cpp",),
    "table": ("csrc/table/*.cpp",),
    "values": of_cpu("convert difference exact hash hash_few words"),
    "draws": of_cpu("draw_tile fill pair"),
    "reads": of_cpu("compare elements fingerprint flatten measure part_compare scatter summaries"),
    "blocks": of_cpu("bins copies lerp logical memory norm packed_bins pages part_hash transfer"),
    "files": ("csrc/files/*.cpp",),
}


# A file that is included counts as a header, in which a type of an unnamed namespace would be a mistake.
PREAMBLE = """\
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif
"""


together = os.environ.get("PYPARAM_JUMBO", "1") != "0"


def jumbo(sources: list[str]) -> list[str]:
    """The sources, those of a unit of ``UNITS`` replaced by a file that includes them."""
    if not together:
        return sources
    folder = ROOT / "build" / "jumbo"
    folder.mkdir(parents=True, exist_ok=True)
    made: list[str] = []
    alone = list(sources)
    for unit, patterns in UNITS.items():
        those = [source for source in sources if any(Path(source).match(pattern) for pattern in patterns)]
        alone = [source for source in alone if source not in those]
        text = PREAMBLE + "".join(f'#include "{Path(source).relative_to("csrc")}"\n' for source in those)
        # Not a name that a source has: it would include itself.
        path = folder / f"unit_{unit}.cpp"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
        made.append(str(path.relative_to(ROOT)))
    return made + alone


def extension(cuda: Path | None) -> "CppExtension":
    compile_flags, link_flags = flags()
    kernels = ROOT / "csrc" / "kernels" / "cuda"
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    if cuda is None:
        sources = [source for source in sources if not (ROOT / source).is_relative_to(kernels)]
        return CppExtension(
            "pyparam._C",
            jumbo(sources),
            include_dirs=[str(ROOT / "csrc")],
            extra_compile_args={"cxx": compile_flags},
            extra_link_args=link_flags,
        )
    from torch.utils.cpp_extension import CUDAExtension

    system = [flag for path in include_paths("cuda") for flag in ("-isystem", path)]
    return CUDAExtension(
        "pyparam._C",
        [*jumbo(sources), *sorted(str(path.relative_to(ROOT)) for path in kernels.glob("*.cu"))],
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": [*compile_flags, *system, "-DPYPARAM_CUDA"],
            "nvcc": [*system, *nvcc_flags(), "-DPYPARAM_CUDA"],
        },
        extra_link_args=link_flags,
    )


@contextmanager
def short_progress() -> Iterator[None]:
    """Has ninja, which torch runs with ``-v``, tell what it compiles and not how.

    On a terminal that is one line. The command is told of a file that does not compile.
    """
    run = subprocess.run

    def quiet(command: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(command, list) and command[:2] == ["ninja", "-v"]:
            command = ["ninja", *command[2:]]
            rules = Path(options.get("cwd") or ".", "build.ninja")
            # Without a description ninja tells the command.
            rules.write_text(
                re.sub(r"^(rule .*)$", r"\1\n  description = $in", rules.read_text(), flags=re.M)
            )
        return run(command, *rest, **options)

    subprocess.run = quiet  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.run = run


def built_for() -> str:
    """What the extension is built for, as the package reads it before it loads the extension."""
    return f"torch {torch.__version__}\ncuda {torch.version.cuda if cuda is not None else None}\n"


class Build(BuildExtension):
    """Builds in one folder of objects, whatever asks; says beside the extension what it was built for."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # An editable install would build in a temporary folder, all anew.
        self.build_temp = str(ROOT / objects)

    def build_extensions(self) -> None:
        try:
            with short_progress():
                super().build_extensions()
        except RuntimeError as error:
            if not isinstance(error.__cause__, subprocess.CalledProcessError):
                raise
            # ninja has told the command and what the compiler said.
            stop("the extension did not compile; the command that failed stands above.")

    def records(self) -> list[Path]:
        return [Path(path).with_suffix(".built") for path in super().get_outputs()]

    def run(self) -> None:
        super().run()
        inplace, self.inplace = self.inplace, False
        paths = self.records()
        self.inplace = inplace
        if inplace:
            paths = [ROOT / "pyparam" / path.name for path in paths]
        for path in paths:
            path.write_text(built_for())

    def get_source_files(self) -> list[str]:
        """For the source distribution, which has what is compiled together one by one, and the headers."""
        return sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.suffix in SUFFIXES
        )

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), *map(str, self.records())]


SUFFIXES = {".cpp", ".h", ".cu", ".cuh"}

cuda = cuda_toolkit()
if cuda is not None and not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
    # torch would take every GPU that it was itself built for; these kernels need 7.0 or newer.
    os.environ["TORCH_CUDA_ARCH_LIST"] = "7.5;8.0;9.0+PTX"

# One folder for the objects of every kind of build (in place, editable, wheel), so that the second one
# recompiles nothing, and others for the builds whose flags differ.
objects = "build/temp"
if enabled("PYPARAM_SANITIZE"):
    objects = "build/sanitize/temp"
elif cuda is not None:
    objects = "build/cuda/temp"
elif enabled("PYPARAM_WERROR"):
    objects = "build/werror"

setup(
    ext_modules=[extension(cuda)],
    cmdclass={"build_ext": Build},
)
