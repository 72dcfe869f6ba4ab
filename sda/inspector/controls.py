"""The controls of the panel, by name."""

from collections.abc import Callable, Sequence
from typing import Any

from ..explaining.cam import METHODS
from ..foundation.errors import missing_package
from ..networks.backbones import stage_of
from ..networks.blocks import DEPENDENCIES
from .figures import PANELS
from .session import MEASURED, Session
from .state import ACTIONS, COMPARE, OUTCOMES, OVERLAYS, SORTS, TARGETS, VIEWS

Click = Callable[[str], None]


def import_widgets() -> Any:
    """The widget package; only the panel needs it."""
    try:
        import ipywidgets
    except ImportError as err:
        raise missing_package("ipywidgets", "the panel", "notebook") from err
    return ipywidgets


def make_controls(
    w: Any,  # the widget package
    session: Session,  # what is looked at
    click: Click,  # called with the name of the button that is pressed
) -> dict[str, Any]:
    """Every control by the name of its setting or of what it does."""
    return {
        **_choosing(w, session, click),
        **_looking(w, session),
        **_changing(w, session, click),
        **_keeping(w, session, click),
    }


def _toggles(w: Any, options: Sequence, words: str, width: str) -> Any:
    """Buttons of which one is down, with their name on the same line."""
    line = w.Layout(
        width="auto", display="flex", align_items="baseline"
    )  # the widget's own style stacks them
    return w.ToggleButtons(
        options=options,
        description=words,
        layout=line,
        style={"button_width": width, "description_width": "initial"},
    )


def _choosing(w: Any, ins: Session, click: Click) -> dict:
    """Choosing a clip."""
    names = [("any", ""), *((n, n) for n in ins.provider.class_names)]
    wide = w.Layout(width="330px")
    orders = [s for s in SORTS if s in ("list", "effect") or s in ins.table]
    late = {"continuous_update": False}  # a change counts when the mouse is released
    bar = {
        "clip_id": w.Combobox(options=ins.provider.ids(), description="clip", layout=wide, **late),
        "true": w.Dropdown(options=names, description="true", layout=wide),
        "predicted": w.Dropdown(options=names, description="answered", layout=wide),
        "outcome": _toggles(w, OUTCOMES, "outcome", "70px"),
        "dominant": w.Dropdown(options=[("any", ""), *((d, d) for d in DEPENDENCIES)], description="largest"),
        "sort": w.Dropdown(options=orders, description="order"),
    }
    for name in ("confidence", "entropy"):
        bar[name] = w.FloatRangeSlider(
            value=(0, 1), min=0, max=1, step=0.005, description=name, readout_format=".3f", **late
        )
    words = {
        "previous": "◀ Previous",
        "next": "Next ▶",
        "random": "Random",
        "reset": "Reset",
        "cancel": "Cancel",
    }
    return bar | _data(w, ins, click) | _buttons(w, words, click)


def _data(w: Any, ins: Session, click: Click) -> dict:
    """What is looked into; visitors choose among what the author of the page offers."""
    if ins.visited:
        offer = w.Dropdown(options=list(ins.offers), value=ins.offer or None, description="data")
        return {"offer": offer} | (_buttons(w, {"open data": "Open"}, click) if ins.offers else {})
    where = ins.provider.where
    wide = w.Layout(width="480px")
    names = {"root": "dataset", "split": "split", "checkpoint": "checkpoint A", "other": "checkpoint B"}
    made = {
        name: w.Text(
            value=str(where.get(name, "")),
            description=text,
            layout=wide,
            style={"description_width": "95px"},
        )
        for name, text in names.items()
    }
    return made | _buttons(w, {"open data": "Open"}, click)


def _buttons(w: Any, words: dict[str, str], click: Click) -> dict:
    """Buttons that call the method of their name."""
    made = {name: w.Button(description=text, layout=w.Layout(width="auto")) for name, text in words.items()}
    for name, button in made.items():
        button.on_click(lambda _, name=name: click(name))
    return made


