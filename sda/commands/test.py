"""`sda test`: scores of networks on a split, alone and as an ensemble, and what else is asked of them."""

import contextlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ..data.annotations import read_diving48_vocabulary
from ..data.sampling import Sampling
from ..foundation.devices import device_of, precision_of
from ..foundation.errors import SdaError
from ..foundation.files import file_words, lock
from ..foundation.runs import new_record, record_name, save_record
from ..networks.backbones import VideoNet
from ..networks.checkpoints import read_card
from ..testing.compare import actions, check_kinds, compare, ensemble
from ..testing.evaluate import evaluate, protocol
from ..testing.predictions import Predictions, by_attribute, describe, save_tables, summary
from ..training.config import TrainConfig
from ..training.step import make_accelerator
from .options import CommandLineError, ComputeCommand, first_process, open_clips


@dataclass
class Scored:
    """A network's scores, and how they came about."""

    net: VideoNet  # network with its card
    found: Predictions  # logits per view
    sampling: Sampling  # frames
    protocol: str  # name of crops and clips
    source: str = ""  # dataset and release of the clips, e.g. "Diving48 V2 (by file name)"
    parts: Path | None = None  # folder of the clips tested so far, kept until everything is written
    file: str = ""  # its scores, named like its record


class Questions(NamedTuple):
    """What is asked of the scores besides accuracy; read before anything is tested or written."""

    compare: Predictions | None = None  # of another run on the same clips
    name: str = ""  # of that run's file
    nouns: Predictions | None = None  # of the noun run
    attributes: dict[str, dict[str, str]] | None = None  # of Diving48's classes


class Answers(NamedTuple):
    """What was found, for people and for the record."""

    lines: list[str]  # to print
    metrics: dict[str, Any]  # further ones
    compared: dict[str, Any]  # with the other run


@dataclass
class Test(ComputeCommand):
    """Test a trained network on a split of a dataset; several networks are tested each and as an ensemble.

    Started by torchrun, several processes share the clips.
    """

    # model files, e.g. runs/demo/sda_tsn_tiny/model.safetensors, or names of networks that ship
    models: tuple[Path, ...]
    data: Path = Path("sets/moves")  # dataset folder: category.txt, img/, trainValTest/
    split: str = "test"  # name of a list in trainValTest/
    # crops by name: 3x256to224, or 3x72to64 for a network of 64 pixels (default: one centre crop)
    views: str = ""
    clips: int = 0  # clips per video, e.g. 2 (0: as the model file says)
    # what is averaged over views; both: report both
    average: Literal["logits", "probabilities", "both"] = "logits"
    weights: tuple[float, ...] = ()  # of the networks in an ensemble, e.g. 1 2 (default: equal)
    # logits (.npz) of another run on the same clips: difference, interval, McNemar's test
    compare: Path | None = None
    nouns: Path | None = None  # EPIC-KITCHENS: logits (.npz) of the noun run; the network here is of verbs
    # Diving48: Diving48_vocab.json; also accuracy by take-off, somersault, twist, position
    attributes: Path | None = None
    other_classes: bool = False  # accept a network whose class names are not those of the dataset
    # folder for record, logits and tables (one line per clip too); an interrupted test goes on from there
    out: Path | None = None
    batch_size: int = 32  # views at a time
    num_workers: int = 0  # processes that read clips (0: this process)
    # decode each clip once into DATA/cache; auto: when they are small
    cache: Literal["auto", "yes", "no"] = "no"

    def run(self) -> None:
        """Load, test, tell, and write what was asked for."""
        asked = self.examine()
        accelerator = make_accelerator(TrainConfig(device=self.device))
        several: list[Scored] = []
        alone = lock(self.out, "testing") if self.out and first_process() else contextlib.nullcontext()
        with alone:
            for path in self.models:
                several.append(score_model(path, self, accelerator.device, [s.parts for s in several]))
            if first_process():
                self.tell(several, asked)
                for one in several:
                    if one.parts:
                        shutil.rmtree(one.parts)
        if accelerator.num_processes > 1:
            accelerator.end_training()

    def tell(
        self,
        several: list[Scored],  # the networks, in the order of the command
        asked: Questions,  # of the last one, or of the ensemble
    ) -> None:
        """Print each network, the ensemble, and what else was asked for; write the records."""
        averages = ("logits", "probabilities") if self.average == "both" else (self.average,)
        groups = [[one] for one in several]
        if len(several) > 1:
            groups.append(several)
        for group in groups:
            found = {a: averaged(group, self.weights if len(group) > 1 else (), a) for a in averages}
            record = record_of(group, found, self)
            for average, scores in found.items():
                title = f"{record['model']} ({record['protocol'].split(';')[0]}, {average} averaged)"
                clips = f"{len(scores)} clips of {self.data.name}/{self.split}"
                if record["source"]:
                    clips += f", {record['source']}"
                print(*describe(scores, f"{title} on {clips}"), sep="\n")
            refused = None
            if group is groups[-1]:
                try:
                    answers = further_answers(found[averages[0]], asked)
                except SdaError as err:  # what was tested is kept all the same
                    refused = err
                else:
                    print(*answers.lines, sep="\n", end="\n" if answers.lines else "")
                    record["metrics"] |= answers.metrics
                    if answers.compared:
                        record["compared"] = {"with": asked.name} | answers.compared
                    record |= {"nouns": self.nouns.name} if self.nouns else {}
            if self.out:
                print(f"record in {keep(self.out, group, found[averages[0]], record)}")
            if refused:
                raise refused

    def examine(self) -> Questions:
        """Say what can be wrong before the first clip is read; read other scores before any are written."""
        if not self.models:
            raise CommandLineError("name at least one model file: sda test runs/mine/model.safetensors")
        if self.weights and len(self.weights) != len(self.models):
            raise CommandLineError(
                f"{len(self.weights)} weights for {len(self.models)} networks: give one each, or none"
            )
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf):
            raise CommandLineError("weights must not be negative, and one must be positive")
        if self.batch_size < 1:
            raise CommandLineError(f"--batch-size cannot be {self.batch_size}: give at least 1")
        for file in (self.compare, self.nouns, self.attributes):
            if file and not file.is_file():
                raise CommandLineError(f"there is no file {file}")
        before, nouns = (Predictions.load(f) if f else None for f in (self.compare, self.nouns))
        if nouns:
            check_kinds(read_card(self.models[-1]).class_names, nouns.class_names)
        groups = read_diving48_vocabulary(self.attributes)[1] if self.attributes else None
        return Questions(before, self.compare.name if self.compare else "", nouns, groups)


