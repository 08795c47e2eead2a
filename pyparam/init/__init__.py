"""Initialise models: parallel, reproducible, the same weights on every machine and for every sharding.

>>> import pyparam
>>> from pyparam.init import initialize_, kaiming_normal_, zeros_
>>> report = initialize_(model, {"*.bias": zeros_, "*": kaiming_normal_}, seed=0)

Element i of a parameter is a function of (seed, qualified name, i) alone: Philox4x32-10 with the seed as
key and (block, stream) as counter. It does not depend on threads, on the order of the walk, on the memory
format, or on how the parameter is sharded, and PyTorch's random state is neither read nor changed.
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
