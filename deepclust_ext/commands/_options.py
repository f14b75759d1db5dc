"""The command line of `fit`: a method's constructor parameters as options, on top of a configuration."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from dataclasses import dataclass, field
from typing import Any

from deepclust_ext._optional import require
from deepclust_ext.cli import Parser, UsageError
from deepclust_ext.commands._source import Source
from deepclust_ext.methods import METHODS, Method, load_config
from deepclust_ext.methods.configs import config_names

# These have options of their own, named in the order of their use.
OWN_OPTIONS = {"n_clusters": "clusters", "seed": "seed"}
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Recipe:
    """What a METHOD on the command line stands for.

    Parameters
    ----------
    method : str
        A key of METHODS.
    config : str, optional
        The configuration it starts from when --config names none.
    fixed : dict
        Parameters that make it what it is; they are no options.
    """

    method: str
    config: str | None = None
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> type[Method]:
        """The class."""
        return METHODS[self.method]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The constructor's parameters that can be set."""
        found = inspect.signature(self.kind).parameters
        return {name: parameter for name, parameter in found.items() if name not in self.fixed}


RECIPES = {name: Recipe(name) for name in METHODS} | {"iic": Recipe("dhog", "iic", {"alpha": 0.0})}


@dataclass(frozen=True)
class FitRequest:
    """A command line of `fit`, understood."""

    name: str
    recipe: Recipe
    parameters: dict[str, Any]
    source: Source
    out: str
    seeds: tuple[int, ...] | None
    resume: bool | str
    export: str | None
    quiet: bool
    progress: bool | None
    configured: bool

    def build(self, seed: int | None = None) -> Method:
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
    parser = _parser(name, recipe, config)
    try:
        found = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise UsageError(f"{_sentence(str(error), recipe)}; see deepclust fit {name} --help") from error
    parameters = {key: getattr(found, OWN_OPTIONS.get(key, key)) for key in recipe.parameters}
    source = Source(found.data, found.split, found.image_size, found.folder_labels)
    if found.export and source.folder is None:
        raise UsageError(f"--export must come with a folder of images, got --data {found.data}")
    return FitRequest(
        name=name,
        recipe=recipe,
        parameters=parameters | recipe.fixed,
        source=source,
        out=found.out,
        seeds=None if found.seeds is None else parse_seeds(found.seeds),
        resume={"never": False, "always": True}.get(found.resume, found.resume),
        export=found.export,
        quiet=found.quiet,
        progress=True if found.progress else False if found.quiet else None,
        configured=configured,
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
    option, equals, value = word.partition("=")
    return option.replace("_", "-") + equals + value


def _option(parameter: str) -> str:
    """The option of a parameter."""
    return "--" + OWN_OPTIONS.get(parameter, parameter).replace("_", "-")


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
        result.append(f"{_option(key)}={value}")
    return result


def _configuration(recipe: Recipe, words: list[str]) -> tuple[dict[str, Any], bool]:
    """The parameters that --config, or else the recipe, starts from, and whether there are any."""
    early = Parser(prog="deepclust fit", add_help=False)
    early.add_argument("--config")
    name = early.parse_known_args(words)[0].config or recipe.config
    if name is None:
        return {}, False
    yaml = require("yaml")
    try:
        return load_config(recipe.method, name), True
    except yaml.YAMLError as error:
        raise ValueError(f"--config must be a readable YAML file, got {name!r}: {error}") from error


def _parser(name: str, recipe: Recipe, config: dict[str, Any]) -> Any:
    """The parser of one method, its defaults those of the configuration."""
    parser = require("jsonargparse").ArgumentParser(
        prog=f"deepclust fit {name}",
        description=(recipe.kind.__doc__ or "").strip().splitlines()[0],
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
    )
    parameters = recipe.parameters

    def default(key: str) -> Any:
        return config.get(key, parameters[key].default)

    run = parser.add_argument_group("the run")
    names = ", ".join(config_names(recipe.method))
    run.add_argument("--data", type=str, required=True, help="folder of images, .npz file or name of a data set")
    run.add_argument("--out", type=str, required=True, help="folder of the run")
    run.add_argument("--config", type=str, help=f"parameters to start from: {names}, or a YAML file")
    run.add_argument("--set", type=str, metavar="KEY=VALUE", help="set parameters by their Python names")
    run.add_argument("--clusters", type=int, default=default("n_clusters"), help="clusters to find")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=default("seed"), help="all random numbers come from it")
    seeds.add_argument("--seeds", type=str, help="several runs, such as 0-4, in OUT/seed-S, and their mean and spread")
    run.add_argument(
        "--resume",
        type=str,
        choices=("never", "auto", "always"),
        default="never",
        help="go on with a run that is in OUT: auto where there is one, always to insist on it",
    )
    run.add_argument("--split", type=str, choices=("train", "test", "all"), default="train", help="part of the data")
    run.add_argument("--image-size", type=int | None, default=None, help="scale and crop images to this many pixels")
    run.add_argument("--folder-labels", action="store_true", help="sub-folders are classes, for scores only")
    run.add_argument("--export", type=str, choices=("copy", "link"), help="sort the files into OUT/clusters/K too")
    run.add_argument("--quiet", action="store_true", help="no progress bar, no table")
    run.add_argument("--progress", action="store_true", help="a progress bar even where there is no terminal")
    group = parser.add_argument_group("the method")
    hints, texts = typing.get_type_hints(recipe.kind.__init__), _descriptions(recipe.kind)
    for key in parameters:
        if key not in OWN_OPTIONS:
            help_text = texts.get(key, "see the parameter before").replace("%", "%%")
            group.add_argument(_option(key), type=_type(hints.get(key, Any)), default=default(key), help=help_text)
    return parser


def _type(hint: Any) -> Any:
    """What can be typed on a command line: a module cannot, its name can."""
    kinds = typing.get_args(hint)
    return str if str in kinds else hint


def _descriptions(kind: type) -> dict[str, str]:
    """The first sentence that a class's docstring has on each parameter."""
    parse = require("docstring_parser").parse
    found = {}
    for entry in parse(inspect.cleandoc(kind.__doc__ or "")).params:
        text = " ".join((entry.description or "").replace("`", "").split())
        for name in entry.arg_name.split(","):
            found[name.strip()] = text
    return found


def _sentence(message: str, recipe: Recipe) -> str:
    """Turn jsonargparse's report of several lines into one sentence."""
    key = re.search(r'Parser key "(\w+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if key is None or value is None:
        return message
    parameters = {own: name for name, own in OWN_OPTIONS.items()}
    hint = typing.get_type_hints(recipe.kind.__init__).get(parameters.get(key[1], key[1]), int)
    wanted = hint.__name__ if isinstance(hint, type) else str(hint)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    for short, long in words.items():
        wanted = re.sub(rf"\b{short}\b", long, wanted)
    return f"--{key[1].replace('_', '-')} must be {wanted.replace(' | ', ' or ')}, got {value[1]}"
