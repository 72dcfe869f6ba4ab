"""Cheaper forms of the steps of an SDA block, gradients written by hand; equal to the plain ones to rounding.

`resize`, `relu` and `PointConv` are taken always, except where `by_hand` says no: under `torch.compile` and
`torch.export`, which fuse plain operations themselves, and under transforms (`torch.func`, forward mode, a
jit trace), which know plain operations only.

`SumNorm` normalises a sum without making it, and `SumNorm.gate` goes on to the gated input, so that of all
tensors of full size only the input is kept for the gradient. SDA takes them where `fuses` says so: `up_norm`
is a `SumNorm` (as built; a synchronised norm put in its place is not) with weights and running statistics,
and gradients are made by hand. A hook on `up_norm` or on `hook_gate` waits for a tensor that `gate` never
shows; then `up_norm` is called as a module and the rest is plain. The same operations in the same order:
the same bits, for more memory.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

Size = Sequence[int]  # height and width


def by_hand() -> bool:
    """Whether gradients written by hand may be taken here: transforms and compilers see plain operations."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def channels_last(x: Tensor) -> bool:
    """Whether the channels of a place lie side by side in memory, in maps [..., C, h, w]."""
    return x.ndim > 3 and x.stride(-3) == 1 < min(x.shape[-3], x.stride(-1))


def _double(x: Tensor) -> Tensor:
    """[..., h, w] -> [..., 2h, 2w], every value four times; strided writes are faster than interpolate."""
    if channels_last(x):
        x = x.movedim(-3, -1)
        h, w, C = x.shape[-3:]
        y = x.new_empty(*x.shape[:-3], h, 2, w, 2, C)
        y.copy_(x[..., :, None, :, None, :])
        return y.view(*x.shape[:-3], 2 * h, 2 * w, C).movedim(-1, -3)
    y = x.new_empty(*x.shape[:-1], 2 * x.shape[-1])
    y[..., ::2] = x
    y[..., 1::2] = x
    z = y.new_empty(*y.shape[:-2], 2 * y.shape[-2], y.shape[-1])
    z[..., ::2, :] = y
    z[..., 1::2, :] = y
    return z


def _quad_sum(x: Tensor) -> Tensor:
    """[..., 2h, 2w] -> [..., h, w], sums of 2x2: the transpose of `_double`."""
    x = x[..., ::2, :] + x[..., 1::2, :]
    return x[..., ::2] + x[..., 1::2]


