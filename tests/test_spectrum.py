"""spectrum: against ``torch.linalg.svdvals``, and what it does with what is no plain matrix."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner
from unreadable import UNREADABLE

import pyparam
from pyparam._cli import app
from pyparam._measure import krylov

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
]


def orthogonal(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=dtype)).Q


def with_values(values: Tensor, rows: int, columns: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix that has these singular values."""
    n = len(values)
    left, right = orthogonal(rows, 1, dtype)[:, :n], orthogonal(columns, 2, dtype)[:n]
    return left * values @ right


def gaussian(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3), dtype=dtype)


def double(matrix: Tensor) -> Tensor:
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


_N = 180
_STEPS = torch.ones(_N, dtype=torch.float64)
_STEPS[:3] = torch.tensor([3.0, 2.0, 2.0])

MATRICES = {
    "gaussian": gaussian(_N, _N),
    "tall": gaussian(700, 150),
    "wide": gaussian(150, 700),
    "a little tall": gaussian(200, 180),
    "float64": gaussian(160, 200, torch.float64),
    "complex": gaussian(150, 170, torch.complex64),
    "complex128": gaussian(170, 150, torch.complex128),
    "bfloat16": gaussian(160, 160).bfloat16(),
    "float16": gaussian(160, 160).half(),
    "transposed": gaussian(200, 150).T,
    "clustered": with_values(_STEPS, _N, 200).float(),
    "a cluster on top": with_values(
        torch.cat((torch.full((20,), 2.0).double(), _STEPS[20:])), _N, _N
    ).float(),
    "all alike": orthogonal(_N, 5).float(),
    "decaying": with_values(0.8 ** torch.arange(_N, dtype=torch.float64), _N, _N),
    "one far out": gaussian(_N, _N) + 50 * torch.outer(*orthogonal(_N, 6)[:2].float()),
    "huge": gaussian(150, 150) * 1e30,
    "tiny": gaussian(150, 150) * 1e-30,
    "huge float64": gaussian(150, 150, torch.float64) * 1e300,
    "small": gaussian(17, 40),
    "a row": gaussian(1, 500),
    "a column": gaussian(500, 1),
    "one value": torch.tensor([[-3.0]]),
    "kernel": gaussian(160, 9 * 20).reshape(160, 20, 3, 3),
}


@pytest.mark.parametrize("name", MATRICES)
def test_against_svdvals(name: str) -> None:
    matrix = MATRICES[name]
    truth = torch.linalg.svdvals(double(matrix).reshape(matrix.shape[0], -1))
    row = pyparam.spectrum({"w": matrix}, k=4)["w"]
    found = torch.tensor(row.singular_values, dtype=torch.float64)
    k = min(4, len(truth))
    first = float(truth[0])
    eps = 1e-5 if matrix.dtype not in (torch.float64, torch.complex128) else 1e-12
    assert len(found) == k
    # What is promised: never above, within the tolerance below, and each within its error of a true value.
    assert (found <= truth[:k] + eps * first).all()
    assert (found >= truth[:k] - 1e-4 * first).all()
    assert row.exact == (len(truth) <= 128)
    near = (found.unsqueeze(1) - truth).abs().amin(1)
    assert (near <= row.error + eps * first).all()
    assert row.error <= 1.01e-4 * first
    # What a gap gives: the largest is much nearer.
    assert float(found[0]) == pytest.approx(first, rel=1e-5)
    assert row.l2 == pytest.approx(float(torch.linalg.vector_norm(truth / first)) * first, rel=1e-6)
    squares = (truth / first) ** 2
    assert row.stable_rank == pytest.approx(float(squares.sum()), rel=1e-4)
    assert row.effective_rank == pytest.approx(float(squares.sum() ** 2 / (squares**2).sum()), rel=1e-4)
    if name != "decaying":
        condition = first / float(truth[-1])
        assert 0.93 * condition <= row.condition <= condition * (1 + 1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(150, 200), (400, 140), (30, 20)])
def test_rank_deficient(rows: int, columns: int) -> None:
    matrix = with_values(torch.tensor([4.0, 2.0], dtype=torch.float64), rows, columns).float()
    row = pyparam.spectrum([matrix], k=5)[0]
    assert row.singular_values[:2] == pytest.approx((4, 2), rel=1e-5)
    assert max(row.singular_values[2:]) < 1e-5
    assert row.condition == float("inf")
    assert row.stable_rank == pytest.approx(20 / 16, rel=1e-5)
    assert row.effective_rank == pytest.approx(20**2 / (4**4 + 2**4), rel=1e-5)