def score_model(
    path: Path,  # model file; its card says how clips are sampled and cropped
    options: Test,  # clips, views and folder
    device: torch.device,  # where to compute
    taken: Sequence[Path | None] = (),  # folders of parts that networks before this one have
) -> Scored:
    """Test one model file as the options say; with a folder it goes on where it was stopped."""
    net = options.load(path, device)
    first = first_process()
    sampling, crops, name = protocol(net.card, options.views, options.clips)
    data = open_clips(
        options.data, options.split, sampling, crops, options.cache, first and not options.quiet
    )
    words = [net.name, options.split, options.views]
    if options.clips > 1:
        words.append(f"{options.clips}clips")
    stem = file_words(*words)
    parts = options.out / f".{stem}-parts" if options.out else None
    if parts and parts in taken:
        parts = parts.with_name(f".{stem}-{len(taken) + 1}-parts")
    found = evaluate(
        net, data, options.batch_size, not options.quiet, options.num_workers, options.other_classes, parts
    )
    return Scored(net, found, sampling, name, data.source, parts)


def keep(
    folder: Path,  # locked
    group: Sequence[Scored],  # one network, or those of an ensemble
    found: Predictions,  # their views averaged
    record: dict[str, Any],  # of the test; it gets the names of the files of scores
) -> Path:  # the record
    """Write scores, tables and record under the one name of the record, which no other test has."""
    name = record_name(record).removesuffix(".json")
    alone = len(group) == 1
    scores = (group[0].found if alone else found).save(folder / f"{name}.npz")
    if alone:
        group[0].file = scores.name
    record |= {"scores": scores.name, "logits": [one.file for one in group]}
    save_tables(found, folder / name)
    return save_record(record, folder / f"{name}.json")


def averaged(
    several: Sequence[Scored],  # one network or more, on the same clips
    weights: Sequence[float],  # of the networks; none for equal ones
    average: str,  # over views: "logits" or "probabilities"
) -> Predictions:
    """Views averaged, then several networks' probabilities averaged by clip."""
    each = [ensemble([one.found], average=average) for one in several]
    return each[0] if len(each) == 1 else ensemble(each, list(weights) or None)


def record_of(
    several: Sequence[Scored],  # one network, or those of an ensemble
    found: dict[str, Predictions],  # average over views -> scores; the first one's accuracy is the record's
    options: Test,  # how they were tested
) -> dict[str, Any]:
    """The record of one network, or of an ensemble, from its scores by average."""
    average = next(iter(found))
    alone = several[0] if len(several) == 1 else None

    def each(values: list[Any]) -> Any:
        return values[0] if alone else " + ".join(map(str, values))

    recipes = [one.net.card.recipe for one in several]

    def common(values: list[Any]) -> Any:
        return values[0] if values.count(values[0]) == len(values) else each(values)

    name = " + ".join(dict.fromkeys(one.protocol for one in several))
    if average != "logits":
        name += f"; {average} averaged"
    both = {a: {"top1": p.accuracy(), "top5": p.accuracy(5)} for a, p in found.items()}
    return new_record(
        "test",
        model=each([one.net.name for one in several]),
        options=alone.net.options if alone else {},
        recipe=each([r.get("recipe") for r in recipes]),
        seed=recipes[0].get("seed") if alone else None,
        config={k: common([r.get(k) for r in recipes]) for k in recipes[0]},
        dataset=options.data.resolve().name,
        source=several[0].source,
        split=options.split,
        protocol=name,
        views=options.views or "centre",
        device=device_of(several[0].net).type,
        precision=common([precision_of(one.net) for one in several]),
        metrics=summary(found[average]) | {"averages": both},
        sampling=[asdict(one.sampling) for one in several],
        weights=list(options.weights),
    )


def further_answers(
    found: Predictions,  # scores of the last network, or of the ensemble
    asked: Questions,  # and the scores to compare or join with
) -> Answers:  # empty where nothing was asked
    """What was asked of the scores besides accuracy."""
    lines = []
    metrics: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    tables = []
    if asked.compare:
        c = compared = compare(asked.compare, found)
        lines += [
            f"against {asked.name}: {c['first']:.3f} there, {c['second']:.3f} here, difference "
            f"{c['difference']:+.3f} (95 % interval {c['low']:+.3f} to {c['high']:+.3f})",
            f"  right only there {c['only_first']}, only here {c['only_second']}; McNemar p = {c['p']:.2g}",
        ]
    if asked.nouns:
        table = actions(found, asked.nouns)
        for row in table.to_dict("records"):
            if row["what"] != "verb":  # the verb's are the record's own
                metrics |= {f"{row['what']}_{k}": float(row[k]) for k in ("top1", "top5")}
        tables.append(table)
    if asked.attributes:
        tables.append(by_attribute(found, asked.attributes))
    lines += [table.to_string(index=False, float_format="%.3f") for table in tables]
    return Answers(lines, metrics, compared)
