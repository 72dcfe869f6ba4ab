"""How far the pictures of the shipped SDA-TSN can be trusted: one study of the 500 test clips of Moves.

    python benchmarks/looking.py [--part PART ...] [--again] [--data sets/moves] [--threads 1] [--list]

choice:     which map to show: layer, method and score, chosen on validation clips, so that test clips only
test it. coalitions: dependencies left out everywhere, or kept alone, against the same at random. blocks:
each dependency left out of each block. weights:    equal, sharper and flatter weights, those of the class,
those of another clip. shares:     exact Shapley values, and how well weight, contribution and gradient x
weight tell the effect. probes:     frames reversed, shuffled, frozen, lost; tiles shuffled; blur. maps:
pointing game and energy of the maps inside the masks, beside their controls and two other networks. curves:
deletion and insertion over space and over frames. scrambled:  what is left of a map when the network is
made random from the top. occlusion:  the map without gradients, on fewer clips, for it takes 256 passes a
clip.

Resumable: a part that has its results in the record is skipped. Writes data/results/looking.json (tables,
seconds of CPU by part, machine) and looking.npz (effects, shares and gradient x weight, clip by clip).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_grad_cam
import torch
from shipped_models import rows as plain
from torch import Tensor, nn

from sda.data.datasets import ClipDataset, open_dataset
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.explaining.answers import READINGS, load_clips, logits_of, partner_index, readings
from sda.explaining.attribution import Attribution, from_trace
from sda.explaining.cam import METHODS, ClipTarget, clip_cams, find_layer, untouched
from sda.explaining.effects import Effect, attribute, coalitions, rank_agreement, shapley_values
from sda.explaining.faithfulness import (
    cascading,
    centre_prior,
    clip_masks,
    curve_areas,
    deletion_insertion,
    map_agreement,
    other_clips,
    pointing_game,
    reinitialised,
)
from sda.explaining.interventions import (
    Intervention,
    blur,
    drop,
    drop_frames,
    force,
    freeze,
    from_class,
    from_clip,
    keep,
    patch_shuffle,
    reverse,
    shuffle,
    temperature,
    uniform,
)
from sda.explaining.trace import Trace, trace_clips
from sda.foundation.runs import new_record, save_record
from sda.moves.assembly import make_moves
from sda.moves.classes import CLASSES, PAIRS
from sda.networks.backbones import VideoNet
from sda.networks.blocks import DEPENDENCIES
from sda.networks.checkpoints import load_model

ROOT = Path(__file__).resolve().parents[1]
MODEL, TSN = (
    ROOT / "sda" / "assets" / "checkpoints" / f"{name}.safetensors" for name in ("sda_tsn_moves", "tsn_moves")
)
LAYERS = ("layer1", "layer2", "layer3", "layer4")  # the choice is among these, which every network has
INNER = ("layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2")  # shown beside them
KINDS = ("gradcam", "gradcam++", "hirescam", "layercam")  # methods that need one backward pass
USUAL = "layer4 gradcam logit"  # what everybody draws
DRAWS = 5  # of the same at random


def spread(values: Sequence[float], draws: int = 1000) -> dict[str, float]:
    """Mean over clips with a 95 % bootstrap interval, and n; clips without a number are left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return {"n": 0}
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return dict(
        mean=round(float(values.mean()), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        n=len(values),
    )


def columns(found: dict[str, Any]) -> dict[str, Any]:
    """Tables column by column, which is a third of the size and what `pd.DataFrame` takes as well."""

    def turned(rows: list[dict]) -> dict[str, list]:
        return {key: [row.get(key) for row in rows] for key in dict.fromkeys(k for row in rows for k in row)}

    return {
        k: turned(v) if isinstance(v, list) and v and isinstance(v[0], dict) else v for k, v in found.items()
    }


class Study:
    """The network, the clips, and what several parts need."""

    def __init__(self, data: Path, thin: int = 1):
        self.data = make_moves(data)
        self.net = load_model(MODEL)
        self.thin = thin

    def clips_of(self, split: str, every: int = 1) -> "Some":
        """A split, or every so manieth take of each of its classes, as the network sees it."""
        card = self.net.card
        data = open_dataset(
            self.data,
            split,
            Sampling.from_dict(card.sampling),
            TransformConfig.from_dict(card.transform),
            cache=True,
            progress=False,
        )
        if list(data.class_names) != [c.name for c in CLASSES]:
            raise ValueError(f"{self.data} is not a set of Moves")
        return Some(self.net, data, takes(range(len(data)), every * self.thin), self.data)

    @cached_property
    def test(self) -> "Some":
        return self.clips_of("test")

    @cached_property
    def half(self) -> "Some":
        """Every second take of the test clips, where a change is one of many."""
        return self.clips_of("test", 2)

    @cached_property
    def trace(self) -> Trace:
        return trace_clips(self.net, self.test.clips, videos=self.test.ids, labels=self.test.labels)

    @cached_property
    def half_trace(self) -> Trace:
        return trace_clips(self.net, self.half.clips, videos=self.half.ids, labels=self.half.labels)

    @cached_property
    def worth(self) -> dict[tuple[str, ...], np.ndarray]:
        """Logits of the test clips under every coalition of dependencies; the full one is the network as it
        is."""
        return {c: self.test.answers(*([] if len(c) == 4 else [keep(*c)])) for c in coalitions()}

    @cached_property
    def blocks(self) -> dict[tuple[str, str], np.ndarray]:
        """Logits of half of the test clips without one dependency in one block."""
        return {(b, d): self.half.answers(drop(d, where=b)) for b in self.trace.blocks for d in DEPENDENCIES}


def takes(indices: Sequence[int], every: int) -> list[int]:
    """Every so manieth take; lists of Moves hold one clip of every class per take."""
    numbers = sorted({i // len(CLASSES) for i in indices})[::every]
    return [i for i in indices if i // len(CLASSES) in numbers]


class Some:
    """Clips, what they show, and where."""

    def __init__(self, net: VideoNet, data: ClipDataset, indices: list[int], root: Path):
        self.clips, self.labels, self.ids = load_clips(data, indices)
        self.net = net
        self.dataset = data
        self.indices = indices
        self.root = root
        self.names = list(data.class_names)

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        return clip_masks(self.dataset, self.root, self.indices)

    @cached_property
    def before(self) -> np.ndarray:
        return self.answers()

    def answers(self, *changes: Intervention) -> np.ndarray:
        return logits_of(self.net, self.clips, *changes, batch_size=25)

    @cached_property
    def said(self) -> list[int]:
        """The network's own answers, which maps explain."""
        return self.before.argmax(1).tolist()

    def effect(self, name: str, after: np.ndarray, at_random: np.ndarray | None = None) -> Effect:
        """Known answers as an effect that can be read."""
        drawn = np.empty((0, *after.shape)) if at_random is None else at_random
        return Effect(
            name,
            self.before,
            after,
            drawn,
            np.asarray(self.labels),
            self.ids,
            self.names,
            partner_index(self.names, PAIRS),
        )

    def every(self, step: int) -> "Some":
        """Fewer of these clips."""
        return Some(self.net, self.dataset, takes(self.indices, step), self.root)


def read(name: str, effect: Effect, control: Effect | None = None) -> list[dict[str, Any]]:
    """One row per reading: the change, and its counterpart at random (mean and range of the draws' means)."""
    rows = []
    for reading in (*READINGS, "flips"):
        now, _ = effect.flips() if reading == "flips" else effect.changes(reading)
        row = {"change": name, "reading": reading, **spread(now)}
        if control is not None:
            there, drawn = control.flips() if reading == "flips" else control.changes(reading)
            means = np.nanmean(drawn.astype(float), 1)
            row |= dict(
                there=np.nanmean(there),
                random=means.mean(),
                random_low=means.min(),
                random_high=means.max(),
                draws=len(means),
                n_random=int((~np.isnan(np.asarray(there, float))).sum()),
            )
        rows.append({k: round(float(v), 4) if isinstance(v, float) else v for k, v in row.items()})
    return rows


def by_need(name: str, effect: Effect) -> list[dict[str, Any]]:
    """The fall or rise of two readings for the clips whose class has the same need."""
    needs = np.array([CLASSES[k].need for k in effect.labels])
    return [
        {
            "change": name,
            "need": need,
            "reading": reading,
            **spread(effect.changes(reading)[0][needs == need]),
        }
        for need in dict.fromkeys(needs.tolist())
        for reading in ("probability", "pair probability")
    ]


def drawn(some: Some, change: Intervention, draws: int = DRAWS) -> np.ndarray:
    """Answers under the same change at random, [draws,N,K]."""
    return np.stack([some.answers(change.random(seed)) for seed in range(draws)])


def lent(some: Some, lender: Callable[[int, int], Intervention], seed: int = 0) -> np.ndarray:
    """Answers of clips that each get a selection of their own."""
    return np.concatenate(
        [logits_of(some.net, some.clips[i : i + 1], lender(i, seed)) for i in range(len(some.ids))]
    )


def removals(study: Study) -> tuple[dict, dict]:
    """Dependencies left out of all blocks, or kept alone; at random another one is drawn for each block."""
    test = study.test
    few = study.test.every(10)
    rows = []
    needs = []
    test.before = study.worth[DEPENDENCIES]
    picked = [test.ids.index(i) for i in few.ids]
    gone = drawn(few, drop("LST"), 12)
    left = drawn(few, keep("LST"), 12)

    def without(*names: str) -> tuple[str, ...]:
        return tuple(x for x in DEPENDENCIES if x not in names)

    tried = {f"without {d}": (without(d), gone) for d in DEPENDENCIES}
    tried["without LS and S122"] = (without("LS", "S122"), drawn(few, drop("LS", "S122")))
    tried |= {f"only {d}": ((d,), left) for d in DEPENDENCIES} | {"no dependency": ((), None)}
    for name, (some, at_random) in tried.items():
        after = study.worth[some]
        control = None if at_random is None else few.effect(name, after[picked], at_random)
        rows += read(name, test.effect(name, after), control)
        needs += by_need(name, test.effect(name, after))
    forced = few.answers(force("LT"))
    return dict(
        changes=rows,
        by_need=needs,
        forced_equals_only=float(np.abs(forced - study.worth["LT",][picked]).max()),
    ), {}


def weights(study: Study) -> tuple[dict, dict]:
    """Other weights in all blocks: equal, sharper, flatter, of the class, of a clip of the partner class."""
    half = study.half
    few = study.test.every(10)
    trace = study.trace
    rows = []
    needs = []
    partner = partner_index(half.names, PAIRS)
    for name, change in {
        "all weights equal": uniform(),
        "temperature 0.25": temperature(0.25),
        "temperature 4": temperature(4),
    }.items():
        effect = half.effect(name, half.answers(change))
        rows += read(name, effect, few.effect(name, few.answers(change), drawn(few, change)))
        needs += by_need(name, effect)

    def of_class(some: Some) -> Callable:
        return lambda i, _: from_class(trace, some.names[some.labels[i]])

    lenders = {int(k): np.flatnonzero(np.asarray(study.test.labels) == k) for k in set(study.test.labels)}

    def of_partner(some: Some) -> Callable:
        def lender(i: int, _: int) -> Intervention:
            others = lenders.get(
                int(partner[some.labels[i]]), range(len(study.test.ids))
            )  # a trial may lack the class
            return from_clip(trace, study.test.ids[others[i % len(others)]])

        return lender

    for name, of in {
        "mean weights of the class": of_class,
        "weights of a clip of the partner class": of_partner,
    }.items():
        at_random = np.stack(
            [lent(few, lambda i, s, of=of: of(few)(i, s).random(100 * s + i), s) for s in range(3)]
        )
        rows += read(
            name, half.effect(name, lent(half, of(half))), few.effect(name, lent(few, of(few)), at_random)
        )
    return dict(changes=rows, by_need=needs), {}


def blocks(study: Study) -> tuple[dict, dict]:
    """Each dependency left out of each block; the same at random is any other one left out of that block."""
    rows = []
    kept = {}
    for b, d in study.blocks:
        others = np.stack([study.blocks[b, x] for x in DEPENDENCIES if x != d])
        effect = study.half.effect(f"without {d} in {b}", study.blocks[b, d], others)
        spare = ("change", "there", "draws", "n_random")  # the same in every row
        rows += [
            {"block": b, "dependency": d} | {k: v for k, v in row.items() if k not in spare}
            for row in read(effect.name, effect, effect)
        ]
        for reading in ("probability", "pair probability"):
            kept[reading, b, d] = -effect.changes(reading)[0]
    names = study.trace.blocks
    return dict(blocks=rows), {
        f"block_{reading.replace(' ', '_')}": np.stack(
            [np.stack([kept[reading, b, d] for d in DEPENDENCIES], 1) for b in names], 1
        )
        for reading in ("probability", "pair probability")
    }


def shares(study: Study) -> tuple[dict, dict]:
    """Shapley values by class, and what tells the effect."""
    test = study.test
    arrays = {}
    values = []
    told = []
    labels = np.asarray(test.labels)
    partner = partner_index(test.names, PAIRS)
    gradient = attribute(study.net, test.clips, "gradient x weight", test.labels, batch_size=25)
    for reading in ("probability", "pair probability"):
        read_as = {c: readings(y, test.labels, partner)[reading] for c, y in study.worth.items()}
        share = shapley_values(read_as)
        arrays[f"shapley_{reading.replace(' ', '_')}"] = np.stack([share[d] for d in DEPENDENCIES], 1)
        for d in DEPENDENCIES:
            values.append({"reading": reading, "class": "all", "dependency": d, **spread(share[d])})
            if reading == "probability":
                continue
            values += [
                {"reading": reading, "class": name, "dependency": d, **spread(share[d][labels == k])}
                for k, name in enumerate(test.names)
            ]
    for reading, place in [
        ("probability", "all"),
        *(("pair margin", b) for b in ("all", *study.trace.blocks)),
    ]:
        all_ = place == "all"
        some, trace, before = (
            (test, study.trace, study.worth[DEPENDENCIES])
            if all_
            else (study.half, study.half_trace, study.half.before)
        )
        picked = [test.indices.index(i) for i in some.indices]
        without = [
            study.worth[tuple(x for x in DEPENDENCIES if x != d)] if all_ else study.blocks[place, d]
            for d in DEPENDENCIES
        ]
        old, *new = (readings(y, some.labels, partner)[reading] for y in (before, *without))
        effect = Attribution(
            "ablation",
            np.stack([old - y for y in new], 1)[:, None],
            some.ids,
            [place],
            reading=reading,
            logits=before,
        )
        judged = [from_trace(trace), from_trace(trace, "contribution"), gradient.of_clips(picked)]
        table = rank_agreement(judged, effect, draws=200)
        told += [{"reading": reading, "place": place} | row for row in plain(table)]
    arrays["gradient_times_weight"] = gradient.values
    return dict(shapley=values, told=told), arrays


def probes(study: Study) -> tuple[dict, dict]:
    """Changes of the clip, for every fifth take."""
    few = study.clips_of("test", 5)
    rows = []
    needs = []
    partner = partner_index(study.test.names, PAIRS)
    answer = few.answers
    orders = np.stack([answer(shuffle(s)) for s in range(5)])
    tried = {"reversed": (answer(reverse()), orders)}
    for name, change in {
        "first frame frozen": freeze(0),
        "middle frame frozen": freeze(4),
        "last frame frozen": freeze(-1),
        "1 frame lost": drop_frames(3),
        "2 frames lost": drop_frames(3, 4),
        "4 frames lost": drop_frames(2, 3, 4, 5),
        "blur 1": blur(1.0),
        "blur 3": blur(3.0),
    }.items():
        tried[name] = (answer(change), drawn(few, change, 2))
    for name, several in {
        "shuffled": orders,
        **{
            f"{g}x{g} tiles shuffled": np.stack([answer(patch_shuffle(g, s)) for s in range(3)])
            for g in (2, 4)
        },
    }.items():
        tried[name] = (several, None)
    for name, (after, at_random) in tried.items():
        effects = [few.effect(name, one, at_random) for one in (after if at_random is None else [after])]
        if at_random is not None:
            rows += read(name, effects[0], effects[0])
        else:  # the probe is itself random: mean over draws clip by clip, range of the draws
            for reading in (*READINGS, "flips"):
                each = np.stack(
                    [e.flips()[0] if reading == "flips" else e.changes(reading)[0] for e in effects]
                ).astype(float)
                rows.append(
                    {
                        "change": name,
                        "reading": reading,
                        **spread(each.mean(0)),
                        "draws": len(each),
                        "draw_low": round(float(np.nanmean(each, 1).min()), 4),
                        "draw_high": round(float(np.nanmean(each, 1).max()), 4),
                    }
                )
        needs += by_need(name, effects[0])
    right = np.asarray(few.said) == np.asarray(few.labels)
    back = tried["reversed"][0].argmax(1) == partner[few.labels]
    timed = np.array([CLASSES[k].need in ("motion", "order") for k in few.labels])
    return dict(probes=rows, probes_by_need=needs, called_the_partner=spread(back[right & timed])), {}


def all_maps(
    net: nn.Module,
    clips: Tensor,
    classes: Sequence[int],
    layers: Sequence[str] = (*LAYERS, *INNER),
    score: str = "odds",
    batch: int = 20,
) -> dict[str, np.ndarray]:
    """Maps of every layer and method from one backward pass: "layer method score" -> [N,T,h,w]; activations
    too."""
    found = {}
    for start in range(0, len(clips), batch):
        with untouched(net):
            logits, kept = _kept(net, clips[start : start + batch], layers)
            targets = [ClipTarget(int(k), score=score) for k in classes[start : start + batch]]
            total = sum(target(y) for target, y in zip(targets, logits, strict=True))
            grads = torch.autograd.grad(total, [kept[name][0] for name in layers])
        for name, gradient in zip(layers, grads, strict=True):
            features = kept[name][1].numpy()
            gradient = gradient.numpy()
            maps = {
                f"{kind} {score}": getattr(pytorch_grad_cam, METHODS[kind]).get_cam_image(
                    _weigher(kind), None, None, None, features, gradient, False
                )
                for kind in KINDS
            }
            maps["activation"] = np.linalg.norm(features, axis=1)
            for kind, values in maps.items():
                found.setdefault(f"{name} {kind}", []).append(
                    values.reshape(len(logits), -1, *values.shape[1:])
                )
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _kept(
    net: nn.Module, clips: Tensor, layers: Sequence[str]
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Logits, and each layer's output: with its gradient's history, and as it was before anything worked on
    it in place."""
    kept = {}

    def keep_output(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            kept[name] = output, output.detach().clone()

        return hook

    handles = [find_layer(net, name).register_forward_hook(keep_output(name)) for name in layers]
    try:
        return net(clips.clone().requires_grad_()), kept
    finally:
        for handle in handles:
            handle.remove()


def _weigher(kind: str) -> Any:
    """An explainer of pytorch-grad-cam that only weighs: no network, no hooks."""
    cls = getattr(pytorch_grad_cam, METHODS[kind])
    made = cls.__new__(cls)
    made.activations_and_grads = SimpleNamespace(
        release=lambda: None
    )  # what it lets go of when it is deleted
    return made


def pointing(name: str, maps: np.ndarray, masks: dict[str, np.ndarray], **about: Any) -> list[dict[str, Any]]:
    """Pointing game and energy inside both masks; chance for both is the area."""
    rows = []
    for mask, where in masks.items():
        found = pointing_game(maps, where)
        rows.append(
            {"maps": name, **about, "mask": mask, "area": round(float(found.area.mean()), 4)}
            | {
                f"{column}{'' if k == 'mean' else ' ' + k}" if k != "n" else "n": v
                for column in ("point", "energy")
                for k, v in spread(found[column]).items()
            }
        )
    return rows


def choice(study: Study) -> tuple[dict, dict]:
    """The map to show. Among maps of a stage whose deletion and insertion are within chance of the best
    one's, that which points at the object furthest beyond the same map of a random network."""
    val = study.clips_of("val", 5)
    maps = {
        k: v for s in ("odds", "logit") for k, v in all_maps(val.net, val.clips, val.said, score=s).items()
    }
    blank = {
        k: v
        for s in ("odds", "logit")
        for k, v in all_maps(reinitialised(val.net), val.clips, val.said, score=s).items()
    }
    rows = []
    for name, values in maps.items():
        mine, theirs = (pointing_game(m, val.masks["object"]) for m in (values, blank[name]))
        rows.append(
            {
                "maps": name,
                "n": len(val.ids),
                "point": mine.point.mean(),
                "energy": mine.energy.mean(),
                "random point": theirs.point.mean(),
                "random energy": theirs.energy.mean(),
                "area": mine.area.mean(),
            }
        )
    tested = [f"{layer} {kind} odds" for layer in LAYERS for kind in ("gradcam", "layercam")]
    tested += [
        "layer3 gradcam++ odds",
        "layer3 layercam logit",
        USUAL,
        "layer3 activation",
        "layer3.0.conv2 layercam odds",
    ]
    half = val.every(2)
    picked = [val.indices.index(i) for i in half.indices]
    areas = curve_areas(
        deletion_insertion(val.net, half.clips, {k: maps[k][picked] for k in tested}, steps=3, draws=2)
    )
    table = pd.DataFrame(rows).set_index("maps").round(4)
    able = [k for k in tested if k.split(" ")[0] in LAYERS and k.split(" ")[1] in KINDS]
    best = areas.loc[able, "beyond random"].idxmax()
    near = [k for k in able if areas.loc[k, "beyond random"] >= areas.loc[best, "low"]]
    chosen = max(near, key=lambda k: table.loc[k, "point"] - table.loc[k, "random point"])
    return dict(
        choice=plain(table), choice_areas=plain(areas.rename_axis("maps")), near=near, chosen=chosen
    ), {}


def maps(study: Study, chosen: str) -> tuple[dict, dict]:
    """Where maps point, for every third take, and where their controls do."""
    some = study.clips_of("test", 3)
    rows = []
    second = some.before.copy()
    second[np.arange(len(second)), some.said] = -np.inf
    tsn = load_model(TSN)
    sets = {
        "trained": (some.net, some.said, "odds", (*LAYERS, *INNER)),
        "trained, logit": (some.net, some.said, "logit", LAYERS),
        "random weights": (reinitialised(some.net), some.said, "odds", (*LAYERS, *INNER)),
        "random weights, logit": (reinitialised(some.net), some.said, "logit", ("layer3", "layer4")),
        "another class": (
            some.net,
            second.argmax(1).tolist(),
            "odds",
            ("layer3", "layer4", "layer3.0.conv2"),
        ),
        "TSN": (tsn, logits_of(tsn, some.clips, batch_size=25).argmax(1).tolist(), "odds", LAYERS),
    }
    for who, (net, classes, score, layers) in sets.items():
        for name, values in all_maps(net, some.clips, classes, layers, score).items():
            who = who.removesuffix(", logit")
            if not name.endswith("activation") or score == "odds":
                rows += pointing(name, values, some.masks, network=who)
            if who == "trained" and name in (chosen, USUAL):
                rows += pointing(name, other_clips(values, some.said), some.masks, network="another clip")
    rows += pointing("centre", centre_prior((len(some.ids), 8, 16, 16)), some.masks, network="none")
    moved = (some.clips - some.clips.roll(1, 1)).abs().mean(2).numpy()
    moved[:, 0] = 0
    rows += pointing("change of frames", moved, some.masks, network="none")
    needs = np.array([CLASSES[k].need for k in some.labels])
    mine = all_maps(some.net, some.clips, some.said, [chosen.split(" ")[0]], chosen.split(" ")[-1])[chosen]
    by = [
        row | {"need": need}
        for need in dict.fromkeys(needs.tolist())
        for row in pointing(chosen, mine[needs == need], {k: m[needs == need] for k, m in some.masks.items()})
    ]
    return dict(pointing=rows, pointing_by_need=by), {}


def _chosen_and_controls(some: Some, chosen: str) -> dict[str, np.ndarray]:
    """The chosen map, the usual one, one inside a block, one without a class, and two that know nothing of
    this clip."""
    odds = all_maps(some.net, some.clips, some.said)
    usual = all_maps(some.net, some.clips, some.said, ["layer4"], "logit")[USUAL]
    layer, kind, score = chosen.split(" ")
    mine = all_maps(some.net, some.clips, some.said, [layer], score)[chosen]
    blank = all_maps(reinitialised(some.net), some.clips, some.said, [layer], score)[chosen]
    return {
        chosen: mine,
        "layer3.0.conv2 layercam odds": odds["layer3.0.conv2 layercam odds"],
        USUAL: usual,
        f"{layer} activation": odds[f"{layer} activation"],
        "another clip": other_clips(mine, some.said),
        "random weights": blank,
    }


def curves(study: Study, chosen: str) -> tuple[dict, dict]:
    """Deletion and insertion for every tenth take."""
    some = study.clips_of("test", 10)
    maps = _chosen_and_controls(some, chosen)
    space = deletion_insertion(some.net, some.clips, maps, steps=5, draws=2)
    frames = deletion_insertion(
        some.net, some.clips, {k: maps[k] for k in (chosen, USUAL)}, over="frames", steps=4, draws=3
    )
    kept = {}
    for over, found in {"space": space, "frames": frames}.items():
        means = found.groupby(["curve", "order", "draw", "share"], sort=False).probability.mean()
        kept[f"curves_{over}"] = plain(means.round(4).rename("probability").to_frame())
        kept[f"areas_{over}"] = plain(curve_areas(found).rename_axis("maps"))
    return kept, {}


def scrambled(study: Study, chosen: str) -> tuple[dict, dict]:
    """Rank correlation of maps with those of a network that is random from the top down."""
    some = study.clips_of("test", 10)
    found = {}
    names = (
        chosen,
        "layer3.0.conv2 layercam odds",
        "layer4 gradcam odds",
        f"{chosen.split(' ')[0]} activation",
    )
    whole = all_maps(some.net, some.clips, some.said)
    for part, net in cascading(some.net):
        now = all_maps(net, some.clips, some.said)
        for name in names:
            found[name, part] = map_agreement(whole[name], now[name])
    return dict(
        scrambled=[
            {"maps": name, "random from": part, **spread(values)} for (name, part), values in found.items()
        ]
    ), {}


def occlusion(study: Study, chosen: str) -> tuple[dict, dict]:
    """The gradient-free map, and the chosen one on the same clips."""
    some = study.clips_of("test", 25)  # one clip of every class
    layer, kind, score = chosen.split(" ")
    rows = []
    for name, how in {
        "occlusion": dict(method="occlusion"),
        chosen: dict(layer=layer, method=kind, score=score),
    }.items():
        values = np.stack([c.maps for c in clip_cams(some.net, some.clips, some.said, **how)])
        rows += pointing(name, values, some.masks)
    return dict(occlusion=rows), {}


PARTS = dict(
    choice=choice,
    coalitions=removals,
    blocks=blocks,
    shares=shares,
    weights=weights,
    probes=probes,
    maps=maps,
    curves=curves,
    scrambled=scrambled,
    occlusion=occlusion,
)


def save(parts: dict[str, dict], arrays: dict[str, np.ndarray], out: Path) -> None:
    """Record and arrays so far; a record that stops half-way names the parts it has."""
    part = out / ".looking.npz"
    with open(part, "wb") as file:
        np.savez_compressed(file, **{k: v.astype(np.float16) for k, v in arrays.items()})
    os.replace(part, out / "looking.npz")
    save_record(
        new_record(
            "benchmark",
            model="sda_tsn_tiny",
            name="looking",
            checkpoint=MODEL.name,
            dataset="moves",
            split="test",
            device="cpu",
            metrics={},
            threads=torch.get_num_threads(),
            parts=parts,
        ),
        out / "looking.json",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--again", action="store_true", help="also parts that the record has already")
    parser.add_argument("--list", action="store_true", help="only tell what the record has")
    parser.add_argument("--data", type=Path, default=Path("sets/moves"), help="Moves, made when missing")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--thin", type=int, default=1, help="for a trial: one in so many of the clips")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "results", help="folder of the record")
    options = parser.parse_args()
    if options.thin > 1 and options.out == ROOT / "data" / "results":
        parser.error("a trial needs an --out of its own")
    options.out.mkdir(parents=True, exist_ok=True)
    record, stored = (options.out / f"looking.{kind}" for kind in ("json", "npz"))
    parts = json.loads(record.read_text())["parts"] if record.exists() else {}
    arrays = dict(np.load(stored)) if stored.exists() else {}
    if options.list:
        for name in PARTS:
            said = f"cpu seconds: {parts[name]['cpu_seconds']}" if name in parts else "missing"
            print(f"{name:10} {said}")
        return
    torch.set_num_threads(options.threads)
    study = Study(options.data, options.thin)
    for name in options.part:
        if name in parts and not options.again:
            continue
        start = time.process_time()
        later = list(PARTS).index(name) > list(PARTS).index("probes")  # these test what `choice` chose
        found, kept = PARTS[name](study, parts["choice"]["chosen"]) if later else PARTS[name](study)
        parts[name] = {"cpu_seconds": round(time.process_time() - start, 1)} | columns(found)
        arrays |= kept
        save(parts, arrays, options.out)


if __name__ == "__main__":
    main()
