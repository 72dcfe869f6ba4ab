"""The published tables as data, one number per row, with sizes as printed and as counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..assets import PUBLISHED
from ..foundation.errors import DataError

__all__ = ["doubtful", "load_published"]

SIZES = ("params_m", "gmacs", "measured_params_m", "measured_gmacs")  # millions, billions of multiply-adds


def load_published(path: str | Path = PUBLISHED) -> pd.DataFrame:
    """The published tables: dataset, method, protocol, sizes as printed and measured, metric, value, note."""
    table = pd.read_csv(
        path,
        dtype={"frames": str, "crops": "Int64", "clips": "Int64"},
        keep_default_na=False,
        na_values={c: "" for c in ("crops", "clips", *SIZES, "value")},
    )
    if missing := {"dataset", "method", "frames", *SIZES, "metric", "value", "note"} - set(table.columns):
        lacks = f"{path} lacks the columns {', '.join(sorted(missing))}."
        raise DataError(lacks, subject=str(path))
    return table


def doubtful(
    published: pd.DataFrame,  # from `load_published`
    params: float = 0.01,  # share by which parameters may differ
    macs: float = 0.02,  # share by which multiply-adds may differ
) -> pd.DataFrame:
    """The methods whose printed sizes differ from the measured ones by more than that."""
    sizes = published[["method", "frames", *SIZES, "note"]].drop_duplicates(["method", "frames"])

    def far(name: str, limit: float) -> pd.Series:
        return (sizes[name] / sizes[f"measured_{name}"] - 1).abs() > limit

    return sizes[far("params_m", params) | far("gmacs", macs)].reset_index(drop=True)


def published_rows(
    published: pd.DataFrame,  # from `load_published`
) -> list[dict[str, Any]]:
    """One row per dataset, method and protocol; values in percent as printed."""
    rows: dict[tuple, dict[str, Any]] = {}
    for r in published.to_dict("records"):
        crops = "" if pd.isna(r["crops"]) else f"x{r['crops']}x{r['clips']}"
        sizes = {name: r[name] for name in SIZES}
        frames = f"({r['frames']})" if "+" in r["frames"] else r["frames"]
        row = rows.setdefault((r["dataset"], r["method"], frames + crops), sizes | {"note": r["note"]})
        row[r["metric"]] = r["value"]
    return [
        dict(zip(("dataset", "method", "protocol"), key, strict=True), source="published", **row)
        for key, row in rows.items()
    ]
