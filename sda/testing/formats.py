"""Tables of results as text, markdown and HTML; a page of them sorts on a click."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .experiments import KEYS

__all__ = ["percent_table", "sortable", "to_markdown"]


def percent_table(table: pd.DataFrame) -> pd.DataFrame:
    """`accuracy_table` as text: percent, mean ± spread, whole seconds; columns alike in all rows left out."""
    out = table.copy()
    shares = [c for c in out.columns if c not in (*KEYS, "seeds", "clips", "spread", "train_seconds")]

    def overall(row: pd.Series) -> str:
        spread = f" ± {100 * row.spread:.1f}" if pd.notna(row.spread) else ""
        return f"{100 * row.top1:.1f}{spread}"

    text = {"top1": [overall(row) for row in out.itertuples()]}
    text |= {c: [f"{100 * v:.1f}" if pd.notna(v) else "-" for v in out[c]] for c in shares if c != "top1"}
    text |= {
        c: [f"{v:.0f}" if pd.notna(v) else "-" for v in out[c]]
        for c in ("clips", "train_seconds")
        if c in out
    }
    out = out.drop(columns="spread").assign(**text)
    alike = [c for c in KEYS if c != "model" and out[c].nunique() <= 1]
    return out.drop(columns=alike)


def to_markdown(table: pd.DataFrame) -> str:
    """A markdown table without further packages; bars in cells are escaped."""

    def line(cells: Any) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(map(line, rows))


def to_html(table: pd.DataFrame) -> str:
    """An HTML table; text is escaped."""
    return table.to_html(index=False, border=0, classes="sda-table", na_rep="-")


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """`results_table` as text: a dash for what is not known; columns without anything are left out."""

    def text(value: Any) -> str:
        if pd.isna(value) or value == "":
            return "-"
        return f"{value:g}" if isinstance(value, float) else str(value)

    words = table.map(text)
    return words.loc[:, (words != "-").any()]


def _template() -> Any:
    """The page as a Jinja2 template: text is escaped, a table made by `to_html` is not escaped again."""
    import jinja2

    loader = jinja2.PackageLoader("sda.testing")
    return jinja2.Environment(loader=loader, autoescape=True).get_template("results.html")


def sortable(table: pd.DataFrame) -> str:
    """An HTML table whose columns sort on a click or on Enter; rows without a value stay last."""
    return to_html(table).replace("<th>", str(_template().module.heading()))


def to_page(table: pd.DataFrame, title: str = "Results") -> str:
    """A whole HTML page with a sortable table; nothing is loaded from elsewhere."""
    return _template().render(title=title, table=sortable(table)) + "\n"
