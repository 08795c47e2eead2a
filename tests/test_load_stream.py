"""Bytes of a file go straight into a model: no copy stays in memory, and what was written to the map counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import pyparam
import pyparam._load.stream as stream_module
from pyparam._base.native import _C

MEGABYTE = 1 << 20


def resident(path: Path) -> int:
    """Bytes of the file that this process has in memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head = line.split()
        if "-" in head[0]:
            inside = line.endswith(str(path))
        elif inside and head[0] == "Rss:":
            total += int(head[1]) * 1024
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layers", [1, 24], ids=["one larger than a batch", "many smaller ones"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_are_given_back(layers: int, dtype: torch.dtype, tmp_path: Path) -> None:
    rows = 96 * MEGABYTE // layers // 1024 // dtype.itemsize
    values = {f"{i}.weight": torch.full((rows, 1024), float(i + 1), dtype=dtype) for i in range(layers)}
    safetensors.torch.save_file(values, tmp_path / "m.safetensors")
    net = nn.Sequential(*[nn.Linear(1024, rows, bias=False) for _ in range(layers)])
    checkpoint = pyparam.open(tmp_path / "m.safetensors")
    pyparam.load_(net, checkpoint)
    assert all(torch.equal(net.state_dict()[name], value.float()) for name, value in values.items())
    assert resident(tmp_path / "m.safetensors") < 40 * MEGABYTE


def test_what_was_written_to_the_map(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(64, 4096)}, path)
    checkpoint = pyparam.open(path)
    given = checkpoint["weight"]
    given[5, 7] = 3.0
    net = nn.Linear(4096, 64, bias=False)
    pyparam.load_(net, checkpoint)
    assert net.weight[5, 7] == 3.0
    assert given[5, 7] == 3.0
    assert pyparam.open(path)["weight"].count_nonzero() == 0


def test_batches_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"0": (0, 3), "1": (5,), "2": (), "3": (40, 9), "4": (7, 0), "5": (3, 3)}
    net = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})
    net["3"].data = torch.zeros(9, 40).t()
    values = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    safetensors.torch.save_file(values, tmp_path / "m.safetensors")
    for size in (1, 3, 16, 100, 1 << 20):
        monkeypatch.setattr(stream_module, "_BATCH_BYTES", size)
        with torch.no_grad():
            for parameter in net.values():
                parameter.fill_(-1)
        pyparam.load_(net, tmp_path / "m.safetensors")
        assert all(torch.equal(net[name], value.float()) for name, value in values.items())


def test_a_file_in_any_order_and_names_beyond_ascii(tmp_path: Path) -> None:
    names = ["b", "é", "a", "a10", "a2", "日本"]
    values = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    safetensors.torch.save_file(values, tmp_path / "m.safetensors")
    for order in (names, sorted(names), names[::-1]):
        net = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in order})
        assert pyparam.load_(net, tmp_path / "m.safetensors") == ([], [])
        assert all(torch.equal(net[name], value) for name, value in values.items())


def test_pairs_of_a_table() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    table = pyparam.walk(net, buffers=True)._native
    pairs = _C.match_table(net, table)
    assert pairs is not None
    assert (pairs.unexpected, pairs.conversions, pairs.share_memory()) == ([], [], False)
    doubled = {n: v.double() if v.is_floating_point() else v for n, v in state.items()} | {"x": torch.ones(1)}
    pairs = _C.match_table(net, _C.ParamTable(list(doubled), list(doubled.values())))
    assert pairs is not None
    assert pairs.unexpected == ["x"]
    assert pairs.conversions == [("0.weight", torch.float64, torch.float32)]
    del state["0.bias"]
    assert _C.match_table(net, _C.ParamTable(list(state), list(state.values()))) is None
    net[0].register_load_state_dict_post_hook(lambda *_: None)
    assert _C.match_table(net, table) is None
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    values = {name: torch.zeros_like(value) for name, value in tied.state_dict().items()}
    pairs = _C.match_table(tied, _C.ParamTable(list(values), list(values.values())))
    assert pairs is not None
    assert pairs.share_memory()


def test_copies_that_are_not_plain_are_refused_by_place() -> None:
    whole, short = torch.ones(3), torch.ones(3)
    short.untyped_storage().resize_(4)
    assert _C.odd_copies([whole, whole, short], [torch.ones(3), torch.ones(3, device="meta"), whole]) == [
        1,
        2,
    ]
    with pytest.raises(TypeError, match=r"copy: tensors\[1\] or its source is no ordinary tensor"):
        _C.copy_tensors([whole, whole], [torch.zeros(3), short])
    assert whole.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"copy: 1 targets and 2 sources"):
        _C.odd_copies([whole], [whole, whole])
    assert _C.share_memory([whole], [torch.ones(2), whole[1:]])
    assert not _C.share_memory([whole], [torch.ones(2)])
