"""Records and tables: what crosses the notebook (bad files, concurrent writers, real data)."""
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sda.results import (
    MAX_BYTES,
    RecordError,
    accuracy_table,
    commit,
    doubtful,
    load_published,
    load_records,
    machine,
    new_record,
    percent_table,
    save_record,
    to_html,
    to_markdown,
    write_record,
)

ROOT = Path(__file__).parent.parent


def record(model="m", seed=0, top1=0.5, kind="test", **more):
    metrics = {"top1": top1, "n": 100} | more.pop("metrics", {})
    return new_record(kind, model=model, seed=seed, metrics=metrics, recipe="moves", dataset="moves", **more)


def test_round_trip_and_plain_numbers(tmp_path):
    made = record(top1=np.float32(0.25), metrics={"counts": np.arange(3), "tensor": torch.tensor(2)})
    path = write_record(made, tmp_path)
    back = load_records(tmp_path)[0]
    assert back.pop("file") == path.name
    assert back == made and back["metrics"]["counts"] == [0, 1, 2] and back["metrics"]["tensor"] == 2


def test_no_host_name_and_no_paths(tmp_path):
    import platform
    text = json.dumps(record(source=tmp_path / "secret" / "clip.mp4"))
    assert str(tmp_path) not in text and "clip.mp4" in text
    assert platform.node() not in text and str(Path.home()) not in text.replace('"/"', "")
    assert machine()["cores"] >= 1


def test_commit_of_the_checkout():
    if not (ROOT / ".git").exists(): pytest.skip("not a checkout")
    assert len(commit().rstrip("+")) >= 12


@pytest.mark.parametrize("field, value", [("kind", "guess"), ("metrics", [1]), ("model", None), ("schema", 99),
                                          ("metrics", {"a": {"b": [1.0, math.inf]}})])
def test_bad_fields_are_named(field, value, tmp_path):
    with pytest.raises(RecordError, match=field): save_record(record() | {field: value}, tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_too_large_is_refused(tmp_path):
    with pytest.raises(RecordError, match="store arrays apart"): write_record(record(log="x" * MAX_BYTES), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "kind": "test"}', "\x00\xff"])
def test_a_damaged_file_is_named(tmp_path, text):
    write_record(record(), tmp_path)
    (tmp_path / "broken.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match="broken.json"): load_records(tmp_path)


def test_other_json_is_left_out_with_a_warning(tmp_path, caplog):
    write_record(record(), tmp_path)
    (tmp_path / "timings.json").write_text('{"rows": []}')
    assert len(load_records(tmp_path)) == 1 and "timings.json" in caplog.text


def test_many_writers_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda s: write_record(record(seed=s % 3, top1=s / 100), tmp_path), range(40)))
    assert len(set(paths)) == 40 and len(load_records(tmp_path)) == 40
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".json"]


def test_names_are_safe(tmp_path):
    path = write_record(record(model="../../etc/x y", split="a/b"), tmp_path)
    assert path.parent == tmp_path and " " not in path.name and path.exists()


def test_table_averages_seeds_and_keeps_protocols_apart():
    records = [record(seed=s, top1=t, split="test", protocol=p)
               for s, t, p in ((0, .4, "1x1"), (1, .6, "1x1"), (0, .9, "3x2"))]
    table = accuracy_table(records + [record(kind="train", model="other")])
    one = table[table.protocol == "1x1"].iloc[0]
    assert len(table) == 2 and one.seeds == 2 and one.top1 == pytest.approx(.5)
    assert one.spread == pytest.approx(np.std([.4, .6], ddof=1))
    text = percent_table(table)
    assert text.top1.tolist() == ["50.0 ± 14.1", "90.0"]


def test_table_takes_the_latest_of_the_same_seed():
    old, new = record(top1=.1), record(top1=.8)
    assert accuracy_table([new, old]).top1.tolist() == [.8]


def test_records_with_and_without_needs_share_a_table():
    table = accuracy_table([record(model="a"), record(model="b", metrics={"by_need": {"order": .5, "scene": None}})])
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
    table = load_published(ROOT / "data" / "published.csv")
    row = table[(table.dataset == "something-v2") & (table.method == "SDA-TSM ensemble")].iloc[0]
    assert row.value == 67.3 and row.frames == "16+8" and row.crops == 3
    assert not table.duplicated(["dataset", "method", "frames", "crops", "clips", "metric"]).any()
    assert table.groupby("dataset").size().to_dict() == {
        "something-v1": 33, "something-v2": 30, "diving48": 12, "epic-kitchens-55": 12}
    assert {"TIN", "TAM", "TEINet", "TSM+TPN"} <= set(doubtful(table).method)


def test_published_file_without_a_column(tmp_path):
    (tmp_path / "p.csv").write_text("dataset,method\na,b\n")
    with pytest.raises(RecordError, match="lacks the columns"): load_published(tmp_path / "p.csv")
