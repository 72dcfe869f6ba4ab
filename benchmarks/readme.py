"""Write what README.md says in numbers from the records: python benchmarks/readme.py"""

from pathlib import Path

import numpy as np
import pandas as pd

from sda.foundation.runs import load_records
from sda.foundation.statistics import t_interval
from sda.networks.blocks import DEPENDENCIES
from sda.studies.accuracy import by_seed, in_words, load_runs
from sda.studies.summary import load_summary
from sda.testing.results import accuracy_table, percent_table, to_markdown

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- {} table: written by benchmarks/readme.py from data/results -->\n"
END = "<!-- end -->"
FOUR = {"tsn": "TSN", "sda_tsn": "SDA-TSN", "tsm": "TSM", "sda_tsm": "SDA-TSM"}  # run of the evidence -> name
FINDINGS = """\
1. **Time, for a network of single frames.** SDA lifts TSN from {tsn:.1f} to {sda_tsn:.1f} % top-1, by
   {motion:.0f} points for motion and {order:.0f} for order, and costs {static:.0f} points of texture.
   Over TSM, which sees time by itself, it adds {gain:+.1f} points [{low:+.1f}, {high:+.1f}]: compatible with
   the three points that the paper reports, and with none. [Accuracy](nbs/evidence/80_accuracy.ipynb)
2. **The four responses help; choosing between them does not, here.** Trained with the plain mean of the
   four, the network reaches {averaged:.1f} % (three seeds), with the selection {sda_tsn:.1f}.
   Alone, each adds to TSN: {alone} points (three seeds). [Ablation](nbs/evidence/81_ablation.ipynb)
3. **Attention weights do not tell what a video needs.** The largest weight, averaged over blocks, names a
   dependency that can encode the cue (as networks with one dependency alone measure it) in {weight:.0f} % of
   the clips; chance level is {chance:.0f} %.
   The best of eight explanations, {best},
   reaches {hit:.0f} %; always answering S122 reaches {constant:.0f} %.
   [Which explanation finds the truth](nbs/evidence/83_ground_truth.ipynb)
"""
NAMES = {"Shapley, within pairs": "Shapley values of the margin within a pair of classes"}  # of explanations


def table() -> str:
    """The accuracies of the networks that ship, as markdown."""
    rows = accuracy_table(load_records(ROOT / "data" / "results", kind="test"))
    rows = rows[(rows["dataset"] == "moves") & (rows["split"] == "test")]
    return to_markdown(percent_table(rows)) + "\n"


def evidence() -> str:
    """Top-1 of four networks over seeds, all and by cue, as markdown."""
    runs = load_runs(ROOT / "data" / "results" / "evidence")
    rows = {FOUR[stem]: by_seed(runs[stem]).apply(in_words) for stem in FOUR}
    table = pd.DataFrame(rows).T.rename_axis("network").reset_index()
    return to_markdown(table.assign(seeds=[len(runs[stem]) for stem in FOUR])) + "\n"


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
    gain, low, high = t_interval(accuracy["sda_tsm"]["all"] - accuracy["tsm"]["all"])
    scores = found["scores"]["measured"]
    whole = {k: np.mean(v["hit"]) for k, v in scores["explanations"].items() if "last block" not in k}
    best = max(whole, key=lambda name: whole[name])
    return FINDINGS.format(
        **{stem: mean[stem] for stem in ("tsn", "sda_tsn", "averaged")},
        **by_cue,
        gain=gain,
        low=low,
        high=high,
        alone=", ".join(f"{d} {mean[f'only_{d}'] - mean['tsn']:.0f}" for d in DEPENDENCIES),
        weight=100 * whole["weight"],
        chance=100 * scores["chance"]["hit"],
        best=NAMES.get(best, best),
        hit=100 * whole[best],
        constant=100 * scores["always S122 > LS > LT > LST"]["hit"],
    )


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
