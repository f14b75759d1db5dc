"""A file of weights into a network: read without running what is in it, and refused unless it fits as a whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepclust_ext._optional import require

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
# Under which names training scripts keep the network, the averaged one first: it is the better one.
_KEPT_AS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
)

Weights = dict[str, Tensor]


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a state dict from a file of `torch.save`, or a `.safetensors` file.

    Parameters
    ----------
    path : str or path
        The file. Of a training script's checkpoint the network is taken.

    Returns
    -------
    weights : dict of str to Tensor

    Raises
    ------
    ValueError
        If the file cannot be read so, or holds no tensors.
    FileNotFoundError
        If there is none.
    """
    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"embed: 'weights' must be a file that is there, got {str(where)!r}")
    try:
        if where.suffix == ".safetensors":
            found = require("safetensors.torch", "backbones").load_file(where)
        else:
            found = torch.load(where, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:
        # The unpickler's messages are pages long, and advise to trust the file.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise ValueError(
            f"embed: 'weights' must be a file of tensors alone, got {str(where)!r}: {reason[:200]}; "
            "save the network's state_dict(), or a .safetensors file"
        ) from error
    weights = _tensors(found)
    if not weights:
        raise ValueError(f"embed: 'weights' must hold a network's tensors, got none in {str(where)!r}")
    return weights


def fit_weights(net: nn.Module, weights: Mapping[str, Tensor], *, head: str = "", where: str) -> None:
    """Put weights into a network.

    Names may have a prefix in common, as checkpoints of wrapped networks have. Every tensor of the network must be
    there, in its shape, and nothing more but its head.

    Parameters
    ----------
    net : Module
        The network.
    weights : mapping of str to Tensor
        See `read_weights`.
    head : str
        The name of what was taken off the network's end.
    where : str
        The file, for the message.

    Raises
    ------
    ValueError
        If they do not fit; the network is as it was.
    """
    own = net.state_dict()
    prefix = _prefix(own, weights)
    given = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    # Files of before PyTorch 0.4.1 lack the counts of batches, which nothing here uses.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    more = [name for name in given if name not in own and not (head and name.startswith(f"{head}."))]
    shapes = [name for name in own if name in given and own[name].shape != given[name].shape]
    faults = []
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        faults.append(f"{_count(missing)} of the network's {len(own)} {verb} not in it, such as {missing[0]!r}")
    if shapes:
        first = shapes[0]
        faults.append(
            f"{_count(shapes)} {_have(shapes)} another shape, such as {first!r} with {tuple(given[first].shape)} "
            f"instead of {tuple(own[first].shape)}"
        )
    if more:
        faults.append(f"{_count(more)} {_have(more)} no place in the network, such as {more[0]!r}")
    if faults:
        raise ValueError(f"embed: 'weights' must be those of this network, got {where!r}, where {'; '.join(faults)}")
    net.load_state_dict({name: given.get(name, value) for name, value in own.items()})


def digest_of(net: nn.Module) -> str:
    """SHA-256 (hexadecimal) of a network's tensors and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(found: Any) -> Weights:
    """The tensors by name of what a file holds, at whatever depth training scripts put them."""
    if not isinstance(found, Mapping):
        return {}
    for key in _KEPT_AS:
        inner = found.get(key)
        if isinstance(inner, Mapping) and (weights := _tensors(inner)):
            return weights
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _prefix(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What stands before the network's names in the file: the candidate with the most of them, the first of equals."""
    if not own or all(name in weights for name in own):
        return ""
    first = next(iter(own))
    candidates = ["", *(name[: -len(first)] for name in weights if name.endswith(f".{first}"))]
    return max(candidates, key=lambda prefix: sum(prefix + name in weights for name in own))


def _count(names: list[str]) -> str:
    """How many tensors."""
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _have(names: list[str]) -> str:
    """What so many do."""
    return "has" if len(names) == 1 else "have"
