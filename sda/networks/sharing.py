"""Networks go to other people: a folder with the model and a page about it, also on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assets import model_file
from ..foundation.errors import DataError, RunError, SettingError, missing_package
from ..foundation.files import write_atomic
from ..foundation.statistics import wilson_interval
from .checkpoints import ModelCard, load_model, save_model

if TYPE_CHECKING:
    from .backbones import VideoNet

__all__: list[str] = []

MODEL_FILE = "model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE = 5.0  # seconds for the hub to answer; its own tries last half a minute


def _hub() -> Any:
    """The package that speaks with the hub."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors  # neither is there by itself
    except ImportError as err:
        what = "networks on the Hugging Face Hub"
        raise missing_package("huggingface_hub", what, "pip install huggingface_hub") from err
    return huggingface_hub


def _numbers(metrics: dict[str, Any], clips: int | None) -> list[str]:
    """A table of accuracies and losses; accuracies with the number of clips and the interval."""
    lines = ["| what | value | clips | 95 % interval |", "|---|---|---|---|"]
    for name, value in metrics.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        n = clips if name.startswith(("val_", "best_val")) and clips else None
        interval = "not known"
        if n and name.endswith("top1"):
            low, high = wilson_interval(round(value * n), n)
            interval = f"{low:.3f} to {high:.3f}"
        elif not name.endswith("top1"):
            interval = ""
        lines.append(f"| {name} | {value:.4g} | {n or ''} | {interval} |")
    return lines


def _limits(card: ModelCard) -> list[str]:
    """What nobody should expect of the network, as far as its card tells."""
    seconds = f"{card.num_frames} frames of a clip"
    known = f"one of its {card.num_classes} classes, also for a clip that shows none of them"
    lines = [f"It looks at {seconds}, and always answers with {known}."]
    clips = card.data.get("val_clips")
    if card.metrics and not clips:
        lines.append("How many clips its accuracies were measured on is not recorded.")
    elif card.metrics:
        lines.append(
            "Its accuracies are of the validation clips by which the run was watched, not of a test."
        )
    else:
        lines.append("Its accuracy was not measured.")
    if not card.data:
        lines.append("What it was trained on is not recorded.")
    lines.append("Other cameras, places or people than those of the training clips were not tried.")
    return lines


def readme(
    card: ModelCard,  # of the network
    name: str = "",  # of the repository; empty for a folder
) -> str:  # Markdown with the header that the hub reads
    """The page about a shared network: classes, data, recipe, metrics with n and interval, limits."""
    where = name or "FOLDER"
    head = ["---", "library_name: sda-workbench", "pipeline_tag: video-classification"]
    head += ["tags:", "- video-classification", "- action-recognition", f"- {card.model}", "---", ""]
    use = ["## Use", "", "```python", "from sda import predict", "from sda.networks import VideoNet", ""]
    use += [f'net = VideoNet.from_pretrained("{where}")', 'print(predict(["clip.mp4"], net))', "```", ""]
    labels = [f"{i}. {c}".replace("\n", " ") for i, c in enumerate(card.class_names)]
    names = labels or ["Their names are not recorded."]
    data = [f"* {k}: {v}" for k, v in card.data.items() if v not in (None, "")] or ["Not recorded."]
    recipe = json.dumps(card.recipe, indent=1, ensure_ascii=False) if card.recipe else "not recorded"
    numbers = _numbers(card.metrics, card.data.get("val_clips")) if card.metrics else ["Not measured."]
    options = ", ".join(f"{k}={v!r}" for k, v in card.options.items()) or "none"
    parts = [
        *head,
        f"# {name or card.model}",
        "",
        f"A `{card.model}` (options: {options}) for clips of {card.num_frames} frames, {card.num_classes} "
        f"classes, written by sda {card.library.get('sda', '')} with torch {card.library.get('torch', '')}.",
        "",
        *use,
        "## Metrics",
        "",
        *numbers,
        "",
        "## Limits",
        "",
        *[f"* {line}" for line in _limits(card)],
        "",
        "## Data",
        "",
        *data,
        "",
        f"## Classes ({card.num_classes})",
        "",
        *names,
        "",
        "## Recipe",
        "",
        "```json",
        recipe,
        "```",
        "",
        "## Input",
        "",
        "```json",
        json.dumps({"transform": card.transform, "sampling": card.sampling}, indent=1, ensure_ascii=False),
        "```",
    ]
    return "\n".join(parts) + "\n"


