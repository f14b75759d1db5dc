"""Configurations that ship with the package: constructor parameters of a method as YAML files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepclust_ext._optional import require
from deepclust_ext.methods.parameters import parameter_fields
from deepclust_ext.methods.registry import METHODS, key_of

FOLDER = Path(__file__).parent


def config_names(method: str) -> tuple[str, ...]:
    """Names of the configurations of a method, without its own name: 'small' for dhog-small.yaml."""
    prefix = f"{method.lower()}-"
    return tuple(sorted(path.stem.removeprefix(prefix) for path in FOLDER.glob(f"{prefix}*.yaml")))


def load_config(method: str | type, name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the parameters of a method from a configuration.

    Parameters
    ----------
    method : str or class
        The method: "dhog", or the class.
    name : str or path
        The name of a configuration that ships with the package ("small" or "dhog-small"), or the path of a
        YAML file: a mapping of constructor parameters, or a run's `config.yaml`.

    Returns
    -------
    parameters : dict
        Keyword arguments of the method's constructor.

    Raises
    ------
    ValueError
        If there is no such configuration, it cannot be read, or it names a parameter the method does not have.

    Examples
    --------
    >>> load_config("dhog", "small")["alpha"]
    0.05
    """
    key = key_of(method)
    if key not in METHODS:
        raise ValueError(f"load_config: 'method' must be one of {', '.join(METHODS)}, got {method!r}")
    path = _find(key, name)
    yaml = require("yaml")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"load_config: 'name' must be a readable YAML file, got {str(path)!r}: {error}") from error
    if isinstance(found, dict) and "parameters" in found:
        if key_of(str(found.get("method", key))) != key:
            raise ValueError(f"load_config: {str(path)!r} configures {found['method']}, not {key}")
        found = found["parameters"]
    if not isinstance(found, dict):
        raise ValueError(f"load_config: {str(path)!r} must hold a mapping of parameters, got {found!r:.60}")
    known = [each.name for each in parameter_fields(METHODS[key])]
    unknown = [parameter for parameter in found if parameter not in known]
    if unknown:
        raise ValueError(
            f"load_config: {str(path)!r} has unknown parameters {', '.join(map(str, unknown))}; "
            f"{key} has {', '.join(known)}"
        )
    return found


def _find(method: str, name: str | os.PathLike[str]) -> Path:
    """The file of a shipped configuration or of a path."""
    text = os.fspath(name)
    shipped = FOLDER / f"{method}-{text.removeprefix(method + '-')}.yaml"
    # A path has a separator or a suffix; a bare word is a name, whatever lies in the working folder.
    if not text.endswith((".yaml", ".yml")) and os.sep not in text:
        if shipped.is_file():
            return shipped
        names = config_names(method)
        allowed = f"one of {', '.join(names)}, or the path" if names else f"the path ({method} ships none)"
        raise ValueError(f"load_config: 'name' must be {allowed} of a .yaml file, got {text!r}")
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"load_config: there is no file {text!r}")
    return path
