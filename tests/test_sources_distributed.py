"""Directories that torch.distributed.checkpoint writes: pieces at any byte, read without its code or a
group."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from typer.testing import CliRunner

import pyparam
from pyparam._cli import app
from pyparam._findings.survey import survey
from pyparam._sources import unpickle
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._view import about
from pyparam._view.text import summarize

# Saved without a process group, which torch says each time.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SHAPES = {"model.rows": (7, 5), "model.columns": (3, 10), "model.blocks": (5, 4, 3), "model.bias": (7,)}
SPLITS = {"model.rows": (3, 5), "model.columns": (3, 4), "model.blocks": (2, 3, 2), "model.bias": (4,)}


class Splitting(dcp.DefaultSavePlanner):
    """Saves tensors in boxes of ``SPLITS``, uneven at the ends, as many ranks together would."""

    def create_local_plan(self):
        plan = super().create_local_plan()
        items = [item for write in plan.items for item in self._boxes(write)]
        self.plan = dataclasses.replace(plan, items=items)
        return self.plan

    def _boxes(self, write):
        name = write.index.fqn
        if name not in SPLITS:
            return [write]
        tensor = self.state_dict[name]
        starts = [range(0, extent, step) for extent, step in zip(tensor.shape, SPLITS[name], strict=True)]
        places = torch.cartesian_prod(*[torch.tensor(list(axis)) for axis in starts]).view(-1, tensor.dim())
        found = []
        for offsets in places.tolist():
            sizes = [
                min(step, extent - at)
                for at, step, extent in zip(offsets, SPLITS[name], tensor.shape, strict=True)
            ]
            chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
            data = TensorWriteData(chunk, TensorProperties.create_from_tensor(tensor), tensor.size())
            index = MetadataIndex(name, torch.Size(offsets))
            found.append(WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data))
        return found

    def resolve_data(self, write_item):
        if write_item.tensor_data is None or write_item.index.fqn not in SPLITS:
            return super().resolve_data(write_item)
        box = self.state_dict[write_item.index.fqn]
        chunk = write_item.tensor_data.chunk
        for axis, (at, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
            box = box.narrow(axis, at, size)
        return box.clone()


def state():
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    model = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    model |= {
        "half": torch.randn(9).to(torch.bfloat16),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flags": torch.tensor([True, False, True]),
    }
    return {"model": model, "step": 7, "optimizer": {"lr": 0.1, "betas": [0.9, 0.95], "name": "adamw"}}


def write(path, threads=3, what=None):
    writer = dcp.FileSystemWriter(path, thread_count=threads)
    dcp.save(what or state(), storage_writer=writer, planner=Splitting(), no_dist=True)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return write(tmp_path_factory.mktemp("dcp") / "step-7")


def test_what_is_listed_and_what_it_holds(saved):
    opened = pyparam.open(saved)
    assert isinstance(opened, DistributedCheckpoint)
    expected = {f"model.{name}": tensor for name, tensor in state()["model"].items()}
    assert sorted(opened) == sorted(expected)
    for name, tensor in expected.items():
        assert opened.tensor_info(name)[:2] == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(opened[name], tensor)
    assert opened.extras == {
        "step": 7,
        "optimizer.lr": 0.1,
        "optimizer.betas": [0.9, 0.95],
        "optimizer.name": "adamw",
    }
    assert len(opened.files) == 3
    assert pyparam.compare(opened, state()).equal
    assert pyparam.compare(opened, expected).changed() == []
    assert pyparam.fingerprint(saved) == pyparam.fingerprint(state())


def test_the_metadata_file_opens_its_directory(saved):
    assert list(pyparam.open(saved / ".metadata")) == list(pyparam.open(saved))


def test_many_tensors_make_no_more_than_their_metadata_explains(tmp_path, monkeypatch):
    write(tmp_path, what={f"l.{i}.w": torch.ones(1) for i in range(200)})
    monkeypatch.setattr(unpickle, "_FREE_UNITS", 0)  # which would be enough for some thousands
    assert len(pyparam.open(tmp_path)) == 200
    monkeypatch.setattr(about, "_SPARE", 0)
    assert not any("not listed" in line for line in summarize(tmp_path).about.lines())


def test_pieces_are_the_boxes_that_were_saved(saved):
    opened = pyparam.open(saved)
    pieces = opened.pieces("model.blocks")
    assert len(pieces) == 3 * 2 * 2
    assert {piece.sizes for piece in pieces} == {(a, b, c) for a in (2, 1) for b in (3, 1) for c in (2, 1)}
    assert sum(piece.sizes[0] * piece.sizes[1] * piece.sizes[2] for piece in pieces) == 60
    # Many of them begin where no float can lie.
    assert any(piece.begin % 4 for name in SHAPES for piece in opened.pieces(name))
    with pytest.raises(KeyError, match=r"model\.block"):
        opened.pieces("model.block")


@pytest.mark.parametrize("name", [*SHAPES, "model.scalar", "model.empty", "model.half"])
def test_any_box_can_be_read(saved, name):
    opened, whole = pyparam.open(saved), state()["model"][name.removeprefix("model.")]
    generator = torch.Generator().manual_seed(1)
    for _ in range(25):
        box = []
        for extent in whole.shape:
            begin = int(torch.randint(0, extent + 1, (), generator=generator))
            box.append((begin, int(torch.randint(0, extent - begin + 1, (), generator=generator))))
        expected = whole
        for axis, (begin, size) in enumerate(box):
            expected = expected.narrow(axis, begin, size)
        out = torch.empty(expected.shape, dtype=whole.dtype)
        opened.read(name, [begin for begin, _ in box], [size for _, size in box], out)
        assert torch.equal(out, expected)


def test_bands_are_rows(saved, monkeypatch):
    monkeypatch.setattr("pyparam._sources.distributed.BAND", 1)
    opened = pyparam.open(saved)
    for name in SHAPES:
        assert torch.equal(opened[name], state()["model"][name.removeprefix("model.")])


def test_a_box_or_an_out_that_does_not_fit(saved):
    opened = pyparam.open(saved)
    with pytest.raises(
        ValueError, match=r"read: the box at \[3, 0\] of sizes \[5, 5\] is not inside 'model\.rows'"
    ):
        opened.read("model.rows", (3, 0), (5, 5), torch.empty(5, 5))
    with pytest.raises(ValueError, match=r"read: out for 'model\.rows' is torch\.float64 of shape \[2, 5\]"):
        opened.read("model.rows", (0, 0), (2, 5), torch.empty(2, 5, dtype=torch.float64))
    with pytest.raises(KeyError, match=r"model\.row"):
        opened.read("model.row", (0,), (1,), torch.empty(1))
    opened.close()
    with pytest.raises(ValueError, match="is closed"):
        opened.read("model.rows", (0, 0), (2, 5), torch.empty(2, 5))


def test_metadata_alone_is_a_list(saved, tmp_path):
    (tmp_path / ".metadata").write_bytes((saved / ".metadata").read_bytes())
    opened = pyparam.open(tmp_path)
    assert opened.tensor_info("model.rows").shape == (7, 5)
    assert repr(opened.extras["step"]) == "<not read: __0_0.distcp is missing>"
    with pytest.raises(
        ValueError, match=r"the piece of 'model\.rows' at \[0, 0\] cannot be read: .* is missing"
    ):
        opened["model.rows"]
    read = len(opened) - 1  # the empty one has no pieces to miss
    assert len(pyparam.compare(saved, tmp_path).unread) == read
    assert len(survey(tmp_path).unreadable) == len(pyparam.measure(tmp_path).unread) == read


@pytest.fixture
def copied(tmp_path):
    return write(tmp_path / "copy")


def without_a_file(path):
    sorted(path.glob("*.distcp"))[0].unlink()
    return r"the piece of '.*' at \[.*\] cannot be read: __0_0\.distcp is missing"


def with_a_file_too_short(path):
    file = sorted(path.glob("*.distcp"))[1]
    file.write_bytes(file.read_bytes()[:-10])
    return r"the piece of '.*' at \[.*\] cannot be read: it lies in bytes \d+ to \d+ of __0_1\.distcp, which has \d+"


def with_an_empty_file(path):
    sorted(path.glob("*.distcp"))[2].write_bytes(b"")
    return r"the piece of '.*' at \[.*\] cannot be read: it lies in bytes \d+ to \d+ of __0_2\.distcp, which has 0"


def with_a_damaged_piece(path):
    with pyparam.open(path) as opened:
        piece = opened.pieces("model.rows")[0]
    data = bytearray(piece.file.read_bytes())
    data[piece.begin + piece.length - 22] ^= 1  # the end of its archive
    piece.file.write_bytes(data)
    return r"the piece of 'model\.rows' at \[0, 0\] cannot be read: .*zip archive"


FAULTS = [without_a_file, with_a_file_too_short, with_an_empty_file, with_a_damaged_piece]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_the_rows_that_it_holds(saved, copied, fault):
    words = fault(copied)
    opened = pyparam.open(copied)
    assert list(opened) == list(pyparam.open(saved))
    known = {} if fault is with_a_damaged_piece else opened.faults()
    stats = pyparam.measure(copied)
    unread = stats.unread
    assert 0 < len(unread) < len(opened)
    assert len(stats) == len(opened) - len(unread)
    assert known.keys() <= unread.keys()
    for name, reason in unread.items():
        assert re.search(words, reason), reason
        assert repr(name) in reason
        with pytest.raises(ValueError, match=words):
            opened[name]
    names = [name for name in opened if name not in unread]
    whole = pyparam.measure(pyparam.open(saved))
    assert all(stats[name].l2 == whole[name].l2 for name in names)

    found = pyparam.compare(saved, copied)
    assert found.unread == unread
    assert not found.equal
    assert found.changed() == []
    alone = pyparam.compare({}, copied)  # names of one side are not read
    assert (alone.unread, set(alone.unexpected)) == ({}, set(opened))

    matrices = {name for name in opened if len(opened.tensor_info(name).shape) > 1 and "empty" not in name}
    assert pyparam.spectrum(copied).left_out == {n: unread[n] for n in unread.keys() & matrices}

    seen = survey(copied)
    assert seen.unreadable == unread
    assert survey(copied, select="model.*").unreadable == unread
    out = io.StringIO()
    pyparam.show(copied, file=out)
    assert "rows" in out.getvalue()
    if known:
        assert re.search(rf"not complete: \d tensors? cannot be read: {words}", out.getvalue())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_refuses_to_load(copied, fault):
    words = fault(copied)
    model = nn.Module()
    for name, value in state()["model"].items():
        model._buffers[name] = torch.zeros_like(value)  # one is called as a method is
    with pytest.raises(ValueError, match=words):
        pyparam.load_(model, copied, part="model")
    assert not any(value.any() for value in model.state_dict().values())


def test_what_a_fault_does_on_the_command_line(copied, tmp_path):
    words = with_a_damaged_piece(copied)
    done = CliRunner().invoke(app, ["check", str(copied)])
    assert done.exit_code == 1
    assert "error    1 parameter cannot be read from the checkpoint" in done.output
    for command in (["stats", copied, "--json"], ["compare", copied, copied, "--json"]):
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code == 1
        unread = json.loads(done.output)["unread"]
        assert list(unread) == ["model.rows"]
        assert re.search(words, unread["model.rows"])
    done = CliRunner().invoke(app, ["report", str(copied), "--output", str(tmp_path / "r.html")])
    assert done.exit_code == 1  # as after any finding that is a fault
    assert (tmp_path / "r.html").is_file()
    done = CliRunner().invoke(app, ["stats", str(copied)])
    assert re.search(words, " ".join(done.output.split()))


def test_structure_without_what_cannot_be_read(copied):
    with_a_damaged_piece(copied)
    rows = state()["model"]["rows"]
    split = {f"experts.{i}.rows": row.clone() for i, row in enumerate(rows)}
    found = pyparam.compare(split, {"experts.rows": pyparam.open(copied)["model.half"]})
    assert found.structure == []
    found = pyparam.compare(split, copied, rename_b=("model.*", "experts.*"))
    assert (found.structure, list(found.unread)) == ([], ["experts.rows"])


def edited(path, change):
    with open(path / ".metadata", "rb") as file:
        metadata = pickle.load(file)
    change(metadata)
    with open(path / ".metadata", "wb") as file:
        pickle.dump(metadata, file)


def chunks(metadata, name="model.rows") -> list[ChunkStorageMetadata]:
    entry = metadata.state_dict_metadata[name]
    assert isinstance(entry, TensorStorageMetadata)
    return entry.chunks


def place(metadata, **fields):
    index = next(index for index in metadata.storage_data if index.fqn == "model.rows")
    metadata.storage_data[index] = dataclasses.replace(metadata.storage_data[index], **fields)


def grown(metadata):
    chunks(metadata)[0].sizes = torch.Size([4, 5])


MISTAKES = {
    "a piece left out": (
        lambda m: chunks(m).pop(),
        r"'model\.rows' is not complete: its pieces have 30 of 35",
    ),
    "pieces that overlap": (grown, r"'model\.rows' has pieces that overlap, at \[0, 0\] and \[3, 0\]"),
    "a piece outside": (
        lambda m: setattr(chunks(m)[-1], "sizes", torch.Size([2, 5])),
        r"'model\.rows' of shape \[7, 5\] has a piece at \[6, 0\] of sizes \[2, 5\], which is outside",
    ),
    "a place left out": (
        lambda m: m.storage_data.pop(next(i for i in m.storage_data if i.fqn == "model.rows")),
        r"'model\.rows' has no place for its piece",
    ),
    "a path out of the directory": (
        lambda m: place(m, relative_path="../x.distcp"),
        r"'model\.rows' is stored in '\.\./x\.distcp', which is outside the directory",
    ),
    "an absolute path": (lambda m: place(m, relative_path="/etc/passwd"), r"'/etc/passwd', which is outside"),
    "a negative place": (lambda m: place(m, offset=-1), r"'model\.rows' has a piece without a file"),
    "a transform": (lambda m: place(m, transform_descriptors=["zstd"]), r"stored transformed \(\['zstd'\]\)"),
    "another object": (
        lambda m: setattr(m, "planner_data", pytest.Module),
        r"\.metadata cannot be read: it refers to _pytest\.python\.Module",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_metadata(copied, case):
    change, message = MISTAKES[case]
    edited(copied, change)
    with pytest.raises(ValueError, match=message):
        pyparam.open(copied)


def test_code_in_the_metadata_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"cposix\nmkdir\n(Vran\ntR.")
    with pytest.raises(
        ValueError, match=r"it refers to posix\.mkdir, no record of the format; code is not run"
    ):
        pyparam.open(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_nothing_of_the_library_is_imported(saved):
    code = (
        "import sys, pyparam\n"
        f"assert len(list(pyparam.open({str(saved)!r}).values())) == 8\n"
        "print([m for m in sys.modules if m.startswith('torch.distributed.checkpoint')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_safetensors_flavour(tmp_path):
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    # As HuggingFaceStorageWriter(save_distributed=True) writes: a file a rank, which says where its pieces
    # begin.
    whole = torch.arange(35.0).view(7, 5)
    for rank, (begin, end) in enumerate([(0, 3), (3, 7)]):
        info = f'{{"w": {{"saved_offsets": [{begin}, 0]}}}}'
        save_file(
            {"w": whole[begin:end].clone()},
            tmp_path / f"shard-{rank + 1:05}-model-00001-of-00001.safetensors",
            metadata={"DCP_SHARDING_INFO": info, "DCP_VERSION": "1.0", "format": "pt"},
        )
    opened = pyparam.open(tmp_path)
    assert torch.equal(opened["w"], whole)
    assert [piece.offsets for piece in opened.pieces("w")] == [(0, 0), (3, 0)]
    out = torch.empty(2, 2)
    opened.read("w", (2, 1), (2, 2), out)
    assert torch.equal(out, whole[2:4, 1:3])
    (tmp_path / "shard-00001-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"'w' is not complete: its pieces have 20 of 35 elements"):
        pyparam.open(tmp_path)
