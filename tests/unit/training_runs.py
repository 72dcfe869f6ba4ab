"""Small runs that the tests of training share: clips in memory, settings, and how weights are compared."""

import torch

from sda.training.recipes import recipe


class Clips(torch.utils.data.Dataset):
    """Random clips in memory; `stop` raises when that many were read, like a machine that dies."""

    class_names = ["a", "b", "c"]

    def __init__(self, n=10, stop=None, spoil=None, size=32):
        self.n = n
        self.stop = stop
        self.spoil = spoil
        self.size = size
        self.read = 0
        self.epoch = 0

    def __len__(self):
        return self.n

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, i):
        self.read += 1
        if self.stop and self.read > self.stop:
            raise KeyboardInterrupt
        clip = torch.randn(
            4, 3, self.size, self.size, generator=torch.Generator().manual_seed(100 * self.epoch + i)
        )
        return {"clip": clip * (float("nan") if i == self.spoil else 1), "label": i % 3, "id": f"clip{i}"}


def small(**changes):
    """Settings of a run of two epochs, three steps each."""
    usual = dict(
        epochs=2,
        batch_size=4,
        num_frames=4,
        size=32,
        resize=32,
        lr=1e-3,
        dropout=0.3,
        device="cpu",
        threads=1,
    )
    return recipe("moves", **usual | changes)


def batch_of(data, *indices):
    """These clips as a loader would give them."""
    items = [data[i] for i in indices]
    return {
        "clip": torch.stack([item["clip"] for item in items]),
        "label": torch.tensor([item["label"] for item in items]),
        "id": [item["id"] for item in items],
    }


def weights(model):
    """A copy of all that a network has learnt."""
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    """Whether weights are equal, bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
