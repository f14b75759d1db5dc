"""A command line of `fit`, understood: spellings, configuration, seeds."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepclust_ext.commands._arguments import OWN_OPTIONS, RECIPES, Recipe, build_parser, option, sentence
from deepclust_ext.commands._formats import parse_formats
from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.data import holds_embeddings
from deepclust_ext.data.source import Source
from deepclust_ext.methods import Clusterer, load_config

# A slip such as 0-40000000 is refused instead of filling the memory.
MAX_SEEDS = 1000
# In place of a number of clusters.
AUTO = "auto"


@dataclass(frozen=True)
class FitRequest:
    """A command line of `fit`, understood; `typed` are the parameters that it names itself.

    `choice` says what a number of clusters was chosen by, where that was left to us.
    """

    name: str
    recipe: Recipe
    parameters: dict[str, Any]
    source: Source
    out: str
    seeds: tuple[int, ...] | None
    resume: bool | str
    export: str | None
    formats: tuple[str, ...]
    tensorboard: bool
    quiet: bool
    progress: bool | None
    configured: bool
    cache: bool
    typed: frozenset[str]
    warm_start: str | None = None
    choice: dict[str, Any] | None = None

    @property
    def folders(self) -> list[Path]:
        """The run folder, or that of each seed."""
        out = Path(self.out)
        return [out] if self.seeds is None else [out / f"seed-{seed}" for seed in self.seeds]

    def build(self, seed: int | None = None) -> Clusterer:
        """Construct the method, for one of several seeds if one is given."""
        return self.recipe.kind(**self.parameters | ({} if seed is None else {"seed": seed}))


def parse_fit(name: str, words: list[str]) -> FitRequest:
    """Read the words after `deepclust fit METHOD`.

    Parameters
    ----------
    name : str
        METHOD, a key of `RECIPES`.
    words : list of str
        The rest of the command line.

    Returns
    -------
    request : FitRequest

    Raises
    ------
    UsageError
        If an option is unknown, missing or of another type.
    ValueError
        If the configuration cannot be used.
    """
    recipe = RECIPES[name]
    words = _spell_out_set([_dashes(word) for word in words], recipe)
    config, configured = _configuration(recipe, words)
    parser = build_parser(name, recipe, config)
    try:
        found = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise UsageError(f"{sentence(str(error), recipe)}; see deepclust fit {name} --help") from error
    parameters = {key: found[OWN_OPTIONS.get(key, key)] for key in recipe.parameters}
    source = Source(
        found.data,
        found.split,
        found.image_size,
        found.folder_labels,
        max_pixels=found.max_pixels,
        frames=found.frames,
        stretch=found.stretch,
        backbone=found.backbone,
        weights=found.weights,
    )
    if found.weights is not None and found.backbone is None:
        raise UsageError("--weights must come with --backbone, the network that they are of")
    return FitRequest(
        name=name,
        recipe=recipe,
        parameters=parameters | recipe.fixed,
        source=source,
        out=found.out,
        seeds=None if found.seeds is None else parse_seeds(found.seeds),
        resume={"never": False, "always": True}.get(found.resume, found.resume),
        export=found.export,
        formats=parse_formats(found.format),
        tensorboard=found.tensorboard,
        quiet=found.quiet,
        progress=True if found.progress else False if found.quiet else None,
        configured=configured,
        cache=not found.no_cache,
        warm_start=found.warm_start,
        typed=frozenset(key for key in recipe.parameters if {option(key)} & {word.split("=")[0] for word in words}),
    )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Turn "0-4" or "0,2,7-9" into seeds in that order.

    Raises
    ------
    UsageError
        If the text is no such list, or holds a seed twice.

    Examples
    --------
    >>> parse_seeds("0,2,7-9")
    (0, 2, 7, 8, 9)
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_SEEDS:
            raise UsageError(f"--seeds must be a range such as 0-4 or a list such as 0,2,5, got {text!r}")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds must hold every seed once, got {text!r}")
    return tuple(seeds)


def _dashes(word: str) -> str:
    """Write --batch_size as --batch-size: both spellings are natural, one is kept."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _spell_out_set(words: list[str], recipe: Recipe) -> list[str]:
    """Turn `--set key=value ...` into the options of those parameters, so that both are typed alike."""
    known = {name.replace("-", "_") for name in recipe.parameters}
    result: list[str] = []
    setting = False
    for word in words:
        if word == "--set" or word.startswith("--set="):
            setting = True
            if word == "--set":
                continue
            word = word.removeprefix("--set=")
        elif word.startswith("--"):
            setting = False
        if not setting:
            result.append(word)
            continue
        key, equals, value = word.partition("=")
        key = key.replace("-", "_")
        if not equals:
            raise UsageError(f"--set must be followed by key=value, got {word!r}")
        if key not in known:
            raise UsageError(
                f"--set must name a parameter of the method, got {key!r}; known: {', '.join(sorted(known))}"
            )
        result.append(f"{option(key)}={value}")
    return result


def _configuration(recipe: Recipe, words: list[str]) -> tuple[dict[str, Any], bool]:
    """The parameters that --config, or else the recipe, starts from, and whether there are any."""
    early = Parser(prog="deepclust fit", add_help=False)
    early.add_argument("--config")
    early.add_argument("--data")
    early.add_argument("--backbone")
    found = early.parse_known_args(words)[0]
    by_data = recipe.embeddings if found.backbone or holds_embeddings(found.data) else None
    name = found.config or by_data or recipe.config
    if name is None:
        return {}, False
    return load_config(recipe.method, name), True
