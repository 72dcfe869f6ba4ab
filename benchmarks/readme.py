"""Write the tables and the pictures of README.md from the records in data/results: python
benchmarks/readme.py"""

from pathlib import Path

import pandas as pd
import torch

from sda.data.sampling import Sampling
from sda.data.video import open_video
from sda.explaining.trace import trace_clips
from sda.figures.clips import draw_frame
from sda.figures.style import COLOURS, FONT, HeatTable, draw_heat, new_figure, to_png
from sda.foundation.runs import load_records
from sda.networks.checkpoints import load_model
from sda.studies.accuracy import by_seed, in_words, load_runs
from sda.studies.selection import fig_selection_over_seeds
from sda.testing.results import accuracy_table, choose_table, load_published, percent_table, to_markdown

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "sda" / "assets"
SHOWN = "sda_tsn_moves_fast_query"  # the network whose selection is drawn
CLIP = ASSETS / "moves_sample/img/test_0000_rightward.mp4"
BEGIN = "<!-- {} table: written by benchmarks/readme.py from data/results -->\n"
END = "<!-- end -->"
FOUR = {"tsn": "TSN", "sda_tsn": "SDA-TSN", "tsm": "TSM", "sda_tsm": "SDA-TSM"}  # run of the evidence -> name


def table() -> str:
    """The accuracies of the networks that ship, as markdown."""
    rows = accuracy_table(load_records(ROOT / "data" / "results", kind="test"))
    rows = rows[(rows["dataset"] == "moves") & (rows["split"] == "test")]
    return to_markdown(percent_table(rows)) + "\n"


def evidence() -> str:
    """Top-1 of four networks over seeds, all and by need, as markdown."""
    runs = load_runs(ROOT / "data" / "results" / "evidence")
    rows = {FOUR[stem]: by_seed(runs[stem]).apply(in_words) for stem in FOUR}
    table = pd.DataFrame(rows).T.rename_axis("network").reset_index()
    return to_markdown(table.assign(seeds=[len(runs[stem]) for stem in FOUR])) + "\n"


def published() -> str:
    """All rows of the paper's tables beside ours, as markdown."""
    both = choose_table(
        load_records(ROOT / "data" / "results", "test"), load_published(ASSETS / "published.csv")
    )
    return to_markdown(both.drop(columns=["commit", "machine", "note"])) + "\n"


TABLES = {"moves": table, "evidence": evidence, "published": published}


def text(readme: str) -> str:
    """README.md with every table as the records have it now."""
    for name, rows in TABLES.items():
        before, mark, rest = readme.partition(BEGIN.format(name))
        if not mark:
            raise ValueError(f"README.md has no mark {BEGIN.format(name).strip()!r}")
        readme = before + mark + rows() + END + rest.partition(END)[2]
    return readme


def effects() -> dict[str, float]:
    """Accuracy between twins with the selection as it is and without each dependency, from the record."""
    [record] = [
        r
        for r in load_records(ROOT / "data" / "results", kind="test")
        if r["file"].startswith(f"{SHOWN}-test")
    ]
    return {
        row["selection"]: row["between twins"] for row in record["knock_outs"] if row["selection"] != "chance"
    }


def picture():
    """A clip, its selection, and what removing a dependency costs."""
    model = load_model(ASSETS / "checkpoints" / f"{SHOWN}.safetensors")
    video = open_video(CLIP)
    indices = Sampling.from_dict(model.card.sampling).indices(len(video))[0]
    trace = trace_clips(model, [CLIP])
    figure = new_figure(11, 4.6)
    above, below = figure.subfigures(2, 1, height_ratios=[1, 2.2])
    above.suptitle("moving something from left to right", fontsize=FONT + 1)
    for axes, image, i in zip(above.subplots(1, 8), video.frames(indices).numpy(), indices, strict=True):
        draw_frame(axes, image, f"{video.timestamps[i]:.1f} s")
    left, right = below.subplots(1, 2)
    draw_heat(left, HeatTable(trace.weights[0]), trace.blocks)
    left.set_title("what it selected for this clip", fontsize=FONT + 1, pad=22)
    found = effects()
    colours = [COLOURS.get(name.removeprefix("without "), "#666666") for name in found]
    bars = right.barh(list(found), list(found.values()), color=colours)
    right.bar_label(bars, [f"{v:.2f}" for v in found.values()], padding=3, fontsize=FONT)
    right.axvline(0.5, color="grey", linestyle="--", linewidth=1)
    right.invert_yaxis()
    right.set(xlim=(0, 1.1), xlabel="accuracy between twin classes (dashed: chance)")
    right.set_title("what happens without it (500 test clips)", fontsize=FONT + 1)
    right.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    (ROOT / "data" / "figures").mkdir(exist_ok=True)
    (ROOT / "data" / "figures/tour.png").write_bytes(to_png(picture(), dpi=100))
    asked = [run for run in load_runs(ROOT / "data" / "results" / "evidence")["sda_tsn"] if run.explained]
    (ROOT / "data" / "figures/evidence.png").write_bytes(to_png(fig_selection_over_seeds(asked), dpi=90))
    path = ROOT / "README.md"
    path.write_text(text(path.read_text(encoding="utf-8")), encoding="utf-8")
