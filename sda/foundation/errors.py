"""The errors of the library: each says what is wrong, and carries subject, choices and remedy as fields."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = [
    "SdaError",
    "UnknownNameError",
    "SettingError",
    "DataError",
    "VideoError",
    "RunError",
    "DivergedError",
    "FolderError",
    "MissingPackageError",
    "unknown_name",
    "missing_package",
    "nearest",
    "listed",
]

DISTRIBUTION = "sda-workbench"  # as pip knows this project


class SdaError(Exception):
    """What the library raises; `str` of it is meant for people, the fields are meant for programs."""

    def __init__(
        self,
        message: object = "",  # what is wrong, naming the file, line, video or name
        *,
        subject: str | None = None,  # that file, video or name alone
        choices: Iterable[str] = (),  # what could have been given instead
        remedy: str | None = None,  # what to do; added to the message unless it is part of it
    ):
        text = str(message)
        if remedy and remedy not in text:
            text = f"{text} {remedy}" if text.endswith((".", "!", "?")) else f"{text}; {remedy}"
        super().__init__(text)
        self.subject = subject
        self.choices = tuple(choices)
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the fields on the way from a worker process: the built-in families would drop them."""
        return _rebuild, (type(self), str(self)), self.__dict__.copy()


def _rebuild(kind: type[SdaError], text: str) -> SdaError:
    """An error without its fields; a subclass may have an `__init__` with other arguments."""
    error = kind.__new__(kind)
    SdaError.__init__(error, text)
    return error


class UnknownNameError(SdaError, ValueError):
    """A name that does not exist: of a model, a sampler, a class, a clip; `choices` are those that do."""


class SettingError(SdaError, ValueError):
    """An option, an argument or a value of a configuration that cannot be used."""


class DataError(SdaError, ValueError):
    """A list, an annotation, a record or a stored file whose content is wrong."""


class VideoError(SdaError, RuntimeError):
    """A clip that cannot be read."""


class RunError(SdaError, RuntimeError):
    """Training, testing or explaining that cannot go on."""


class DivergedError(RunError):
    """A training whose numbers are no longer finite."""


class FolderError(SdaError, OSError):
    """A folder or file that cannot be written, or that another process is working in."""


class MissingPackageError(SdaError, ImportError):
    """An optional package that is needed now and not installed."""


def nearest(
    name: object,  # the name that was asked for
    choices: Iterable[str],  # the names that exist
) -> str | None:  # one of them, or None where none is similar
    """The most similar name; capitals are overlooked where nothing else is similar."""
    known = list(map(str, choices))
    found = get_close_matches(str(name), known, n=1, cutoff=0.4)
    if found:
        return found[0]
    folded = {choice.casefold(): choice for choice in reversed(known)}
    found = get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.4)
    return folded[found[0]] if found else None


def listed(
    names: Iterable[object],  # to be named in a sentence
    most: int = 3,  # then the rest is only counted; three are enough to know what is meant
) -> str:  # "a, b, c and 4 more"
    """Names in one line."""
    texts = list(map(str, names))
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def unknown_name(
    kind: str,  # what is being named, e.g. "sampler"
    name: object,  # the name that was asked for
    choices: Iterable[str],  # the names that exist
    most: int | None = None,  # names shown at most, for long choices such as clips; None shows all, sorted
) -> UnknownNameError:  # to be raised
    """The error for a name that does not exist, with the nearest one."""
    known = tuple(map(str, choices))
    near = nearest(name, known)
    remedy = None if near is None else f"did you mean {near!r}?"
    hint = "" if remedy is None else f"{remedy} "
    shown = listed(sorted(known), len(known) if most is None else most)
    text = f"unknown {kind} {name!r}: {hint}(there are {shown})"
    return UnknownNameError(text, subject=str(name), choices=known, remedy=remedy)


def missing_package(
    package: str,  # as people know it, e.g. "grad-cam"
    purpose: str,  # what it is needed for, e.g. "class-activation maps"
    install: str,  # the extra of this project that brings it, e.g. "cam", or what installs it, in full
) -> MissingPackageError:  # to be raised, from the ImportError
    """The error for an optional package that cannot be imported: not there, or there and not to be loaded."""
    if install.isidentifier():
        install = f'pip install "{DISTRIBUTION}[{install}]"'
    err = sys.exc_info()[1]
    if err is None or isinstance(err, ModuleNotFoundError) or not str(err):
        text = f"the package {package} is needed for {purpose} and is not installed: {install}"
        return MissingPackageError(text, subject=package, remedy=install)
    remedy = "free some memory" if lacks_memory(err) else f"install it again: {install}"
    text = f"the package {package} is needed for {purpose}; it is there and cannot be loaded ({err})"
    return MissingPackageError(text, subject=package, remedy=remedy)


_NO_MEMORY = re.compile(r"cannot allocate memory|can't allocate memory|out of memory|bad_alloc", re.I)


def lacks_memory(
    err: BaseException,  # any error, of Python, NumPy, torch, the system or a driver
) -> bool:
    """Whether memory ran out, of the machine or of a GPU: torch and shared libraries have no type for it."""
    if isinstance(err, MemoryError) or getattr(err, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(err, RuntimeError | ImportError | OSError) and bool(_NO_MEMORY.search(str(err)))
