"""What a training asks of a selection beside right answers: a price of open gates, an order, a teacher"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..foundation.devices import evaluating, set_layout
from ..foundation.errors import SettingError
from ..networks.backbones import VideoNet, sda_blocks
from ..networks.blocks import SDA
from ..networks.checkpoints import load_model
from ..networks.selection import KeyScores, ScoredAttention, leave_out, open_gate, open_probability
from .config import TrainConfig

__all__: list[str] = []

_MARGIN = 0.1  # by how much the gate of the larger loss is to be wider
_SOFT = 0.1  # a loss of log-probability that counts as some: below it a gate pays, and an order means little


@contextlib.contextmanager
def left_out(
    blocks: list[SDA],  # of a network
    kept: Tensor,  # bool [B, gates of a clip]: those of the first block, then the others
) -> Iterator[None]:
    """Inside, every clip is seen without some of its dependencies."""
    parts = kept.split([len(kept[0]) // len(blocks)] * len(blocks), 1)
    handles = [
        block.hook_weights.register_forward_hook(
            lambda module, args, weights, own=own: leave_out(weights, own.reshape(weights.shape))
        )
        for block, own in zip(blocks, parts, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class SelectionLoss:
    """The price of open gates, the order of their widths, and the distance to a teacher; sums over clips."""

    def __init__(
        self,
        config: TrainConfig,  # gate_price, gate_budget, gate_follow, gate_order, distill, selection_ramp
        network: VideoNet,  # that is trained, on its device
    ):
        self.config = config
        self.network = network
        self.blocks = list(sda_blocks(network).values())
        self.scored = [b.attention for b in self.blocks if isinstance(b.attention, ScoredAttention)]
        asked = config.gate_price or config.gate_follow or config.gate_order
        if asked and not (self.scored and all(attention.kind == "gated" for attention in self.scored)):
            remedy = 'make the network with attention="gated"'
            raise SettingError("only gates have a price", subject="gate_price", remedy=remedy)
        self.seen: dict[ScoredAttention, Tensor] = {}  # scores of the last training pass, with gradients
        self.hooks = [(a.scores, partial(self._see, a)) for a in self.scored if asked]
        self.handles: list[RemovableHandle] = []
        self.teacher = None
        if config.distill:
            if not config.init:
                text = "distill needs the network whose answers are taught: name its file as init"
                raise SettingError(text, subject="distill", choices=("init",))
            self.teacher = load_model(config.init).eval().requires_grad_(False)
            set_layout(self.teacher, config.channels_last)

    def __enter__(self) -> None:
        """Inside, the scores of a pass are noted."""
        self.handles = [scores.register_forward_hook(hook) for scores, hook in self.hooks]

    def __exit__(self, *error: object) -> None:
        """Hooks that stayed would travel with the network."""
        for handle in self.handles:
            handle.remove()

    def __call__(
        self,
        clips: Tensor,  # [B, T, 3, H, W], as the network just saw them in training mode
        labels: Tensor,  # int [B]
        logits: Tensor,  # [B, K] of that pass
        progress: float = 1.0,  # share of all steps that are done
    ) -> Tensor | float:  # to be added to the loss
        """What is minimised beside the loss."""
        config = self.config
        ramp = min(1.0, progress / config.selection_ramp) if config.selection_ramp else 1.0
        total: Tensor | float = 0.0
        for attention in self.scored:
            attention.ramp = torch.full_like(attention.ramp, ramp)  # the last pass still needs the old one
        if self.teacher is not None:
            kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision, torch.bfloat16)
            half = torch.autocast(clips.device.type, kind, enabled=config.precision != "fp32")
            with torch.no_grad(), half:
                taught = self.teacher.to(clips.device)(clips).float().log_softmax(1)
            own = logits.log_softmax(1)
            total = total + config.distill * F.kl_div(own, taught, reduction="sum", log_target=True)
        if config.gate_price:
            price = open_probability(self._scores(len(clips))).mean(1).sum()
            over = (price - config.gate_budget * len(clips)).relu()
            total = total + config.gate_price * ramp * over
        if config.gate_order or config.gate_follow:
            total = total + self._ordered(clips, labels, ramp)
        self.seen.clear()
        return total

    def _scores(self, clips: int) -> Tensor:
        """Scores of all gates [B, gates], with gradients."""
        return torch.cat([self.seen[a].unflatten(0, (clips, -1)).flatten(1) for a in self.scored], 1)

    def _see(self, attention: ScoredAttention, module: KeyScores, args: tuple, scores: Tensor) -> None:
        """Note the scores of a training pass."""
        if module.training:
            self.seen[attention] = scores

    def _ordered(self, clips: Tensor, labels: Tensor, ramp: float) -> Tensor:
        """Two open gates of some clips are shut, one after the other: what costs more is to be wider, what
        costs nothing pays."""
        few = max(1, round(len(clips) * self.config.gate_share))
        scores = self._scores(len(clips))[:few]
        gates = open_gate(scores)
        is_open = gates.detach() > 0
        chosen = (torch.rand_like(scores) + is_open).topk(2, 1).indices  # [few, 2], open ones first
        losses = self._losses(clips[:few], labels[:few], chosen)
        picked = gates.gather(1, chosen)
        counts = is_open.gather(1, chosen)
        apart = losses[:, 0] - losses[:, 1]
        wider = (picked[:, 0] - picked[:, 1]) * apart.sign()
        sure = apart.abs() / (apart.abs() + _SOFT)
        order = (sure * (_MARGIN - wider).relu() * counts.all(1)).sum()
        idle = (picked * counts * torch.exp(-losses / _SOFT)).mean(1).sum()
        scale = len(clips) / few
        return scale * (self.config.gate_order * order + self.config.gate_follow * ramp * idle)

    @torch.no_grad()
    def _losses(self, clips: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
        """Size of the change of the true class's log-probability [B, 2] without each of the chosen gates."""
        gates = len(self.blocks) * len(self.blocks[0].dependencies) * self.parts(clips)
        everything = torch.ones(len(clips), gates, dtype=torch.bool, device=clips.device)
        found = []
        with evaluating(self.network, gradients=None):
            for gone in (None, *chosen.unbind(1)):
                kept = everything if gone is None else everything.scatter(1, gone[:, None], False)
                with left_out(self.blocks, kept):
                    answers = self.network.forward(clips).float().log_softmax(1)
                found.append(answers.gather(1, labels[:, None])[:, 0])
        return torch.stack([(found[0] - one).abs() for one in found[1:]], 1)

    def parts(self, clips: Tensor) -> int:
        """Selections of a block in one clip; more than one under `split`."""
        return clips.shape[1] // self.blocks[0].clip_length(clips.shape[1])
