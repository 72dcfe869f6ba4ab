"""Public names that cost nothing until they are used: their modules are imported on demand."""

import importlib
from collections.abc import Callable

_Hooks = tuple[Callable[[str], object], Callable[[], list[str]], list[str]]


def lazy_exports(
    package: str,  # `__name__` of the package that offers the names
    homes: dict[str, str],  # name -> module, ".module" inside the package; ".module:other" renames
) -> _Hooks:  # for `__getattr__`, `__dir__` and `__all__` of the package
    """Offer names of submodules without importing these; a submodule of the same name would hide one."""

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        module, _, original = homes[name].partition(":")
        return getattr(importlib.import_module(module, package), original or name)

    return load, lambda: sorted(homes), sorted(homes)