def _looking(w: Any, ins: Session) -> dict:
    """How the clip and its selection are drawn."""
    short = w.Layout(width="250px")
    layers = [(text, name) for name, text in ins.provider.layers().items()]
    if ins.state.layer not in dict(layers).values():
        layers.append((ins.state.layer, ins.state.layer))
    frames = len(ins.provider.seen(ins.state.clip_id or ins.table.video[0]).frames)
    scales = [("per clip", "clip"), ("per frame", "frame"), ("shared with B", "shared")]
    play = w.Play(min=0, max=frames - 1, interval=400, description="play")
    slider = w.IntSlider(min=0, max=frames - 1, description="frame")
    play.link = w.jslink((play, "value"), (slider, "value"))
    return {
        "overlay": w.Dropdown(options=OVERLAYS, description="overlay", layout=short),
        "layer": w.Dropdown(options=layers, description="layer", layout=short),
        "target": w.Dropdown(
            options=TARGETS,
            description="evidence for",
            layout=short,
            style={"description_width": "initial"},
        ),
        "method": w.Dropdown(options=list(METHODS), description="method", layout=short),
        "scale": _toggles(w, scales, "scale", "125px"),
        "opacity": w.FloatSlider(min=0, max=1, step=0.05, description="opacity", continuous_update=False),
        "play": play,
        "frame": slider,
        "view": _toggles(w, VIEWS, "selection", "145px"),
    }


def _changing(w: Any, ins: Session, click: Click) -> dict:
    """Interventions and comparisons."""
    blocks = list(dict.fromkeys(b.split("[")[0] for b in ins.provider.trace.blocks))
    scopes = ["all", *dict.fromkeys(stage_of(b) for b in blocks), *blocks]
    late = {"continuous_update": False}
    sliders = {
        f"weight {d}": w.FloatSlider(min=0, max=1, step=0.01, value=0.25, description=d, **late)
        for d in DEPENDENCIES
    }
    made = {
        "scope": w.Dropdown(options=scopes, description="where"),
        "action": w.Dropdown(options=ACTIONS, description="what"),
        **sliders,
        "compare_id": w.Combobox(
            options=["", *ins.provider.ids()],
            description="clip B",
            **late,
            layout=w.Layout(width="330px"),
        ),
        "compare": _toggles(w, COMPARE if ins.provider.other else COMPARE[:1], "beside", "100px"),
        "most": w.Dropdown(
            options=(6, 12, 30, 60),
            value=12,
            description="clips at most",
            style={"description_width": "initial"},
        ),
    }
    words = {
        "run": "Change it",
        "run all": "Change all that fit",
        "undo": "Undo",
        "swap": "Swap A and B",
        "trust": "Measure over these clips",
        "most different": "Same class, most different",
        "most alike": "Other class, most alike",
    }
    return made | _buttons(w, words, click)


def _keeping(w: Any, ins: Session, click: Click) -> dict:
    """Files, code and clips of one's own; visitors get downloads, and reach no file of the server."""
    made = {
        "panel": w.Dropdown(options=[*PANELS, *MEASURED], description="panel"),
        "text": w.Textarea(description="text", layout=w.Layout(width="95%", height="150px")),
        "upload": w.FileUpload(
            accept="video/*",
            multiple=False,
            description="Upload (up to 8 MB)",
            layout=w.Layout(width="auto"),
        ),
    }
    verb = "Download" if ins.visited else "Save"
    words = {
        "png": f"{verb} PNG",
        "svg": f"{verb} SVG",
        "pin": "Pin",
        "sheet": f"{verb} sheet",
        "state": "Show state",
        "load": "Load state",
    }
    if not ins.visited:
        made["folder"] = w.Text(value="inspector", description="folder")
        made["path"] = w.Text(
            description="path", placeholder="of a video, or of a folder of videos or frames"
        )
        words |= {"code": "Copy as code", "open": "Open path"}
    return made | _buttons(w, words, click)
