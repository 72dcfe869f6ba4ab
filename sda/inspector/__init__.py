"""One view of what a network selected: live in a notebook, as a page of one's own, or recorded in a file."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "inspect": ".app",
        "Inspector": ".app",
        "InspectorState": ".state",
        "inspect_clips": ".page",
    },
)
