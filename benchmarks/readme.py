"""Write what README.md says in numbers from the records: python benchmarks/readme.py"""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from sda.foundation.runs import load_records
from sda.networks.blocks import DEPENDENCIES
from sda.studies.accuracy import SeedRun, by_seed, gain_over_seeds, in_words, load_runs
from sda.studies.summary import load_summary
from sda.testing.results import accuracy_table, percent_table, to_markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
BEGIN = "<!-- {} table: written by benchmarks/readme.py from data/results -->\n"
END = "<!-- end -->"
FOUR = {"tsn": "TSN", "sda_tsn": "SDA-TSN", "tsm": "TSM", "sda_tsm": "SDA-TSM"}  # run of the evidence -> name
FINDINGS = """\
1. **Time, for a network of single frames.** SDA lifts TSN from {tsn:.1f} to {sda_tsn:.1f} % top-1, by
   {motion:.0f} points for motion and {order:.0f} for order, and costs {static:.0f} points of texture.
   Over TSM, which sees time by itself, it adds {tsm}, and {long_tsm} when nothing is shortened
   (2,000 test clips). [Accuracy](nbs/evidence/80_accuracy.ipynb)

2. **The four responses help; a gain of choosing between them is not shown.** Selecting minus averaging
   the four is {select}, three seeds, and {long_select} when nothing is shortened.
   Alone, each adds to TSN: {alone} points (three seeds). [Ablation](nbs/evidence/81_ablation.ipynb)

3. **Attention weights do not tell what a video needs.** The largest weight, averaged over blocks, names a
   dependency that can encode the cue (as networks with one dependency alone measure it) in {weight} %
   of the clips; chance level is {chance:.0f} %. The best of eight explanations averaged over blocks, {best},
   reaches {hit} %; always answering {always} reaches {constant} %.
   [Which explanation names the right dependency?](nbs/evidence/83_ground_truth.ipynb)
   Gates in place of the softmax do not tell it either, but leave {opened:.1f} of 16 open in SDA-TSN ({gated}
   networks), and what is closed has exactly no effect; they cost {cost} points ({settled} networks)
   against a query in the same two steps.
   [Selections that can be believed](nbs/evidence/86_faithful_selection.ipynb)
"""
NAMES = {"Shapley, within pairs": "Shapley values of the margin within a pair of classes"}  # of explanations


def table() -> str:
    """The accuracies of the networks that ship, as markdown."""
    rows = accuracy_table(load_records(RESULTS, kind="test"))
    rows = rows[(rows["dataset"] == "moves") & (rows["split"] == "test")]
    return to_markdown(percent_table(rows)) + "\n"


def evidence() -> str:
    """Top-1 of four networks over seeds, all and by cue, as markdown."""
    runs = load_runs(RESULTS / "evidence")
    rows = {FOUR[stem]: by_seed(runs[stem]).apply(in_words) for stem in FOUR}
    table = pd.DataFrame(rows).T.rename_axis("network").reset_index()
    return to_markdown(table.assign(seeds=[len(runs[stem]) for stem in FOUR])) + "\n"


def points(first: Sequence[SeedRun], second: Sequence[SeedRun]) -> str:
    """Second minus first, paired by seed: "+2.1 points [-1.2, +5.4]"."""
    gain = gain_over_seeds(first, second)
    low, high = 100 * gain["low"], 100 * gain["high"]
    return f"{100 * gain['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"


def gates() -> tuple[list[float], list[float]]:
    """What every SDA-TSN with gates opens; by how much a settled control is ahead, where there is one."""
    seeds = RESULTS / "selection" / "seeds"
    said = {r["run"]: r["metrics"] for r in load_records(seeds) if r["run"].startswith("sda_tsn-")}
    gated = {name: metrics for name, metrics in said.items() if "-gated-" in name}
    opened = [metrics["rescaled"]["silence"]["open of a clip"] for metrics in gated.values()]
    controls = {name: said.get(name.replace("-gated-", "-settled-")) for name in gated}
    pairs = [(gated[name], control) for name, control in controls.items() if control]
    return opened, [control["top1_more"] - own["top1_more"] for own, control in pairs]


def findings() -> str:
    """The three findings, their numbers filled in."""
    found = load_summary()
    accuracy = {
        stem: {cue: 100 * np.array(v) for cue, v in d.items()} for stem, d in found["accuracy"].items()
    }
    mean = {stem: values["all"].mean() for stem, values in accuracy.items()}
    by_cue = {
        cue: abs((accuracy["sda_tsn"][cue] - accuracy["tsn"][cue]).mean())
        for cue in ("static", "motion", "order")
    }
    scores = found["scores"]["measured"]
    hits = {k: v["hit"] for k, v in scores["explanations"].items() if "last block" not in k}
    best = max(hits, key=lambda name: np.mean(hits[name]))
    opened, cost = gates()
    runs, more = load_runs(RESULTS / "evidence"), load_runs(RESULTS / "evidence" / "more")
    told = FINDINGS.format(
        **{stem: mean[stem] for stem in ("tsn", "sda_tsn")},
        **by_cue,
        tsm=points(runs["tsm"], runs["sda_tsm"]),
        long_tsm=points(more["whole_tsm"], more["whole_sda_tsm"]),
        select=points(runs["averaged"], runs["sda_tsn"]),
        long_select=points(more["whole_averaged"], more["whole_sda_tsn"]),
        alone=", ".join(f"{d} {mean[f'only_{d}'] - mean['tsn']:.0f}" for d in DEPENDENCIES),
        weight=in_words(hits["weight"]),
        chance=100 * np.mean(scores["chance"]["hit"]),
        best=NAMES.get(best, best),
        hit=in_words(hits[best]),
        always=" or ".join(scores["its dependency"]),
        constant=in_words(scores["constant answer"]["hit"]),
        opened=np.mean(opened),
        gated=len(opened),
        cost=in_words(cost),
        settled=len(cost),
    )
    fold = partial(textwrap.fill, width=118, subsequent_indent="   ", break_on_hyphens=False)
    return "".join(fold(" ".join(one.split())) + "\n" for one in told.split("\n\n"))


TABLES = {"moves": table, "evidence": evidence, "findings": findings}


def text(readme: str) -> str:
    """README.md with every table as the records have it now."""
    for name, rows in TABLES.items():
        before, mark, rest = readme.partition(BEGIN.format(name))
        if not mark:
            raise ValueError(f"README.md has no mark {BEGIN.format(name).strip()!r}")
        readme = before + mark + rows() + END + rest.partition(END)[2]
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(text(path.read_text(encoding="utf-8")), encoding="utf-8")