def _bins(like: Tensor, n: int, m: int) -> Tensor:
    """[n, m] matrix whose column j averages the inputs that adaptive pooling from n to m puts into bin j."""
    # what only stands for a tensor is not kept
    make = _kept_bins if type(like) is Tensor else _kept_bins.__wrapped__
    return make(n, m, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _kept_bins(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of `_bins`, made once: a network asks for few, and for these with every clip."""
    with torch.inference_mode(False), torch.no_grad():  # it may be met again where gradients are made
        return F.adaptive_avg_pool1d(torch.eye(n, dtype=dtype, device=device), m)


def _through(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps [..., n, m] through matrices [n, N] and [m, M], in their own layout."""
    small = rows.numel() * columns.numel() <= 4096
    if channels_last(x):
        if small:
            both = torch.kron(rows, columns)
            return (both.mT @ x.flatten(-2).mT).mT.unflatten(-1, (rows.shape[1], columns.shape[1]))
        x = x.movedim(-3, -1)  # [..., n, m, C]
        x = (rows.mT @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
        return (columns.mT @ x).movedim(-1, -3)
    if small:
        both = torch.kron(rows, columns)
        return (x.flatten(-2) @ both).unflatten(-1, (rows.shape[1], columns.shape[1]))
    return rows.mT @ (x @ columns)


def _spread(x: Tensor, size: Size) -> Tensor:
    """adaptive_avg_pool2d(x, size) of maps [..., h, w], as a linear map."""
    h, w = x.shape[-2:]
    H, W = size
    if (h, w) == (H, W):
        return x
    if (h, w) == (1, 1):
        return x.expand(*x.shape[:-2], H, W)
    if (2 * h, 2 * w) == (H, W):
        return _double(x)
    rows = _bins(x, h, H)
    columns = _bins(x, w, W)
    return _through(x, rows, columns)


def _collect(x: Tensor, size: Size) -> Tensor:
    """The transpose of `_spread`: [..., H, W] -> [..., h, w]."""
    h, w = size
    H, W = x.shape[-2:]
    if (h, w) == (H, W):
        return x
    if (h, w) == (1, 1):
        return x.sum((-2, -1), keepdim=True)
    if (2 * h, 2 * w) == (H, W):
        return _quad_sum(x)
    rows = _bins(x, h, H)
    columns = _bins(x, w, W)
    return _through(x, rows.mT, columns.mT)


class _Resize(torch.autograd.Function):
    """Adaptive average pooling [..., h, w] -> size with its transpose as the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Size) -> Tensor:
        ctx.old = tuple(x.shape[-2:])
        ctx.halve = ctx.old == (2 * size[0], 2 * size[1])
        if ctx.halve and x.ndim > 3:
            return F.avg_pool2d(x.flatten(0, -4), 2).unflatten(0, x.shape[:-3])
        return _quad_sum(x) / 4 if ctx.halve else _spread(x, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (_double(grad / 4) if ctx.halve else _collect(grad, ctx.old)), None


def resize(
    x: Tensor,  # maps, [..., h, w]
    size: Size,  # (H, W) of the result
) -> Tensor:  # [..., H, W], equal to adaptive_avg_pool2d(x, size), overlapping bins included
    """Adaptive average pooling of any number of leading dimensions, down or up."""
    if not by_hand():
        return F.adaptive_avg_pool2d(x.flatten(0, -3), (size[0], size[1])).unflatten(0, x.shape[:-2])
    return x if tuple(x.shape[-2:]) == tuple(size) else _Resize.apply(x, tuple(size))


def mean_over_time(
    clips: Tensor,  # [B, r, T, H, W]
) -> Tensor:  # [B, r, H, W], in the layout of the clips
    """One map a clip. Channels last it is the mean of rows: torch's own takes four times as long there."""
    if not (by_hand() and clips.stride(1) == 1):
        return clips.mean(2)
    return clips.movedim(1, -1).mean(1).movedim(-1, 1)


def mean_over_space(
    clips: Tensor,  # [B, r, T, H, W]
) -> Tensor:  # [B, r, T]
    """One vector a frame; see `mean_over_time`."""
    if not (by_hand() and clips.stride(1) == 1):
        return clips.mean((3, 4))
    return clips.movedim(1, -1).flatten(2, 3).mean(2).movedim(-1, 1)


class _Relu(torch.autograd.Function):
    """relu that saves one byte per value for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


def relu(
    x: Tensor,  # any shape
) -> Tensor:  # the shape of x
    """Rectifier that keeps one byte a value for the gradient instead of four."""
    return _Relu.apply(x) if by_hand() and torch.is_grad_enabled() else F.relu(x)


class PointConv(nn.Conv2d):
    """1x1 convolution without bias; on large maps, and channels last, a matrix product: its gradient is
    faster on CPU, and the layout stays."""

    def __init__(
        self,
        in_channels: int,  # channels of the input
        out_channels: int,  # channels of the output
    ):
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(
        self,
        x: Tensor,  # [N, in_channels, H, W]
    ) -> Tensor:  # [N, out_channels, H, W]
        """Mix the channels of every pixel."""
        if by_hand() and x.device.type == "cpu" and channels_last(x):
            return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
        if x.shape[-2] * x.shape[-1] < 400 or self.bias is not None:  # a norm may have been fused into it
            return super().forward(x)
        weight = self.weight.flatten(1).expand(x.shape[0], -1, -1)
        return torch.bmm(weight, x.flatten(2)).unflatten(2, x.shape[2:])


def _over_time(x: Tensor) -> Tensor:
    """Sums [B, 1, C, h, w] of [B, T, C, h, w] in its layout: torch's own would change it, and take longer."""
    if channels_last(x):
        return x.movedim(-3, -1).sum(1, True).movedim(-1, -3)
    return x.sum(1, True)


# The normalised sum. small [B, T, C, h, w] is resized to H, W; wide [B, 1, C, H, W] is the same at all times.
_ALL = (0, 1, 3, 4)  # every dimension but the channels


def _centred(small: Tensor, wide: Tensor | None, size: Size) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean of small + wide per channel [C, 1, 1], and both terms without their means."""
    overlap = tuple(small.shape[-2:]) != (1, 1) and bool(
        size[0] % small.shape[-2] or size[1] % small.shape[-1]
    )
    if overlap:
        small = _spread(small, size)  # where bins overlap, squares are taken at full size
    mean = small.mean(_ALL, keepdim=True)[0]
    small = small.sub_(mean) if overlap else small - mean
    if wide is None:
        return mean, small, None
    wide_mean = wide.mean(_ALL, keepdim=True)[0]
    return mean + wide_mean, small, wide - wide_mean


def _variance(a: Tensor, b: Tensor | None, size: Size) -> Tensor:
    """Variance per channel [C, 1, 1] of a + b, both centred: the mean of a^2 + b^2 + 2ab at small size."""
    var = a.square().mean(_ALL, keepdim=True)[0]
    if b is None:
        return var
    # b does not change, so a may be averaged over time
    both = _spread(_over_time(a) * (2 / a.shape[1]), size) + b
    return var + both.mul_(b).mean(_ALL, keepdim=True)[0]


def _dense(x: Tensor, inside: bool) -> Tensor:
    """An expanded [B, T, C, H, W] with memory of its own, channels last or not."""
    if inside:
        return x.movedim(-3, -1).contiguous().movedim(-1, -3)
    return x.contiguous()


def sum_of_rows(
    small: Tensor,  # [B, T, h, w, C]
    wide: Tensor | None,  # [B, 1, H, W, C], or nothing to add
    size: Size,  # (H, W)
) -> Tensor:  # small at full size + wide, [B, T, H, W, C]; of size 1 x 1 where everything is
    """Both together, pixels as rows."""
    h, w = small.shape[2:4]
    if wide is not None and (2 * h, 2 * w) == tuple(size):
        # every pixel twice, then long runs of memory: one pixel after the other takes twice as long
        columns = torch.cat((small, small), -1).view(*small.shape[:2], h, 1, -1)
        z = columns + wide.reshape(len(wide), 1, h, 2, -1)
        return z.view(*small.shape[:2], *size, -1)
    if (h, w) != (1, 1):
        small = resize(small.movedim(-1, 2), size).movedim(2, -1)
    return small if wide is None else small + wide


def _folded(z: Tensor) -> Tensor:
    """Clips [B, T, C, H, W] as frames; not a view: what follows may work in place, and views that a function
    of autograd makes may not be written to."""
    return torch.ops.aten._unsafe_view(z, [z.shape[0] * z.shape[1], *z.shape[2:]])


def _full_sum(
    a: Tensor, b: Tensor | None, scale: Tensor, shift: Tensor, size: Size, dtype: torch.dtype
) -> Tensor:
    """scale * (a + b) + shift as folded frames [B*T, C, H, W]: the only tensor of full size there is."""
    a = (a * scale).add_(shift).to(dtype)
    b = None if b is None else (b * scale).to(dtype)
    if b is not None and channels_last(a) and channels_last(b):
        z = sum_of_rows(a.movedim(-3, -1), b.movedim(-3, -1), size).movedim(-1, -3)
        return _folded(z)
    z = _spread(a, size).to(dtype)
    if 0 in z.stride():  # one value per frame, seen at full size
        like = z if b is None else b
        z = _dense(z, channels_last(like))
    if b is not None:
        z += b
    return _folded(z)


class _NormalisedSum(torch.autograd.Function):
    """batch_norm(small + wide), or x * sigmoid of it; saves small terms (and x), makes the sum again."""

    @staticmethod
    def forward(ctx, x, small, wide, weight, bias, mean, var, eps, size, dtype):  # type: ignore[override]
        ctx.batch = mean is None
        ctx.size = size
        ctx.dtype = dtype
        ctx.eps = eps
        own, a, b = _NormalisedSum._terms(ctx, small, wide, weight)
        if ctx.batch:
            mean = own
            var = _variance(a, b, size)
        else:
            mean = mean[:, None, None]
            var = var[:, None, None]
        inverse = (var + eps).rsqrt()
        scale = weight[:, None, None] * inverse
        z = _full_sum(a, b, scale, bias[:, None, None] + (own - mean) * scale, size, dtype)
        ctx.save_for_backward(x, small, wide, weight, bias, mean, inverse)
        mean = mean.flatten()
        var = var.flatten()
        ctx.mark_non_differentiable(mean, var)
        return (z if x is None else z.sigmoid_().mul_(x)), mean, var

    @staticmethod
    def _terms(ctx, small, wide, weight):
        """The terms in the dtype of the parameters: statistics in bfloat16 would be too coarse."""
        small = small.to(weight.dtype)
        wide = None if wide is None else wide.to(weight.dtype)
        if ctx.batch:
            return _centred(small, wide, ctx.size)
        # running statistics know nothing of this batch: nothing to centre, and no clip may touch another
        return torch.zeros_like(weight)[:, None, None], small, wide

    @staticmethod
    def backward(ctx, grad, *_):
        if torch.is_grad_enabled():  # the gradient will be differentiated: what is below works in place
            return (*_plain_backward(ctx, grad), None, None, None, None, None)
        x, small, wide, weight, bias, mean, inverse = ctx.saved_tensors
        own, a, b = _NormalisedSum._terms(ctx, small, wide, weight)
        scale = weight[:, None, None] * inverse
        offset = own - mean
        dx = None
        dz = grad
        if x is not None:
            gate = _full_sum(
                a, b, scale, bias[:, None, None] + offset * scale, ctx.size, ctx.dtype
            ).sigmoid_()
            dz = grad * x
            torch.ops.aten.sigmoid_backward.grad_input(dz, gate, grad_input=dz)
            dx = gate.mul_(grad)
        dz = dz.unflatten(0, small.shape[:2])
        da = _collect(dz, a.shape[-2:]).to(weight.dtype)
        db = None if b is None else _over_time(dz).to(weight.dtype)
        da, db, dweight, dbias = _norm_backward(da, db, a, b, scale, inverse, offset, ctx.size, ctx.batch)
        da = _collect(da, small.shape[-2:]).to(small.dtype)
        db = None if db is None else db.to(wide.dtype)
        return dx, da, db, dweight, dbias, None, None, None, None, None


def _plain_backward(ctx, grad):
    """The gradients of a normalised sum by torch's own operations, which can be differentiated again."""
    x, small, wide, weight, bias, mean, inverse = ctx.saved_tensors
    given = (x, small, wide, weight, bias)
    z = resize(small.to(weight.dtype), ctx.size)
    z = (z if wide is None else z + wide).flatten(0, 1)
    if ctx.batch:
        z = F.batch_norm(z, None, None, weight, bias, True, 0.0, ctx.eps)
    else:
        z = (z - mean) * (weight[:, None, None] * inverse) + bias[:, None, None]
    z = z.to(ctx.dtype)
    wanted = [v for v in given if v is not None and v.requires_grad]
    found = iter(torch.autograd.grad(z if x is None else z.sigmoid() * x, wanted, grad, create_graph=True))
    return tuple(next(found) if v is not None and v.requires_grad else None for v in given)


def _norm_backward(da, db, a, b, scale, inverse, offset, size, batch):
    """Gradients of small, wide, weight and bias from those of scale * (a + b) + shift, at small size."""
    dbias = da.sum(_ALL, keepdim=True)[0]
    dweight = (da * a).sum(_ALL, keepdim=True)[0]
    if b is not None:
        dweight = dweight + (db * b).sum(_ALL, keepdim=True)[0]
    dweight = (dweight + offset * dbias) * inverse
    da = da * scale
    if b is not None:
        db = db * scale
    if (
        batch
    ):  # the statistics depend on the terms: take out the gradient's mean and its share along the value
        T = a.shape[1]
        copies = size[0] * size[1] / (a.shape[-2] * a.shape[-1])
        n = a.numel() / a.shape[2] * copies
        level = scale * dbias / n
        slope = scale * inverse * dweight / n
        da.sub_(a * (slope * copies)).sub_(level * copies)
        if b is not None:
            da.sub_(_collect(b, a.shape[-2:]) * slope)
            db.sub_((_spread(_over_time(a), size) + b * T) * slope).sub_(level * T)
    return da, db, dweight.flatten(), dbias.flatten()


class SumNorm(nn.BatchNorm2d):
    """Batch normalisation of a sum whose terms are small: the sum is not made before it is normalised."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(
        self,
        x: Tensor,  # [N, C, H, W], which is normalised as ever; or, with `like`, small terms [B, T, C, h, w]
        wide: Tensor | None = None,  # the term that is the same at all times, [B, 1, C, H, W]
        like: Tensor | None = None,  # folded frames [B*T, C, H, W], whose size and dtype the sum takes
    ) -> Tensor:  # the normalised x, or the normalised resize(x) + wide as folded frames
        """Normalise; where a channel has a single value, hence no variance, by the running statistics."""
        return super().forward(x) if like is None else self._sum(None, x, wide, like)

    def gate(
        self,
        x: Tensor,  # folded frames, [B*T, C, H, W]
        small: Tensor,  # terms of small size, [B, T, C, h, w]
        wide: Tensor | None = None,  # the term that is the same at all times, [B, 1, C, H, W]
    ) -> Tensor:  # x * sigmoid(self(small, wide, x)), [B*T, C, H, W]
        """The gated input; for the gradient only the input and the small terms are kept."""
        return self._sum(x, small, wide, x)

    def _sum(self, x: Tensor | None, small: Tensor, wide: Tensor | None, like: Tensor) -> Tensor:
        """The function with its statistics: those of the batch, which move the running ones, or these."""
        size = tuple(like.shape[-2:])
        count = like.numel() // like.shape[1]
        batch = self.training and count > 1
        known = (None, None) if batch else (self.running_mean, self.running_var)
        parameters = (self.weight, self.bias, *known, self.eps)
        out, mean, var = _NormalisedSum.apply(x, small, wide, *parameters, size, like.dtype)
        if batch:
            self._keep(mean, var * (count / (count - 1)))
        return out

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics as torch does."""
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


def answers(
    x: Tensor,  # what goes in
) -> bool:  # whether an answer is all that is wanted
    """Whether no gradient can be asked for and nothing looks at single operations."""
    kind = x.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return not torch.is_grad_enabled() and by_hand() and not casts


def fuses(
    norm: nn.Module,  # `up_norm` of an SDA block
) -> bool:  # whether it may be called with the terms of a sum
    """Whether the norm is a `SumNorm` that can do its work here."""
    return type(norm) is SumNorm and norm.affine and norm.track_running_stats and by_hand()


def watched(
    *modules: nn.Module,  # modules whose call might be left out
) -> bool:  # whether a hook waits for one of them to be called
    """Whether somebody listens to a module."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )
