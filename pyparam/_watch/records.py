"""What a Monitor keeps of a step, and how it says that something is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pyparam._measure.labels import By
from pyparam._measure.stats import Grouped, Stats


@dataclass(frozen=True, repr=False)
class Record:
    """What a Monitor measured at one step of an optimizer."""

    step: int
    """The number of the step, counted from 0."""
    optimizer: int
    """The number of the optimizer, counted from 0 in the order of ``attach``."""
    weights: Stats
    """Of the parameters after the step."""
    gradients: Stats | None
    """Of the gradients the step was made with; None with ``grad=False``."""
    grad_scale: float
    """What the gradients still have to be divided by: other than 1.0 only for a fused optimizer under a
    GradScaler, which unscales within its step."""
    update_norms: Tensor | None
    """||after - before|| of each row of ``weights``, float64 [rows], over the finite values; None with
    ``updates=False``."""
    update_ratios: Tensor | None
    """The same over ||before||: 0 for a parameter that did not change, infinite for one that was all zero."""
    seconds: float
    """What measuring took."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The parameters (and "the gradient of ..." one) without a row, since they cannot be read: name to the
    reason. On the meta device, sparse, nested, quantized, wrappers of other tensors, freed memory."""

    learning_rates: tuple[float, ...] = ()
    """Of the optimizer's groups, at this step."""
    second_moments: Mapping[str, float] = field(default_factory=dict)
    """Mean of ``exp_avg_sq``, after the step, of the parameters whose step was far longer than before."""
    sigma_max: Tensor | None = None
    """With ``spectral=True`` the largest singular value of each row of ``weights`` as a matrix ``[first, the
    rest]``, float64 [rows]; NaN for a vector, or where a value is not finite."""
    sigma_error: Tensor | None = None
    """Within this of ``sigma_max`` there is a singular value, float64 [rows]: the residual."""
    gradient_variance: Tensor | None = None
    """With ``noise=True`` the trace of the covariance of each row's gradients, from Adam's moments, float64
    [rows]; NaN where there are none."""
    gradient_signal: Tensor | None = None
    """The square of the norm of their mean, float64 [rows]; an estimate, below zero where noise hides it."""

    @property
    def stable_rank(self) -> Tensor | None:
        """||W||_F^2 / sigma_max^2 of each row, float64 [rows]; NaN where ``sigma_max`` is NaN or 0."""
        if self.sigma_max is None:
            return None
        return torch.where(self.sigma_max > 0, (self.weights.l2 / self.sigma_max).square(), math.nan)

    @property
    def gradient_noise(self) -> Tensor | None:
        """Variance over signal, float64 [rows]: McCandlish et al.'s simple noise scale (2018), in batches.

        With batches so many times as large, a step would gain half of what it would with exact gradients.
        Infinite where noise hides the signal, NaN where nothing is known.
        """
        if self.gradient_variance is None or self.gradient_signal is None:
            return None
        return _quotient(self.gradient_variance, self.gradient_signal)

    def scalars(self, by: By | None = "role") -> dict[str, float]:
        """What a log shows of this step: of each group and of all together the root mean squares of weights
        (``weights/attn.q_proj``) and of gradients, update over weight (``updates/...``), the number of
        values that are not finite, the learning rates, with spectra the largest singular value
        (``sigma_max/...``) and with noise the noise scale (``noise/...``).

        Args:
            by: the groups, as of ``Stats.by``; None for each parameter by itself.
        """
        weights = self.weights if by is None else self.weights.by(by)
        told = _figures("weights", weights, 1.0)
        if self.gradients is not None:
            gradients = self.gradients if by is None else self.gradients.by(by)
            told |= _figures("gradients", gradients, self.grad_scale)
        if self.update_norms is not None:
            members = {name: [name] for name in self.weights.names}
            if isinstance(weights, Grouped):
                members = weights.members
            told |= self._ratios(members)
        if self.sigma_max is not None:
            told |= self._sigmas(weights)
        if self.gradient_variance is not None and self.gradient_signal is not None:
            told |= self._noise(weights)
        bad = self.weights.total.nonfinite
        if self.gradients is not None:
            bad += self.gradients.total.nonfinite
        told["nonfinite"] = float(bad)
        told |= {f"learning_rate/{group}": rate for group, rate in enumerate(self.learning_rates)}
        return told

    def _sigmas(self, weights: Stats) -> dict[str, float]:
        assert self.sigma_max is not None
        members = weights.members if isinstance(weights, Grouped) else {n: [n] for n in weights.names}
        position = self.weights._positions()
        sigma = self.sigma_max.nan_to_num(-1).tolist()
        most = {label: max(sigma[position[n]] for n in names) for label, names in members.items()}
        return {f"sigma_max/{label}": value for label, value in most.items() if value >= 0}

    def _noise(self, weights: Stats) -> dict[str, float]:
        assert self.gradient_variance is not None
        assert self.gradient_signal is not None
        members = weights.members if isinstance(weights, Grouped) else {n: [n] for n in weights.names}
        position = self.weights._positions()
        told = {}
        for label, names in {**members, "total": self.weights.names}.items():
            rows = [position[name] for name in names]
            both = [column[rows].nansum() for column in (self.gradient_variance, self.gradient_signal)]
            scale = float(_quotient(*both))
            if math.isfinite(scale):
                told[f"noise/{label}"] = scale
        return told

    def _ratios(self, members: Mapping[str, list[str]]) -> dict[str, float]:
        assert self.update_norms is not None
        position = self.weights._positions()
        moved, norms = self.update_norms.square().tolist(), self.weights.l2.square().tolist()
        told = {}
        for label, names in {**members, "total": self.weights.names}.items():
            rows = [position[name] for name in names]
            over = sum(norms[row] for row in rows)
            if over > 0:
                told[f"updates/{label}"] = math.sqrt(sum(moved[row] for row in rows) / over)
        return told

    def __repr__(self) -> str:
        lines = [
            f"Record of step {self.step}: {len(self.weights):,} parameters, {self.seconds * 1e3:.3g} ms",
            f"  weights        rms {self.weights.total.rms:.4g}; largest {_largest(self.weights)}",
        ]
        if self.gradients is not None:
            total = self.gradients.total.l2 / self.grad_scale
            lines.append(f"  gradients      norm {total:.4g}; largest {_largest(self.gradients)}")
        if self.update_ratios is not None and len(self.update_ratios):
            ratios, names = self.update_ratios, self.weights.names
            order = ratios.nan_to_num(0, posinf=0).argsort(descending=True).tolist()
            lines += [
                f"  update/weight  median {ratios.median():.3g}",
                "    most         " + ", ".join(f"{names[i]} {ratios[i]:.3g}" for i in order[:3]),
                "    least        " + ", ".join(f"{names[i]} {ratios[i]:.3g}" for i in order[:-4:-1]),
            ]
        if self.sigma_max is not None and bool((self.sigma_max > 0).any()):
            sigma, names = self.sigma_max, self.weights.names
            order = sigma.nan_to_num(0).argsort(descending=True).tolist()[:3]
            lines.append("  sigma_max      largest " + ", ".join(f"{names[i]} {sigma[i]:.3g}" for i in order))
        if self.learning_rates:
            lines.append("  learning rate  " + ", ".join(f"{rate:.3g}" for rate in self.learning_rates))
        told = {"not finite": self.weights.nonfinite(), "left out": list(self.left_out)}
        if self.gradients is not None:
            told["gradients not finite"] = self.gradients.nonfinite()
            told["without gradient"] = self.gradients.missing
        for what, found in told.items():
            if found:
                more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
                lines.append(f"  {what}: {', '.join(found[:3])}{more}")
        return "\n".join(lines)


