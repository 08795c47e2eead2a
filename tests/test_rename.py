"""Rules for names, what two lists of names suggest."""

import re

import pytest

from pyparam._base.rename import parse_rule, renamed, renaming, suggested

NAMES = ["module.0.weight", "module.0.bias"]


@pytest.mark.parametrize(
    ("rule", "given", "wanted"),
    [
        (None, "a.b", "a.b"),
        ("module.", "module.0.weight", "0.weight"),
        ("module.", "0.module.weight", "0.module.weight"),
        (("*.gamma", "*.weight"), "ln.1.gamma", "ln.1.weight"),
        (("*.gamma", "*.weight"), "ln.gamma.x", "ln.gamma.x"),
        (("h.*.attn.*", "layers.*.self.*"), "h.3.attn.q.weight", "layers.3.self.q.weight"),
        (("h.*.attn.*", "layers.*"), "h.3.attn.q", "layers.3"),
        (("h.[01].w?", "x"), "h.1.wq", "x"),
        (("h.[01].w?", "x"), "h.2.wq", "h.2.wq"),
        (("*", "model.*"), "0.weight", "model.0.weight"),
        ((re.compile(r"^h\.(\d+)"), r"layer\1"), "h.12.w", "layer12.w"),
        ((re.compile(r"\.m(?=\.)"), ""), "a.m.b.m.c", "a.b.c"),
        ({"*.gamma": "*.weight", "*.beta": "*.bias", "a": "b"}, "n.beta", "n.bias"),
        ({"a": "b", "b": "a"}, "a", "b"),
        (str.upper, "a.b", "A.B"),
        (["module.", ("*.gamma", "*.weight")], "module.n.gamma", "n.weight"),
        ([], "a", "a"),
        (("a+b", "c"), "a+b", "c"),
    ],
)
def test_rules(rule, given, wanted):
    assert renaming(rule, verb="v")(given) == wanted


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        (3, TypeError, "v: rename takes a prefix to remove, a pair .* not an int"),
        (b"x", TypeError, "not a bytes"),
        (re.compile("a"), TypeError, "a regular expression without a replacement"),
        (
            (3, "x"),
            TypeError,
            "a rule's pattern is a glob or a compiled regular expression over str, not an int",
        ),
        ((re.compile(b"a"), "x"), TypeError, "over str, not a Pattern"),
        ({"a": 1}, TypeError, "a rule of globs maps text to text, got str to int"),
        (("a.*", "*.*"), ValueError, r"the replacement '\*.\*' has more '\*' than its pattern 'a.\*'"),
        ((re.compile("a"), r"\1"), ValueError, "does not fit 'a': invalid group reference 1"),
        ([["a", 3]], TypeError, "not an int"),
    ],
)
def test_rules_that_are_none(rule, kind, words):
    with pytest.raises(kind, match=words):
        renaming(rule, verb="v")


def test_a_function_must_give_a_name():
    with pytest.raises(TypeError, match="v: rename gave a NoneType for 'a'; expected a name"):
        renamed(["a"], lambda name: None, verb="v")


def test_two_names_may_not_become_one():
    with pytest.raises(ValueError, match="v: rename gives 'm.a' and 'a' one name, 'a'"):
        renamed(["m.a", "a"], "m.", verb="v")
    assert renamed(["a", "a"], "m.", verb="v") == ["a", "a"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("module.", "module."),
        ("*.gamma=*.weight", ("*.gamma", "*.weight")),
        ("model.=", ("model.", "")),
        (r"/^h\.(\d+)/=l\1", (re.compile(r"^h\.(\d+)"), r"l\1")),
    ],
)
def test_rules_of_a_command_line(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no rule: expected PREFIX, GLOB=REPLACEMENT or /EXPRESSION/=REPLACEMENT"),
        ("=x", "'=x' is no rule"),
        ("/(/=x", "'\\(' is no regular expression"),
        ("/a", "an expression is written /EXPRESSION/=REPLACEMENT"),
    ],
)
def test_command_lines_that_are_no_rule(text, words):
    with pytest.raises(ValueError, match=words):
        parse_rule(text)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "a.b."])
@pytest.mark.parametrize("side", [0, 1])
def test_a_prefix_is_suggested(prefix, side):
    names = [f"{i}.{kind}" for i in range(16) for kind in ("weight", "bias")]
    lists = [names, [prefix + name for name in names]]
    found = suggested(*(lists if side else reversed(lists)))
    assert found is not None
    assert (found.matched, found.text, found.side) == (32, prefix, side)
    assert renamed(lists[1], found.rule, verb="v") == names


def test_an_infix_is_suggested():
    plain = ["embed.weight", "layers.0.mlp.weight", "layers.1.mlp.weight"]
    wrapped = [plain[0]] + [f"layers.{i}._checkpoint_wrapped_module.mlp.weight" for i in range(2)]
    found = suggested(plain, wrapped)
    assert found is not None
    assert (found.matched, found.text, found.side) == (3, "_checkpoint_wrapped_module.", 1)
    assert renamed(wrapped, found.rule, verb="v") == plain


@pytest.mark.parametrize("line", ["", "two\nlines", "module.two\nlines"])
def test_names_of_several_lines_are_names_too(line):
    plain = [f"layers.{i}.weight" for i in range(20)] + [line]
    found = suggested(plain, [f"net.{name}" for name in plain])
    assert (found.matched, found.text, found.side) == (21, "net.", 1)


def test_nothing_is_suggested():
    assert suggested([], []) is None
    assert suggested(["a", "b"], ["a", "b"]) is None
    assert suggested(["a", "b"], ["c", "d"]) is None
    assert (
        suggested(["a.weight"] + [f"x{i}" for i in range(9)], ["b.a.weight"] + [f"y{i}" for i in range(9)])
        is None
    )
