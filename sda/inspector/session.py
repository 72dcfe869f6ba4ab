"""What networks do with clips, asked once and kept: selections, answers under edits, maps. No widgets."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..explaining.answers import logits_of
from ..explaining.cam import ClipCam, cam_layers, clip_cams
from ..explaining.effects import attribute
from ..explaining.trace import Trace, trace_clips
from ..explaining.variants import logits_under, stream_logits
from ..foundation.errors import SettingError
from ..foundation.files import fingerprint
from ..foundation.statistics import softmax
from ..networks.backbones import VideoNet, sda_blocks, stage_of
from ..networks.blocks import DEPENDENCIES
from .clips import Clips, Remembered
from .edits import (
    FRAMES,
    at_random,
    edit,
    edits_key,
    felt,
    frame_changes,
    known_name,
    meaning,
    open_weights,
    variant,
)

DRAWS = 10
FEW = 8  # blocks up to which every set of dependencies of each is answered before anybody asks
STEP = 0.1  # seconds that a step in the background may take, so that the kernel answers in between


@dataclass(frozen=True, eq=False)
class Read:
    """What one network selected and answered for one clip, averaged over its views."""

    weights: np.ndarray  # [P,4], NaN where a block lacks a dependency
    contributions: np.ndarray  # [P,4]
    entropy: float  # mean over the blocks; NaN without blocks
    logits: np.ndarray  # [K]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of every class [K]."""
        return softmax(self.logits[None])[0]


@dataclass(eq=False)
class Network:
    """A network, its SDA blocks, and what it did with the clips that were asked of it."""

    model: VideoNet
    name: str  # as shown
    path: str = ""  # its file, where it has one
    reads: dict[tuple[str, str], Read] = field(default_factory=dict)  # clip, change of the frames

    def __post_init__(self) -> None:
        self.blocks = sda_blocks(self.model)
        self.fingerprint = fingerprint(self.model)

    @cached_property
    def present(self) -> np.ndarray:
        """Which block has which dependency, bool [P,4]."""
        return np.array([[d in b.dependencies for d in DEPENDENCIES] for b in self.blocks.values()]).reshape(
            -1, 4
        )

    @cached_property
    def wide(self) -> list[list[float | None]] | None:
        """What every gate weighs when it is wide open [P,4]; None for blocks that weigh by shares."""
        found = [open_weights(block) for block in self.blocks.values()]
        if not found or None in found:
            return None
        rows = [
            dict(zip(b.dependencies, w or (), strict=True))
            for b, w in zip(self.blocks.values(), found, strict=True)
        ]
        return [[row.get(name) for name in DEPENDENCIES] for row in rows]

    def read(self, clips: Tensor) -> list[Read]:
        """Selection and answer of clips [N,V,T,3,h,w]."""
        if not self.blocks:
            empty = np.empty((0, 4))
            return [Read(empty, empty, float("nan"), logits) for logits in logits_of(self.model, clips)]
        return self.reads_of(trace_clips(self.model, clips))

    def reads_of(self, trace: Trace) -> list[Read]:
        """The clips of a trace, in their order; views and parts of a clip are averaged."""
        values = (trace.weights, trace.contribution(), trace.entropy(), trace.logits)
        weights, contributions, entropy, logits = map(trace.per_video, values)
        rows = [
            [i for i, row in enumerate(trace.blocks) if row.split("[")[0] == name] for name in self.blocks
        ]
        weights, contributions = (
            np.stack([each[:, some].mean(1) for some in rows], 1) for each in (weights, contributions)
        )
        return [
            Read(*one) for one in zip(weights, contributions, entropy.mean(1).tolist(), logits, strict=True)
        ]


