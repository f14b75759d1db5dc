"""Open a run folder, and bring a run to where it starts: the beginning, or the newest checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.saving import State, check_stamp
from deepclust_ext.runs import CheckpointError, RunDirectory, compare_configs, resume_mode
from deepclust_ext.runs.config import make_config, warn_of_changes

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method
    from deepclust_ext.methods.loop import Training


@contextlib.contextmanager
def opened(run: str | os.PathLike[str] | RunDirectory | None, resume: bool | str) -> Iterator[RunDirectory | None]:
    """Open the run folder for the block; one that the caller opened stays open."""
    if run is None or isinstance(run, RunDirectory):
        yield run
        return
    with RunDirectory(run, mode=resume_mode(resume)) as folder:
        yield folder


def start(method: Method, training: Training, images: ImageData, folder: RunDirectory) -> State | None:
    """Write the configuration of a new run, or check an old one's and go to its newest checkpoint.

    Parameters
    ----------
    method : Method
        Its parameters are the configuration.
    training : Training
        At its beginning; goes to the checkpoint if there is one.
    images : ImageData
        The training images, which must be the run's.
    folder : RunDirectory
        Empty, or holding a run.

    Returns
    -------
    fitted : dict or None
        What a finished run has found, as `fitted_state` returns it; None if there is training to do.

    Raises
    ------
    ResumeMismatchError
        If the run in the folder is another one.
    CheckpointError
        If it has no checkpoint that can be read, though it has come to its first epoch.
    """
    config = make_config(
        method=method._name,
        parameters=method.get_params(deep=False),
        seed=method.seed,
        data={
            "source": images.source,
            "digest": images.digest,
            "n_images": len(images),
            "image_shape": images.image_shape,
            "n_skipped": len(images.skipped),
        },
        result_neutral=method._RESULT_NEUTRAL,
    )
    if not folder.holds_run:
        folder.write_config(config)
        return None
    saved = folder.read_config()
    compare_configs(saved, config, where=str(folder.path))
    state = folder.checkpoints.load()
    if state is None:
        # A run that was killed before its first checkpoint starts again; one that has lost them does not.
        if any(record.get("event") == "epoch" for record in folder.read_log()):
            raise CheckpointError(
                f"resume: the checkpoints of {str(folder.path)!r} are gone, though its log has epochs; "
                "start again in a new folder"
            )
        return None
    check_stamp(state, str(folder.path))
    training.load(state, str(folder.path))
    fitted: State | None = state.get("fitted")
    if fitted is not None:
        training.history = fitted["history_"]
        return fitted
    warn_of_changes(saved, config, where=str(folder.path))
    training.history = [
        {key: value for key, value in record.items() if key not in ("event", "time")}
        for record in folder.rewind_log(training.epoch)
        if record.get("event") == "epoch"
    ]
    folder.log("resume", epoch=training.epoch, step=training.step)
    return None
