"""PyTorch's defaults and ready-made rules."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from models_to_fill import LAYERS, kaiming, same, snapshot
from scipy import stats
from torch import Tensor, nn

from pyparam import init
from pyparam.init import initialize_

# ---- PyTorch's defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_the_defaults_follow_the_law_of_reset_parameters(layer: str) -> None:
    """Ours and PyTorch's draws, over a few models each, by the two-sample Kolmogorov-Smirnov test."""
    torch.manual_seed(0)
    theirs: dict[str, list[Tensor]] = {}
    ours: dict[str, list[Tensor]] = {}
    for seed in range(6):
        for name, p in LAYERS[layer]().named_parameters():
            theirs.setdefault(name, []).append(p.detach().flatten())
        m = LAYERS[layer]()
        initialize_(m, {"*": functools.partial(init.constant_, val=99.0)}, seed=0)
        report = initialize_(m, seed=seed)
        assert all(line.sampler != "kept" for line in report)
        for name, p in m.named_parameters():
            ours.setdefault(name, []).append(p.detach().flatten())
    for name in theirs:
        a, b = torch.cat(theirs[name]), torch.cat(ours[name])
        if a.unique().numel() == 1:
            assert torch.equal(a, b), name
            continue
        assert a.eq(0).sum() == b.eq(0).sum(), name
        assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-4, name
        if "uniform" in report[name].sampler:
            assert b.abs().max().item() == pytest.approx(a.abs().max().item(), rel=0.2), name
    m = LAYERS[layer]()
    initialize_(m, seed=1)
    first = snapshot(m)
    initialize_(m, seed=1)
    assert same(m, first)


def test_a_subclass_inherits_the_default_unless_it_resets_itself() -> None:
    class Plain(nn.Linear):
        pass

    class Own(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.zeros_(self.weight)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.own = Plain(2, 2, bias=False), Own(2, 2, bias=False)
            self.token = nn.Parameter(torch.ones(3))

    with pytest.raises(
        ValueError, match=r"no default for token \(of Model\), own.weight \(of Own\); give rules"
    ):
        initialize_(Model(), seed=0)
    m = Model()
    initialize_(m, seed=0, default="keep")
    assert m.token.eq(1).all()
    assert m.own.weight.eq(0).all()
    initialize_(m, {"token": init.zeros_, Own: kaiming}, default="torch", seed=0)
    assert m.token.eq(0).all()


# ---- ready-made rules -------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)


def gpt(width: int = 32) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "wte": nn.Embedding(64, width),
            "h": nn.ModuleList([Block(width) for _ in range(3)]),
            "ln_f": nn.LayerNorm(width),
            "lm_head": nn.Linear(width, 64, bias=False),
        }
    )


def test_gpt2_rules_scale_the_residual_projections_by_depth() -> None:
    report = initialize_(gpt(), init.gpt2_rules(3), seed=0)
    assert report["h.1.c_proj.weight"].wanted_std == pytest.approx(0.02 / math.sqrt(6))
    assert report["h.1.c_attn.weight"].wanted_std == report["wte.weight"].wanted_std == 0.02
    assert report["h.0.ln_1.weight"].sampler == report["ln_f.weight"].sampler == "ones_"
    assert report["h.0.c_proj.bias"].sampler == "zeros_"
    with pytest.raises(ValueError, match="n_layer must be positive, got 0"):
        init.gpt2_rules(0)
    with pytest.raises(TypeError, match="gpt2_rules: n_layer must be an integer, got float"):
        init.gpt2_rules(1.5)


def test_vit_rules_cut_at_two_deviations() -> None:
    m = nn.ParameterDict({"cls_token": torch.empty(1, 1, 3000), "weight": torch.empty(8)})
    report = initialize_(m, init.vit_rules(std=0.1), seed=0)
    assert report["cls_token"].sampler == "trunc_normal_(std=0.1, a=-0.2, b=0.2)"
    assert m["cls_token"].abs().max() <= 0.2
    assert m["weight"].eq(1).all()


def test_mup_rules_scale_with_width() -> None:
    narrow, wide = gpt(32), gpt(128)
    report = initialize_(wide, init.mup_rules(wide, narrow, std=0.1), seed=0)
    wanted = {line.name: line.wanted_std for line in report}
    assert wanted["wte.weight"] == pytest.approx(0.1)
    assert wanted["h.0.c_attn.weight"] == pytest.approx(0.1 / 2)
    assert wanted["lm_head.weight"] == pytest.approx(0.1 / 4)
    assert report["ln_f.weight"].sampler == "ones_"
    assert report["h.0.c_proj.bias"].sampler == "zeros_"
    shapes = {name: tuple(p.shape) for name, p in narrow.named_parameters()}
    assert (
        initialize_(wide, init.mup_rules(wide, shapes, readout_zero=True), seed=0)["lm_head.weight"].sampler
        == "zeros_"
    )
    with pytest.raises(ValueError, match=r"model and base differ in parameters: .*extra"):
        init.mup_rules({**shapes, "extra": (3,)}, shapes)
    with pytest.raises(ValueError, match=r"'wte.weight' has shape .* in the model and .* in the base"):
        init.mup_rules({**shapes, "wte.weight": (3,)}, shapes)
