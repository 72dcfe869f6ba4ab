"""Text files that others wrote, line by line: what is no text, or no name, says so with file and line."""

import unicodedata
from pathlib import Path

from ..foundation.errors import DataError


def fault(where: object, what: str, remedy: str) -> DataError:
    """The error for content that cannot be used: file and line, what is wrong, and what to do."""
    return DataError(f"{where}: {what}.", subject=str(where), remedy=remedy or None)


def read_text(path: str | Path) -> str:
    """A text file as UTF-8, with unified line ends and without a byte-order mark; what is no text says so."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as err:
        raise fault(path, "does not exist", "Check the folder and the file name.") from err
    except IsADirectoryError as err:
        raise fault(path, "is a folder", "Give the file inside it.") from err
    except PermissionError as err:
        raise fault(path, "may not be read", "Change the file's permissions.") from err
    except UnicodeDecodeError as err:
        what = f"is not UTF-8 (byte {err.start})"
        raise fault(path, what, "Save it as UTF-8, or download it again.") from err
    start = text.lstrip()[:100].lower()
    if not start:
        raise fault(path, "is empty", "Write it again, or fetch it again if the download was cut off.")
    if start.startswith("version https://git-lfs"):
        raise fault(path, "is only a git-lfs pointer", "Run `git lfs pull` where it was cloned.")
    if start.startswith(("<!doctype", "<html")):
        remedy = "The download needs a login or another link: fetch the file itself."
        raise fault(path, "is a web page", remedy)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def one_line(
    text: str,  # A class name, or a path of a list
    where: object,  # File and line, or record, for the error
    kind: str,  # "class" or "path"
) -> str:  # Without outer blanks
    """A text as it stands in one line of a file; what some program takes for a line end is refused."""
    name = text.strip()
    odd = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    if odd:
        what = f"{kind} {name!r} holds U+{ord(odd[0]):04X}, which is no letter"
        raise fault(where, what, "Rename the file." if kind == "path" else "Write a blank instead of it.")
    if not name:
        raise fault(where, f"the {kind} is empty", "Give it a name.")
    return name


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, without blank ones."""
    return [(n, line.strip()) for n, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