@pytest.mark.parametrize("side", [3, 200])
def test_zeros(side: int) -> None:
    row = pyparam.spectrum([torch.zeros(side, side + 5)], k=2)[0]
    assert row.singular_values == (0, 0)
    assert (row.stable_rank, row.effective_rank, row.condition) == (0, 0, float("inf"))


def test_a_fine_tolerance() -> None:
    matrix = gaussian(200, 160, torch.float64)
    row = pyparam.spectrum([matrix], k=3, tolerance=1e-9)[0]
    truth = torch.linalg.svdvals(matrix)[:3]
    assert row.singular_values == pytest.approx(truth.tolist(), rel=1e-12)
    assert row.error <= 1e-9 * row.sigma_max


def test_equal_shapes_are_one_batch_and_keep_their_places() -> None:
    state = {
        f"{i}.{part}": gaussian(*shape) * (i + 1)
        for i in range(3)
        for part, shape in {"a": (150, 140), "b": (6, 5)}.items()
    }
    found = pyparam.spectrum(state, k=2)
    assert found.names == list(state)
    for name, matrix in state.items():
        assert found[name].sigma_max == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-5)
    assert found.singular_values.shape == (6, 2)
    assert found.error.max() <= 1e-4 * found.sigma_max.max()
    assert found.sigma_max.tolist() == [row.sigma_max for row in found]


def test_a_batch_in_which_some_are_done_long_before_others() -> None:
    ones = torch.ones(180, 150)
    state = {
        "rank one": ones,
        "zero": 0 * ones,
        "gaussian": gaussian(180, 150),
        "orthogonal": orthogonal(180, 1)[:, :150].float(),
    }
    found = pyparam.spectrum(state, k=6, tolerance=1e-6)
    for name, matrix in state.items():
        truth = torch.linalg.svdvals(matrix.double())[:6].tolist()
        assert found[name].singular_values == pytest.approx(truth, abs=1e-5 * max(truth)), name


def test_a_start_and_few_steps_are_still_checked() -> None:
    matrix = gaussian(300, 300)
    truth = float(torch.linalg.svdvals(matrix)[0])
    with krylov.in_full_precision():
        rough = krylov.leading(matrix.unsqueeze(0), 1, 1e-6, steps=2)
        good = krylov.leading(matrix.unsqueeze(0), 1, 1e-3)
        moved = matrix + 1e-3 * gaussian(300, 300)
        again = krylov.leading(moved.unsqueeze(0), 1, 1e-3, start=good.vectors, steps=2)
    assert float(rough.residuals[0, 0]) > 1e-2 * truth > truth - float(rough.values[0, 0]) - 0.1 * truth
    assert float(good.values[0, 0]) == pytest.approx(truth, rel=1e-4)
    assert float(again.values[0, 0]) == pytest.approx(float(torch.linalg.svdvals(moved)[0]), rel=1e-3)
    assert float(again.residuals[0, 0]) < 0.1 * float(rough.residuals[0, 0])


def test_only_matrices_have_rows_and_names_that_share_memory_are_told() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Conv2d(2, 3, 3))
    state = {
        **net.state_dict(),
        "again": net[0].weight,
        "empty": torch.zeros(0, 4),
        "transposed": net[0].weight.T,
    }
    found = pyparam.spectrum(state)
    assert found.names == ["0.weight", "2.weight", "again", "transposed"]
    assert found["2.weight"].matrix == (3, 18)
    assert found["2.weight"].shape == (3, 2, 3, 3)
    assert found["again"].shared_with == found["0.weight"].shared_with == "0.weight"
    assert found["transposed"].shared_with is None
    assert "again = 0.weight" in repr(found)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_costs_its_row(kind: str) -> None:
    odd = UNREADABLE[kind][0]()
    state = {"odd": odd, "fine": torch.eye(3)}
    if kind not in ("lazy", "nested", "jagged") and odd.dim() == 1:
        if kind in ("sparse", "mkldnn", "fake", "freed"):
            assert pyparam.spectrum(state).names == ["fine"]  # a vector
            return
        state["odd"] = odd.unsqueeze(0)
    found = pyparam.spectrum(state)
    assert found.names == ["fine"]
    assert list(found.left_out) == ["odd"]
    assert "left out: odd: it" in repr(found)
    with pytest.raises(KeyError, match=r"spectrum: 'odd' has no row: it"):
        found["odd"]


def test_integers_are_no_matrix_of_a_map() -> None:
    found = pyparam.spectrum({"packed": torch.ones(3, 3, dtype=torch.int8), "fine": torch.eye(3)})
    assert found.left_out == {"packed": "it is of int8, and a spectrum is of real or complex numbers"}


