"""What a run leaves behind: configuration, log and checkpoints in its folder, and the history in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from deepclust_ext.data.items import Items
from deepclust_ext.runs import CheckpointError, RunDirectory, compare_configs, resume_mode
from deepclust_ext.runs.config import make_config, warn_of_changes
from deepclust_ext.training.files import Identity, check_stamp
from deepclust_ext.training.learner import Record, State
from deepclust_ext.training.team import current
from deepclust_ext.training.warm_start import changed_names


@contextlib.contextmanager
def opened(run: str | os.PathLike[str] | RunDirectory | None, resume: bool | str) -> Iterator[RunDirectory | None]:
    """Open the run folder for the block, on rank 0 alone; one that the caller opened stays open."""
    with contextlib.ExitStack() as stack:
        found: list[RunDirectory | None] = [None]

        def enter() -> None:
            if run is None or isinstance(run, RunDirectory):
                found[0] = run
            else:
                found[0] = stack.enter_context(RunDirectory(run, mode=resume_mode(resume)))

        current().of_first(enter)
        yield found[0]


class Journal:
    """The record of one run; without a folder, as on ranks above 0, it is the history alone.

    Parameters
    ----------
    identity : Identity
        Whose run it is.
    folder : RunDirectory, optional
        Empty, or holding the run.
    """

    def __init__(self, identity: Identity, folder: RunDirectory | None = None) -> None:
        self.identity, self.folder = identity, folder
        self.history: list[Record] = []

    def start(self, images: Items) -> State | None:
        """Write the configuration of a new run, or check an old one's and find its newest checkpoint.

        Parameters
        ----------
        images : Items
            The training images, which must be the run's.

        Returns
        -------
        state : dict or None
            As it was saved; None for a run that is at its beginning. With the key "fitted" the run has finished.

        Raises
        ------
        ResumeMismatchError
            If the run in the folder is another one.
        CheckpointError
            If it has no checkpoint that can be read, though it has come to its first epoch.
        """
        state, self.history = current().of_first(lambda: (self._start(images), self.history))
        return state

    def _start(self, images: Items) -> State | None:
        """`start` of the process that has the folder."""
        folder = self.folder
        if folder is None:
            return None
        config = self._config(images)
        if not folder.holds_run:
            folder.write_config(config)
            return None
        saved = folder.read_config()
        known = saved.get("data") or {}
        changes = "" if known.get("digest") == config["data"]["digest"] else changed_names(folder.path, images)
        compare_configs(saved, config, where=str(folder.path), changes=changes)
        if saved["parameters"] != config["parameters"]:
            # Those that no training depends on: the file shows what the results will be made with.
            saved["parameters"] = config["parameters"]
            folder.write_config(saved)
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
        if state.get("fitted") is not None:
            self.history = state["fitted"]["history"]
            return state
        warn_of_changes(saved, config, where=str(folder.path))
        self.history = [
            {key: value for key, value in record.items() if key not in ("event", "time")}
            for record in folder.rewind_log(state["place"]["epoch"])
            if record.get("event") == "epoch"
        ]
        self.log("resume", **state["place"])
        return state

    def epoch(self, record: Record) -> None:
        """Add an epoch."""
        self.history.append(record)
        self.log("epoch", **record)

    def conclusion(self, record: Record) -> None:
        """Log what concluding found, once: results may be made again."""
        if self.folder is not None and not any(line.get("event") == "conclusion" for line in self.folder.read_log()):
            self.log("conclusion", **record)

    def log(self, event: str, **fields: Any) -> None:
        """Append to the log, if there is a folder."""
        if self.folder is not None:
            self.folder.log(event, **fields)

    def save(self, state: State) -> None:
        """Write a checkpoint, if there is a folder."""
        if self.folder is not None:
            self.folder.checkpoints.save(self.identity.stamp(state))

    def _config(self, images: Items) -> dict[str, Any]:
        """The content of config.yaml."""
        return make_config(
            method=self.identity.method,
            parameters=self.identity.parameters,
            seed=self.identity.seed,
            data={
                "source": images.source,
                "digest": images.digest,
                "n_images": len(images),
                "image_shape": images.image_shape,
                "n_skipped": len(images.skipped),
            },
            result_neutral=self.identity.result_neutral,
        )
