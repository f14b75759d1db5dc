"""What METHOD stands for on the command line, and its constructor's parameters as options."""

from __future__ import annotations

import argparse
import re
import typing
from dataclasses import Field, dataclass, field
from typing import Any, Literal

from deepclust_ext._optional import require
from deepclust_ext.methods import METHODS, Clusterer
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.parameters import parameter_fields

# These have options of their own, named in the order of their use.
OWN_OPTIONS = {"n_clusters": "clusters", "seed": "seed"}
RUN_TYPES: dict[str, Any] = {
    "clusters": int | Literal["auto"],
    "seed": int,
    "resume": Literal["never", "auto", "always"],
    "split": Literal["train", "test", "all"],
    "image_size": int | None,
    "max_pixels": int | None,
    "stretch": int | None,
    "frames": Literal["first", "all"],
    "export": Literal["copy", "link", "hardlink"],
}


@dataclass(frozen=True)
class Recipe:
    """What a METHOD on the command line stands for.

    Parameters
    ----------
    method : str
        A key of METHODS.
    config : str, optional
        The configuration it starts from when --config names none.
    embeddings : str, optional
        The same where the data are embeddings.
    fixed : dict
        Parameters that make it what it is; they are no options.
    """

    method: str
    config: str | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    embeddings: str | None = None

    @property
    def kind(self) -> type[Clusterer]:
        """The class."""
        return METHODS[self.method]

    @property
    def parameters(self) -> dict[str, Field[Any]]:
        """The method's parameters that can be set."""
        return {each.name: each for each in parameter_fields(self.kind) if each.name not in self.fixed}


# Super-AND without what it adds to AND.
_AND: dict[str, Any] = {"sobel": False, "ue_weight": 0.0, "augmentation_loss": False}
RECIPES = {name: Recipe(name) for name in METHODS} | {
    "dhog": Recipe("dhog", embeddings="embeddings"),
    "iic": Recipe("dhog", "iic", {"alpha": 0.0}, "iic-embeddings"),
    "and": Recipe("super-and", None, _AND),
    "instance": Recipe("super-and", None, {**_AND, "n_neighbors": 0}),
}


def option(parameter: str) -> str:
    """The option of a parameter: --batch-size for batch_size."""
    return "--" + OWN_OPTIONS.get(parameter, parameter).replace("_", "-")


def build_parser(name: str, recipe: Recipe, config: dict[str, Any]) -> Any:
    """Build the parser of `deepclust fit NAME`.

    Parameters
    ----------
    name : str
        METHOD.
    recipe : Recipe
        What it stands for.
    config : dict
        Parameters that take the place of the class's defaults.

    Returns
    -------
    parser : jsonargparse.ArgumentParser
        Raises argparse.ArgumentError on a bad command line.
    """
    parser = require("jsonargparse").ArgumentParser(
        prog=f"deepclust fit {name}",
        usage="%(prog)s --data DATA --out OUT [options]",
        description=(recipe.kind.__doc__ or "").strip().splitlines()[0],
        # Without jsonargparse's own formatter, which spells out every type.
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
    )
    defaults = {key: config.get(key, parameter.default) for key, parameter in recipe.parameters.items()}
    _add_run_options(parser.add_argument_group("the run"), recipe, defaults)
    group = parser.add_argument_group("the method")
    hints = typing.get_type_hints(recipe.kind)
    for key, default in defaults.items():
        if key not in OWN_OPTIONS:
            text = recipe.parameters[key].metadata["text"].replace("`", "").replace("%", "%%")
            group.add_argument(option(key), type=_type(hints[key]), default=default, help=text)
    return parser


def _add_run_options(run: Any, recipe: Recipe, defaults: dict[str, Any]) -> None:
    """The options every method has."""
    names = ", ".join(config_names(recipe.method))
    run.add_argument(
        "--data",
        type=str,
        required=True,
        help="folder, archive or file of images, file of embeddings, or name of a data set",
    )
    run.add_argument("--out", type=str, required=True, help="folder of the run")
    run.add_argument(
        "--backbone", type=str, help="embed images by this network of torchvision, timm or module:callable"
    )
    run.add_argument("--weights", type=str, help="its weights: a file, the name of some to download, or random")
    run.add_argument("--config", type=str, help=f"parameters to start from: {names}, or a YAML file")
    # Spelt out before this parser sees it: here for the help alone.
    run.add_argument(
        "--set", type=str, default=argparse.SUPPRESS, metavar="KEY=VALUE", help="set parameters by their Python names"
    )
    run.add_argument(
        "--clusters",
        type=RUN_TYPES["clusters"],
        default=defaults["n_clusters"],
        help="clusters to find; auto looks for the number",
    )
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=defaults["seed"], help="all random numbers come from it")
    seeds.add_argument("--seeds", type=str, help="runs in OUT/seed-S for each of 0-4, say, and their mean and spread")
    run.add_argument(
        "--resume",
        type=RUN_TYPES["resume"],
        default="never",
        help="go on with the run in OUT: auto if there is one, always to insist on it",
    )
    run.add_argument("--warm-start", type=str, metavar="RUN", help="keep the numbers of the clusters of a finished run")
    run.add_argument("--split", type=RUN_TYPES["split"], default="train", help="part of the data")
    run.add_argument(
        "--image-size", type=RUN_TYPES["image_size"], default=None, help="scale and crop images to this many pixels"
    )
    run.add_argument("--folder-labels", action="store_true", help="sub-folders are classes, for scores only")
    run.add_argument(
        "--max-pixels", type=RUN_TYPES["max_pixels"], default=None, help="read images of up to so many pixels"
    )
    run.add_argument(
        "--stretch", type=RUN_TYPES["stretch"], default=None, help="value of 16-bit pixels that is white, such as 4095"
    )
    run.add_argument("--frames", type=RUN_TYPES["frames"], default="first", help="what of files with several frames")
    run.add_argument("--no-cache", action="store_true", help="do not keep scaled images beside OUT for the next run")
    run.add_argument(
        "--export", type=RUN_TYPES["export"], help="sort the files into OUT/clusters/K too; link is a symbolic link"
    )
    run.add_argument("--format", type=str, help="write the labels as parquet or fiftyone (JSON) too, or as both")
    run.add_argument("--tensorboard", action="store_true", help="curves for TensorBoard in OUT/tensorboard too")
    run.add_argument("--quiet", action="store_true", help="no progress, no table")
    run.add_argument("--progress", action="store_true", help="a progress bar even where there is no terminal")


def _type(hint: Any) -> Any:
    """What can be typed on a command line: a module cannot, its name can."""
    kinds = typing.get_args(hint)
    return str if str in kinds else hint


def sentence(message: str, recipe: Recipe) -> str:
    """Turn jsonargparse's report of several lines into one sentence."""
    key = re.search(r'Parser key "(\w+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if key is None or value is None:
        head, required, names = message.partition("are required: ")
        return head + required + ", ".join(f"--{name.replace('_', '-')}" for name in names.split(", ") if name)
    hints = typing.get_type_hints(recipe.kind) | RUN_TYPES
    return f"--{key[1].replace('_', '-')} must be {_kind(hints.get(key[1], str))}, got {value[1]}"


def _kind(hint: Any) -> str:
    """A type in words: "a whole number or null"."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    parts = typing.get_args(hint) or (hint,)
    texts = []
    for part in parts:
        known = words.get(part, str(part)) if isinstance(part, type) else str(part)
        texts += list(typing.get_args(part)) or [known]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
