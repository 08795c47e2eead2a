"""Measuring checkpoints on disk: the same figures, in little memory, and nothing lost."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pyparam

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def sparse_file(path: Path, tensors: dict[str, int]) -> None:
    """A safetensors file of float32 zeros that takes no room on disk. The data starts off a page's edge."""
    header, at = {}, 0
    for name, count in tensors.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


PEAK = """
import sys, pyparam
def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) / 1024
source = sys.argv[1] if sys.argv[2] == "path" else pyparam.open(sys.argv[1])
before = resident("VmRSS")
if sys.argv[3] in ("select", "dequantize"):
    from pyparam._measure.readable import measure_dequantized, measure_readable
    if sys.argv[3] == "select":
        stats = measure_readable(source, select="*l*")[0]
    else:
        stats = measure_dequantized(source)[0]
    assert len(stats) == 2001, stats
else:
    stats = pyparam.measure(source, histogram=sys.argv[3] == "bins")
assert stats.total.zeros == stats.total.numel, stats
print(resident("VmHWM") - before, resident("VmHWM"))
"""


def peak_growth(path: Path, how: str, bins: str) -> tuple[float, float]:
    """MiB of resident memory that measuring added at its peak, and the peak itself."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pyparam.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), how, bins], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    growth, peak = done.stdout.split()
    return float(growth), float(peak)


@linux
@pytest.mark.parametrize(
    ("how", "bins"),
    [("path", "none"), ("checkpoint", "bins"), ("path", "select"), ("checkpoint", "dequantize")],
)
def test_memory_stays_small(tmp_path: Path, how: str, bins: str) -> None:
    path = tmp_path / "model.safetensors"
    sparse_file(path, {"one large": 70_000_001, **{f"small.{i}": 10_007 for i in range(2000)}})
    growth, _ = peak_growth(path, how, bins)
    assert growth < 60, f"{path.stat().st_size >> 20} MiB of file took {growth:.0f} MiB"


@linux
@pytest.mark.slow
def test_three_gigabytes_in_less_than_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sparse_file(path, {"large": 500_000_003, "other": 300_000_000})
    _, peak = peak_growth(path, "path", "none")
    assert peak < 1000


def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    tensors = {
        "w": torch.randn(300_001, generator=g),
        "half": torch.randn(70_003, generator=g).bfloat16(),
        "empty": torch.empty(0),
        "byte": torch.arange(101, dtype=torch.uint8),
        "double": torch.randn(5000, generator=g, dtype=torch.float64),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path, tensors


def assert_same(a: pyparam.Stats, b: pyparam.Stats) -> None:
    for name in b.names:
        row, other = a[name].to_dict(), b[name].to_dict()
        assert repr(row) == repr(other)


def test_the_same_figures_as_in_memory(tmp_path: Path) -> None:
    path, tensors = checkpoint(tmp_path)
    expected = pyparam.measure(tensors, histogram=True)
    for source in (path, str(path), pyparam.open(path)):
        found = pyparam.measure(source, histogram=True)
        assert sorted(found.names) == sorted(expected.names)
        assert_same(found, expected)
        assert torch.equal(found.histogram().counts, expected.histogram().counts)


@linux
def test_what_was_written_to_a_checkpoint_counts_and_stays(tmp_path: Path) -> None:
    path, tensors = checkpoint(tmp_path)
    opened = pyparam.open(path)
    assert isinstance(opened, pyparam.Checkpoint)
    assert opened.spare_maps() != []
    held = opened["w"]
    assert opened.spare_maps() == []
    held[7] = 1000.0
    assert pyparam.measure(opened)["w"].max == 1000.0
    assert held[7] == 1000.0
    del held
    # Nobody holds it any more, but the write is in the map.
    assert opened.spare_maps() == []
    assert pyparam.measure(opened)["w"].max == 1000.0
    assert opened["w"][7] == 1000.0
    assert pyparam.measure(path)["w"].max == tensors["w"].max().item()


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        pyparam.measure("no such file.safetensors")
