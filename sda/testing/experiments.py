"""Which records of tests are of one experiment, and what tells one experiment from another."""

from __future__ import annotations

import json
from typing import Any

# what makes two records the same experiment
KEYS = ("dataset", "split", "model", "recipe", "protocol", "settings")
# named elsewhere, or how a run is made, not what; dropout is in both
_NO_SETTING = {"recipe", "seed", "device", "threads", "num_workers", "save_every", "keep_states"} | {
    "tensorboard",
    "track",
    "compile",
    "channels_last",
    "sync_bn",
    "dropout",
}


def _keys(record: dict[str, Any]) -> dict[str, Any]:
    """The test that a record is of; the release belongs to the dataset's name."""
    keys = {key: record.get(key) or "-" for key in KEYS if key != "settings"}
    if record.get("source"):
        keys["dataset"] += f" ({record['source']})"
    return keys


def _settings(record: dict[str, Any], compared: set[str]) -> dict[str, str]:
    """Options of the network, and those settings of its training that are compared."""
    config = record.get("config") or {}
    found = {k: v for k, v in config.items() if k in compared} | (record.get("options") or {})
    words = {} if config or not compared else {"settings": "not recorded"}
    for name, value in found.items():
        if name not in _NO_SETTING and value is not None:
            words[name] = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return words


def _apart(namesakes: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Records with the same keys by what tells them apart, in words; only settings that all wrote count."""
    configs = [set(r["config"]) for r in namesakes if r.get("config")]
    compared = set.intersection(*configs) if configs else set()
    hashes = [r["metrics"].get("class_hash") for r in namesakes]  # verbs and nouns of a folder are two tests
    groups: dict[str, list[dict[str, Any]]] = {}
    for r, classes in zip(namesakes, hashes, strict=True):
        words = _settings(r, compared) | ({"classes": classes[:6]} if all(hashes) else {})
        groups.setdefault(json.dumps(words, sort_keys=True), []).append(r)
    alike = [json.loads(name) for name in groups]
    return [
        (" ".join(f"{k}={v}" for k, v in mine.items() if any(other.get(k) != v for other in alike)), group)
        for mine, group in zip(alike, groups.values(), strict=True)
    ]


def experiments(
    records: list[dict[str, Any]],  # from `load_records`
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Keys of every experiment, and its test records, the latest of each seed."""
    names: dict[str, list[dict]] = {}
    for r in sorted((r for r in records if r["kind"] == "test"), key=lambda r: r["created"]):
        names.setdefault(json.dumps(_keys(r)), []).append(r)
    return [
        (json.loads(name) | {"settings": told}, list({r.get("seed"): r for r in group}.values()))
        for name, namesakes in names.items()
        for told, group in _apart(namesakes)
    ]


def numbers(
    record: dict[str, Any],  # of a test
) -> dict[str, Any]:
    """Numbers of a test record: top-1, top-5, actions of verb and noun, accuracy by group, seconds."""
    metrics = record["metrics"]
    joined = {f"{what}_top1": metrics.get(f"{what}_top1") for what in ("noun", "action")}
    groups = {name: value for name, value in metrics.get("by_need", {}).items() if value is not None}
    return (
        dict(
            top1=metrics.get("top1"),
            top5=metrics.get("top5"),
            **joined,
            clips=metrics.get("n"),
            train_seconds=record.get("train_seconds"),
        )
        | groups
    )
