"""The memory of a training step, counted before anything is computed."""

import copy

import torch
from torch import Tensor, nn

__all__ = ["memory_estimate"]


def activation_bytes(
    model: nn.Module,  # network; copied to the meta device, so nothing is computed
    clips: int,  # clips at once
    num_frames: int,  # frames per clip
    size: int,  # height and width, pixels
) -> int:
    """Bytes that autograd keeps between forward and backward for a batch, parameters left out; float32."""
    meta = copy.deepcopy(model).to("meta").train()
    own = [t.untyped_storage() for t in (*meta.parameters(), *meta.buffers())]
    kept: dict[int, torch.UntypedStorage] = {}  # a storage that is held keeps its identity
    ours = set(map(id, own))

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in ours:
            kept.setdefault(id(storage), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        meta(torch.empty(clips, num_frames, 3, size, size, device="meta"))
    return sum(storage.nbytes() for storage in kept.values())


def memory_estimate(
    model: nn.Module,  # network
    clips: int,  # clips of one process at once: batch_size / accumulate / processes
    num_frames: int,  # frames per clip
    size: int,  # height and width, pixels
    optimizer: str = "sgd",  # "sgd" keeps one number per weight, "adamw" two
    half: bool = False,  # bf16 or fp16: activations take half the room
    ema: bool = False,  # averaged weights too
) -> dict[str, float]:  # gigabytes of each part, and their total
    """Memory of a training step, by part; kernels' work space comes on top."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    parts = dict(
        weights=weights,
        gradients=weights,
        optimizer=weights * (2 if optimizer == "adamw" else 1),
        average=weights * ema,
        activations=activation_bytes(model, clips, num_frames, size) / (2 if half else 1),
    )
    parts["total"] = sum(parts.values())
    return {name: value / 1e9 for name, value in parts.items()}
