"""load_ of tensors saved in pieces: each goes straight to its place, whatever its alignment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

import pyparam
from pyparam._sources.distributed import DistributedCheckpoint

# Saved without a process group, which torch says each time.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rows = nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(7)
        self.scalar = nn.Parameter(torch.tensor(2.5))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.odd = nn.Buffer(torch.arange(3, dtype=torch.uint8))


def zeroed() -> Net:
    net = Net()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    return net


def never(*_: object) -> None:
    raise AssertionError("a whole tensor was put together")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_byte(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in Net().state_dict().items()}
    dcp.save(state, checkpoint_id=tmp_path / "c", no_dist=True)
    opened = pyparam.open(tmp_path / "c")
    assert isinstance(opened, DistributedCheckpoint)
    assert any(values is None for name in opened for _, values in opened.boxes(name)), "some lie askew"
    net = zeroed()
    versions = {name: value._version for name, value in net.state_dict(keep_vars=True).items()}
    monkeypatch.setattr("pyparam._sources.distributed._Part.tensor", never)
    assert pyparam.load_(net, opened, cast=True) == ([], [])
    for name, value in net.state_dict(keep_vars=True).items():
        assert torch.equal(value, torch.empty_like(value).copy_(state[name])), name
        assert value._version > versions[name] or value.numel() == 0
    monkeypatch.undo()
    if dtype == torch.float64:
        with pytest.raises(
            ValueError, match=r"load_: '.*' is torch\.float64 in the source and torch\.float32"
        ):
            pyparam.load_(net, opened)


def in_boxes(path: Path) -> torch.Tensor:
    """As HuggingFaceStorageWriter(save_distributed=True) writes: here four files, a quarter each."""
    path.mkdir()
    whole = torch.arange(35.0).view(7, 5)
    for rank, (row, column) in enumerate([(0, 0), (0, 3), (4, 0), (4, 3)]):
        box = whole[row : row + 4, column : column + 3].clone()
        save_file(
            {"weight": box},
            path / f"shard-{rank + 1:05}-model-00001-of-00001.safetensors",
            metadata={"DCP_SHARDING_INFO": f'{{"weight": {{"saved_offsets": [{row}, {column}]}}}}'},
        )
    return whole


def test_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = in_boxes(tmp_path / "c")
    monkeypatch.setattr("pyparam._sources.distributed._Part.tensor", never)
    plain, transposed = nn.Linear(5, 7, bias=False), nn.Linear(5, 7, bias=False).double()
    transposed.weight.data = torch.zeros(5, 7, dtype=torch.float64).t()
    for net in (plain, transposed):
        pyparam.load_(net, tmp_path / "c")
        assert torch.equal(net.weight, whole.to(net.weight.dtype))


def test_ties_hooks_and_names_as_ever(tmp_path: Path) -> None:
    whole = in_boxes(tmp_path / "c")
    seen: list[object] = []
    hooked = nn.Linear(5, 7, bias=False)
    hooked.register_load_state_dict_post_hook(lambda *_: seen.append(1))
    pyparam.load_(hooked, tmp_path / "c")
    assert torch.equal(hooked.weight, whole)
    assert seen == [1]
    other = nn.Sequential(nn.Linear(5, 7, bias=False))
    with pytest.raises(ValueError, match=r"load_: the source lacks '0\.weight'"):
        pyparam.load_(other, tmp_path / "c")
    with pytest.raises(
        ValueError, match=r"load_: 'weight' has shape \[7, 5\] in the source, expected \[5, 7\]"
    ):
        pyparam.load_(nn.Linear(7, 5, bias=False), tmp_path / "c")


def test_a_damaged_piece_leaves_the_model(tmp_path: Path) -> None:
    dcp.save(Net().state_dict(), checkpoint_id=tmp_path / "c", no_dist=True)
    piece = pyparam.open(tmp_path / "c").pieces("rows.weight")[0]
    data = bytearray(piece.file.read_bytes())
    data[piece.begin + piece.length - 22] ^= 1  # the end of its archive
    piece.file.write_bytes(data)
    net = zeroed()
    with pytest.raises(
        ValueError, match=r"the piece of 'rows\.weight' at \[0, 0\] cannot be read: .*zip archive"
    ):
        pyparam.load_(net, tmp_path / "c")
    assert all(not value.any() for value in net.state_dict().values())
