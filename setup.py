"""Builds ``pyparam._C`` with torch.utils.cpp_extension. Metadata lives in pyproject.toml.

Environment: ``PYPARAM_SANITIZE=1`` builds under AddressSanitizer and UndefinedBehaviorSanitizer,
``PYPARAM_DEBUG=1`` keeps assertions and symbols, ``MAX_JOBS`` bounds the parallel compiles.

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
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)


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


def extension(cuda: Path | None) -> "CppExtension":
    compile_flags, link_flags = flags()
    folders = [ROOT / "csrc" / "kernels" / "cuda"]
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
    if cuda is None:
        sources = [source for source in sources if not (ROOT / source).is_relative_to(folders[0])]
        return CppExtension(
            "pyparam._C",
            sources,
            include_dirs=[str(ROOT / "csrc")],
            extra_compile_args={"cxx": compile_flags},
            extra_link_args=link_flags,
        )
    from torch.utils.cpp_extension import CUDAExtension

    sources += sorted(str(path.relative_to(ROOT)) for path in folders[0].glob("*.cu"))
    system = [flag for path in include_paths("cuda") for flag in ("-isystem", path)]
    return CUDAExtension(
        "pyparam._C",
        sources,
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": [*compile_flags, *system, "-DPYPARAM_CUDA"],
            "nvcc": [*system, *nvcc_flags(), "-DPYPARAM_CUDA"],
        },
        extra_link_args=link_flags,
    )


cuda = cuda_toolkit()
if cuda is not None and not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
    # torch would take every GPU that it was itself built for; these kernels need 7.0 or newer.
    os.environ["TORCH_CUDA_ARCH_LIST"] = "7.5;8.0;9.0+PTX"

# One folder for the objects of every kind of build (in place, editable, wheel), so that the second one
# recompiles nothing, and others for the sanitizer and the CUDA build, whose flags differ.
objects = "build/temp"
if enabled("PYPARAM_SANITIZE"):
    objects = "build/sanitize/temp"
elif cuda is not None:
    objects = "build/cuda/temp"

setup(
    ext_modules=[extension(cuda)],
    options={"build_ext": {"build_temp": objects}},
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=True)},
)
