"""What a run is: method, parameters, data and versions, as plain values to store and to compare."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._processor import processor
from .._version import __version__
from .._warnings import DeepclustWarning
from .errors import ResumeMismatchError

FORMAT = 2

Config = dict[str, Any]


def describe(value: Any) -> Any:
    """Turn a parameter or a result into plain values: None, bool, int, float, str, lists and dicts.

    Modules and functions cannot be stored; they become a dict with the key `object`, their qualified name
    and, for a module, a digest of its structure, so that a resume with another object is noticed. NaN and
    infinity become None.

    Parameters
    ----------
    value : object
        Anything a method takes as a parameter or writes as a result.

    Returns
    -------
    plain : object
        Fit for YAML, JSON and `torch.load(weights_only=True)`.

    Examples
    --------
    >>> describe((1, 2.5, float("nan")))
    [1, 2.5, None]
    >>> describe(torch.nn.Identity())["object"]
    'torch.nn.modules.linear.Identity'
    """
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [describe(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, torch.device | torch.dtype):
        return str(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    plain: Config = {"object": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(value, nn.Module):
        plain["structure"] = hashlib.sha256(repr(value).encode()).hexdigest()[:16]
    return plain


def versions() -> dict[str, str]:
    """Versions of the package and of what its results depend on; 'unknown' when it is not installed."""
    found = {"python": platform.python_version(), "deepclust_ext": __version__}
    # torch's own: the installed package's lacks the build ("+cpu").
    found["torch"] = str(torch.__version__)
    for name in ("numpy", "scikit-learn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def make_config(
    *,
    method: str,
    parameters: Mapping[str, Any],
    seed: int,
    data: Mapping[str, Any],
    result_neutral: Collection[str] = (),
) -> Config:
    """The content of `config.yaml`.

    Parameters
    ----------
    method : str
        Name of the method's class.
    parameters : mapping
        All its parameters.
    seed : int
        The seed, repeated here because it is what readers look for.
    data : mapping
        `source`, `digest`, `n_images` and `image_shape`.
    result_neutral : collection of str
        Parameters that may change on a resume because no label depends on them.

    Returns
    -------
    config : dict
        Plain values.
    """
    return {
        "format": FORMAT,
        "method": method,
        "seed": seed,
        "parameters": describe(dict(parameters)),
        "result_neutral": sorted(result_neutral),
        "data": describe(dict(data)),
        "versions": versions(),
        # torch splits its sums by thread: another number may give other bits.
        "threads": torch.get_num_threads(),
        # Another processor may round otherwise.
        "processor": processor(),
        "command": shlex.join(sys.argv),
    }


def _release(version: str) -> str:
    """Major and minor number: a change of either may change a result or the layout of a file."""
    return ".".join(version.split("+")[0].split(".")[:2])


def compare_configs(saved: Mapping[str, Any], asked: Mapping[str, Any], *, where: str, changes: str = "") -> None:
    """Raise unless the run that was saved and the run that is asked for are the same.

    The source of the data may differ (a folder may have moved): its digest decides.

    Parameters
    ----------
    saved, asked : mapping
        Two results of `make_config`.
    where : str
        The run folder, for the message.
    changes : str
        More of what changed, in sentences.

    Raises
    ------
    ResumeMismatchError
        Naming every difference in format, method, parameters, data and version of this package.
    """
    differences = []

    def compare(label: str, old: Any, new: Any) -> None:
        if old != new:
            differences.append(f"{label} was {old!r} and is now {new!r}")

    compare("the file format", saved.get("format"), asked["format"])
    compare("the method", saved.get("method"), asked["method"])
    if not differences:
        neutral = set(asked["result_neutral"])
        old, new = saved.get("parameters") or {}, asked["parameters"]
        for name in sorted((old.keys() | new.keys()) - neutral):
            compare(name, old.get(name), new.get(name))
        for name in ("digest", "n_images", "image_shape"):
            compare(f"the data's {name}", (saved.get("data") or {}).get(name), asked["data"][name])
        old, new = saved.get("versions") or {}, asked["versions"]
        compare(
            "deepclust_ext's version",
            _release(old.get("deepclust_ext", "unknown")),
            _release(new["deepclust_ext"]),
        )
    if differences:
        raise ResumeMismatchError(
            f"resume: the run in {where!r} is another one: {'; '.join(differences)}. {changes}"
            "Use the same settings and data, or a new folder"
        )


def warn_of_changes(saved: Mapping[str, Any], asked: Mapping[str, Any], *, where: str) -> None:
    """Warn if a run goes on with another torch, another number of threads or on another processor: bits may differ.

    Parameters
    ----------
    saved, asked : mapping
        Two results of `make_config`.
    where : str
        The run folder, for the message.

    Warns
    -----
    DeepclustWarning
        Naming what changed.
    """
    new = {"torch": asked["versions"]["torch"], "threads": asked["threads"], "processor": asked["processor"]}
    old = {"torch": (saved.get("versions") or {}).get("torch"), "threads": saved.get("threads")}
    # Runs of earlier versions do not say which processor was theirs.
    old["processor"] = saved.get("processor", new["processor"])
    changes = [f"{name} {old[name]} and goes on with {new[name]}" for name in new if old[name] != new[name]]
    if changes:
        warnings.warn(
            f"resume: the run in {where!r} was started with {', with '.join(changes)}: its labels may differ from an "
            "uninterrupted run's",
            DeepclustWarning,
            stacklevel=3,
        )
