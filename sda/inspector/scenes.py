"""What the page is told, as JSON: the network, the clips, one clip with what was selected, its maps."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..data.clips import LoadedClip
from ..data.video import Video
from ..explaining.cam import LAYER, METHOD, METHODS, ClipCam
from ..networks.blocks import DEPENDENCIES
from ..testing.asking import who_answers
from .clips import CHUNK, MAX_UPLOAD, MAX_UPLOADS
from .edits import edit, edits_key, frame_changes, in_words
from .session import Session, numbers, planned

SHOWN = 224  # pixels that a frame is wide at least, so that it is sharp on a dense screen
THUMB = 96

GLOSSARY = {
    "LST": "Looks at the whole clip at once: one summary over space and time.",
    "LT": "Looks at space with time averaged: what stays where it is.",
    "LS": "Looks at time with space averaged: when something happens.",
    "S122": "Looks at small neighbourhoods in space and time: what moves, and which way.",
    "weight": "How much of the block's sum was given to this dependency for this clip; a row adds up to 1.",
    "contribution": "Weight times the size of the response: how much of the sum it really made up.",
    "closed": "This clip gives it no weight at all, so leaving it out changes nothing.",
    "loss": "How far the probability falls when this dependency is left out of this block and the others "
    "share its weight; positive means needed.",
    "estimated": "A first guess of the loss from gradients; the measured number replaces it.",
    "control": "The same change made to dependencies drawn at random, ten times: mean, lowest and highest.",
    "uniform": "The same weight for every dependency of the block, so nothing is selected.",
    "entropy": "Normalised entropy of the weights, over blocks: 1 is uniform, 0 one dependency alone.",
    "dominant": "The dependency with the largest weight, averaged over the blocks.",
    "margin": "The probability of the true class minus its strongest rival; below 0 the answer is wrong.",
    "percentile": "The share of clips of this class with a smaller number.",
    "map": "Where in the frame the evidence for a class lies; coarse, a question rather than an answer.",
    "gate": "How much of every place a block lets through, averaged over its channels.",
    "reversed": "The same frames backwards.",
    "shuffled": "The same frames in a random order.",
    "frozen": "The first frame in place of all.",
    "blurred": "Every frame blurred (2 pixels).",
}


GATES = {  # where every dependency has a gate of its own
    "weight": "How far the gate of this dependency is open for this clip, on a scale of its own; a row need "
    "not add up to 1.",
    "uniform": "Every gate of the block wide open, so nothing is selected.",
}


def data_url(
    picture: np.ndarray,  # uint8 [h,w,3]
    least: int = 0,  # pixels in width; smaller pictures are enlarged to whole multiples
    most: int = 0,  # pixels; larger ones are made smaller
) -> str:
    """A picture as the page takes it."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if least and image.width < least:
        times = math.ceil(least / image.width)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS)
    if most:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
    image.save(file := io.BytesIO(), "JPEG", quality=88, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumb_of(session: Session, clip_id: str) -> str:
    """The frame in the middle, small."""
    frames = session.clips.seen(clip_id).frames
    return data_url(frames[len(frames) // 2], most=THUMB)


def row_of(session: Session, clip_id: str, thumb: str | None = None) -> dict[str, Any]:
    """A clip in the grid; what is not known yet is None."""
    label = session.clips.label(clip_id)
    row: dict[str, Any] = {
        "id": clip_id,
        "name": clip_id,
        "label": label,
        "own": clip_id in session.clips.added,
        "thumb": thumb,
    }
    names = ("predicted", "right", "probability", "margin", "entropy", "dominant")
    row |= dict.fromkeys(names)
    read = session.network.reads.get((clip_id, ""))
    if read is None:
        return row
    p = read.probabilities
    mine = int(p.argmax()) if label is None else label
    row["predicted"] = int(p.argmax())
    row["right"] = None if label is None else bool(p.argmax() == label)
    row["probability"] = round(float(p.max()), 4)
    row["margin"] = round(float(p[mine] - np.delete(p, mine).max()), 4) if len(p) > 1 else None
    if len(read.weights):
        row["entropy"] = round(read.entropy, 4)
        row["dominant"] = int(np.nan_to_num(read.weights).mean(0).argmax())
    return row


def about(
    session: Session,
    title: str = "",
    live: bool = True,
    visited: bool = False,  # strangers look at it: no path is shown or taken
    offers: Sequence[str] = (),  # names of what may be opened
    offer: str = "",  # the one that is open
) -> dict[str, Any]:
    """What does not change while one looks."""
    network = session.network
    model = network.model
    blocks = list(network.blocks)
    note = (
        "" if blocks else f"{network.name} has no SDA blocks, so it selects nothing; frames can be changed."
    )
    return {
        "live": live,
        "title": title or f"{network.name}: what it selects",
        "version": __version__,
        "network": {
            "name": network.name,
            "trained_on": who_answers(model, network.name) if getattr(model, "card", None) else network.name,
            "classes": session.class_names,
            "num_frames": int(model.num_frames),
            "blocks": blocks,
            "dependencies": list(DEPENDENCIES),
            "parameters": sum(p.numel() for p in model.parameters()),
            "fingerprint": network.fingerprint,
            "note": note,
            "wide": network.wide,
        },
        "networks": [one.name for one in session.networks],
        "offers": list(offers),
        "offer": offer,
        "layer": LAYER,  # of the map that is recommended
        "method": METHOD,
        "layers": session.layers() if live else [],
        "methods": [*METHODS, *(["gate"] if blocks else [])],
        "limits": {"upload_bytes": MAX_UPLOAD, "upload_total": MAX_UPLOADS, "chunk_bytes": CHUNK}
        if live
        else None,
        "paths": live and not visited,
        "left_out": dict(session.clips.left_out),
        "questions": [],
        "glossary": GLOSSARY | (GATES if network.wide else {}),
    }


def facts(seen: LoadedClip) -> str:
    """What the source of a clip is like, e.g. "24 frames of 72 × 72 pixels, 12 per second"."""
    video = seen.source
    said = f"{seen.total} frames"
    if isinstance(video, Video):
        height, width = video.full_size
        said += f" of {width} × {height} pixels"
        if video.fps:
            said += f", {video.fps:.3g} per second"
    return said


def best_classes(probabilities: np.ndarray, label: int | None) -> list[dict[str, Any]]:
    """The five most probable classes, the true one always among them."""
    order = np.argsort(-probabilities, kind="stable")[:5].tolist()
    if label is not None and label not in order:
        order[-1] = label
    return [{"class": k, "probability": round(float(probabilities[k]), 4), "true": k == label} for k in order]


def unknown(present: np.ndarray) -> tuple[np.ndarray, list[list[str | None]]]:
    """Losses that nobody measures."""
    return np.full(present.shape, np.nan), [[None] * len(row) for row in present]


def order_of(
    frames: str,  # change of the frames, one of FRAMES, or none
    count: int,  # T
) -> list[int]:  # T frames as they are shown
    """In which order a change shows the frames."""
    if frames in ("", "blurred"):
        return list(range(count))
    marked = torch.arange(count).float().view(1, count, 1, 1, 1)
    return [int(t) for t in frame_changes([edit("frames", value=frames)])[0](marked).flatten()]


def blurred(
    pictures: np.ndarray,  # uint8 [T,h,w,3]
) -> np.ndarray:  # the same
    """Frames as the change "blurred" shows them."""
    clip = torch.from_numpy(pictures).movedim(-1, 1)[None].float()
    soft = frame_changes([edit("frames", value="blurred")])[0](clip)[0]
    return soft.movedim(1, -1).round().byte().numpy()


def scene_of(
    session: Session,
    clip_id: str,  # which clip
    network: int = 0,  # which network
    frames: str = "",  # change of the frames, one of FRAMES
    pictures: bool = True,  # with the frames themselves
) -> dict[str, Any]:
    """One clip: frames, answer, and what was selected."""
    seen = session.clips.seen(clip_id)
    T = len(seen.frames)
    read = session.read(clip_id, network, frames)
    here = session.networks[network]
    label = session.clips.label(clip_id)
    times = seen.times
    plain = network == 0 and not frames
    losses, how = session.losses(clip_id) if plain else unknown(here.present)
    order = order_of(frames, T)
    shown = blurred(seen.frames) if frames == "blurred" else seen.frames
    urls = [data_url(one, least=SHOWN) for one in shown] if pictures else []
    return {
        "clip": clip_id,
        "name": clip_id,
        "network": network,
        "changed": frames or None,
        "order": order,
        "shuffled": order_of("shuffled", T),
        "label": label,
        "predicted": int(read.probabilities.argmax()),
        "read": session.class_read(clip_id),
        "frames": [urls[t] for t in order] if urls else [],
        "times_s": None if times is None else [round(float(t), 3) for t in times],
        "numbers": [int(i) for i in seen.indices[0]],
        "facts": facts(seen),
        "top": best_classes(read.probabilities, label),
        "probabilities": numbers(read.probabilities, 4),
        "weights": numbers(read.weights, 4),
        "contributions": numbers(read.contributions, 4),
        "losses": numbers(losses, 4),
        "loss_is": how,
        "present": here.present.tolist(),
        "closed": (read.weights == 0).tolist(),
        "gates": here.wide is not None,
        "percentiles": session.percentiles(clip_id) if plain else None,
        "finding": finding(session, clip_id) if plain else None,
    }


def finding(session: Session, clip_id: str) -> dict[str, Any] | None:
    """What the answer rests on, in one sentence with number and control; None before that is measured."""
    blocks = list(session.network.blocks)
    if not blocks:
        return None
    closed = session.closed(clip_id)
    tried: list[list[dict]] = [[edit("drop", b, d)] for b, d in session.cells() if not closed[b, d]]
    cells = len(tried)
    tried += [
        [edit("drop", None, d)] for d in range(len(DEPENDENCIES)) if session.network.present[:, d].any()
    ]
    answers = [session.answer(clip_id, edits) for edits in tried]
    if any(one is None or one["control"] is None for one in answers) or not tried:
        return None
    changes = np.array([one["change"] for one in answers if one])
    best = int(changes[: cells or None].argmin())
    if changes.min() < 2 * changes[best] - 0.02:  # everywhere costs far more than in any one block
        best = int(changes.argmin())
    change = float(changes[best])
    control = (answers[best] or {})["control"]
    k = session.class_read(clip_id)
    name = f"“{session.class_names[k]}”"
    what = in_words(tried[best], blocks).removeprefix("without ")
    count = "ten" if control["n"] == 10 else control["n"]
    mean, low, high = (signed(control[end]) for end in ("mean", "low", "high"))
    said = f"{name} changes by {signed(change)} ({count} random removals there: {mean} [{low}, {high}])"
    answer = "answer" if session.read(clip_id).probabilities.argmax() == k else f"probability of {name}"
    if change > -0.05:
        text = f"No single dependency carries this {answer}: without {what}, the costliest, {said}."
    else:
        text = f"The {answer} rests on {what}: without it {said}."
        if change >= control["low"] + 0.005:
            text = text[:-1] + "; so a random removal can cost as much."
    return {"sentence": text, "value": round(change, 4), "control": control, "edits": tried[best]}


def signed(x: float) -> str:
    """A change in two places, as the page writes it."""
    return "0.00" if abs(x) < 0.005 else f"{x:+.2f}".replace("-", "−")


def answers_of(session: Session, clip_id: str) -> dict[str, Any]:
    """Every planned answer to a clip that is known, by the key of its edits."""
    found = {}
    for _, part in planned(session, clip_id):
        for edits in part:
            answer = session.answer(clip_id, edits)
            if answer is not None:
                found[edits_key(edits)] = answer
    return found


def map_of(cams: Sequence[ClipCam], targets: Sequence[int | str], clip_id: str) -> dict[str, Any]:
    """Maps of one clip, raw."""
    first = cams[0]
    told = {}
    for target, cam in zip(targets, cams, strict=False):
        low, high = cam.range
        values = base64.b64encode(cam.maps.astype("<f4").tobytes()).decode()
        told[str(target)] = {"values": values, "low": round(low, 6), "high": round(high, 6), "note": cam.note}
    return {
        "clip": clip_id,
        "layer": first.layer,
        "method": first.method,
        "shape": list(first.maps.shape),
        "targets": told,
        "top": max(max(cam.range[1] for cam in cams), 0.0),
    }
