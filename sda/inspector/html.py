"""Self-contained pages from templates: everything is escaped, pictures lie inside the file."""

import base64
import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..figures.style import to_png
from ..foundation.errors import missing_package

__all__ = ["render"]

STATIC = Path(__file__).resolve().parent / "static"  # script and style of the inspector
TEMPLATES = Path(__file__).resolve().parent / "templates"  # layout and parts that pages share


def cell(
    value: object,  # number, text or nothing
) -> str:
    """A value of a table in words: shares with two digits, missing values as a dash."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def rows(
    frame: pd.DataFrame,  # numbers and text; the index is shown when it has a name
) -> list[list[str]]:  # the names of the columns, then every row
    """A table as text."""
    shown = frame.reset_index() if frame.index.name else frame
    return [[str(name) for name in shown.columns], *shown.astype(object).map(cell).to_numpy().tolist()]


def png(
    figure: Figure,  # from sda.figures
) -> str:  # for the `src` of an image
    """A figure as a picture inside the page."""
    return f"data:image/png;base64,{base64.b64encode(to_png(figure)).decode()}"


def render(
    template: Path,  # file; may extend layout.html and import parts.html of this chapter
    **values: Any,  # names of the template; `headings` lists its sections
) -> str:  # a whole HTML document
    """A page from its template."""
    try:
        import jinja2
    except ImportError as err:
        raise missing_package("jinja2", "pages", "pip install jinja2") from err
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"rows": rows, "png": png}
    return environment.get_template(template.name).render(**values)
