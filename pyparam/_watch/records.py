"""What a Monitor keeps of a step, and how it says that something is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from pyparam._measure.stats import Stats


@dataclass(frozen=True)
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
