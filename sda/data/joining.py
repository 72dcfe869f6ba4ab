"""Paths of a list stay below the folder of its clips: absolute ones, `..` and links out of it are refused."""

import os
from pathlib import Path

from ..foundation.errors import DataError


def safe_join(
    root: str | Path,  # The folder that must not be left
    name: str,  # Relative path from a list or an archive
    links: bool | None = None,  # Follow links that lead elsewhere; None: where the root itself is a link
) -> Path:  # root/name
    """Join a path to a root; `DataError` when it is absolute, climbs out or follows a link out.

    A root that is a link was made by `sda data make --media`: who points at a folder means its links too.
    """
    path = Path(root, *_below(name))
    follow = Path(root).is_symlink() if links is None else links
    if not follow and not path.resolve().is_relative_to(Path(root).resolve()):
        raise _strays(name)
    return path


def _below(name: str) -> list[str]:
    """The parts of a path that is relative and never climbs."""
    text = name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    windows = len(name) > 1 and name[1] == ":"
    if text.startswith("/") or windows or ".." in parts or "\0" in name or not parts:
        raise DataError(
            f"path {name!r} leaves the root",
            subject=name,
            remedy="write it relative to the root, without '..'",
        )
    return parts


def _strays(name: str) -> DataError:
    """The error for a link to somewhere else."""
    remedy = "copy the clip into the root, or make the lists with `sda data make NAME --media FOLDER`"
    return DataError(f"path {name!r} is a link that leaves the root", subject=name, remedy=remedy)


class SafeJoin:
    """`safe_join` for the many lines of a list; each folder is looked at once, in one reading."""

    def __init__(
        self,
        root: str | Path,  # The folder that must not be left
        links: bool | None = None,  # As of `safe_join`
    ):
        self.root = Path(root)
        self.follow = self.root.is_symlink() if links is None else links
        self._begin = "" if str(root) == "." else str(self.root)
        self._real = self.root.resolve()
        # folder -> which of its entries are links; False: it lies elsewhere, True: each has to be asked
        self._folders: dict[tuple[str, ...], tuple[str, set[str] | bool]] = {}

    def __call__(
        self,
        name: str,  # Relative path from a list
    ) -> str:  # root/name
        """Join a path to the root; errors as of `safe_join`."""
        *folder, last = _below(name)
        key = tuple(folder)
        if key not in self._folders:
            place = os.path.join(self._begin, *folder, "")
            self._folders[key] = (place, set() if self.follow else self._links_in(place))
        place, links = self._folders[key]
        asked = links if isinstance(links, bool) else links and os.path.normcase(last) in links
        if links is False or (asked and not self._holds(place + last)):
            raise _strays(name)
        return place + last

    def _holds(self, path: str) -> bool:
        return Path(path).resolve().is_relative_to(self._real)

    def _links_in(self, folder: str) -> set[str] | bool:
        if not self._holds(folder):
            return False
        try:
            with os.scandir(folder or ".") as entries:
                return {os.path.normcase(entry.name) for entry in entries if entry.is_symlink()}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError:  # it may be entered and not listed
            return True
