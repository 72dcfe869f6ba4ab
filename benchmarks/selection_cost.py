"""What gates cost in a block at the published shapes, and what is saved where a batch leaves them shut.

    python benchmarks/selection_cost.py [--repeats 15] [--out data/results/selection/cost.json]

Forms take turns, so that whatever else the machine does meets all of them; seconds are medians of the
processor time of this process, and what counts are the ratios. One thread, float32, two clips of 8 frames.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from sda.foundation.runs import new_record, save_record
from sda.networks.blocks import SDA

SHAPES = {64: 56, 128: 28, 256: 14, 512: 7}  # channels -> size of the maps, the first block of each stage
SHUT = {
    "nothing shut": (9.0, 9, 9, 9),
    "LT shut": (9.0, -9, 9, 9),
    "S122 shut": (9.0, 9, 9, -9),
    "LT and S122 shut": (9.0, -9, 9, -9),
    "all shut": (-9.0, -9, -9, -9),
}


def seconds(calls: dict, repeats: int) -> dict:
    """Median processor time of every call; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(repeats + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if k > 1:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def measured(channels: int, size: int, repeats: int) -> dict:
    """Seconds of training and evaluation, and parameters, of one block."""
    torch.manual_seed(0)
    x = torch.randn(16, channels, size, size)
    blocks = {kind: SDA(channels, attention=kind) for kind in ("query", "gated")}

    def learn(block):
        def call():
            leaf = x.clone().requires_grad_()
            block(leaf).sum().backward()

        return call

    def answer(block, biases=None):
        def call():
            if biases is not None:
                block.attention.scores.bias.data.copy_(torch.tensor(biases))
            with torch.no_grad():
                block(x)

        return call

    train = seconds({kind: learn(block) for kind, block in blocks.items()}, repeats)
    for block in blocks.values():
        block.eval()
    blocks["gated"].attention.scores.queries.data.zero_()
    forms = {name: answer(blocks["gated"], biases) for name, biases in SHUT.items()}
    evaluation = seconds({"query": answer(blocks["query"])} | forms, repeats)
    parameters = {kind: sum(p.numel() for p in block.parameters()) for kind, block in blocks.items()}
    return dict(channels=channels, size=size, train=train, evaluation=evaluation, parameters=parameters)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("data/results/selection/cost.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(channels, size, options.repeats) for channels, size in SHAPES.items()]
    record = new_record("benchmark", model="SDA", metrics={"blocks": rows}, repeats=options.repeats)
    save_record(record, options.out)
    for row in rows:
        train, evaluation, own = row["train"], row["evaluation"], row["parameters"]
        print(row["channels"], row["size"], "parameters", round(own["gated"] / own["query"], 4), end=" ")
        print("training", round(train["gated"] / train["query"], 3), end=" ")
        print({k: round(v / evaluation["query"], 3) for k, v in evaluation.items()})