def _quotient(variance: Tensor, signal: Tensor) -> Tensor:
    hidden = torch.where(variance > 0, math.inf, math.nan)
    return torch.where(signal > 0, variance / signal, hidden)


def _figures(what: str, stats: Stats, scale: float) -> dict[str, float]:
    rows = [*stats, stats.total]
    return {f"{what}/{row.name}": row.rms / scale for row in rows if math.isfinite(row.rms)}


def share_names(stats: Stats, earlier: Stats) -> None:
    """Equal lists of names become one list, so that a history holds them once."""
    if stats._listed.same(earlier._listed):
        stats._listed = earlier._listed


def _largest(stats: Stats) -> str:
    order = stats.rms.nan_to_num(0).argsort(descending=True).tolist()[:3]
    return ", ".join(f"{stats.names[i]} {stats.rms[i]:.3g}" for i in order) or "none"


@dataclass(frozen=True)
class NonFinite:
    """Parameters of which a value or a gradient is NaN or infinite; ``str()`` of it is a sentence."""

    step: int
    """The number of the step, counted from 0."""
    quantity: Literal["gradient", "weight"]
    """Gradients are looked at before a step, so that the weights are still good; weights after it, and before
    it where gradients are not finite: those of a weight that is not finite are none of their own."""
    names: list[str]
    """All that are not finite, in the model's order."""
    stats: Stats
    """The figures they were found in, of all parameters."""
    when: Literal["before", "after"]
    """Whether they were found before or after that step."""
    optimizer: int = 0
    """The number of the optimizer whose step it was."""
    optimizers: int = 1
    """How many were attached."""
    since: int | None = None
    """Where steps in between were not looked at: the last one after which everything was finite. The step
    at which it happened is then not known, and ``name`` is the first in the model's order, not in time."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    """Of parameters that lie on several ranks, or are watched over a group: the first rank where they are not
    finite."""

    @property
    def name(self) -> str:
        """The first of them."""
        return self.names[0]

    def __str__(self) -> str:
        what = f"the gradient of {self.name!r}" if self.quantity == "gradient" else f"{self.name!r}"
        when = f"{self.when} step {self.step}"
        if self.optimizers > 1:
            when += f" of optimizer {self.optimizer}"
        text = f"{what} is not finite {when}{self._figures()}"
        if len(self.names) > 1:
            others = len(self.names) - 1
            text += f"; {others:,} more of {len(self.stats):,} are not, the last {self.names[-1]!r}"
        if self.since is not None and self.since < self.step - 1:
            text += (
                f". It became so after step {self.since}, in steps that were not looked at, so the first to "
                "become so is not known: check='every' looks at each"
            )
        return text

    def _figures(self) -> str:
        """How many values, and where the first of them is; on a rank that has none of them, which one has."""
        rank = self.ranks.get(self.name)
        where = self.stats.first_nonfinite.get(self.name)
        place = "" if rank is None else f", on rank {rank}"
        if where is not None:
            place = f", the first at {list(where.index)} on rank {where.rank}"
        if self.name not in self.stats or not self.stats[self.name].nonfinite:
            return place
        row = self.stats[self.name]
        parts = [f"{row.nans:,} NaN"] if row.nans else []
        infinite = row.posinfs + row.neginfs
        parts += [f"{infinite:,} infinite"] if infinite else []
        return f": {' and '.join(parts)} of {row.numel:,} values{place}"


class NonFiniteError(RuntimeError):
    """What a Monitor raises for a NaN or an infinity; ``found`` is the :class:`NonFinite`."""

    def __init__(self, found: NonFinite) -> None:
        super().__init__(str(found))
        self.found = found

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[NonFinite]]:
        return type(self), (self.found,)
