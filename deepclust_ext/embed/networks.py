"""Where networks come from: torchvision, timm, or a callable of one's own; each without the layer of its classes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deepclust_ext._optional import require
from deepclust_ext.embed.preprocessing import Preprocessing
from deepclust_ext.embed.weights import Weights, fit_weights

# In the place of weights: the network as it is drawn from a seed.
RANDOM = "random"


@dataclass(frozen=True)
class Network:
    """A network that gives features, its preprocessing, and the name of the head that was taken off."""

    net: nn.Module
    preprocessing: Preprocessing
    head: str = ""


def of_torchvision(name: str, weights: Weights | str | None, where: str) -> Network:
    """A torchvision network for classification.

    Parameters
    ----------
    name : str
        Its name there.
    weights : dict, str or None
        A state dict, the name of weights that torchvision downloads, "random", or None for its best.
    where : str
        What the weights are called in messages.
    """
    models: Any = require("torchvision.models", "train")
    kinds = models.get_model_weights(name)
    if isinstance(weights, str) and weights != RANDOM and weights not in kinds.__members__:
        raise ValueError(
            f"embed: 'weights' must be a file, {RANDOM!r} or, of {name}, one of {', '.join(kinds.__members__)}, "
            f"got {weights!r}"
        )
    chosen = kinds[weights] if isinstance(weights, str) and weights != RANDOM else kinds.DEFAULT
    preprocessing = Preprocessing.of_torchvision(chosen.transforms(), name)
    with _quiet():
        net = models.get_model(name, weights=None)
    head = take_off_head(net)
    if weights is None or (isinstance(weights, str) and weights != RANDOM):
        with _download(name):
            weights = dict(chosen.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True))
    if not isinstance(weights, str):
        fit_weights(net, weights, head=head, where=where)
    return Network(net, preprocessing, head)


def of_timm(name: str, weights: Weights | str | None, where: str, image_size: int | None) -> Network:
    """A timm network; arguments as `of_torchvision`, and the size of images for networks that are built for one."""
    timm: Any = require("timm", "backbones")
    if isinstance(weights, str) and weights != RANDOM:
        name = f"{name.split('.')[0]}.{weights}"
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"embed: 'backbone' must be a network of torchvision or of timm, got {name!r}")
    fetch = weights is None or (isinstance(weights, str) and weights != RANDOM)
    sizes: list[dict[str, Any]] = [{}] if image_size is None else [{"img_size": image_size}, {}]
    net = None
    for options in sizes:
        try:
            with _download(name) if fetch else contextlib.nullcontext():
                net = timm.create_model(name, pretrained=fetch, num_classes=0, **options)
            break
        except TypeError:  # convolutional networks take every size and no option
            if options is sizes[-1]:
                raise
    assert net is not None
    head = next(iter(_heads_of_timm(net)), "")
    if isinstance(weights, dict):
        for prefix in _heads_of_timm(net):
            weights = {key: value for key, value in weights.items() if not key.startswith(f"{prefix}.")}
        convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
        try:
            fit_weights(net, weights, head=head, where=where)
        except ValueError:
            # Of the network's authors, or made for another size of images: timm knows how to turn them.
            if convert is None:
                raise
            fit_weights(net, _converted(convert, weights, net), head=head, where=where)
    config = timm.data.resolve_model_data_config(net)
    return Network(net, Preprocessing.of_timm(config, name), head)


def of_callable(spec: str, weights: Weights | str | None, where: str) -> Network:
    """What `module:callable` returns; a module may have `preprocessing`, a mapping or a `Preprocessing`."""
    path, _, attribute = spec.partition(":")
    with _importing_from_here():
        try:
            value: Any = importlib.import_module(path)
            for part in attribute.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"embed: 'backbone' must be module:callable that can be imported, got {spec!r}: {error}"
            ) from error
        net = value if isinstance(value, nn.Module) else value()
    if not isinstance(net, nn.Module):
        raise ValueError(f"embed: 'backbone' must return a torch.nn.Module, got {type(net).__name__} from {spec!r}")
    if isinstance(weights, str) and weights != RANDOM:
        raise FileNotFoundError(f"embed: 'weights' must be a file that is there, got {weights!r}")
    if isinstance(weights, dict):
        fit_weights(net, weights, where=where)
    said = getattr(net, "preprocessing", None) or getattr(net, "pretrained_cfg", None) or {}
    preprocessing = said if isinstance(said, Preprocessing) else Preprocessing.of_mapping(said, spec)
    return Network(net, preprocessing)


def is_torchvision(name: str) -> bool:
    """Whether torchvision has a network of this name for classification."""
    models: Any = require("torchvision.models", "train")
    return bool(name in models.list_models(module=models))


def take_off_head(net: nn.Module) -> str:
    """Replace a classifier's last linear layer, or its last convolution if it has none, and say what it was called."""
    layers = dict(net.named_modules())
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, layer in layers.items() if isinstance(layer, kind)]
        if names:
            parent, _, last = names[-1].rpartition(".")
            setattr(layers[parent], last, nn.Identity())
            return str(names[-1])
    raise ValueError(f"embed: 'backbone' must end in a layer for classes, got {type(net).__name__}")


def _heads_of_timm(net: nn.Module) -> tuple[str, ...]:
    """Names of the layers for classes that timm leaves out where there are no classes."""
    found = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _converted(convert: Any, weights: Weights, net: nn.Module) -> Weights:
    """Weights as timm's own filter turns them."""
    try:
        return {name: value for name, value in convert(dict(weights), net).items() if torch.is_tensor(value)}
    except Exception:
        return weights


@contextlib.contextmanager
def _download(name: str) -> Iterator[None]:
    """Say in a sentence that weights cannot be fetched."""
    try:
        yield
    except TypeError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise OSError(
            f"embed: the weights of {name!r} cannot be downloaded ({type(error).__name__}: {reason}); "
            "give weights=FILE, with them in it"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torchvision's advice on initial weights, which nothing here keeps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextlib.contextmanager
def _importing_from_here() -> Iterator[None]:
    """Within the block modules in the working directory can be imported, as with `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
