"""Figures of a block for time: its reach, a toy clip after it, the stages of a network, boxes and arrows."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .receptive_field import block_reach

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["fig_block", "fig_flow", "fig_stages"]


def fig_block(
    block: nn.Module | Callable[[Tensor, int], Tensor],  # block with the signature block(x, num_frames)
    x: Tensor,  # toy features [T, C, H, W], see `toy_features`
    frame: int = 3,  # the frame that is changed
    rows: Sequence[int] | None = None,  # output channels to show; eight spread evenly when None
) -> "Figure":  # reach over frames and channels, and the toy clip after the block
    """The measured reach of one block, and what it does to a moving square."""
    from matplotlib.figure import Figure

    T, C, size = x.shape[:3]
    change = block_reach(block, C, T, frame)
    with torch.no_grad():
        y = block(x, T)
    rows = list(rows or torch.linspace(0, y.shape[1] - 1, min(8, y.shape[1])).long().tolist())
    fig = Figure(figsize=(9, 0.33 * len(rows) + 0.9), dpi=80, layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1, 2.4))
    left.imshow(
        (change / change.max()).clamp_min(1e-9).log10().T, vmin=-4, vmax=0, cmap="cividis", aspect="auto"
    )
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set(
        xlabel="output frame",
        ylabel="channel",
        xticks=range(T),
    )
    left.set_title(f"log10 of the change, frame {frame} changed", fontsize=10)
    # only the rows of pixels that the square crosses
    strip = torch.cat([torch.cat([*y[:, c, size // 4 : -size // 4]], dim=1) for c in rows])
    high = strip.abs().max().item() or 1.0
    right.imshow(strip, cmap="cividis", vmin=min(0.0, strip.min().item()), vmax=high, aspect="auto")
    half = y.shape[-1]
    tall = strip.shape[0] / len(rows)
    for t in range(1, T):
        right.axvline(t * half - 0.5, color="white", lw=0.8)
    for c in range(1, len(rows)):
        right.axhline(c * tall - 0.5, color="white", lw=0.8)
    right.set(
        xticks=[(t + 0.5) * half for t in range(T)],
        xticklabels=range(T),
        xlabel="frame",
        yticks=[(i + 0.5) * tall for i in range(len(rows))],
        yticklabels=rows,
        ylabel="channel",
    )
    right.set_title("the moving square after the block", fontsize=10)
    return fig


def fig_stages(
    reach: dict[str, Tensor],  # title -> [stages, T], see `stage_reach`
) -> "Figure":  # one panel per network
    """How far one frame's change spreads, stage by stage."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(2.6 * len(reach) + 0.6, 2.1), dpi=80, layout="constrained")
    axes = fig.subplots(1, len(reach), sharey=True, squeeze=False)[0]
    for ax, (title, change) in zip(axes, reach.items(), strict=True):
        stages, T = change.shape
        image = ax.imshow(change.clamp_min(1e-9).log10(), vmin=-6, vmax=0, cmap="cividis", aspect="auto")
        ax.set(
            title=title,
            xlabel="frame",
            xticks=range(T),
            yticks=range(stages),
            yticklabels=[f"layer{i + 1}" for i in range(stages)],
        )
    fig.colorbar(image, ax=axes, label="log10 relative change")
    return fig


def fig_flow(
    boxes: dict[str, tuple[float, float]],  # text -> column, row; "*" in front marks a part that mixes frames
    arrows: Sequence[tuple[str, str]],  # from text to text, as in `boxes`
    width: float = 9,  # of the figure in inches
) -> "Figure":  # orange: mixes frames; blue: frame by frame
    """Boxes and arrows."""
    from matplotlib.figure import Figure

    across, down = (max(at[i] for at in boxes.values()) + 1 for i in (0, 1))
    fig = Figure(figsize=(width, 0.66 * down + 0.1), dpi=80)
    ax = fig.add_axes((0, 0, 1, 1))
    edges = {}
    for text, (x, y) in boxes.items():
        style = dict(fc="#E69F00", ec="#7a5300") if text[0] == "*" else dict(fc="#dce6f0", ec="#48617d")
        label = ax.text(
            x,
            -y,
            text.lstrip("*"),
            ha="center",
            va="center",
            size=9.5,
            bbox=dict(boxstyle="round,pad=.35", **style),
        )
        edges[text] = label.get_bbox_patch()
    for start, end in arrows:
        (x0, y0), (x1, y1) = boxes[start], boxes[end]
        arrow = {"arrowstyle": "-|>", "color": "#48617d", "shrinkA": 0, "shrinkB": 1}
        arrow |= {
            "patchA": edges[start],
            "patchB": edges[end],
        }  # it leaves and meets the boxes at their edges
        # drawn after the boxes, which know their size only then
        ax.annotate("", (x1, -y1), (x0, -y0), arrowprops=arrow, zorder=4)
    ax.set(xlim=(-0.6, across - 0.4), ylim=(-down + 0.45, 0.55))
    ax.axis("off")
    return fig
