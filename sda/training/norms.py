"""What learns and what is kept in a training: frozen parts, BatchNorm, statistics shared by processes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..foundation.devices import device_of, dtype_of
from ..foundation.errors import unknown_name
from ..networks.backbones import VideoNet, new_parts

__all__ = ["training_mode"]


def freeze(
    model: VideoNet,  # changed in place
    parts: Sequence[str],  # "backbone", or stages of it: "stem", "layer1", ...
) -> list[nn.Parameter]:  # those that no longer learn, to be released after the run
    """Keep the image network, or stages of it, as it is; blocks of a method and the classifier learn."""
    if not parts:
        return []
    stages = ["stem", *model.stages]
    for name in parts:
        if name not in ("backbone", *stages):
            raise unknown_name("part to freeze", name, ["backbone", *stages])
    chosen = stages if "backbone" in parts else list(parts)
    new = new_parts(model)
    frozen = []
    for name, parameter in model.named_parameters():
        path = name.split(".")
        stage = path[0] if path[0] in model.stages else "stem"
        if stage in chosen and not new & set(path) and parameter.requires_grad:
            parameter.requires_grad = False
            frozen.append(parameter)
    return frozen


def training_mode(
    model: nn.Module,  # changed in place
    partial_bn: bool = False,  # BatchNorm of the image network keeps its stored statistics, all but the first
) -> nn.Module:  # the same network
    """Switch to training; a norm whose parameters are frozen keeps its statistics too."""
    model.train()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    for norm in norms.values():
        if norm.weight is not None and not norm.weight.requires_grad:
            norm.eval()
    if not partial_bn:
        return model
    new = new_parts(model)  # a norm that ImageNet does not know has nothing stored yet
    flat = [
        norm
        for name, norm in norms.items()
        if isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)) and not new & set(name.split("."))
    ]
    for norm in flat[1:]:
        norm.eval()
    return model


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Add up, on every process."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """What every process wants of my part."""
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """SyncBatchNorm where torch has none: on processors, so that several of them can be tested."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the statistics of every process's batch."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            if self.training:
                self.num_batches_tracked.add_(1)
            known = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *known, self.training, self.momentum, self.eps)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = x if x.dtype == torch.float64 else x.float()
        count = torch.tensor([x.numel() / x.shape[1]], device=x.device, dtype=wide.dtype)
        total = _Sum.apply(torch.cat([wide.sum(axes), count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        var = _Sum.apply((wide - mean.view(shape)).square().sum(axes)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum)
        scale = torch.rsqrt(var + self.eps) * (1.0 if self.weight is None else self.weight)
        y = (wide - mean.view(shape)) * scale.view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(x.dtype)


def share_norms(
    network: nn.Module,  # changed in place
    device: torch.device,  # where it will compute
) -> dict[str, Any]:  # the ordinary norms by name, for `restore_norms`
    """Turn every BatchNorm into one over all processes."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    ordinary = {name: module for name, module in network.named_modules() if isinstance(module, kinds)}
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return ordinary
    for name, norm in ordinary.items():
        shared = CPUSyncBatchNorm(norm.num_features, norm.eps, norm.momentum).to(dtype_of(norm))
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.load_state_dict(norm.state_dict())
        _put(network, name, shared.train(norm.training))
    return ordinary


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    """Exchange a module inside a network."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def restore_norms(
    network: nn.Module,  # changed in place
    ordinary: dict[str, Any],  # from `share_norms`
) -> None:
    """Put the ordinary norms back, with the weights and statistics of those that shared."""
    state = network.state_dict()
    for name, norm in ordinary.items():
        shared = network.get_submodule(name)
        _put(network, name, norm.to(device_of(shared)).train(shared.training))
    network.load_state_dict(state)
