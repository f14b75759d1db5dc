"""A fitted method as a file: weights, parameters and results, readable with `weights_only=True`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from deepclust_ext.runs import CheckpointError, CheckpointStore, describe, load_state, versions
from deepclust_ext.runs.config import FORMAT
from deepclust_ext.training.learner import State


@dataclass(frozen=True)
class Identity:
    """Whose a run, a checkpoint or a file is.

    Parameters
    ----------
    method : str
        Name of the method's class.
    parameters : dict
        All its parameters.
    image_shape : tuple of int
        Channels, height and width of its images, or the width of its embeddings.
    result_neutral : tuple of str
        Parameters that may change on a resume, because no label depends on them.
    """

    method: str
    parameters: dict[str, Any]
    image_shape: tuple[int, ...]
    result_neutral: tuple[str, ...] = field(default=())

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.parameters["seed"])

    def stamp(self, state: State) -> State:
        """Add to a state what tells whose it is."""
        return {
            "format": FORMAT,
            "method": self.method,
            "parameters": describe(self.parameters),
            "image_shape": list(self.image_shape),
            "versions": versions(),
            **state,
        }


def check_stamp(state: State, where: str) -> None:
    """Refuse a file that is no checkpoint of ours, or of another format."""
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"load: {where!r} has format {state.get('format')!r}, and this version reads format {FORMAT}; "
            f"use the version that wrote it ({state.get('versions', {}).get('deepclust_ext', 'unknown')}), or fit again"
        )
    if "net" not in state or "method" not in state:
        raise CheckpointError(f"load: {where!r} is no checkpoint of a method; it holds {', '.join(map(str, state))}")


def load_weights(net: nn.Module, state: State, where: str, *, trained: bool = False) -> None:
    """Put a state's weights into a network built from its parameters; `trained`: as they were before concluding."""
    try:
        net.load_state_dict(state["trained" if trained and "trained" in state else "net"])
    except RuntimeError as error:
        raise CheckpointError(
            f"load: the weights in {where!r} are of another network than the one built here for {state['method']}; "
            "pass the module that was trained as network=, or use the version that wrote the file "
            f"({state.get('versions', {}).get('deepclust_ext', 'unknown')})"
        ) from error


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
            f"load: the run in {str(where)!r} has not finished ({state['place']['epoch']} epochs done); resume it first"
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
