"""The identity of a run: what must be equal for its folder to be its own, and when more epochs may follow."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from ..foundation.errors import RunError
from .config import TrainConfig
from .optimiser import lr_factor
from .recipes import plain_settings

AGAIN = "start again: resume=False, or --resume no"


HARMLESS = (
    "num_workers",
    "save_every",
    "keep_states",
    "tensorboard",
    "track",
)  # settings that change no result


def _clips_digest(data: Any) -> str:
    """Which clips these are: ids, labels, lengths, sizes of some files; "" for clips without records."""
    if not (records := getattr(data, "records", None)):
        return ""
    said = hashlib.sha256("".join(f"{r.id}\n{r.label} {r.offset} {r.num_frames}\n" for r in records).encode())
    for record in records[:: max(1, len(records) // 200)]:  # enough to tell another set from a copy
        path = Path(record.path)
        files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
        said.update(str([file.stat().st_size for file in files[:3]]).encode())
    return said.hexdigest()[:16]


def run_identity(
    config: TrainConfig,  # settings of the run
    model: nn.Module,  # network, with its name and options
    data: Any,  # training clips
    val_data: Any = None,  # validation clips
) -> dict[str, Any]:  # as JSON would give it back
    """What must be equal for two runs to be the same run."""
    identity = dict(
        config={k: v for k, v in plain_settings(config).items() if k not in HARMLESS},
        model=model.name,
        options={k: repr(v) for k, v in getattr(model, "options", {}).items()},
        clips=len(data),
        training_clips=_clips_digest(data),
        validation_clips=_clips_digest(val_data),
        class_names=list(data.class_names),
    )
    if (start := getattr(model, "start", None)) is not None:
        identity["start"] = start.digest
    return json.loads(json.dumps(identity))


def differences(
    old: dict[str, Any],  # from `run_identity`, perhaps of an older version
    new: dict[str, Any],  # from `run_identity`
) -> list[str]:  # "lr: 0.001 then, 0.5 now"
    """In what two runs differ; a setting or digest that one of them did not know counts as unchanged."""
    then = _flat(old)
    now = _flat(new)
    default = _flat({"config": json.loads(json.dumps(dataclasses.asdict(TrainConfig())))})
    found = []
    for name in sorted(then.keys() | now.keys()):
        if name in ("training_clips", "validation_clips") and not (name in then and name in now):
            continue
        was = then.get(name, default.get(name))
        is_now = now.get(name, default.get(name))
        if was != is_now:
            found.append(f"{name}: {was!r} then, {is_now!r} now")
    return found


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """Settings and the rest side by side."""
    return {k: v for k, v in identity.items() if k != "config"} | identity.get("config", {})


def check_same_run(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    """Refuse to go on with another run's folder."""
    if _more_epochs(old, new):
        raise _other_course(old, new, out)
    if found := differences(old, new):
        text = f"{out} holds another run ({'; '.join(found)}). Choose another folder, or {AGAIN}."
        raise RunError(text, subject=str(out), remedy=f"Choose another folder, or {AGAIN}.")


def open_ended(
    config: dict[str, Any],  # settings of a run, by name
) -> bool:
    """Whether further epochs change nothing about those that were trained."""
    return config["schedule"] in ("constant", "step") and not config["warmup"]


def kept_states(config: TrainConfig) -> tuple[str, ...]:
    """The files of a finished run from which it can go on to more epochs."""
    return ("state.pt", "best.pt") if open_ended(dataclasses.asdict(config)) else ()


def _more_epochs(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a run differs from another in nothing but the number of epochs."""
    epochs = {"epochs": new["config"]["epochs"]}
    if old.get("config", {}).get("epochs") == epochs["epochs"]:
        return False
    return not differences(old | {"config": old.get("config", {}) | epochs}, new)


def goes_on(old: dict[str, Any], new: dict[str, Any], done: int) -> bool:
    """Whether a run that has done so many epochs may go on to the epochs of the new one."""
    return _more_epochs(old, new) and open_ended(new["config"]) and done <= new["config"]["epochs"]


def _other_course(old: dict[str, Any], new: dict[str, Any], out: Path) -> RunError:
    """The error for epochs that would change those before, with what would change."""
    config = TrainConfig(**new["config"])
    now = config.epochs
    then = old["config"]["epochs"]
    remedy = f"Give {then} epochs, or choose another folder"
    if (out / "model.safetensors").exists():
        file = out / "model.safetensors"
        remedy += f", there perhaps with these weights to start from (init={str(file)!r}, --init {file})"
    if open_ended(new["config"]):
        text = (
            f"{out} holds this run with {then} epochs, and no state to go on from, or one beyond epoch {now}"
        )
    else:
        steps = 1000  # of an epoch: enough to tell shares
        at = min(then, now) * steps - steps // 2
        was, is_now = (lr_factor(dataclasses.replace(config, epochs=n), at, steps) for n in (then, now))
        text = (
            f"{out} holds this run with {then} epochs; with {now} it is another one from the first step on, "
            f"for its rate ({config.schedule}, warm-up {config.warmup:g}) follows the number of epochs: in "
            f"the middle of epoch {min(then, now)} it was {was:.0%} of the highest, and would be {is_now:.0%}"
        )
    return RunError(f"{text}. {remedy}.", subject=str(out), remedy=remedy)