@pytest.mark.parametrize("side", [4, 200])
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_are_said(side: int, bad: float) -> None:
    matrix = torch.eye(side)
    matrix[1, 1] = bad
    found = pyparam.spectrum({"bad": matrix, "fine": torch.eye(side)}, k=2)
    assert found.nonfinite() == ["bad"]
    assert found["fine"].singular_values == pytest.approx((1, 1))
    assert found.sigma_max.isnan().tolist() == [True, False]
    assert "not finite" in repr(found)
    assert found.sort("sigma_max").names == ["fine", "bad"]


def test_global_state_is_neither_read_nor_moved() -> None:
    matrix = gaussian(200, 150)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = pyparam.spectrum([matrix], k=3).to_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            second = pyparam.spectrum([matrix], k=3).to_dict()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert first == second


def test_parameters_that_require_gradients_record_nothing() -> None:
    net = nn.Linear(200, 150)
    values = pyparam.spectrum(net).sigma_max
    assert not values.requires_grad
    assert net.weight.grad is None


def test_files(tmp_path: Path) -> None:
    state = {
        "big": gaussian(300, 200),
        "small": gaussian(3, 4),
        "half": gaussian(150, 150).half(),
        "bias": torch.ones(3),
    }
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    expected = pyparam.spectrum(state, k=2).to_dict()["parameters"]
    for name in ("a.safetensors", "a.pt"):
        assert pyparam.spectrum(tmp_path / name, k=2).to_dict()["parameters"] == expected
        with pyparam.open(tmp_path / name) as opened:
            held = opened["big"]
            held[0] = 0  # of this process alone, and seen
            row = pyparam.spectrum(opened, k=2)["big"]
            assert row.sigma_max == pytest.approx(float(torch.linalg.svdvals(held)[0]), rel=1e-5)
            assert not held[0].any()


def test_select_sort_and_pickles() -> None:
    state = {"b.weight": 2 * torch.eye(3), "a.weight": torch.eye(3), "other": torch.eye(3)}
    found = pyparam.spectrum(state, select="*.weight")
    assert found.names == ["b.weight", "a.weight"]
    assert found.sort("name", descending=False).names == ["a.weight", "b.weight"]
    assert found.sort("sigma_max", descending=False).names == ["a.weight", "b.weight"]
    assert pickle.loads(pickle.dumps(found)).to_dict() == found.to_dict()
    assert found[:1].names == ["b.weight"]
    assert "name" in found._repr_html_()
    assert repr(pyparam.spectrum({"v": torch.ones(3)})) == "no matrices"
    with pytest.raises(ValueError, match=r"spectrum: nothing matches 'nothing\*' among 3 parameters"):
        pyparam.spectrum(state, select="nothing*")
    with pytest.raises(ValueError, match="sort: no column 'rank'; there are name, sigma_max"):
        found.sort("rank")
    with pytest.raises(KeyError, match="c.weight"):
        found["c.weight"]


def test_without_condition() -> None:
    row = pyparam.spectrum([gaussian(200, 150)], condition=False)[0]
    assert row.condition != row.condition
    assert row.effective_rank != row.effective_rank
    assert row.sigma_max > 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, ValueError, "spectrum: k must be positive, got 0"),
        ({"k": 1.5}, TypeError, "spectrum: k is a float; expected a whole number"),
        ({"tolerance": 0.0}, ValueError, "spectrum: tolerance must lie between 0 and 1, got 0.0"),
        ({"tolerance": float("nan")}, ValueError, "spectrum: tolerance must lie between 0 and 1, got nan"),
    ],
)
def test_mistakes(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pyparam.spectrum([torch.eye(3)], **options)


# --- the command line --------------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["spectrum", *map(str, arguments)])


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"low": torch.eye(3), "high": 2 * torch.eye(3), "bias": torch.ones(3)}, path)
    done = run(path, "--sort", "sigma_max", "--limit", "1")
    assert done.exit_code == 0, done.output
    assert "high" in done.stdout
    assert "the first 1 of 2 rows\n2 matrices" in done.stdout
    found = json.loads(run(path, "-k", "2", "--json", "--no-condition").stdout)
    assert [row["singular_values"] for row in found["parameters"]] == [[2, 2], [1, 1]]
    assert found["parameters"][0]["condition"] is None
    assert run(path, "--columns", "sigma_max").stdout.splitlines()[0].split() == ["name", "sigma_max"]


def test_the_command_s_exit_status(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"bad": torch.full((2, 2), float("nan"))}, path)
    done = run(path)
    assert done.exit_code == 1
    assert "not finite: bad" in done.stdout
    torch.save({"packed": torch.ones(2, 2, dtype=torch.uint8)}, path)
    done = run(path)
    assert done.exit_code == 1
    assert "left out: packed: it is of uint8" in done.stdout
    assert run(path, "--tolerance", "2").exit_code == 2
