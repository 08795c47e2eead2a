"""What can be said of the CUDA build on a machine without a GPU: it imports, every op has a CUDA kernel, no
kernel spills registers. The argument is the folder of objects, where .ci/nvcc left what the compiler said."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Made of other ops: they run on any device.
COMPOSED = {"pyparam::unflatten", "pyparam::fill_.one"}


def demangled(names: list[str]) -> list[str]:
    if shutil.which("c++filt") is None or not names:
        return names
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    kernel = re.compile(r"body_kernel<(.*)>\(")
    return [m[1] if (m := kernel.search(name)) else name for name in done.stdout.splitlines()]


def spills(objects: Path) -> list[str]:
    """What is wrong with the kernels; prints the registers of each."""
    wrong = []
    rows: list[tuple[str, str, int, int, int]] = []
    for source in sorted((ROOT / "csrc" / "kernels" / "cuda").glob("*.cu")):
        told = objects / "csrc" / "kernels" / "cuda" / f"{source.stem}.o.ptxas"
        if not told.is_file():
            wrong.append(f"{source.name}: the compiler's words on registers are not in {told}")
            continue
        entry = re.compile(
            r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*?"
            r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
            r"(?P<loads>\d+) bytes spill loads"
            r".*?Used (?P<registers>\d+) registers",
            re.S,
        )
        found = list(entry.finditer(told.read_text()))
        if not found:
            wrong.append(f"{source.name}: no kernel in it")
        rows += [
            (m["name"], m["arch"], int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
            for m in found
        ]
    for (_, arch, registers, stack, spilled), name in zip(rows, demangled([r[0] for r in rows]), strict=True):
        print(f"  {arch}  {registers:3d} registers  {stack:3d} bytes of stack  {spilled:3d} spilled  {name}")
        if spilled:
            wrong.append(f"{name} spills {spilled} bytes of registers on {arch}")
    return wrong


def unregistered() -> list[str]:
    import torch

    from pyparam._base.native import _C

    if not _C.BUILT_FOR_CUDA:
        return [f"{_C.__file__} is built without CUDA"]
    print(f"{_C.__file__}: PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    ops = sorted(
        schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("pyparam::")
    )
    if not ops:
        return ["no op of pyparam is registered"]
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = [op for op in ops if op not in COMPOSED and not has(op, "CUDA")]
    registered = len(ops) - len(missing) - len(COMPOSED)
    print(f"{len(ops)} ops: {registered} with CUDA kernels, {len(COMPOSED)} composed of others")
    return [f"{op} has no CUDA kernel" for op in missing]


def main() -> None:
    wrong = spills(Path(sys.argv[1])) + unregistered()
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
