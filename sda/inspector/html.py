"""Parts of the self-contained pages: sentences, tables and pictures, everything escaped."""

import base64
import html
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..figures.style import to_png

__all__ = ["words", "table", "picture", "page"]


def words(
    *sentences: str,  # plain text
    tag: str = "p",  # HTML element around it
) -> str:  # HTML
    """Plain sentences as one escaped element."""
    return f"<{tag}>{html.escape(' '.join(sentences))}</{tag}>"


def table(
    frame: pd.DataFrame,  # numbers and text; the index is shown when it has a name
    caption: str = "",  # line above, plain text
) -> str:  # HTML
    """A table: shares with two digits, missing values as a dash, everything escaped."""

    def text(value: object) -> str:
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            return "–"
        return f"{value:.2f}" if isinstance(value, float | np.floating) else str(value)

    shown = frame.reset_index() if frame.index.name else frame
    shown = shown.astype(object).map(text)
    body = shown.to_html(index=False, border=0, escape=True, justify="unset")
    return words(caption, tag="h3") * bool(caption) + f'<div class="wide">{body}</div>'


def picture(
    figure: Figure,  # from sda.figures
    caption: str,  # says how to read it, plain text
    alt: str = "",  # what it shows, for screen readers; the caption's first sentence if left out
) -> str:  # HTML
    """A figure inside the page, with its caption."""
    data = base64.b64encode(to_png(figure)).decode()
    alt = html.escape(alt or caption.split(". ")[0], quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">{words(caption, tag="figcaption")}</figure>'


_CSS = """
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.2rem 4rem; color: #222; background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { line-height: 1.2; margin-bottom: .2em; } h2 { margin-top: 2.4em; border-bottom: 2px solid #ddd; }
h3 { margin: 1.4em 0 .3em; font-size: 1em; } p { max-width: 46rem; } nav a { margin-right: 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; } tr:hover td { background: #f6f6f6; }
.wide { overflow-x: auto; } figure { margin: 1.2em 0; } img { max-width: 100%; height: auto; }
figcaption { max-width: 46rem; color: #444; font-size: .92em; }
.left td, .left th { text-align: left; } .bar { width: 12rem; } .bar div { background: #0072B2; height: .8em; min-width: 1px; }
.limit { border-left: 4px solid #E69F00; padding-left: .8em; } footer { margin-top: 3em; color: #555; font-size: .9em; }
@media print { nav { display: none; } h2 { page-break-after: avoid; } figure { page-break-inside: avoid; } }
"""


def page(
    title: str,  # plain text
    sections: Mapping[str, str],  # heading -> HTML of the section
) -> str:  # a whole HTML document
    """The sections as one self-contained document with a list of contents."""
    keys = {name: f"s{i}" for i, name in enumerate(sections)}
    links = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for name, key in keys.items())
    body = "".join(
        f'<section><h2 id="{keys[name]}">{html.escape(name)}</h2>\n{content}</section>\n'
        for name, content in sections.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


FOUR = (
    "Every SDA block gives each of its four dependencies a weight per clip; the weights of a block add up to 1. LST "
    "looks at the whole clip at once, LT at space with time averaged, LS at time with space averaged, S122 at small "
    "neighbourhoods in space and time."
)
