"""The command `deepclust`: find the sub-command, and end every failure in one sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

from deepclust_ext._version import __version__
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.commands import COMMANDS
from deepclust_ext.commands._parser import Parser
from deepclust_ext.commands._show import as_options

BAD_INPUT = 2
UNEXPECTED = 1
# What sysexits.h calls a temporary failure: the same may work when it is started again.
LOST = 75
LONGEST = 300
DEBUG = "DEEPCLUST_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `deepclust` and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line after the program's name; by default this process's.

    Returns
    -------
    code : int
        0 when all went well, 2 for input that cannot work, 1 for what nobody foresaw, 75 where another process of the
        run has ended, 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.

    Examples
    --------
    >>> main(["info", "--json"])  # doctest: +SKIP
    0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get(DEBUG, "0") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        # A path that the terminal cannot show must not make a failure of a run that has succeeded.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if not sys.warnoptions:
            # Python shows a warning once a place; of several seeds each may collapse.
            warnings.simplefilter("always", DeepclustWarning)
        try:
            return _dispatch(words)
        except BrokenPipeError:
            # The reader of our output has gone (`| head`); what is left in the buffer has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            if debug:
                traceback.print_exc()
            return _report(error)


def _dispatch(words: list[str]) -> int:
    """Give the words after the sub-command to the module that has it."""
    parser = Parser(
        prog="deepclust",
        description="Deep clustering: from images to labels.csv.",
        epilog="deepclust COMMAND --help explains each. --debug, or DEEPCLUST_DEBUG=1, shows the traceback "
        "of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"deepclust_ext {__version__}")
    listing = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        # Without options of its own: the module's parser sees them, -h included.
        listing.add_parser(name, help=summary, add_help=False)
    if words and words[0] in COMMANDS:
        module = importlib.import_module(f"deepclust_ext.commands.{words[0]}")
        return int(module.run(words[1:]))
    parser.parse_args(words)
    raise AssertionError("parse_args accepts known commands only")


def _report(error: BaseException) -> int:
    """Print an exception as one sentence and return the exit code it stands for."""
    # Here, not above: it imports torch, and the help should not wait for that.
    from deepclust_ext.runs import Interrupted, RankLostError, RunError

    if isinstance(error, Interrupted):
        return _say(f"{error}; run the same command with --resume auto", int(error.code or 0))
    if isinstance(error, SystemExit):
        # --help and --version end so.
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, KeyboardInterrupt):
        return _say("stopped by Ctrl-C", 130)
    if isinstance(error, RankLostError):
        return _say(str(error), LOST)
    if isinstance(error, (RunError, ValueError, TypeError, OSError, ImportError, FloatingPointError)):
        return _say(str(error) or type(error).__name__, BAD_INPUT)
    # Such messages can be pages long (a state_dict's mismatches).
    text = str(error)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return _say(f"unexpected {type(error).__name__}: {text} ({DEBUG}=1 shows the traceback)", UNEXPECTED)


def _say(message: str, code: int) -> int:
    """Write one line to stderr, whatever line breaks the message has, and hand the code on."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    who = "" if rank == "0" else f"rank {rank}: "
    print(f"deepclust: {who}{' '.join(as_options(message).split())}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Show a warning as one line: where in our code it arose helps no user."""
    text = f"deepclust: warning: {' '.join(as_options(str(message)).split())}"
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None and file is None:
        # Above a progress bar instead of through it.
        tqdm.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=file or sys.stderr)
