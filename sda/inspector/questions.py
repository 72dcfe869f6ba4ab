"""Questions that take a while: edits of many clips, Shapley values, how far maps can be believed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..explaining.check_report import CHECKS, CheckInput, FaithfulnessReport
from ..explaining.checks import check_steps
from ..explaining.effects import coalitions, shapley_values
from ..explaining.faithfulness import clip_masks
from ..explaining.trace import Trace, trace_clips
from ..foundation.errors import SettingError
from ..foundation.statistics import mean_interval, softmax
from ..networks.blocks import DEPENDENCIES
from .edits import edit, known_name
from .session import Session

MOST = 60  # clips that edits are tried on
CHECKED = 12  # clips that maps are checked on

QUESTIONS = {
    "edits": (
        "The same change on all clips",
        "What the present edits do to the clips that fit, and at random.",
    ),
    "shapley": (
        "Fair shares",
        "How much of the answer each dependency brings, over all orders of adding them.",
    ),
    "selection": (
        "Weight and effect",
        "Whether weights and contributions rank dependencies as leaving out does.",
    ),
    "space": ("Where", "Whether removing what the map marks costs the answer more than random places."),
    "frames": ("When", "The same with whole frames."),
    "randomisation": ("Learnt or not", "Whether the map depends on what the network has learnt."),
    "pointing": ("Pointing", "Whether the map points at the object, where masks tell where that is."),
    "seeds": ("Two trainings", "Whether another training selects the same."),
}

Found = dict[str, Any]  # rows, verdict, clips, and while it runs done and total


def row(label: str, value: float, low: float, high: float, n: int, unit: str, control: bool = False) -> Found:
    """One number with its interval."""
    values = {
        name: None if not np.isfinite(one) else round(float(one), 4)
        for name, one in (("value", value), ("low", low), ("high", high))
    }
    return {"label": label, **values, "n": int(n), "unit": unit, "control": control, "reference": 0}


def ask(
    session: Session,
    name: str,  # one of QUESTIONS
    clip_id: str,  # that is looked at
    ids: Sequence[str],  # that fit the filters
    edits: Sequence[dict],  # checked ones
    layer: str,  # of the map
    method: str,
) -> Iterator[Found]:  # what is known so far; the last one is whole
    """Answer a question in short steps."""
    known_name("question", name, QUESTIONS)
    if name == "edits":
        return _edits(session, ids, edits)
    if name == "shapley":
        return _shapley(session, clip_id)
    return _check(session, name, ids, layer, method)


def _edits(session: Session, ids: Sequence[str], edits: Sequence[dict]) -> Iterator[Found]:
    """The change of the probability over clips, beside the same at random."""
    if not edits:
        raise SettingError("nothing is changed yet", remedy="click a cell of the table first")
    if not ids:
        raise SettingError("no clip fits the filters", remedy="loosen the filters")
    ids = list(ids)[:MOST]
    changes: list[float] = []
    at_random: list[float] = []
    flips = 0
    for done, clip_id in enumerate(ids):
        for _ in session.answering(clip_id, [edits]):
            yield {"rows": [], "verdict": "", "clips": len(ids), "done": done, "total": len(ids)}
        answer = session.answer(clip_id, edits) or {}
        changes.append(answer["change"])
        at_random.append(answer["control"]["mean"])
        flips += int(np.argmax(answer["probabilities"]) != session.read(clip_id).logits.argmax())
    n = len(changes)
    told = np.array(changes)
    drawn = np.array(at_random)
    apart = told - drawn
    rows = [
        row("this change", told.mean(), *mean_interval(told), n, "change of the probability"),
        row("at random", drawn.mean(), *mean_interval(drawn), n, "change of the probability", control=True),
        row("difference", apart.mean(), *mean_interval(apart), n, "change of the probability"),
    ]
    low, high = rows[2]["low"], rows[2]["high"]
    outside = low is not None and (low > 0 or high < 0)
    verdict = f"{'More than' if outside else 'No more than'} the same at random; {flips} of {n} answers flip."
    yield {"rows": rows, "verdict": verdict, "clips": n, "done": n, "total": n}


def _shapley(session: Session, clip_id: str) -> Iterator[Found]:
    """Exact Shapley values of the dependencies, everywhere at once, from all sets of them."""
    present = session.network.present
    if not len(present):
        raise SettingError(f"{session.network.name} has no SDA blocks, so it selects nothing")
    if (present != present[0]).any():
        raise SettingError(
            "the blocks have different dependencies", remedy="ask block by block with shift-click"
        )
    own = [name for name, there in zip(DEPENDENCIES, present[0], strict=True) if there]
    asked = {
        some: [edit("drop", None, DEPENDENCIES.index(name)) for name in own if name not in some]
        for some in coalitions(own)
    }
    for done, total in session.answering(clip_id, list(asked.values()), controls=False):
        yield {"rows": [], "verdict": "", "clips": 1, "done": done, "total": total}
    k = session.class_read(clip_id)
    worth: dict[tuple[str, ...], np.ndarray] = {}
    for some, edits in asked.items():
        logits = session.known(clip_id, edits)
        assert logits is not None  # computed above
        worth[some] = softmax(logits[None])[0, k]
    values = shapley_values(worth)
    rows = [row(name, float(value), np.nan, np.nan, 1, "probability") for name, value in values.items()]
    best = max(rows, key=lambda one: one["value"])
    none, whole = worth[()], worth[tuple(own)]
    verdict = f"{best['label']} brings most: {best['value']:+.2f} of {whole - none:+.2f} (all minus none)."
    yield {"rows": rows, "verdict": verdict, "clips": 1, "done": len(asked), "total": len(asked)}


def _check(session: Session, name: str, ids: Sequence[str], layer: str, method: str) -> Iterator[Found]:
    """One of the checks of `sda.explaining.checks`, on at most a dozen clips drawn by a fixed seed."""
    if name == "pointing":  # nobody knows where the object is in clips that people brought
        ids = [i for i in ids if i not in session.clips.added]
    if len(ids) > CHECKED:
        ids = [ids[k] for k in sorted(np.random.default_rng(0).choice(len(ids), CHECKED, replace=False))]
    yield {"rows": [], "verdict": "", "clips": len(ids), "done": 0, "total": 0}
    if len(ids) < 3:
        raise SettingError(f"{len(ids)} clips are too few to measure agreement", remedy="loosen the filters")
    clips = torch.stack([session.views(i)[0] for i in ids])
    inputs = CheckInput(
        session.network.model,
        clips,
        [session.class_read(i) for i in ids],
        _trace(session, 0, clips, ids) if name in ("selection", "seeds") else None,
        _trace(session, 1, clips, ids) if name == "seeds" and len(session.networks) > 1 else None,
        _masks(session, ids) if name == "pointing" else None,
        layer,
        method,
    )
    steps = 0
    for _, report in check_steps(inputs, [name]):
        steps += 1
        yield _told(report, name) | {"done": steps, "total": 0}


def _told(report: FaithfulnessReport, name: str) -> Found:
    """A check as rows and a sentence; what cannot be measured is raised."""
    if name in report.missing:
        raise SettingError(report.missing[name])
    rows = [row(r.what, r.value, r.low, r.high, r.n, CHECKS[r.check], r.control) for r in report.results]
    return {"rows": rows, "verdict": report.words.get(name, ""), "clips": report.n}


def _trace(session: Session, network: int, clips: torch.Tensor, ids: Sequence[str]) -> Trace | None:
    """What a network selected for these clips."""
    here = session.networks[network]
    return trace_clips(here.model, clips, videos=list(ids)) if here.blocks else None


def _masks(session: Session, ids: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Where the truth about these clips lies, if anybody knows."""
    if not session.truth:
        return None
    return clip_masks(session.clips.data, session.truth, [session.clips.known[i] for i in ids])
