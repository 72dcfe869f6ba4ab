"""What is being looked at: plain values that survive a trip through JSON, and can be undone."""

import json
from typing import Any

from traitlets import Dict, Enum, HasTraits, List, TraitError, Unicode, validate

from ..foundation.errors import SettingError
from .edits import FRAMES, edits_key, known_name

__all__ = ["InspectorState"]

READINGS = ("weight", "contribution", "loss")
SORTS = ("list", "margin", "probability", "entropy")
FILTERS = {"text": str, "classes": list, "right": bool, "dominant": list, "own": bool, "sort": str}
BESIDE = {"clip": str, "frames": str, "network": int}
MAP = {"layer": str, "method": str, "target": (int, str)}


def _fields(value: object, known: dict, what: str) -> dict:
    """An object whose fields have these types, or None."""
    if not isinstance(value, dict):
        raise TraitError(f"{what} is an object with {', '.join(known)}")
    for name, one in value.items():
        known_name(f"field of {what}", name, known)
        if one is not None and not isinstance(one, known[name]):
            raise TraitError(f"{what}: {name} cannot be {one!r}")
    return value


def state_values(text: str) -> dict[str, Any]:
    """The names and values of a state that was kept, by itself or with what it was of."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SettingError(f"this is not JSON ({err})", remedy="give a whole saved state") from err
    if isinstance(values, dict) and isinstance(values.get("state"), dict):
        values = values["state"]
    if not isinstance(values, dict):
        raise SettingError("a state is a JSON object with names and values")
    return values


class InspectorState(HasTraits):
    """What is being looked at."""

    selected = Unicode(help="clip that is shown")
    beside: Any = Dict(
        None, allow_none=True, help="what stands beside it: clip, frames, network; None for nothing"
    )
    edits = List(Dict(), help="what is changed, oldest first")
    filters = Dict(help="which clips are listed, and how they are sorted")
    reading = Enum(READINGS, "weight", help="what the cells of the table show")
    map: Any = Dict(None, allow_none=True, help="layer, method and target of the map; None for no map")
    look = Dict(help="what the page alone knows: frame, opacity, scale, theme")

    @validate("beside")
    def _beside(self, proposal: dict) -> dict | None:
        value = proposal["value"]
        if value is None:
            return None
        if value.get("frames") is not None:
            known_name("change of the frames", value["frames"], FRAMES)
        return _fields(value, BESIDE, "beside")

    @validate("map")
    def _map(self, proposal: dict) -> dict | None:
        value = proposal["value"]
        return None if value is None else _fields(value, MAP, "map")

    @validate("filters")
    def _filters(self, proposal: dict) -> dict:
        value = _fields(proposal["value"], FILTERS, "filters")
        if value.get("sort"):
            known_name("order", value["sort"], SORTS)
        return value

    def undo(self) -> None:
        """Take the last edit back."""
        if not self.edits:
            raise SettingError("nothing was changed", subject="edits")
        self.edits = self.edits[:-1]

    @property
    def key(self) -> str:
        """The name of what is changed."""
        return edits_key(self.edits)

    def to_json(self) -> str:
        """The state as JSON on one line."""
        return json.dumps({name: getattr(self, name) for name in self.class_trait_names()})

    def load_json(self, text: str) -> None:
        """Take over a state; all of it or, with one clear error, nothing."""
        self.load(state_values(text))

    def load(self, values: dict[str, Any]) -> None:
        """The same by names and values."""
        for name in values:
            known_name("setting", name, self.class_trait_names())
        type(self)(**values)  # refuses what cannot be, before anything changes
        with self.hold_trait_notifications():
            for name, value in values.items():
                setattr(self, name, value)
