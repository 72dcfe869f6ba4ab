"""The published SDA-TSN and SDA-TSM, written a second time: literally, slowly, and without anything from
`sda`.

Every response is broadcast to full size and every product is materialised, as the formulas stand in the
paper, and the parameters carry the names of the released checkpoints. It is what the library's networks are
compared with.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Response(nn.Module):
    """Convolution (or linear layer), batch normalisation, ReLU."""

    def __init__(self, conv, bn):
        super().__init__()
        self.conv, self.bn = conv, bn

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Aggregate(nn.Module):
    """Softmax over the scores of four pooled responses, then their weighted sum."""

    epsilon = 1e-8  # as published; without it the comparison holds to the last digits of float64

    def __init__(self, r):
        super().__init__()
        self.qVec = nn.Parameter(torch.empty(1, r).uniform_(-0.1, 0.1))

    def forward(self, responses):
        keys = torch.stack([y.mean((2, 3, 4)) for y in responses], 1)  # [B, 4, r]
        weights = torch.softmax(keys @ self.qVec[0], 1) + self.epsilon
        total = torch.zeros_like(responses[0])
        for i, y in enumerate(responses):
            total = total + weights[:, i, None, None, None, None] * y
        return total


class LiteralSDA(nn.Module):
    """V times sigmoid of the selected dependencies; V is [B, P, T, H, W]."""

    def __init__(self, P):
        super().__init__()
        r = max(P // 4, 16)
        self.channel_down = nn.Conv3d(P, r, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(r)
        self.mdm = nn.ModuleList(
            [
                Response(nn.Linear(r, r, bias=False), nn.BatchNorm1d(r)),
                Response(nn.Conv2d(r, r, 3, padding=1, bias=False), nn.BatchNorm2d(r)),
                Response(nn.Conv1d(r, r, 3, padding=1, bias=False), nn.BatchNorm1d(r)),
                Response(nn.Conv3d(r, r, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(r)),
            ]
        )
        self.agg = Aggregate(r)
        self.channel_up = nn.Conv3d(r, P, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(P)

    def responses(self, D):
        """LST, LT, LS, S122, all at the size of D."""
        B, r, T, H, W = D.shape
        lst = self.mdm[0](D.mean((2, 3, 4)))[:, :, None, None, None].expand(B, r, T, H, W)
        lt = self.mdm[1](D.mean(2))[:, :, None].expand(B, r, T, H, W)
        ls = self.mdm[2](D.mean((3, 4)))[..., None, None].expand(B, r, T, H, W)
        frames = D.transpose(1, 2).reshape(B * T, r, H, W)
        small = F.adaptive_avg_pool2d(frames, (max(H // 2, 2), max(W // 2, 2)))
        small = self.mdm[3](small.reshape(B, T, r, *small.shape[2:]).transpose(1, 2))
        large = F.adaptive_avg_pool2d(small.transpose(1, 2).reshape(B * T, r, *small.shape[3:]), (H, W))
        return [lst, lt, ls, large.reshape(B, T, r, H, W).transpose(1, 2)]

    def forward(self, V):
        D = torch.relu(self.bn1(self.channel_down(V)))
        return V * torch.sigmoid(self.bn2(self.channel_up(self.agg(self.responses(D)))))


def literal_shift(x, T):
    """One eighth of the channels one frame back, one eighth one frame forward; x is [B*T, C, H, W]."""
    x = x.reshape(-1, T, *x.shape[1:])
    out = x.clone()
    fold = x.shape[2] // 8
    for b in range(len(x)):
        for t in range(T):
            out[b, t, :fold] = x[b, t + 1, :fold] if t + 1 < T else 0
            out[b, t, fold : 2 * fold] = x[b, t - 1, fold : 2 * fold] if t else 0
    return out.flatten(0, 1)


class Block(nn.Module):
    """Bottleneck with SDA between bn2 and ReLU; TSM's shift in front of conv1 only. `segments` frames form
    a clip."""

    def __init__(self, cin, P, stride, shift, segments):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, P, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(P)
        self.conv2 = nn.Conv2d(P, P, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(P)
        self.conv3 = nn.Conv2d(P, 4 * P, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * P)
        self.sda = LiteralSDA(P)
        self.shift = shift
        self.segments = segments
        if stride > 1 or cin != 4 * P:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, 4 * P, 1, stride, bias=False), nn.BatchNorm2d(4 * P)
            )
        else:
            self.downsample = None

    def forward(self, x, T):
        residual = x if self.downsample is None else self.downsample(x)
        y = literal_shift(x, T) if self.shift else x
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(y)))))
        V = y.reshape(-1, self.segments or T, *y.shape[1:]).transpose(1, 2).contiguous()
        y = torch.relu(self.sda(V).transpose(1, 2).reshape(y.shape))
        return torch.relu(self.bn3(self.conv3(y)) + residual)


class Frames(nn.Module):
    """ResNet-50 with the blocks above; the part called `base_model` in the checkpoints."""

    def __init__(self, shift, segments, depths):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        cin = 64
        for i, (depth, P) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
            blocks = []
            for k in range(depth):
                blocks.append(Block(cin, P, 2 if i and not k else 1, shift, segments))
                cin = 4 * P
            setattr(self, f"layer{i + 1}", nn.ModuleList(blocks))

    def forward(self, x, T):
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, T)
        return x.mean((2, 3))


class ReferenceNet(nn.Module):
    """The whole published network; clips [B, T, 3, H, W] to logits. `segments=8` is its behaviour at 16
    frames."""

    def __init__(self, num_classes, shift=False, segments=None, depths=(3, 4, 6, 3)):
        super().__init__()
        self.base_model = Frames(shift, segments, depths)
        self.new_fc = nn.Linear(2048, num_classes)

    def forward(self, clips):
        B, T = clips.shape[:2]
        return self.new_fc(self.base_model(clips.flatten(0, 1), T)).reshape(B, T, -1).mean(1)


def make_clips(B, T=8, H=64, W=64, seed=0):
    """Clips that differ as videos do: each its own colour, light that changes in time, large shapes, a
    little noise."""
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(B, 1, 3, 1, 1, generator=g), 0.5 * torch.randn(B, T, 3, 1, 1, generator=g)]
    shapes = torch.randn(B * T, 3, 5, 4, generator=g) + torch.randn(B, 1, 3, 5, 4, generator=g).expand(
        B, T, 3, 5, 4
    ).flatten(0, 1)
    parts.append(F.interpolate(shapes, (H, W), mode="bilinear").unflatten(0, (B, T)))
    return sum(parts) + 0.2 * torch.randn(B, T, 3, H, W, generator=g)


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def randomise(net, seed):
    """Statistics, scales and queries as after training: nothing at its start value, every gate and
    selection at work.

    Statistics of a batch of clips are taken over, then disturbed: with made-up ones the signal fades or
    explodes from block to block. The classifier is scaled to logits of a trained network's size.
    """
    g = torch.Generator().manual_seed(seed)
    clips = make_clips(8, 4, seed=seed)
    norms = [(n, m) for n, m in net.named_modules() if isinstance(m, BATCH_NORMS)]
    for name, m in norms:
        m.weight.copy_(torch.rand(m.num_features, generator=g) * (0.2 if name.endswith("bn3") else 1) + 0.5)
        m.bias.copy_(torch.randn(m.num_features, generator=g) * 0.3)
        m.momentum = 1.0
    for m in net.modules():
        if isinstance(m, Aggregate):
            m.qVec.copy_(torch.randn(m.qVec.shape, generator=g) * 0.2)
    net.train()(clips)
    for _, m in norms:
        m.running_mean += torch.randn(m.num_features, generator=g) * 0.1 * m.running_var.sqrt()
        m.running_var.mul_(torch.rand(m.num_features, generator=g) + 0.6).clamp_(
            min=0.01
        )  # LST's come from 8 vectors
    logits = net.eval()(clips)
    net.new_fc.weight.mul_(2 / logits.std())
    return net
