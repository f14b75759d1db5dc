"""Parameters are written once: the docstring, the checks, the options and scikit-learn's contract come from there."""

from __future__ import annotations

import pickle
import re
import typing

import pytest
from sklearn.base import clone

from deepclust_ext.commands._arguments import RECIPES, build_parser, option
from deepclust_ext.methods import METHODS
from deepclust_ext.methods.parameters import in_words, neutral_parameters, options_of, parameter_fields

KINDS = pytest.mark.parametrize("kind", METHODS.values(), ids=list(METHODS))
BOUNDED = [
    (kind, each, word, limit)
    for kind in METHODS.values()
    for each in parameter_fields(kind)
    for word, limit in each.metadata["bounds"].items()
]


@KINDS
def test_the_docstring_has_every_parameter_in_order(kind):
    entries = re.findall(r"^    (\w+) : (.*), default (.*)$", kind.__doc__, re.MULTILINE)
    assert [name for name, *_ in entries] == [each.name for each in parameter_fields(kind)]
    assert [default.strip('"') for *_, default in entries] == [str(each.default) for each in parameter_fields(kind)]
    assert "{parameters}" not in kind.__doc__
    text = " ".join(kind.__doc__.split())
    for each in parameter_fields(kind):
        assert each.metadata["text"].endswith(".")
        assert " ".join(each.metadata["text"].split()) in text


@KINDS
def test_the_help_has_every_parameter(kind):
    (name,) = (name for name, one in METHODS.items() if one is kind)
    text = " ".join(build_parser(name, RECIPES[name], {}).format_help().split())
    for each in parameter_fields(kind):
        assert option(each.name) in text
        if each.name not in ("n_clusters", "seed"):
            # argparse breaks lines at hyphens too.
            assert each.metadata["text"].replace("`", "").replace(" ", "") in text.replace(" ", "")


@pytest.mark.parametrize(
    ("kind", "each", "word", "limit"), BOUNDED, ids=[f"{k.__name__}-{e.name}-{w}" for k, e, w, _ in BOUNDED]
)
def test_every_bound_is_checked(kind, each, word, limit):
    whole = int in options_of(typing.get_type_hints(kind)[each.name])
    outside = {"at_least": limit - (1 if whole else 0.01), "above": limit, "below": limit}[word]
    with pytest.raises(ValueError, match=rf"{kind.__name__}: '{each.name}' must be .*{word.replace('_', ' ')} {limit}"):
        kind(**{each.name: outside}).check_parameters()
    if word == "at_least":
        kind(**{each.name: int(limit) if whole else float(limit)}).check_parameters()


@KINDS
def test_every_type_is_checked(kind):
    hints = typing.get_type_hints(kind)
    for each in parameter_fields(kind):
        parts = options_of(hints[each.name])
        if parts[0] in (int, float, bool) or typing.get_origin(parts[0]) is typing.Literal:
            with pytest.raises((TypeError, ValueError), match=f"'{each.name}' must be"):
                kind(**{each.name: "nothing of the kind"}).check_parameters()
            if type(None) not in parts:
                with pytest.raises((TypeError, ValueError), match=f"'{each.name}' must be"):
                    kind(**{each.name: None}).check_parameters()


@KINDS
def test_scikit_learns_contract(kind):
    model = kind(7, seed=3)
    assert model.get_params()["n_clusters"] == 7
    assert set(model.get_params()) == {each.name for each in parameter_fields(kind)}
    copies = [clone(model), pickle.loads(pickle.dumps(model)), kind(**model.get_params())]
    assert all(copy.get_params() == model.get_params() for copy in copies)
    assert model.set_params(seed=4).seed == 4
    assert repr(model) == f"{kind.__name__}(n_clusters=7, seed=4)"
    assert kind.__name__ in model._repr_html_()
    assert model != kind(7, seed=4)
    with pytest.raises(TypeError, match="positional"):
        kind(7, 3)
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(nothing=1)


def test_what_no_label_depends_on():
    limits = ["max_cluster_size", "min_cluster_size", "min_confidence"]
    assert sorted(neutral_parameters(METHODS["dhog"])) == ["checkpoint_every", "device", "evaluate_every", *limits]
    assert sorted(neutral_parameters(METHODS["deepcluster"])) == ["checkpoint_every", "device", *limits]
    # JULE merges by its smallest size.
    assert sorted(neutral_parameters(METHODS["jule"])) == ["checkpoint_every", "device", limits[0], limits[2]]


def test_types_in_words():
    hints = typing.get_type_hints(METHODS["dhog"])
    assert in_words(hints["over_clusters"]) == "int or None"
    assert in_words(hints["network"]) == "str or nn.Module"
    assert in_words(hints["pooling"]) == '{"pooled", "mean"}'
