"""How messages name the class of what came."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
from torch import nn

import pyparam
from pyparam._base.words import a_kind, a_name

PACKAGE = Path(pyparam.__file__).parent


SPOKEN = {
    "written": "a str, a NoneType, a Linear, a Parameter, a ReLU, a MoE, an int, an OrderedDict, an object",
    "of torch": "an Embedding, an UninitializedParameter, an UnimodalNet, an EMA, an _IncompatibleKeys, a GRU",
    "spelled": "an LSTM, an LSTMCell, an MLP, an FSDPModule, a DDP, a BCELoss, an RMSNorm, an SGD, an ndarray",
    "y first": "a uint8, a UserDict, a UUID, a UnionType, a UNet, a Unigram, a URL, a u8, a U, a OneCycleLR",
    "no word": "a _, a \N{GREEK SMALL LETTER ALPHA}, a \ud800, a 3",
}


@pytest.mark.parametrize("how", SPOKEN)
def test_article_of_a_class(how):
    names = SPOKEN[how].split(", ")
    assert [a_name(name.partition(" ")[2]) for name in names] == names


def test_kind_of_a_value():
    assert a_kind(3) == "an int"
    assert a_kind(nn.LSTM(1, 1)) == "an LSTM"
    assert a_kind(None) == "a NoneType"


def test_native_messages_have_the_article_too():
    model = nn.Embedding(2, 2)
    model._parameters["odd"] = 3
    with pytest.raises(TypeError, match="^'odd' of an Embedding is no tensor but an int$"):
        pyparam.show(model)
    with pytest.raises(TypeError, match="^walk: 'odd' is no tensor but an int$"):
        pyparam.walk(model)
    with pytest.raises(TypeError, match="is no tensor but a collections.OrderedDict$"):
        pyparam._C.ParamTable(["a"], [OrderedDict()])


def test_no_message_guesses_the_article():
    """What fills a message in may begin with a vowel."""
    guessed = [
        f"{path.relative_to(PACKAGE)}: {found[0]}"
        for path in PACKAGE.rglob("*.py")
        for found in re.finditer(r"\b[Aa]n? \{.*", path.read_text(encoding="utf-8"))
    ]
    assert guessed == []