def save_folder(
    net: VideoNet,  # network with its card, or a card given
    folder: str | Path,  # made when missing; model.safetensors and README.md in it are replaced
    card: ModelCard | None = None,  # None: the network's own, or one without class names
    name: str = "",  # of the repository, for the page
) -> Path:  # the folder
    """Write the model file and the page about it."""
    card = card or net.card or ModelCard.of(net)
    folder = Path(folder)
    save_model(folder / MODEL_FILE, net, card)
    write_atomic(folder / "README.md", readme(card, name))
    return folder


def load_folder(
    # folder of `save_folder` or of a run, model file, name of a network that ships, or USER/NAME on the hub
    source: str | Path,
    device: str = "cpu",  # where to put it
    revision: str | None = None,  # branch, tag or commit on the hub; None: the newest
    token: str | bool | None = None,  # for private networks; None: the one that `hf auth login` stored
) -> VideoNet:  # in evaluation mode, with its card
    """A network from a folder, or from the hub; what was fetched once is there without network."""
    path = model_file(source)
    if path.is_dir():
        return load_model(path / MODEL_FILE, device)
    if path.is_file():
        return load_model(path, device)
    name = str(source)
    if not _HUB_NAME.fullmatch(name):
        text = f"there is no folder {name}, and it is no name on the hub, which look like USER/NAME"
        raise DataError(text, subject=name)
    return load_model(_fetch(name, revision, token), device)


def _reaches(hub: Any) -> bool:
    """Whether the hub answers at all, asked once."""
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # of whichever library speaks HTTP
        return False
    return True


def _fetch(name: str, revision: str | None, token: str | bool | None) -> Path:
    """The model file of a network on the hub, fetched or from the cache."""
    hub = _hub()
    online = not hub.constants.HF_HUB_OFFLINE and _reaches(hub)
    asked = dict(revision=revision, token=token, local_files_only=not online)
    try:
        return Path(hub.hf_hub_download(name, MODEL_FILE, **asked))
    except hub.errors.RepositoryNotFoundError as err:
        text = f"there is no network {name} on the hub, or it is private"
        remedy = "check the name, or log in with `hf auth login`"
        raise DataError(text, subject=name, remedy=remedy) from err
    except hub.errors.RevisionNotFoundError as err:
        raise DataError(f"{name} has no revision {revision!r}", subject=name) from err
    except hub.errors.LocalEntryNotFoundError as err:  # before its parent: nothing is known of the hub's side
        text = f"{name} is not in the cache of this machine, and the hub cannot be reached"
        remedy = f"connect once, or copy its {MODEL_FILE} here and name the file"
        raise RunError(text, subject=name, remedy=remedy) from err
    except hub.errors.EntryNotFoundError as err:
        text = f"{name} holds no {MODEL_FILE}: it was not shared by push_to_hub of a network of ours"
        raise DataError(text, subject=name) from err
    except (hub.errors.HfHubHTTPError, OSError) as err:
        text = f"{name} could not be fetched from the hub ({str(err).splitlines()[0]})"
        raise RunError(text, subject=name, remedy="try again later") from err


def push(
    net: VideoNet,  # network with its card
    name: str,  # USER/NAME on the hub, made when missing
    card: ModelCard | None = None,  # None: the network's own
    private: bool | None = None,  # None: as the account has it
    token: str | bool | None = None,  # None: the one that `hf auth login` stored
    message: str = "A network of the SDA Workbench",  # of the commit
) -> str:  # address of the commit
    """Upload the model file and the page about it."""
    import tempfile

    if not _HUB_NAME.fullmatch(name):
        raise SettingError(f"{name!r} is no name on the hub: they look like USER/NAME", subject=name)
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        save_folder(net, folder, card, name)
        if hub.constants.HF_HUB_OFFLINE or not _reaches(hub):
            text = f"{name} was not uploaded: the hub cannot be reached"
            remedy = "connect, or write a folder with save_pretrained and upload it elsewhere"
            raise RunError(text, subject=name, remedy=remedy)
        api = hub.HfApi(token=token)
        try:
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        except (hub.errors.HfHubHTTPError, OSError) as err:
            text = f"{name} was not uploaded ({str(err).splitlines()[0]})"
            raise RunError(text, subject=name, remedy="log in with `hf auth login`") from err
    return str(done.commit_url)
