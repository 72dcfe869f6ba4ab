"""Batches of clips by a plan: what a loader of one epoch after another asks of clips, steps and processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ..foundation.processes import follow_parent, lost_worker


class Clips(Protocol):
    """Clips by number, items dict(clip, label, id): a `ClipDataset` or anything else of this form."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass
class Step:
    """The clips of one batch: of one update of the weights, or of one look at a test set."""

    size: int  # Clips over all processes and pieces
    pieces: list[list[int]]  # For each piece, the clip numbers of this process


def labels_of(
    data: Clips,  # Any clips
) -> list[int] | None:  # Label of each; None where only decoding the clips would tell
    """The labels of clips, from their records or an attribute `labels`."""
    records = getattr(data, "records", None)
    if records:
        return [int(record.label) for record in records]
    labels = getattr(data, "labels", None)
    return None if labels is None else [int(label) for label in labels]


class _ByEpoch(Dataset):
    """Clips by (epoch, index): a worker that lives on learns of the epoch with the clip."""

    def __init__(self, data: Clips):
        self.data = data
        self.told: int | None = None

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        if epoch != self.told and hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)
        self.told = epoch
        return self.data[index]


def _reading(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; an error about a reading process that was lost says why."""
    try:
        yield from batches
    except RuntimeError as err:
        if lost := lost_worker(err):
            raise lost from err
        raise


class ClipLoader:
    """Batches of a dataset, epoch after epoch; processes that read live as long. Made by `clip_loader`."""

    def __init__(
        self,
        dataset: Clips,  # What is read
        plan: Callable[[int], list[Step]],  # The steps of an epoch
        num_workers: int = 0,  # Processes that read clips
        pin_memory: bool = False,  # For quick copies to a GPU
        seed: int = 0,  # Of the reading processes
    ):
        self.plan = plan
        self._batches: list[list[tuple[int, int]]] = []
        self._loader = DataLoader(
            _ByEpoch(dataset),
            batch_sampler=self._batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=follow_parent,
            generator=torch.Generator().manual_seed(seed),
        )

    def epoch(
        self,
        epoch: int = 0,  # Counts from 0
        start: int = 0,  # Step to begin with: a run that broke off goes on there
    ) -> Iterator[dict[str, Any]]:  # Batches, piece after piece of every step
        """The batches of an epoch from a step on."""
        pieces = [piece for step in self.plan(epoch)[start:] for piece in step.pieces if piece]
        self._batches[:] = [[(epoch, index) for index in piece] for piece in pieces]
        return _reading(iter(self._loader))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.epoch()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(bool(piece) for step in self.plan(0) for piece in step.pieces)
