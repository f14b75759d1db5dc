"""A fitted method as a file: weights, parameters and results, readable with `weights_only=True`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from deepclust_ext.runs import CheckpointError, CheckpointStore, describe, load_state, versions
from deepclust_ext.runs.config import FORMAT

if TYPE_CHECKING:
    from deepclust_ext.methods.estimator import Estimator

State = dict[str, Any]

FITTED = (
    "labels_",
    "confidence_",
    "n_clusters_",
    "selected_head_",
    "mi_views_",
    "nmi_views_",
    "best_head_",
    "mapping_",
    "majority_mapping_",
    "history_",
    "metrics_",
)


def stamp(method: Estimator, state: State) -> State:
    """Add to a state what tells whose it is."""
    return {
        "format": FORMAT,
        "method": method._name,
        "parameters": describe(method.get_params(deep=False)),
        "image_shape": list(method.image_shape_),
        "versions": versions(),
        **state,
    }


def check_stamp(state: State, where: str) -> None:
    """Refuse a file that is no checkpoint of ours, or of another format."""
    if state.get("format") != FORMAT or "model" not in state or "method" not in state:
        raise CheckpointError(
            f"load: {where!r} has format {state.get('format')!r}, and this version reads format {FORMAT}"
        )


def load_weights(net: nn.Module, state: State, where: str) -> None:
    """Put a state's weights into a network built from its parameters."""
    try:
        net.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"load: the weights in {where!r} are of another network than the one built here for {state['method']}; "
            "pass the module that was trained as network=, or use the version that wrote the file "
            f"({state.get('versions', {}).get('deepclust_ext', 'unknown')})"
        ) from error


def fitted_state(method: Estimator) -> State:
    """The fitted attributes as tensors and plain values."""
    values = {name: getattr(method, name) for name in FITTED}
    return {
        name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else describe(value)
        for name, value in values.items()
    }


def clear_fitted(method: Estimator) -> None:
    """Forget an earlier fit, so that a fit that does not finish leaves no labels of another network."""
    for name in FITTED:
        if hasattr(method, name):
            delattr(method, name)


def set_fitted(method: Estimator, fitted: State) -> None:
    """Put back what `fitted_state` returned."""
    for name, value in fitted.items():
        setattr(method, name, value.numpy() if isinstance(value, torch.Tensor) else value)


def read(path: str | os.PathLike[str]) -> State:
    """Read a file of `Method.save`, or the newest checkpoint in a run folder.

    Raises
    ------
    CheckpointError
        If there is none, it is damaged or of another format, or its run has not finished.
    """
    where = Path(path)
    if where.is_dir():
        found = CheckpointStore(where).load()
        if found is None:
            raise CheckpointError(f"load: the folder {str(where)!r} holds no checkpoint")
        state = found
    else:
        state = load_state(where)
    check_stamp(state, str(where))
    if state.get("fitted") is None:
        raise CheckpointError(
            f"load: the run in {str(where)!r} has not finished ({state.get('epoch')} epochs done); resume it first"
        )
    return state


def parameters_of(state: State, replacements: dict[str, Any]) -> dict[str, Any]:
    """The constructor's parameters, with those that no file can hold taken from `replacements`."""
    parameters = {**state["parameters"], **replacements}
    for name, value in parameters.items():
        if isinstance(value, dict) and "object" in value:
            raise ValueError(
                f"load: {name!r} was the object {value['object']}, which no file holds; pass it again as {name}="
            )
    return parameters