class Session:
    """Networks and clips, and the answers that were computed so far."""

    def __init__(
        self,
        networks: Sequence[Network],  # the first is looked at, others can stand beside it
        clips: Clips,  # of a dataset, and of people
        target: int | None = None,  # class to ask about, instead of the true one
        pairs: Sequence[tuple[str, str]] = (),  # classes that are told apart from each other alone
        truth: str | None = None,  # folder that holds truth/, see `clip_masks`
        trace: Trace | None = None,  # of the first network and these clips
        draws: int = DRAWS,  # controls at random of every edit
    ):
        self.networks = list(networks)
        self.clips = clips
        self.target = target
        self.pairs = pairs
        self.truth = truth
        self.draws = draws
        self.class_names = list(clips.data.class_names)
        self.answered: dict[str, dict[tuple, np.ndarray]] = {}  # clip -> meaning of edits -> logits [K]
        self.drawn: dict[tuple, list[tuple[tuple, list[dict]]]] = {}  # controls of edits
        self.guesses: dict[str, np.ndarray] = {}  # clip -> estimated losses [P,4]
        self.maps = Remembered(64)
        self.seconds = 0.05  # that one copy of a clip takes, as last measured
        if trace is not None:
            self._take(trace)

    def _take(self, trace: Trace) -> None:
        """What a stored trace knows."""
        trace.check_model(self.networks[0].model)
        reads = self.networks[0].reads_of(trace) if trace.blocks else []
        for clip_id, read in zip(dict.fromkeys(trace.videos), reads, strict=False):
            self.networks[0].reads[clip_id, ""] = read

    @property
    def network(self) -> Network:
        """The network that is looked at."""
        return self.networks[0]

    # ---- What was selected

    def views(self, clip_id: str) -> Tensor:
        """A clip as the network takes it [V,T,3,h,w]; mirrored views show other classes and are left out."""
        seen = self.clips.seen(clip_id)
        return seen.clip[[not mirrored for mirrored in seen.mirrored]]

    def read(self, clip_id: str, network: int = 0, frames: str = "") -> Read:
        """Selection and answer of one clip, its frames perhaps changed."""
        if not 0 <= network < len(self.networks):
            raise SettingError("there is no other network", remedy="open one with inspect(..., other=FILE)")
        here = self.networks[network]
        if (clip_id, frames) not in here.reads:
            views = self.views(clip_id)
            if frames:
                views = frame_changes([edit("frames", value=frames)])[0](views)
            start = time.perf_counter()
            here.reads[clip_id, frames] = here.read(views[None])[0]
            if network == 0:  # it is an answer too
                self.seconds = time.perf_counter() - start
                edits = [edit("frames", value=frames)] if frames else []
                kept = self.answered.setdefault(clip_id, {})
                kept.setdefault(meaning(edits, here.blocks), here.reads[clip_id, frames].logits)
        return here.reads[clip_id, frames]

    def class_read(self, clip_id: str) -> int:
        """The class whose probability is read: the one asked about, the true one, or the answer."""
        label = self.clips.label(clip_id)
        wanted = label if self.target is None else self.target
        return int(self.read(clip_id).logits.argmax()) if wanted is None else wanted

    def unread(self) -> list[str]:
        """Clips of which nothing is known yet."""
        return [clip_id for clip_id in self.clips.ids() if (clip_id, "") not in self.network.reads]

    def percentiles(self, clip_id: str) -> dict[str, Any] | None:
        """Where weights and contributions lie among those of the clip's class; None where that is unknown."""
        label = self.clips.label(clip_id)
        if label is None or not self.network.blocks:
            return None
        reads = self.network.reads
        ids = [
            other for other in self.clips.known if self.clips.label(other) == label and (other, "") in reads
        ]
        if len(ids) < 3 or clip_id not in ids:
            return None
        mine = self.read(clip_id)
        found: dict[str, Any] = {"n": len(ids), "of": label}
        for name in ("weights", "contributions"):
            all_ = np.stack([getattr(reads[other, ""], name) for other in ids])
            own = getattr(mine, name)
            below = (all_ < own).mean(0) + (all_ == own).mean(0) / 2
            found[name] = numbers(np.where(np.isnan(own), np.nan, 100 * below), 0)
        return found

    # ---- What it answers under edits

    def closed(self, clip_id: str) -> np.ndarray:
        """What the clip gives no weight at all, bool [P,4]: leaving it out alone changes nothing."""
        return self.read(clip_id).weights == 0

    def meant(self, clip_id: str, edits: Sequence[dict]) -> tuple:
        """What edits come to for a clip; under this its answer is kept."""
        return self._felt(clip_id, meaning(edits, self.network.blocks))

    def _felt(self, clip_id: str, asked: tuple) -> tuple:
        closed = self.closed(clip_id)
        if not closed.any():
            return asked
        return felt(asked, [row[own] for row, own in zip(closed, self.network.present, strict=True)])

    def known(self, clip_id: str, edits: Sequence[dict]) -> np.ndarray | None:
        """The answer to a clip under edits [K], if it was computed."""
        return self.answered.get(clip_id, {}).get(self.meant(clip_id, edits))

    def controls(self, clip_id: str, edits: Sequence[dict]) -> list[tuple[tuple, list[dict]]]:
        """The same edits at random, as often as asked: what each comes to, and the edits."""
        if not edits:
            return []
        frames = self.clips.seen(clip_id).clip.shape[1]
        key = (edits_key(edits), frames)
        if key not in self.drawn:
            lots = [at_random(edits, seed, self.network.blocks, frames) for seed in range(self.draws)]
            self.drawn[key] = [(meaning(one, self.network.blocks), one) for one in lots]
        return [(self._felt(clip_id, asked), one) for asked, one in self.drawn[key]]

    def compute(self, clip_id: str, edits: Sequence[dict]) -> None:
        """Answer edits now, and keep the answer."""
        variants = [variant(edits, self.network.blocks)]
        logits = logits_under(self.network.model, self.views(clip_id)[None], variants)
        kept = self.answered.setdefault(clip_id, {})
        kept[self.meant(clip_id, edits)] = logits[0, 0]

    def answering(
        self,
        clip_id: str,
        wanted: Sequence[Sequence[dict]],  # lists of edits, the most urgent first
        controls: bool = True,  # each with the same at random, right after it
    ) -> Iterator[tuple[int, int]]:  # passes that are done, and all
        """Compute what is not known, a short step at a time."""
        blocks = self.network.blocks
        kept = self.answered.setdefault(clip_id, {})
        todo: dict[tuple, Sequence[dict]] = {}
        for edits in wanted:
            todo.setdefault(self.meant(clip_id, edits), edits)
            todo.update(self.controls(clip_id, edits) if controls else ())
        left = [(key, one) for key, one in todo.items() if key not in kept]
        if not left:
            return
        views = self.views(clip_id)
        memory = int(max(1, STEP / self.seconds) * views.nbytes * 8)
        variants = [variant(one, blocks) for _, one in left]
        for done, (i, logits) in enumerate(stream_logits(self.network.model, views, variants, memory), 1):
            kept.setdefault(left[i][0], logits.mean(0))
            yield done, len(left)

    def answer(self, clip_id: str, edits: Sequence[dict]) -> dict[str, Any] | None:
        """An answer as the page shows it, with its control where known; None if it was not computed."""
        logits = self.known(clip_id, edits)
        if logits is None:
            return None
        before = self.read(clip_id).probabilities
        k = self.class_read(clip_id)
        drawn = [self.answered[clip_id].get(key) for key, _ in self.controls(clip_id, edits)]
        control = None
        if drawn and all(one is not None for one in drawn):
            control = control_of(softmax(np.stack(drawn))[:, k] - before[k])  # type: ignore[arg-type]
        after = softmax(logits[None])[0]
        return {
            "probabilities": numbers(after, 4),
            "change": round(float(after[k] - before[k]), 4),
            "control": control,
        }

    # ---- What leaving out costs

    def cells(self) -> list[tuple[int, int]]:
        """Blocks and dependencies that can be left out: something else must be there to stand in."""
        present = self.network.present
        return [(b, d) for b, d in np.argwhere(present).tolist() if present[b].sum() > 1]

    def losses(self, clip_id: str) -> tuple[np.ndarray, list[list[str | None]]]:
        """Fall of the probability without each dependency of each block [P,4], and how each is known."""
        values = np.full(self.network.present.shape, np.nan)
        how: list[list[str | None]] = [
            [None if p else "absent" for p in row] for row in self.network.present.tolist()
        ]
        k = self.class_read(clip_id)
        before = self.read(clip_id).probabilities[k]
        guess = self.guesses.get(clip_id)
        for b, d in self.cells():
            logits = self.known(clip_id, [edit("drop", b, d)])
            if logits is not None:
                values[b, d] = before - softmax(logits[None])[0, k]
                how[b][d] = "measured"
            elif guess is not None:
                values[b, d] = guess[b, d]
                how[b][d] = "estimated"
        return values, how

    def guess(self, clip_id: str) -> np.ndarray:
        """Losses [P,4] to first order, from one pass forward and one back.

        Without dependency d its weight goes to the others in proportion, so log p changes by
        -G_d + w_d / (1 - w_d) * (sum of the other G), where G is gradient times weight.
        """
        if clip_id not in self.guesses:
            views = self.views(clip_id)[None]
            k = [self.class_read(clip_id)]
            found = attribute(self.network.model, views, "first-order", k, class_names=self.class_names)
            self.guesses[clip_id] = found.values[0]
        return self.guesses[clip_id]

    # ---- Where the evidence lies

    def layers(self) -> list[dict[str, str]]:
        """Layers that a map can be made at: stages and their blocks, or what a network of others has."""
        model = self.network.model
        names = [
            name for name, _ in model.named_modules() if name.startswith("layer") and name.count(".") < 2
        ]
        return [{"name": name, "words": name} for name in names or cam_layers(model).layer]

    def cams(
        self, clip_id: str, layer: str, method: str, targets: Sequence[int | str], network: int = 0
    ) -> list[ClipCam]:
        """Evidence for classes or their difference, or the gate of a block; each is made once."""
        if method == "gate":
            return [
                self.maps.get((clip_id, layer, method, network), lambda: self.gate(clip_id, layer, network))
            ]
        keys = [(clip_id, layer, method, target, network) for target in targets]
        new = [target for key, target in zip(keys, targets, strict=True) if key not in self.maps.kept]
        if new:
            copies = self.views(clip_id)[:1].expand(len(new), -1, -1, -1, -1)
            model = self.networks[network].model
            made = clip_cams(model, copies, list(new), layer, method, self.class_names)
            for target, cam in zip(new, made, strict=True):
                self.maps.put((clip_id, layer, method, target, network), cam)
        return [self.maps.kept[key] for key in keys]

    def gate(self, clip_id: str, block: str, network: int = 0) -> ClipCam:
        """The gate of an SDA block, or of the last one of a stage."""
        here = self.networks[network]
        if not here.blocks:
            raise SettingError(f"{here.name} has no SDA blocks, so it has no gates", subject=here.name)
        block = next((b for b in reversed(here.blocks) if block in (b, stage_of(b))), block)
        known_name("SDA block", block, here.blocks)
        trace = trace_clips(here.model, self.views(clip_id)[:1], responses=True)
        parts = [r["gate"][0] for row, r in trace.responses.items() if row.split("[")[0] == block]
        size = self.clips.seen(clip_id).frames.shape[1:3]
        return ClipCam(
            np.concatenate(parts), trace.logits[0], "gate, mean over channels", block, "gate", size
        )

    def close(self) -> None:
        """Forget what was computed, and clips of one's own."""
        self.clips.close()
        self.maps.kept.clear()
        self.answered.clear()
        self.guesses.clear()


