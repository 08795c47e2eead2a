"""Tensors that are bit for bit the same and not one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pyparam._findings.families import role_key
from pyparam._findings.finding import Finding
from pyparam._findings.repeated import bits_of
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_FEW_VALUES = 16
_FIGURES = ("mean", "l2", "l1", "min", "max")


def copies(seen: Survey) -> Iterator[Finding]:
    """Weights with the bits of another, in memory of their own.

    Where all of a role are one (a stack made by copying a layer, as ``nn.TransformerEncoder`` does), a scheme
    did it. A few of them are layers that were loaded or copied twice. Tables that are equal and not tied
    were one before a tie was cut.
    """
    layers: dict[int, str] = {}
    tables: dict[int, str] = {}
    others: dict[int, str] = {}
    for group in _groups(seen):
        whole = seen.once(_role_sizes)
        first, names = group[0], [seen.names[row] for row in group]
        roles = {role_key(name) for name in names}
        words = dict.fromkeys(group[1:], f"as {names[0]}")
        if len(roles) == 1 and names[0] != role_key(names[0]):
            if len(group) < whole[role_key(names[0])]:
                layers |= words
        elif all(seen.is_table(row) for row in group):
            tables |= {first: f"as {names[1]}", **words}
        else:
            others |= words
    if layers:
        yield told(
            seen,
            layers,
            "copy",
            "warning",
            "is a bit-for-bit copy of a sibling",
            "are bit-for-bit copies of a sibling",
            reason="Two layers of a trained model never have the same values: one was loaded into both "
            "places, or copied to make the model deeper.",
            advice="Compare with the source of the weights; look at how names were mapped when it was "
            "converted.",
            confidence="likely",
        )
    if tables:
        yield told(
            seen,
            tables,
            "copy",
            "warning" if seen.is_model else "info",
            "is equal to another and not tied to it",
            "are equal and not tied",
            reason="Tables with the same bits were one parameter: the tie was lost, and training will pull "
            "them apart."
            if seen.is_model
            else "Tables with the same bits were one parameter; this stores them twice.",
            advice="pyparam.tie_ makes them one again; save_file keeps ties.",
            confidence="likely",
            noun=("table", "tables"),
        )
    if others:
        yield told(
            seen,
            others,
            "copy",
            "info",
            "has the values of another",
            "have the values of others",
            reason="A target network, an average of weights at its start, or adapted layers begin as copies.",
            advice="Nothing, where that is what they are.",
            confidence="likely",
        )


def _role_sizes(seen: Survey) -> dict[str, int]:
    return {role.key: len(role.rows) for role in seen.roles}


def _groups(seen: Survey) -> Iterator[list[int]]:
    numel = seen.figure("numel")
    several = (
        seen.weighty
        & (numel >= _FEW_VALUES)
        & (seen.figure("min") < seen.figure("max"))
        & (seen.figure("zeros") <= numel // 2)
    )
    # Of copies all figures are the same: those that stand alone in one of them are none.
    for name in _FIGURES:
        rows = several.nonzero().flatten()
        _, place, count = torch.unique(seen.figure(name)[rows], return_inverse=True, return_counts=True)
        several[rows[count[place] == 1]] = False
    columns = [seen.column(name) for name in _FIGURES]
    alike: dict[Any, list[int]] = {}
    for row in seen.those(several):
        figures = tuple(column[row] for column in columns)
        alike.setdefault((seen.sizes(row), seen.layouts[row].dtype, figures), []).append(row)
    for equal in alike.values():
        left = equal
        while len(left) > 1:
            bits = bits_of(seen.values(left[0]))
            same = [row for row in left[1:] if torch.equal(bits, bits_of(seen.values(row)).to(bits.device))]
            if same:
                yield [left[0], *same]
            left = [row for row in left[1:] if row not in same]
