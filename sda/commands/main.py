"""The command `sda`: finds the subcommand, reads its options, runs it, and says errors in one clear line."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __doc__ as _PURPOSE
from .. import __version__
from ..foundation.errors import lacks_memory, missing_package, nearest
from .terminal import safe_streams

if TYPE_CHECKING:
    from .options import Command

__all__ = ["COMMANDS", "main"]


class Entry(NamedTuple):
    """Where a subcommand is made, and its line in the help: a test holds it to the words of its class."""

    module: str  # of this package
    name: str  # of the dataclass whose fields are the options
    help: str  # one line


# In the order of the help. A module is imported when its command is asked for, so `sda --help` is instant.
COMMANDS = {
    "moves": Entry("data", "Moves", "Make the Moves clips"),
    "train": Entry("train", "Train", "Train a network and leave model, history and record in a folder"),
    "test": Entry("test", "Test", "Test a trained network on a split of a dataset"),
    "predict": Entry("predict", "Predict", "Say what happens in video files"),
    "inspect": Entry("show", "Inspect", "Write a page about some clips"),
    "app": Entry("show", "App", "Serve the inspector on this machine and open the browser"),
    "table": Entry("show", "Table", "Print measured accuracies from a folder of records, and published ones"),
    "models": Entry("show", "Models", "List the networks that can be trained, or what a model file holds"),
    "profile": Entry("show", "Profile", "Count a network's parameters and multiply-adds, block by block"),
    "export": Entry(
        "export", "Export", "Write a network for ONNX Runtime or torch alone, compared with the original"
    ),
    "demo": Entry(
        "demo", "Demo", "Make clips, train a network without and with SDA, test both, and write report.html"
    ),
    "extract": Entry("data", "Extract", "Turn videos into folders of JPEG frames"),
    "data": Entry("data", "Data", "Check a dataset folder line by line, or make its lists"),
}
# what goes on where it was when it is started again
_GO_ON = ("moves", "train", "demo", "extract")


def command_class(name: str) -> type[Command]:
    """The dataclass of a subcommand."""
    entry = COMMANDS[name]
    return getattr(importlib.import_module(f".{entry.module}", __package__), entry.name)


def overview() -> str:
    """The help of `sda` without a subcommand."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{entry.help}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sda [-h] [--version] COMMAND [OPTIONS]",
            "",
            _PURPOSE or "",
            "",
            "commands:",
            *lines,
            "",
            "sda COMMAND --help shows the options of a command.",
        ]
    )


def parse(
    args: Sequence[str],  # words after `sda`, the name of a subcommand first
) -> Command:  # the subcommand with its values
    """Read the options of a subcommand; help and mistakes end in SystemExit with status 0 or 2."""
    try:
        import tyro
    except ImportError as err:
        raise missing_package("tyro", "the command line", "pip install tyro") from err
    name, *words = args
    if name == "predict":  # --model was the name of this option once
        words = [
            "--checkpoint" + word.removeprefix("--model") if word.partition("=")[0] == "--model" else word
            for word in words
        ]
    more: dict[str, Any] = {}
    if name == "train":  # its defaults depend on the words
        from .train import defaults, spelled

        more["default"] = defaults(words)
        words = spelled(words)
    cls = command_class(name)
    return tyro.cli(
        cls,
        prog=f"sda {name}",
        args=words,
        description=inspect.cleandoc(cls.__doc__ or ""),
        config=(
            tyro.conf.PositionalRequiredArgs,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.FlagCreatePairsOff,
        ),
        **more,
    )


class _Lines(logging.Handler):
    """Log lines that do not cut through progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to stderr."""
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _listen(verbose: bool) -> None:
    """Say what the library says: warnings, or everything with --verbose."""
    logger = logging.getLogger("sda")
    handler = _Lines()
    for old in [h for h in logger.handlers if isinstance(h, _Lines)]:
        logger.removeHandler(old)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


def _terminated(number: int, frame: object) -> None:
    """A request to terminate becomes an exception, so that everything on the way out is cleaned up."""
    raise SystemExit(128 + number)


def _nobody_watches() -> bool:
    """CI=true, as build machines say, or TQDM_DISABLE=1: no progress bars then."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes") for name in ("CI", "TQDM_DISABLE"))


def explain(
    err: BaseException,  # what ended the command
) -> str:  # without a traceback
    """An error in words for the user."""
    said = str(err.args[0]) if isinstance(err, KeyError) and err.args else str(err)
    if lacks_memory(err) and not getattr(err, "remedy", None):
        first = said.strip().partition("\n")[0] or type(err).__name__
        less = "close other programs, or ask for less at once: smaller batches, fewer workers"
        return f"memory ran out ({first}); {less}"
    if isinstance(err, OSError | ValueError | RuntimeError | ImportError | LookupError) and said.strip():
        return said
    return f"{type(err).__name__}: {said or 'no message'}. This should not happen; --debug shows where it did"


def _run(args: Sequence[str]) -> None:
    """Read the words and run the subcommand."""
    options = parse(args)
    options.quiet = options.quiet or _nobody_watches()
    _listen(options.verbose)
    options.run()
    sys.stdout.flush()


def main(
    args: Sequence[str] | None = None,  # words after `sda`; those of this process if left out
) -> int:  # exit status: 0 done, 1 failed, 2 not understood, 130 stopped
    """Run one command; no name or label in what it prints and logs can steer the terminal."""
    with safe_streams():
        return _answer(list(sys.argv[1:] if args is None else args))


def _answer(args: list[str]) -> int:
    """Run one command; its exit status."""
    name = args[0] if args else "--help"
    if name in ("--version", "-V"):
        print(f"sda {__version__}")
        return 0
    if name in ("--help", "-h"):
        print(overview())
        return 0
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"did you mean {near}? " if near else ""
        print(f"sda: there is no command {name!r}: {hint}(there are {', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    if "SIGTERM" in signal.Signals.__members__ and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(args)
        return 0
    except KeyboardInterrupt:
        goes_on = name in _GO_ON or (name == "test" and "--out" in args)
        print("stopped; the same command goes on from here" if goes_on else "stopped", file=sys.stderr)
        return 130
    except SystemExit as end:
        if end.code is None:
            return 0
        return end.code if isinstance(end.code, int) else 1
    except BrokenPipeError:  # the reader of a pipe has left: sda models | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as err:
        if "--debug" in args:
            raise
        print(f"sda {name}: {explain(err)}", file=sys.stderr)
        from .options import CommandLineError

        return 2 if isinstance(err, CommandLineError) else 1
