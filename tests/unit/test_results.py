"""Records and tables: what crosses the notebook (bad files, concurrent writers, real data)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sda.foundation.errors import DataError
from sda.foundation.runs import load_records, machine, new_record, write_record
from sda.testing.results import (
    accuracy_table,
    doubtful,
    load_published,
    percent_table,
    plain_table,
    results_table,
    sortable,
    to_html,
    to_markdown,
    to_page,
)

ROOT = Path(__file__).resolve().parents[2]


def record(model="m", seed=0, top1=0.5, kind="test", **more):
    metrics = {"top1": top1, "n": 100} | more.pop("metrics", {})
    return new_record(kind, model=model, seed=seed, metrics=metrics, recipe="moves", dataset="moves", **more)


def test_table_averages_seeds_and_keeps_protocols_apart():
    records = [
        record(seed=s, top1=t, split="test", protocol=p)
        for s, t, p in ((0, 0.4, "1x1"), (1, 0.6, "1x1"), (0, 0.9, "3x2"))
    ]
    table = accuracy_table(records + [record(kind="train", model="other")])
    one = table[table.protocol == "1x1"].iloc[0]
    assert len(table) == 2 and one.seeds == 2 and one.top1 == pytest.approx(0.5)
    assert one.spread == pytest.approx(np.std([0.4, 0.6], ddof=1))
    text = percent_table(table)
    assert text.top1.tolist() == ["50.0 ± 14.1", "90.0"]


def test_table_takes_the_latest_of_the_same_seed():
    old = record(top1=0.1)
    new = record(top1=0.8)
    assert accuracy_table([new, old]).top1.tolist() == [0.8]


def test_other_options_and_settings_are_other_experiments():
    """An ablation never becomes a seed of the network that it is an ablation of, and says what it is."""
    whole = [
        record(seed=s, top1=0.8, options={"dropout": 0.0}, config={"epochs": 8, "lr": 0.1, "seed": s})
        for s in (0, 1)
    ]
    part = record(
        seed=0, top1=0.2, options={"dependencies": ["LS"]}, config={"epochs": 8, "lr": 0.1, "newer": 1}
    )
    longer = record(seed=0, top1=0.9, config={"epochs": 20, "lr": 0.1})
    table = accuracy_table([*whole, part, longer]).set_index("settings")
    assert table.top1.to_dict() == {"dependencies=LS epochs=8": 0.2, "epochs=8": 0.8, "epochs=20": 0.9}
    assert table.seeds.to_dict()["epochs=8"] == 2
    assert "settings" not in percent_table(accuracy_table(whole)), "nothing to tell apart, nothing said"


def test_verbs_and_nouns_of_one_folder_are_two_tests():
    records = [record(top1=t, metrics={"class_hash": c * 16}) for t, c in ((0.6, "a"), (0.2, "b"))]
    table = accuracy_table(records)
    assert sorted(table.top1) == [0.2, 0.6] and table.settings.nunique() == 2


def test_actions_stand_in_both_tables():
    with_nouns = record(top1=0.5, metrics={"noun_top1": 0.3, "action_top1": 0.25})
    table = accuracy_table([with_nouns, record(model="alone")])
    assert table.set_index("model").action_top1.to_dict()["m"] == 0.25
    assert percent_table(table).set_index("model").action_top1.to_dict() == {"m": "25.0", "alone": "-"}
    [row] = results_table(load_published().head(0), [with_nouns]).to_dict("records")
    assert (row["verb top1"], row["noun top1"], row["action top1"]) == (50.0, 30.0, 25.0)


def test_records_with_and_without_needs_share_a_table():
    table = accuracy_table(
        [record(model="a"), record(model="b", metrics={"by_need": {"order": 0.5, "scene": None}})]
    )
    assert table.order.isna().sum() == 1 and "scene" not in table
    assert percent_table(table).order.tolist().count("-") == 1


def test_empty_tables_render():
    empty = percent_table(accuracy_table([]))
    assert "model" in to_markdown(empty) and "<table" in to_html(empty)


def test_markdown_escapes_bars():
    assert to_markdown(pd.DataFrame({"a": ["x|y"]})).splitlines()[-1] == "| x\\|y |"


def test_stored_records_of_the_project_are_sound():
    accuracy_table(load_records(ROOT / "data" / "results"))


def test_published_rows():
    table = load_published(ROOT / "sda" / "assets" / "published.csv")
    row = table[(table.dataset == "something-v2") & (table.method == "SDA-TSM ensemble")].iloc[0]
    assert row.value == 67.3 and row.frames == "16+8" and row.crops == 3
    assert not table.duplicated(["dataset", "method", "frames", "crops", "clips", "metric"]).any()
    assert table.groupby("dataset").size().to_dict() == {
        "something-v1": 33,
        "something-v2": 30,
        "diving48": 12,
        "epic-kitchens-55": 12,
    }
    assert {"TIN", "TAM", "TEINet", "TSM+TPN"} <= set(doubtful(table).method)


def test_published_file_without_a_column(tmp_path):
    (tmp_path / "p.csv").write_text("dataset,method\na,b\n")
    with pytest.raises(DataError) as error:
        load_published(tmp_path / "p.csv")
    assert error.value.subject == str(tmp_path / "p.csv") and "value" in str(error.value)


# The table of the paper: method, frames x crops x clips, parameters (M), multiply-adds (G), V1, V2.
PRINTED = """
GST 8x1x1 21.0 29.5 47.0 61.6; GST 16x1x1 21.0 59.0 48.6 62.6; V4D 8x10x3 - - 50.4 -;
TSM+TPN 8x1x1 24.3 33.0 49 62; TIN 16x1x1 24.3 67.0 47 60.1; TEINet 8x1x1 30.4 33.0 47.4 61.3;
TEINet 16x1x1 30.4 66.0 49.9 62.1; RubiksNet 8x1x2 - - 46.4 61.7; TAM 8x1x1 25.6 33.0 46.5 60.5;
TAM 16x1x1 25.6 66.0 47.6 62.5; TEA 8x3x10 24.5 35.0 51.7 -; TEA 16x3x10 24.5 70.0 52.3 -;
STM 8x3x10 24.0 33.3 49.2 62.3; STM 16x3x10 24.0 66.5 50.7 64.2; SmallBig 8x3x2 - 57.0 48.3 61.6;
SmallBig 16x3x2 - 114.0 50.0 63.8; TSN 8x1x1 23.9 32.9 19.7 30; SDA-TSN 8x1x1 25.8 33.9 47.5 60.6;
SDA-TSN 8x3x2 25.8 33.9 49.5 63.0; SDA-TSN 16x1x1 25.8 67.8 49.3 62.4; SDA-TSN 16x3x2 25.8 67.8 50.6 64.7;
SDA-TSN ensemble (16+8)x3x2 - 101.7 52.6 66.1; TSM 8x1x1 23.9 32.9 45.6 59.7;
SDA-TSM 8x1x1 25.8 33.9 48.6 61.8;
TSM 8x1x2 23.9 32.9 47.2 61.2; SDA-TSM 8x1x2 25.8 33.9 50.2 63.6; SDA-TSM 8x3x2 25.8 33.9 51.1 64.6;
TSM 16x1x1 23.9 65.8 47.2 62.0; SDA-TSM 16x1x1 25.8 67.8 51.3 63.3; TSM 16x1x2 23.9 65.8 48.4 63.1;
SDA-TSM 16x1x2 25.8 67.8 52.2 64.7; SDA-TSM 16x3x2 25.8 67.8 52.8 65.4;
SDA-TSM ensemble (16+8)x3x2 - 101.7 54.8 67.3
"""


def test_every_row_of_the_paper_is_there():
    table = plain_table(results_table(load_published(ROOT / "sda/assets/published.csv"), []))
    rows = {(r["dataset"], r["method"], r["protocol"]): r for r in table.to_dict("records")}

    def same(text, printed):
        return text == "-" if printed == "-" else float(text) == float(printed)

    seen = 0
    for line in PRINTED.replace("\n", " ").strip().split("; "):
        *name, protocol, params, macs, first, second = line.split()
        for dataset, value in (("something-v1", first), ("something-v2", second)):
            row = rows.pop((dataset, " ".join(name), protocol), None)
            if value == "-":
                assert row is None
                continue
            assert same(row["top1"], value) and same(row["params_m"], params) and same(row["gmacs"], macs), (
                line
            )
            seen += 1
    assert seen == 63 and {d for d, _, _ in rows} == {"diving48", "epic-kitchens-55"} and len(rows) == 12


def test_known_errors_are_marked():
    table = load_published(ROOT / "sda/assets/published.csv")

    def notes(**which):
        return set(table[np.logical_and.reduce([table[k] == v for k, v in which.items()])].note)

    assert all("400-class" in n for m in ("TIN", "TEINet", "TAM", "TSM+TPN") for n in notes(method=m))
    assert all("bare TSM backbone" in n for n in notes(method="TSM+TPN"))
    assert all("label version" in n for n in notes(dataset="diving48"))
    assert all("split not stated" in n for n in notes(dataset="epic-kitchens-55"))
    assert all("two independent 8-frame halves" in n for n in notes(method="SDA-TSM", frames="16"))


def test_measured_rows_name_their_records(tmp_path):
    for seed, top1 in ((0, 0.5), (1, 0.7), (1, 0.6)):
        write_record(
            record(seed=seed, top1=top1, split="test", protocol="8 frames x 3x224 x 2 clips"), tmp_path
        )
    records = load_records(tmp_path)
    table = results_table(load_published(ROOT / "sda/assets/published.csv"), records)
    [row] = table[table.source == "measured"].to_dict("records")
    assert (row["seeds"], row["top1"], row["spread"]) == ("0, 1", 55, 7.1) and row["protocol"].startswith(
        "8 frames x 3x224"
    )
    assert row["commit"] == (records[0]["commit"] or "-") and f"{machine()['cores']} cores" in row["machine"]
    assert set(row["record"].split(", ")) == {records[0]["file"], records[2]["file"]}, (
        "the latest of each seed"
    )
    assert len(table) == 76 and "measured" in to_page(plain_table(table))


def test_a_table_sorts_in_a_browser(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    import shutil

    program = shutil.which("chromium")
    if not program:
        pytest.skip("chromium is not installed")
    table = pd.DataFrame({"name": ["b", "a & <c>", "-"], "top1": ["9.5", "41.0 ± 1.4", "-"]})
    (tmp_path / "t.html").write_text(to_page(table), encoding="utf-8")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: errors.append(r.url) if not r.url.startswith("file:") else None)
        page.goto((tmp_path / "t.html").as_uri())

        def column(k):
            return [c.inner_text() for c in page.query_selector_all(f"tbody td:nth-child({k})")]

        page.click("th:nth-child(2)")
        assert column(2) == ["9.5", "41.0 ± 1.4", "-"]
        page.keyboard.press("Enter")
        assert column(2) == ["41.0 ± 1.4", "9.5", "-"]
        page.click("th:nth-child(1)")
        assert column(1) == ["a & <c>", "b", "-"] and not errors
        browser.close()


def test_sortable_escapes_text():
    assert "<script>" not in sortable(pd.DataFrame({"<script>": ["<script>"]}))
