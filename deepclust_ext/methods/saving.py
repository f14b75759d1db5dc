"""A fitted method as a file: weights, parameters and results, readable with `weights_only=True`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deepclust_ext.runs import CheckpointError, CheckpointStore, describe, load_state, versions
from deepclust_ext.runs.config import FORMAT

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method

State = dict[str, Any]


def stamp(method: Method, state: State) -> State:
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


def fitted_state(method: Method) -> State:
    """The fitted attributes as tensors and plain values."""
    optional = {
        name: None if (value := getattr(method, name)) is None else torch.from_numpy(value.copy())
        for name in ("mapping_", "majority_mapping_")
    }
    return {
        "labels_": torch.from_numpy(method.labels_.copy()),
        "confidence_": torch.from_numpy(method.confidence_.copy()),
        "nmi_views_": torch.from_numpy(method.nmi_views_.copy()),
        "selected_head_": method.selected_head_,
        "best_head_": method.best_head_,
        "n_clusters_": method.n_clusters_,
        "history_": describe(method.history_),
        "metrics_": method.metrics_,
        **optional,
    }


def set_fitted(method: Method, fitted: State) -> None:
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
            f"load: the run in {str(where)!r} has not finished ({state.get('epoch')} epochs done); resume "
            "it first"
        )
    return state


def parameters_of(state: State, replacements: dict[str, Any]) -> dict[str, Any]:
    """The constructor's parameters, with those that no file can hold taken from `replacements`."""
    parameters = {**state["parameters"], **replacements}
    for name, value in parameters.items():
        if isinstance(value, dict) and "object" in value:
            raise ValueError(
                f"load: {name!r} was the object {value['object']}, which no file holds; pass it again as "
                f"{name}="
            )
    return parameters
