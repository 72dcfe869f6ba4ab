"""What the selection of a clip is worth to its network, beside selections that have not seen the clip.

    python benchmarks/selection_controls.py [--data sets/moves] [--more sets/moves-more-test] [--runs runs]
        [--networks sda_tsn sda_tsm] [--kinds gated query] [--count 80] [--threads 1]

Asks every network that `benchmarks/selection_seeds.py` left in the folder of runs, and the gated one that
ships, on the test split. *Accuracy* of 2,000 clips: with the own selection, with that of another clip, with
the mean of training clips, and with the gates alone that most of them open, as a network pruned once and
for all would have them. *Sufficiency* of the first clips, as many of each class: the 1, 2, 3 or 6 largest
weights alone, as many at random, and as many of the open ones at random. Records and the right answers go to
data/results/selection/controls; what has a record is skipped.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import selection_search as search
import torch
from selection_seeds import RESULTS as SEEDS
from selection_seeds import SHIPPED

from sda.data.datasets import labels_of
from sda.explaining.answers import load_clips
from sda.explaining.faithful_selection import another_clip, left_out, rescale_gates, sufficiency, with_weights
from sda.explaining.trace import trace_clips
from sda.foundation.runs import new_record, save_record
from sda.moves.assembly import make_moves
from sda.networks.checkpoints import load_model

RESULTS = search.RESULTS / "controls"
TYPICAL = 400  # training clips whose mean selection is taken
COUNTS = (1, 2, 3, 6)  # cells of a clip that stay


def selections(model: Any, clips: Any, typical: Any) -> dict[str, np.ndarray]:
    """The weights [N, R, M] under which the clips are answered: their own, and others."""
    own = trace_clips(model, clips).weights
    some = trace_clips(model, typical).weights
    opened = some > 0
    mean = some.mean(0)
    wide = some.sum(0) / np.maximum(opened.sum(0), 1)
    another = another_clip(len(own), np.random.default_rng(0))
    told = {"own": own, "another clip's": own[another], "mean": mean}
    if not opened.all():
        told["open in most clips"] = np.where(opened.mean(0) > 0.5, wide, 0)
    return {name: np.broadcast_to(weights, own.shape) for name, weights in told.items()}


def perform(label: str, path: Path, data: search.Data, count: int) -> None:
    """Ask one network, and leave a record."""
    model = load_model(path)
    clips, labels, _ = load_clips(data["test"], range(count))
    typical, typical_labels, _ = load_clips(data["fit"], range(TYPICAL))
    if search.selects_by_gates(model) and path.parent.name == label:  # those that ship have their scales
        rescale_gates(model, left_out(model, typical[:100], typical_labels[:100], share=False))
    found = left_out(model, clips, labels)
    truth = np.array(labels_of(data["more"]))
    right = {
        name: with_weights(model, data["more"], weights, found.blocks, share=False).argmax(1) == truth
        for name, weights in selections(model, data["more"], typical).items()
    }
    record = new_record(
        "benchmark",
        model=model.name,
        options=model.options,
        dataset="moves",
        split="test",
        protocol=f"1 view, centre crop; sufficiency of the first {count} clips, as many of each class",
        run=label,
        metrics=dict(
            n=len(truth),
            accuracy={name: float(values.mean()) for name, values in right.items()},
            sufficiency={str(k): sufficiency(model, clips, found, k, draws=5) for k in COUNTS},
        ),
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(RESULTS / f"{label}.npz", **right)
    save_record(record, RESULTS / f"{label}.json")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("sets/moves"))
    parser.add_argument("--more", type=Path, default=Path("sets/moves-more-test"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--networks", nargs="+", default=["sda_tsn", "sda_tsm"])
    parser.add_argument("--kinds", nargs="+", default=["gated", "query"])
    parser.add_argument("--count", type=int, default=80, help="clips whose sufficiency is asked about")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make_moves(options.data)
    make_moves(options.more, train=1, val=1, test=100)
    data = search.datasets(options.data, "test")
    data["more"] = search.datasets(options.more, "test")["test"]
    for name, kind in product(options.networks, options.kinds):
        for label in sorted(path.stem for path in SEEDS.glob(f"{name}-{kind}-s*.json")):
            path = options.runs / "seeds" / label / "model.safetensors"
            if label == "sda_tsn-gated-swhole":
                path = search.START.with_name(f"{SHIPPED}.safetensors")
            if path.exists() and not (RESULTS / f"{label}.json").exists():
                perform(label, path, data, options.count)


if __name__ == "__main__":
    main()
