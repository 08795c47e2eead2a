"""What setup.py and .ci/check_cuda.py say about a CUDA toolkit and the kernels, shown with stand-ins for both."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NVCC = """#!/bin/sh
case "$1" in
--dryrun) echo '#$ TOP={home}/bin/..' >&2 ;;
--version) echo 'Cuda compilation tools, release {release}, V{release}.48' ;;
esac
"""


def torch_stand_in(folder: Path, cuda: str | None) -> None:
    (folder / "torch" / "utils").mkdir(parents=True)
    (folder / "torch" / "utils" / "__init__.py").write_text("")
    (folder / "torch" / "utils" / "cpp_extension.py").write_text(
        "from types import SimpleNamespace\n"
        "def CppExtension(name, sources, **rest): raise SystemExit(f'CPU only: {len(sources)} sources')\n"
        "def CUDAExtension(name, sources, **rest):\n"
        "    import os\n"
        "    cuda = [source for source in sources if source.endswith('.cu')]\n"
        "    archs = os.environ['TORCH_CUDA_ARCH_LIST']\n"
        "    raise SystemExit(f'CUDA from {os.environ[\"CUDA_HOME\"]}: {len(cuda)} kernels for {archs}')\n"
        "def include_paths(*kind): return []\n"
        "class BuildExtension: pass\n"
    )
    (folder / "torch" / "__init__.py").write_text(
        f"from types import SimpleNamespace\n__version__ = '2.14.1'\nversion = SimpleNamespace(cuda={cuda!r})\n"
        "cuda = SimpleNamespace(is_available=lambda: False)\n"
    )


def toolkit(folder: Path, release: str) -> Path:
    for part in ("bin", "include", "lib64"):
        (folder / part).mkdir(parents=True)
    (folder / "include" / "cuda_runtime_api.h").write_text("")
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(home=folder, release=release))
    nvcc.chmod(0o755)
    return folder


def setup(tmp_path: Path, *, path: list[Path] = (), **environment: str) -> str:  # type: ignore[assignment]
    """What setup.py says, with this stand-in for torch and this path for programs."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "FORCE_CUDA", "PYPARAM"))}
    clean["PATH"] = os.pathsep.join([*map(str, path), "/usr/bin", "/bin"])
    code = f"import runpy; runpy.run_path({str(ROOT / 'setup.py')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(tmp_path), **environment},
    )
    return done.stderr


def test_nvcc_on_the_path_leads_to_its_toolkit(tmp_path: Path) -> None:
    """Also where it is a script beside other programs, as distributions put it."""
    torch_stand_in(tmp_path, "13.0")
    home = toolkit(tmp_path / "opt" / "cuda-13.0", "13.0")
    script = tmp_path / "programs"
    script.mkdir()
    (script / "nvcc").write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    (script / "nvcc").chmod(0o755)
    assert f"CUDA from {home}: " in setup(tmp_path, path=[script])
    link = tmp_path / "links"
    link.mkdir()
    (link / "nvcc").symlink_to(home / "bin" / "nvcc")
    assert f"CUDA from {home}: " in setup(tmp_path, path=[link])
    said = setup(tmp_path, CUDA_HOME=str(home))
    assert f"CUDA from {home}: " in said
    assert said.endswith("kernels for 7.5;8.0;9.0+PTX\n")
    assert setup(tmp_path, CUDA_HOME=str(home), TORCH_CUDA_ARCH_LIST="8.6").endswith("kernels for 8.6\n")
    assert "CPU only" in setup(tmp_path, path=[script], FORCE_CUDA="0")


def test_torch_without_cuda_needs_no_toolkit(tmp_path: Path) -> None:
    torch_stand_in(tmp_path, None)
    home = toolkit(tmp_path / "cuda", "13.0")
    assert "CPU only" in setup(tmp_path, CUDA_HOME=str(home))
    said = setup(tmp_path, CUDA_HOME=str(home), FORCE_CUDA="1")
    assert "FORCE_CUDA=1, but PyTorch 2.14.1 was built without CUDA" in said


def test_a_toolkit_of_another_major_version_is_refused(tmp_path: Path) -> None:
    torch_stand_in(tmp_path, "13.0")
    old = toolkit(tmp_path / "cuda-12.8", "12.8")
    said = setup(tmp_path, CUDA_HOME=str(old))
    assert "PyTorch 2.14.1 was built for CUDA 13.0, but the toolkit in" in said
    assert "is CUDA 12.8: their major versions must be the same" in said
    assert "FORCE_CUDA=0" in said
    minor = toolkit(tmp_path / "cuda-13.2", "13.2")
    assert f"CUDA from {minor}" in setup(tmp_path, CUDA_HOME=str(minor))


def test_no_toolkit(tmp_path: Path) -> None:
    torch_stand_in(tmp_path, "13.0")
    nowhere = tmp_path / "nowhere"
    said = setup(tmp_path, CUDA_HOME=str(nowhere))
    assert f"CUDA_HOME is {nowhere}, but bin/nvcc and include/cuda_runtime_api.h are not there" in said
    if Path("/usr/local/cuda/bin/nvcc").exists() or Path("/usr/bin/nvcc").exists():
        pytest.skip("this machine has a toolkit where one is looked for last")
    assert "CPU only" in setup(tmp_path)
    assert "FORCE_CUDA=1, but no CUDA toolkit was found" in setup(tmp_path, FORCE_CUDA="1")


# --- .ci/check_cuda.py ----------------------------------------------------------------------------------------

TOLD = """ptxas info    : 28 bytes gmem
ptxas info    : Compiling entry function '_Z{name}' for 'sm_90'
ptxas info    : Function properties for _Z{name}
    {stack} bytes stack frame, {spilled} bytes spill stores, {spilled} bytes spill loads
ptxas info    : Used 60 registers, used 0 barriers
"""


@pytest.fixture
def spills() -> Any:
    return runpy.run_path(str(ROOT / ".ci" / "check_cuda.py"))["spills"]


def told(folder: Path, *, spilled: int) -> None:
    place = folder / "csrc" / "kernels" / "cuda"
    place.mkdir(parents=True)
    for source in (ROOT / "csrc" / "kernels" / "cuda").glob("*.cu"):
        clean = TOLD.format(name="5clean", stack=8, spilled=0)
        (place / f"{source.stem}.o.ptxas").write_text(
            clean + TOLD.format(name="5other", stack=8, spilled=spilled)
        )


def test_a_kernel_that_spills_is_named(tmp_path: Path, spills: Any) -> None:
    kernels = len(list((ROOT / "csrc" / "kernels" / "cuda").glob("*.cu")))
    assert kernels > 0
    told(tmp_path / "clean", spilled=0)
    assert spills(tmp_path / "clean") == []
    told(tmp_path / "spilled", spilled=12)
    wrong = spills(tmp_path / "spilled")
    assert len(wrong) == kernels
    assert all("other" in line and "spills 24 bytes of registers on sm_90" in line for line in wrong)


def test_kernels_of_which_nothing_is_known_are_no_success(tmp_path: Path, spills: Any) -> None:
    wrong = spills(tmp_path)
    assert wrong
    assert all("the compiler's words on registers are not in" in line for line in wrong)
