"""One view of what a network selected, live in a notebook or written as a page."""

from ..foundation.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "inspect_folder": ".app",
        "Inspector": ".app",
        "InspectorState": ".state",
        "clip_table": ".state",
        "find_clips": ".state",
        "inspect_clips": ".page",
    },
)
