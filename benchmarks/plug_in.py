"""What works with SDA in networks of torchvision and timm: `python benchmarks/plug_in.py [NAME ...]`.

Each network gets SDA and the shift by `insert_sda`; then it answers, learns, keeps its in-place steps, goes
into a file and back, is counted, traced, mapped and exported. Writes data/results/plug_in.json.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from sda.explaining import clip_cam, trace_clips  # noqa: E402
from sda.foundation.runs import new_record, save_record  # noqa: E402
from sda.networks.backbones import sda_blocks  # noqa: E402
from sda.networks.checkpoints import ModelCard, load_model, save_model  # noqa: E402
from sda.networks.cost import profile  # noqa: E402
from sda.networks.foreign import image_network  # noqa: E402
from sda.networks.insert import insert_sda  # noqa: E402

NETWORKS = (
    *("torchvision:resnet18", "torchvision:resnet34", "torchvision:resnet50", "torchvision:resnet101"),
    *("torchvision:resnext50_32x4d", "torchvision:wide_resnet50_2", "torchvision:mobilenet_v3_small"),
    *("timm:resnet18", "timm:resnet26d", "timm:resnet50d", "timm:seresnet50", "timm:convnext_atto"),
)
PLACES = {  # networks that are no ResNets: behind which modules
    "torchvision:mobilenet_v3_small": ["features.3", "features.6"],
    "timm:convnext_atto": ["stages.1", "stages.2"],
}
COLUMNS = ("forward", "backward", "in-place", "save/load", "profile", "trace", "map", "export")


def check(name: str, folder: Path) -> dict[str, str]:
    """One row of the table: "yes", or the error, for every column."""
    torch.manual_seed(0)
    where = PLACES.get(name)
    image_net = image_network(name, 5)
    wake(image_net)
    net = insert_sda(image_net, 4, where=where, shift=where is None)
    clips = torch.rand(2, 4, 3, 64, 64)
    steps: dict[str, Callable[[], bool]] = {
        "forward": lambda: forward(net, clips),
        "backward": lambda: backward(net, clips),
        "in-place": lambda: in_place(net, clips),
        "save/load": lambda: there_and_back(net.eval(), clips, folder),
        "profile": lambda: profile(net, 64).per_block.time_macs.sum() > 0,
        "trace": lambda: trace_clips(net, clips).blocks == list(sda_blocks(net)),
        "map": lambda: clip_cam(net, clips[0]).maps.shape[0] == 4,
        "export": lambda: exported(net, clips),
    }
    row = {"network": name, "name": net.name}
    for column in COLUMNS:
        try:
            row[column] = "yes" if steps[column]() else "no"
        except Exception as err:
            row[column] = f"{type(err).__name__}: {err}".splitlines()[0][:200]
    return row


def wake(net: nn.Module) -> None:
    """Norms that start at zero let no gradient through to what lies before them: they start at one."""
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 1 and not weight.any():
            nn.init.ones_(weight)


def forward(net: nn.Module, clips: torch.Tensor) -> bool:
    """Clips of any length become finite logits."""
    with torch.no_grad():
        return all(net.eval()(clips[:, :t]).isfinite().all() for t in (4, 2))


def backward(net: nn.Module, clips: torch.Tensor) -> bool:
    """Every block learns."""
    net.train()(clips).square().sum().backward()
    grads = [block.down.weight.grad for block in sda_blocks(net).values()]
    return all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)


def in_place(net: nn.Module, clips: torch.Tensor) -> bool:
    """With all activations in place, the gradients are the same to the bit."""
    found = []
    for inplace in (True, False):
        for module in net.modules():
            if hasattr(module, "inplace"):
                module.inplace = inplace
        net.zero_grad()
        torch.manual_seed(0)
        net.train()(clips).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def there_and_back(net: nn.Module, clips: torch.Tensor, folder: Path) -> bool:
    """A file gives the same network, by its card alone."""
    file = save_model(folder / "model.safetensors", net, ModelCard.of(net))
    with torch.no_grad():
        return torch.equal(load_model(file)(clips), net(clips))


def exported(net: nn.Module, clips: torch.Tensor) -> bool:
    """`torch.export` gives the same answers, also to another number of clips."""
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net.eval(), (clips,), dynamic_shapes=(batch,)).module()
        return all(
            torch.allclose(program(x), net(x), atol=1e-4) for x in (clips, clips.repeat(2, 1, 1, 1, 1))
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        rows = [check(name, Path(place)) for name in sys.argv[1:] or NETWORKS]
    record = new_record(
        "benchmark",
        model="SDA",
        name="plug_in",
        metrics={},
        device="cpu",
        protocol="clips of 4 frames of 64 x 64 pixels, random weights, norms that start at zero set to one, "
        "5 classes, float32",
        rows=rows,
        command="python benchmarks/plug_in.py",
    )
    for row in rows:
        print(row["network"].ljust(32), *(row[column][:60] for column in COLUMNS))
    print(save_record(record, ROOT / "data" / "results" / "plug_in.json"))