def control_of(changes: np.ndarray) -> dict[str, Any]:
    """Changes at random [D] in four numbers."""
    return {
        "mean": round(float(changes.mean()), 4),
        "low": round(float(changes.min()), 4),
        "high": round(float(changes.max()), 4),
        "n": len(changes),
    }


def numbers(values: np.ndarray, digits: int) -> list:
    """An array as JSON: rounded, None where there is no number."""
    exact = np.asarray(values, np.float64)
    rounded = np.round(exact, digits).astype(object)
    rounded[~np.isfinite(exact)] = None
    return rounded.tolist()


def planned(
    session: Session,  # whose network it is
    clip_id: str,  # which clip; what it has closed can be opened
) -> Iterator[tuple[bool, list[list[dict]]]]:  # whether with controls, and a part of the work
    """All edits that are answered before anybody asks, in the order in which people ask for them."""
    present = session.network.present
    P, M = present.shape
    cells = session.cells()
    columns = [d for d in range(M) if present[:, d].any()]
    frames = [[edit("frames", value=name)] for name in FRAMES]
    rows = [[edit("uniform", b)] for b in (None, *range(P))] if P else []
    yield True, [[], *([edit("drop", b, d)] for b, d in cells), *([edit("drop", None, d)] for d in columns)]
    yield False, [*rows, *frames]
    closed = session.closed(clip_id)
    opened = {cell: [edit("open", *cell)] if closed[cell] else [] for cell in cells}
    alone = [[*opened[cell], edit("only", *cell)] for cell in cells]
    yield True, [*filter(None, opened.values()), *alone, *([edit("only", None, d)] for d in columns)]
    each = range(P) if P <= FEW else ()
    for block in (None, *each):
        some = columns if block is None else [d for d in columns if present[block, d]]
        sets = [[d for i, d in enumerate(some) if mask >> i & 1] for mask in range(2 ** len(some))]
        yield True, [[edit("drop", block, d) for d in gone] for gone in sets if len(gone) > 1]
    yield True, [*frames, *(rows if P <= FEW else rows[:1])]
