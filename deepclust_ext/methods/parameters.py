"""Parameters of a method, each written once: type, default, bounds, sentence; checks, docstring and options follow."""

from __future__ import annotations

import textwrap
import types
import typing
from dataclasses import Field, field, fields
from typing import Any, TypeVar, Union

from deepclust_ext import _checks as check
from deepclust_ext.training.optim import OPTIMIZERS

T = TypeVar("T")
Optimizer = typing.Literal["adam", "adamw", "sgd"]
Schedule = typing.Literal["cosine", "constant"]
Precision = typing.Literal["float32", "bfloat16"]
assert typing.get_args(Optimizer) == OPTIMIZERS

# Of every method, from a base class; dataclasses put those first.
_LIMITS = ("min_confidence", "min_cluster_size", "max_cluster_size")


def param(default: Any, text: str, *, written: str | None = None, neutral: bool = False, **bounds: float) -> Any:
    """Declare a parameter of a method, as a field of its dataclass.

    Parameters
    ----------
    default : object
        Its default.
    text : str
        What it is, in a sentence or two: for the docstring and for `--help`.
    written : str, optional
        Its type in words, where that of the annotation would not do.
    neutral : bool
        Whether no label depends on it, so that it may change when a run is resumed.
    **bounds
        `at_least`, `above`, `below`, as `_checks` takes them. They hold unless the value is None.
    """
    return field(default=default, metadata={"text": text, "written": written, "neutral": neutral, "bounds": bounds})


# What several methods have in common: each names those that it has, with its own default.
_SHARED: dict[str, dict[str, Any]] = {
    "n_clusters": {"text": "K, the clusters to find.", "at_least": 2},
    "batch_size": {"text": "Images in a step; an epoch leaves out those that do not fill a batch.", "at_least": 2},
    "n_augmentations": {"text": "A, views of each image in a step.", "at_least": 1},
    "width": {"text": "Multiplies the channels of a named network.", "above": 0},
    "augmentation": {
        "text": "A preset's name, any transform, or a mapping of a preset's name and parameters.",
        "written": "str, callable or mapping",
    },
    "optimizer": {"text": "The rule that moves the weights."},
    "lr": {"text": "The full learning rate.", "above": 0},
    "weight_decay": {"text": "Weight decay.", "at_least": 0},
    "epochs": {"text": "Passes over the images.", "at_least": 1},
    "schedule": {"text": "The learning rate over the run, after the warm-up."},
    "warmup": {
        "text": "Share of the run's steps over which the learning rate first rises linearly.",
        "at_least": 0,
        "below": 1,
    },
    "selection": {
        "text": "The agreement of two views by which the head is chosen. NMI prefers a head that uses few of its "
        "clusters well; MI, which is ours, one that uses more."
    },
    "seed": {
        "text": "All random numbers come from it; torch's global state is left as it was.",
        "at_least": 0,
        "below": check.SEEDS,
    },
    "evaluate_every": {
        "text": "Epochs between two labellings of the training images for the log.",
        "at_least": 1,
        "neutral": True,
    },
    "checkpoint_every": {"text": "Epochs between two checkpoints.", "at_least": 1, "neutral": True},
    "precision": {
        "text": 'Of the network\'s products in training; weights, losses and labels are float32. "bfloat16" is faster '
        "on GPUs, and on processors with AMX or AVX512_BF16."
    },
    "device": {"text": '"auto" takes a GPU if there is one.', "written": "str or device", "neutral": True},
}


def shared(name: str, default: Any, more: str = "", **bounds: float) -> Any:
    """Declare a parameter that methods have in common: its own default, a sentence more and closer bounds if given."""
    options = {**_SHARED[name], **bounds}
    text = f"{options.pop('text')} {more}".strip()
    return param(default, text, **options)


def documented(kind: type[T]) -> type[T]:
    """Write the Parameters section of a dataclass of parameters into its docstring, in the place of `{parameters}`."""
    entries = []
    hints = typing.get_type_hints(kind)
    for each in parameter_fields(kind):
        written = each.metadata["written"] or in_words(hints[each.name])
        bounds = [f"{word.replace('_', ' ')} {limit:g}" for word, limit in each.metadata["bounds"].items()]
        default = f'"{each.default}"' if isinstance(each.default, str) else repr(each.default)
        text = textwrap.wrap(each.metadata["text"], 108, initial_indent="    ", subsequent_indent="    ")
        entries += [f"{each.name} : {', '.join([written, *bounds])}, default {default}", *text]
    kind.__doc__ = (kind.__doc__ or "").replace("{parameters}", "\n    ".join(entries))
    return kind


def parameter_fields(kind: Any) -> tuple[Field[Any], ...]:
    """The declared parameters of a method, in order; those that it shares with all come last."""
    return tuple(sorted(fields(kind), key=lambda each: each.name in _LIMITS))


def neutral_parameters(kind: Any) -> tuple[str, ...]:
    """Names of the parameters that no label depends on."""
    return tuple(sorted(each.name for each in parameter_fields(kind) if each.metadata["neutral"]))


def check_parameters(model: Any) -> None:
    """Refuse the first parameter whose value is not of its type or out of its bounds."""
    hints = typing.get_type_hints(type(model))
    for each in parameter_fields(model):
        _check(type(model).__name__, each, getattr(model, each.name), hints[each.name])
    check.device(type(model).__name__, model.device)


def _check(where: str, each: Field[Any], value: Any, hint: Any) -> None:
    """Refuse a value of one parameter; what is neither a number, a flag nor a choice is for its user to check."""
    parts = options_of(hint)
    if value is None and type(None) in parts:
        return
    bounds = each.metadata["bounds"]
    kind = parts[0]
    if typing.get_origin(kind) is typing.Literal:
        check.choice(where, each.name, value, typing.get_args(kind))
    elif kind is bool:
        check.flag(where, each.name, value)
    elif kind is int:
        check.whole_number(where, each.name, value, **bounds)
    elif kind is float:
        check.number(where, each.name, value, **bounds)


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def in_words(hint: Any) -> str:
    """A type as docstrings write it: `int or None`, `{"a", "b"}`."""
    texts = []
    for part in options_of(hint):
        if typing.get_origin(part) is typing.Literal:
            texts.append("{" + ", ".join(f'"{name}"' for name in typing.get_args(part)) + "}")
        elif part is type(None):
            texts.append("None")
        else:
            name = getattr(part, "__qualname__", str(part))
            texts.append(f"nn.{name}" if getattr(part, "__module__", "").startswith("torch.nn") else name)
    return " or ".join(texts)
