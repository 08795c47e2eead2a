"""total_norm and clip_grad_norm_: the norm of all parameters as of one vector."""

from __future__ import annotations

import math
import types
import warnings
from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pyparam._base.modes import require_fake, require_unbatched, require_written
from pyparam._base.native import _C
from pyparam._measure.measure import row_errors
from pyparam._measure.whole_norm import clip_whole, norm_over, total_norm_whole
from pyparam._parts.parts import has_parts, refuse_flat
from pyparam._sources import table_of


def total_norm(source: Any, p: float = 2.0, *, grad: bool = False, group: Any = None) -> Tensor:
    """The p-norm of all parameters of a source, as of one vector.

    Each tensor that is listed counts, as in ``torch.nn.utils.get_total_norm``, also where two share memory; a
    module lists a tied Parameter once.

    Args:
        source: anything with parameters (see ``table_of``), or a tensor.
        p: the order: 0 counts what is not zero, 1, 2, any other positive number, ``inf`` the largest and
            ``-inf`` the least magnitude.
        grad: takes the gradients instead; parameters without one are left out.
        group: a process group whose ranks hold different parameters, such as the stages of a pipeline; each
            of them must call. A name that several ranks have counts once.

    DTensors count as wholes, on every rank the same; all ranks that hold parts must call, as for ``measure``.

    Returns:
        A tensor without dimensions, of the dtype that all promote to (float32 at the least). Sums are in
        float64, and are scaled where powers would leave its range. NaN where an element is NaN; 0 for no
        elements. Complex numbers go by their magnitude. It lies where the parameters do, on the first CUDA
        device where they lie on several devices, and nothing waits for it.

    Raises:
        ValueError: for another order.
        TypeError, ValueError: naming a parameter that cannot be read, as ``measure``.
    """
    order = float(p)
    table = table_of([source] if isinstance(source, Tensor) else source)
    refuse_flat("total_norm", table)
    require_fake("total_norm", table)
    require_unbatched("total_norm", table)
    if group is not None:
        return norm_over(group, table, order, grad)
    if has_parts(table):
        return total_norm_whole(table, order, grad)
    with row_errors(table, grad):
        return _C.total_norm(table._native, order, grad)


def clip_grad_norm_(
    source: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales gradients in place so that their norm is at most ``max_norm``: for
    ``torch.nn.utils.clip_grad_norm_``, with the same results.

    Gradients are multiplied by ``max_norm / (norm + 1e-6)`` where that is below 1. Gradients that are
    DTensors, of any meshes, are scaled by the norm of all wholes; all ranks that hold parts must call. Memory
    that several gradients share is scaled once, where PyTorch scales it once for each; the norm counts it for
    each, as PyTorch's.

    Args:
        source: a tensor or an iterable of tensors, as PyTorch takes, or anything with parameters.
        max_norm: the largest norm to leave.
        norm_type: the order of the norm, as for ``total_norm``; of order 0 it is the number of gradients that
            are not all zero, as PyTorch has it, and finite negative orders are left to PyTorch.
        error_if_nonfinite: raises if the norm is NaN or infinite.
        foreach: taken and ignored; all gradients are always done at once.

    Returns:
        The norm before scaling, as ``total_norm`` gives it. On a CUDA device nothing waits for it, unless
        ``error_if_nonfinite`` is given or some of the gradients are on the CPU.

    Raises:
        RuntimeError: with ``error_if_nonfinite``, naming the first parameter whose gradient has a NaN or an
            infinity. No gradient is changed.
        TypeError, ValueError: naming a gradient that cannot be scaled, or two that share memory under
            different dtypes. No gradient is changed.
        KeyboardInterrupt: while the norm is read. No gradient is changed.
    """
    del foreach
    if isinstance(source, Tensor):
        source = [source]
    elif isinstance(source, types.GeneratorType):
        source = list(source)
        if not source:
            warnings.warn(
                "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2
            )
    order = float(norm_type)
    table = table_of(source)
    refuse_flat("clip_grad_norm_", table)
    require_written("clip_grad_norm_", table)
    if has_parts(table):
        return clip_whole(table, float(max_norm), order, error_if_nonfinite)
    if -math.inf < order < 0:
        grads = [tensor.grad for _, tensor in table if tensor.grad is not None]
        norm = get_total_norm(grads, order, error_if_nonfinite)
        clip_grads_with_norm_([tensor for _, tensor in table], max_norm, norm)
        return norm
    with row_errors(table, True, (TypeError, ValueError, RuntimeError)):
        return _C.clip_grad_norm_(table._native, float(max_norm), order, error_if_nonfinite)
