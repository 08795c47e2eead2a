"""Whether what asks for memory ahead of use is in the machine code. A compiler may take a function of
prefetches alone for one without effects and drop the calls, and nothing but time would tell: GCC 12 did.
The argument is the extension."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

# x86 and aarch64.
PREFETCH = re.compile(r"\t(prefetch\w*|prfm)\b")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")

# Functions that loop over tens of thousands of tensors, by a pattern each: one that fits must have a
# prefetch.
LOOPS = [
    r"ElementList::ElementList\(",
    r"OrdinaryReader::read\(",
    r"BlockAhead<.*Measuring::read_few.*::reach\(",
    r"BlockAhead<.*norm_parts.*::reach\(",
    r"norm_parts",
    r"Measuring::read_others",
    r"cpu::fingerprint\(",
    r"read_ordinary_operands\(",
    r"compare_chunks\(|plan_comparison\(",
    r"fill_together",  # whose loop has a name too long to be demangled
    r"read_pieces\(",
    r"::plain\(char const",
    r"pyparam::gradients\(",
    r"DeviceTable::DeviceTable\(",
    r"PlainWalk::read_batch\(",
    r"Loan::take\(",
]


def with_prefetches(path: Path) -> dict[str, int]:
    """Prefetches of each function of a library."""
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
    if shutil.which("objdump") is None:
        print("check_prefetch: needs objdump", file=sys.stderr)
        return 1
    found = with_prefetches(Path(sys.argv[1]))
    wrong = []
    for pattern in LOOPS:
        loops = [count for name, count in found.items() if re.search(pattern, name)]
        print(f"{sum(loops):3} prefetches in {len(loops)} functions like {pattern}")
        if not loops:
            wrong.append(f"no function like {pattern} has a prefetch")
    for line in wrong:
        print(f"check_prefetch: {line}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
