"""One update of the weights: device, layout, forward, backward, limit of the gradient, step."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from ..data.datasets import model_input
from ..foundation.devices import keep_memory, set_layout
from ..foundation.errors import RunError, SettingError
from ..networks.backbones import VideoNet
from .config import TrainConfig
from .norms import freeze, share_norms
from .optimiser import make_optimizer, mix_batch, mixed_loss
from .selecting import SelectionLoss

__all__ = ["Batch", "TrainingStep"]


Batch = dict[str, Any]  # clip [B,T,3,H,W], or its bytes with scale and shift; label [B]; id list


def second_loss(
    model: VideoNet,  # after a training pass
    labels: Tensor,  # int [B]
    partners: Tensor | None = None,  # int [B] labels of the partners, from `mix_batch`
    share: float = 1.0,  # weight of `labels`
) -> Tensor | float:  # summed over the batch, weighted by the network; 0.0 where there is no such classifier
    """The loss of a network's second classifier."""
    auxiliary_loss = getattr(model, "auxiliary_loss", None)
    if auxiliary_loss is None:
        return 0.0
    if partners is None:
        return auxiliary_loss(labels)
    own, other = (F.one_hot(y, model.num_classes).float() for y in (labels, partners))
    return auxiliary_loss(share * own + (1 - share) * other)


def make_accelerator(
    config: TrainConfig,  # device and precision
) -> Accelerator:
    """accelerate's handle on devices, number formats and processes."""
    # a second run in one program may choose another format, and accelerate has no public way to say so
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    there = dict(auto=True, cpu=True, cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available())
    if not there[config.device]:
        choices = [name for name, found in there.items() if found]
        text = f"device={config.device!r} is not available here. Choose auto or cpu."
        raise SettingError(text, subject="device", choices=choices, remedy="Choose auto or cpu.")
    if config.precision == "fp16" and (config.device == "cpu" or not torch.cuda.is_available()):
        text = "precision='fp16' needs a GPU with CUDA. Choose fp32 or bf16."
        raise SettingError(text, subject="precision", choices=("fp32", "bf16"), remedy="Choose fp32 or bf16.")
    precision = {"fp32": "no"}.get(config.precision, config.precision)
    try:
        return Accelerator(mixed_precision=precision, cpu=config.device == "cpu")
    except ValueError as err:
        text = f"precision={config.precision!r} does not work here: {err} Choose fp32."
        raise SettingError(text, subject="precision", choices=("fp32",), remedy="Choose fp32.") from err


def place_clips(
    batch: Batch, device: torch.device, channels_last: bool, used: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Clips and labels on the device, frames in the wanted layout."""
    clips = model_input(batch, device, channels_last, used)
    if channels_last:  # bytes have it already
        frames = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        clips = frames.unflatten(0, clips.shape[:2])
    return clips, batch["label"].to(device, non_blocking=True)


def check_labels(batch: Batch, num_classes: int) -> None:
    """Refuse labels outside 0..num_classes-1, naming the clip."""
    wrong = (batch["label"] < 0) | (batch["label"] >= num_classes)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        name = batch["id"][first]
        label = int(batch["label"][first])
        text = f"Clip {name!r} has label {label}, but the model has classes 0 to {num_classes - 1}"
        remedy = (
            "Labels are the lines of category.txt, from 0: make the model with as many classes as it has."
        )
        raise RunError(f"{text}.", subject=name, remedy=remedy)


@dataclass
class StepResult:
    """The update just made."""

    ids: list[str]  # its clips on this process
    clips: int  # how many there were over all processes
    sums: Tensor  # summed loss and right answers of all of them, on the device
    norm: Tensor  # L2 norm of the gradient before it was limited, on the device

    @property
    def loss(self) -> Tensor:
        """Mean over the clips, on the device."""
        return self.sums[0] / self.clips


def wide_type(device: torch.device) -> torch.dtype:
    """The precision of sums; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class TrainingStep:
    """A network on its device with its optimiser; calling it is one update of the weights."""

    def __init__(
        self,
        config: TrainConfig,  # device, precision, layout, optimiser
        network: VideoNet,  # changed in place
        weights: Tensor | None = None,  # [K] of the classes in the loss; None: all alike
    ):
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.accelerator = make_accelerator(config)
        keep_memory()
        if config.channels_last:
            set_layout(network, True)
        self.ordinary = share_norms(network, self.accelerator.device) if config.sync_bn else {}
        if config.compile:
            network.compile()
        self.network = network
        self.frozen = freeze(network, config.freeze)
        self.model, self.optimizer = self.accelerator.prepare(network, make_optimizer(network, config))
        self.weights = None if weights is None else weights.to(self.accelerator.device)
        self.selection = SelectionLoss(config, self.network)
        self._clips: Tensor | None = None  # input of the last step, for its memory

    def __call__(
        self,
        pieces: list[Batch],  # of this process; one, unless batches are accumulated
        size: int,  # clips over all pieces and processes
        factor: float = 1.0,  # share of the highest learning rate
        progress: float = 1.0,  # share of all steps that are done
    ) -> StepResult:
        """Forward, backward, clip, step."""
        accelerator = self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.zero_grad()
        sums = torch.zeros(2, dtype=wide_type(accelerator.device), device=accelerator.device)
        for k, batch in enumerate(pieces):
            last = k == len(pieces) - 1  # gradients of processes are added up once
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                objective, loss, right = self._forward(batch, progress)
                accelerator.backward(objective * (accelerator.num_processes / size))
            sums += torch.stack([loss.detach().to(sums.dtype), right.to(sums.dtype)])
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad or math.inf)
        self.optimizer.step()
        ids = [i for batch in pieces for i in batch["id"]]
        return StepResult(ids, size, accelerator.reduce(sums.float()), norm)

    def _forward(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the loss, and the right answers: sums over the clips."""
        config = self.config
        check_labels(batch, self.network.num_classes)
        self._clips, labels = place_clips(batch, self.accelerator.device, config.channels_last, self._clips)
        clips, partners, share = mix_batch(self._clips, labels, config.mixup, config.cutmix)
        with self.selection:
            logits = self.model(clips).float()
        loss = mixed_loss(logits, labels, partners, share, config.label_smoothing, self.weights)
        objective = loss + second_loss(self.network, labels, partners, share)
        objective = objective + self.selection(clips, labels, logits, progress)
        return objective, loss, (logits.argmax(1) == labels).sum()
