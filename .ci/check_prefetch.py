"""Whether what asks for memory ahead of use is in the machine code. A compiler may take a function of
prefetches alone for one without effects and drop the calls, and nothing but time would tell: GCC 12 did.
The argument is the folder of objects of a build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

# x86 and aarch64.
PREFETCH = re.compile(r"\t(prefetch\w*|prfm)\b")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")

# Object, and functions of which one must have a prefetch: the loops over tens of thousands of tensors.
LOOPS = {
    "csrc/kernels/cpu/elements.o": ["ElementList::ElementList"],
    "csrc/kernels/cpu/measure.o": [r"\brun\(", "measure_tensors", "for_each_chunk"],
    "csrc/kernels/cpu/norm.o": ["norm_of_list", "for_each_chunk"],
    "csrc/kernels/cpu/fingerprint.o": [r"cpu::fingerprint\(", "for_each_chunk"],
    "csrc/kernels/cpu/compare.o": [r"cpu::compare\(", "for_each_chunk"],
    "csrc/kernels/cpu/transfer.o": ["read_pieces"],
    "csrc/kernels/cpu/fill.o": ["fill_together", "for_each_chunk"],
    "csrc/bindings/measure.o": ["pyparam::"],
}


def with_prefetches(path: Path) -> dict[str, int]:
    """Prefetches of each function of an object."""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, int] = {}
    function = ""
    for line in listing.stdout.splitlines():
        begins = FUNCTION.match(line)
        if begins is not None:
            function = begins[1]
        elif PREFETCH.search(line) is not None:
            found[function] = found.get(function, 0) + 1
    return found


def main() -> int:
    objects = Path(sys.argv[1])
    if shutil.which("objdump") is None:
        print("check_prefetch: needs objdump", file=sys.stderr)
        return 1
    wrong = []
    for name, patterns in LOOPS.items():
        path = objects / name
        if not path.is_file():
            wrong.append(f"there is no {path}")
            continue
        found = with_prefetches(path)
        loops = {f: n for f, n in found.items() if any(re.search(p, f) for p in patterns)}
        print(f"{name:34} {sum(loops.values()):3} prefetches in {len(loops)} functions")
        if not loops:
            wrong.append(f"{name}: none of {patterns} has a prefetch")
    for line in wrong:
        print(f"check_prefetch: {line}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
