"""The model that a transformers ``config.json`` describes, on the meta device and without its code."""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from pyparam._base.closest import closest, hint
from pyparam._cli.mistake import Mistake


def config_file(source: str) -> str | None:
    """The config.json that a path names, itself or its folder; None for no such."""
    path = os.path.join(source, "config.json") if os.path.isdir(source) else source
    return path if path.endswith(".json") and os.path.isfile(path) else None


def model_of(path: str) -> Any:
    """The model, with parameters on the meta device. Only classes of transformers itself are made: the code
    that a config's ``auto_map`` points to is not run."""
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Mistake(f"{path} is no JSON: {error}") from None
    kind = told.get("model_type") if isinstance(told, dict) else None
    if not isinstance(kind, str):
        raise Mistake(f"{path} has no 'model_type', by which transformers knows a model's class")
    try:
        import transformers
    except ImportError:
        raise Mistake(
            f"a model of {path} is made by transformers, which is not installed (pip install transformers)"
        ) from None
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        own = ", and code beside it is not run" if told.get("auto_map") else ""
        raise Mistake(
            f"this transformers has no model type {kind!r}{hint(closest(kind, list(known.keys())))}{own}"
        )
    try:
        config = known[kind].from_dict({key: value for key, value in told.items() if key != "auto_map"})
        make = _maker(transformers, config, told.get("architectures"))
        with torch.device("meta"):
            return make(config)
    except Exception as error:
        raise Mistake(
            f"transformers cannot make the model of {path}: {type(error).__name__}: {error}"
        ) from None


def _maker(transformers: Any, config: Any, architectures: Any) -> Any:
    """The class that the config names, if transformers has it for such configs; else its base model."""
    for name in architectures if isinstance(architectures, list) else ():
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if (
            isinstance(found, type)
            and issubclass(found, transformers.PreTrainedModel)
            and isinstance(config, getattr(found, "config_class", None) or ())
        ):
            return found._from_config if hasattr(found, "_from_config") else found
    return lambda config: transformers.AutoModel.from_config(config, trust_remote_code=False)
