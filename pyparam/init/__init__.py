"""Initialise models: parallel, reproducible, the same weights on every machine and for every sharding.

    >>> import pyparam
    >>> from pyparam.init import initialize_, kaiming_normal_, zeros_
    >>> report = initialize_(model, {"*.bias": zeros_, "*": kaiming_normal_}, seed=0)

Element i of a parameter is a function of (seed, qualified name, i) alone: Philox4x32-10 (Salmon et al., 2011)
with the seed as key and (block, stream) as counter. It does not depend on threads, on the order of the walk,
on the memory format, or on how the parameter is sharded.

The samplers (``normal_``, ``kaiming_uniform_``, ...) have PyTorch's names and arguments. Besides them each
takes:

- ``seed``: an integer in [0, 2**64). Left out, a number is drawn from ``generator``, or from PyTorch's
  default one, so that ``torch.manual_seed`` counts and no two calls give the same values: ``net.apply`` of a
  function that calls samplers works as with ``torch.nn.init``. With a seed, PyTorch's random state is neither
  read nor changed.
- ``stream``: the parameter's qualified name, or an integer in [0, 2**64). Element i is a function of
  (seed, stream, i) alone, i being its row-major index, whatever the memory format.
- ``shape``, ``offset``, ``strides``: for a tensor that is a part of a whole. ``shape`` is the whole's shape;
  ``offset`` the flat index in it, or the coordinates, of the part's first element; ``strides`` the steps in
  the whole's flat index along each dimension of the part, by default those of a block (a part of as many
  dimensions) or of a run (a part of one dimension). The part gets the values the whole would have there. A
  DTensor knows its place itself, and fills this rank's part.

They write in place under no_grad and return the tensor; one on the meta device is left as it is. float32,
float64, float16 and bfloat16 can be drawn; 16-bit values are the float32 values rounded to nearest even;
where that would leave an interval that was asked for, they are the nearest in it. What the dtype cannot hold
is a ValueError before anything is written: a bound or a range beyond its largest number, an interval without
one of its numbers, a normal whose draws (see ``normal_``) would overflow.
"""

from pyparam._base.public import publish as _publish
from pyparam.init._initialize import Filled, Initialized, initialize_
from pyparam.init._matrices import dirac_, eye_, orthogonal_, sparse_
from pyparam.init._rules import gpt2_rules, mup_rules, vit_rules
from pyparam.init._samplers import (
    calculate_gain,
    constant_,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    ones_,
    trunc_normal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)
from pyparam.init._written import Uninitialized, to_empty, uninitialized

__all__ = [
    "Filled",
    "Initialized",
    "Uninitialized",
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "gpt2_rules",
    "initialize_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "mup_rules",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "to_empty",
    "trunc_normal_",
    "uniform_",
    "uninitialized",
    "vit_rules",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_publish("pyparam.init", (globals()[_name] for _name in __all__))
