"""A pretrained network by name: what it is called, what it wants, what it gives, and whose weights it has."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.embed.networks import RANDOM, is_torchvision, of_callable, of_timm, of_torchvision
from deepclust_ext.embed.preprocessing import Preprocessing
from deepclust_ext.embed.weights import SUFFIXES, digest_of, read_weights
from deepclust_ext.nn.registry import as_features


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network that embeds images.

    Parameters
    ----------
    name : str
        As it was asked for.
    net : Module
        From (B, 3, H, W) to features (B, d), or to a list of them, of which the last counts.
    preprocessing : Preprocessing
        What images go through before.
    """

    name: str
    net: nn.Module
    preprocessing: Preprocessing

    @cached_property
    def identity(self) -> str:
        """JSON that is equal exactly where name, preprocessing and all weights are."""
        record = {"backbone": self.name, "weights": digest_of(self.net), **self.preprocessing.record()}
        return json.dumps(record, sort_keys=True)

    def features(self, images: Tensor) -> Tensor:
        """The embeddings (B, d) of preprocessed images."""
        found = self.net(images)
        if isinstance(found, Tensor) and found.dim() == 4 and found.shape[2:] == (1, 1):
            found = found.flatten(1)
        return as_features(found, n_images=len(images))[-1]

    def dim(self) -> int:
        """The width of the embeddings; refuses a network that does not give any for its images."""
        size = self.preprocessing.square.size
        parameter = next(self.net.parameters(), torch.empty(0))
        try:
            return self.features(torch.zeros(2, 3, size, size, device=parameter.device)).shape[1]
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"embed: 'backbone' must embed images of 3 x {size} x {size}, got from {self.name!r}: {reason[:200]}"
            ) from error


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    device: Any = "auto",
) -> Backbone:
    """Load a pretrained network for `embed`.

    Parameters
    ----------
    name : str
        A network of torchvision, or of timm (`pip install 'deepclust_ext[backbones]'`), without the layer of its
        classes; `torchvision:NAME` and `timm:NAME` say which. Or `module:callable`, where the callable returns a
        `torch.nn.Module` from images to features (B, d); its attribute `preprocessing` may be a mapping with `size`,
        `resize`, `interpolation`, `squash`, `mean` and `std`, or as timm's `pretrained_cfg`.
    weights : str or path, optional
        A file of `torch.save`, read with `weights_only=True`, or a `.safetensors` file: a state dict, or a training
        script's checkpoint with one. Every tensor of the network must be in it. Or the name of weights that the
        library downloads (by default its best), or "random" for a network that was not trained, drawn from a fixed
        seed. What a callable returns keeps its own by default.
    image_size : int, optional
        Give the network squares of this size instead of its own.
    device : str or device
        "auto" takes a GPU if there is one.

    Returns
    -------
    Backbone
        In evaluation mode, on the device, in channels-last order.

    Raises
    ------
    ValueError
        If there is no such network, the weights are not its own, or it gives no embeddings.
    FileNotFoundError
        If there is no such file.
    OSError
        If weights cannot be downloaded.
    ImportError
        If timm is not installed and asked for.

    Examples
    --------
    >>> backbone = load_backbone("resnet18", weights="random", device="cpu")
    >>> backbone.dim(), backbone.preprocessing.square.size
    (512, 224)
    """
    if image_size is not None:
        check.whole_number("embed", "image_size", image_size, at_least=1)
    target = check.device("embed", device)
    found: Any = None if weights is None else os.fspath(weights)
    where = found or name
    if found is not None and found != RANDOM and (Path(found).is_file() or _looks_like_file(found)):
        found = read_weights(found)
    with own_torch_state(target):
        torch.manual_seed(0)
        origin, _, rest = name.partition(":")
        if rest and origin not in ("timm", "torchvision"):
            network = of_callable(name, found, where)
        elif origin != "timm" and is_torchvision(rest or name):
            network = of_torchvision(rest or name, found, where)
        elif origin == "torchvision":
            raise ValueError(f"embed: 'backbone' must be a network of torchvision for classification, got {name!r}")
        else:
            network = of_timm(rest or name, found, where, image_size)
        net = network.net.to(target).to(memory_format=torch.channels_last)
        backbone = Backbone(name, net.eval().requires_grad_(False), network.preprocessing)
        if image_size is not None:
            backbone = replace(backbone, preprocessing=backbone.preprocessing.at(image_size))
        with torch.inference_mode():
            backbone.dim()
    return backbone


def _looks_like_file(text: str) -> bool:
    """Whether what is no file was meant as one."""
    return text.endswith(SUFFIXES) or os.sep in text
