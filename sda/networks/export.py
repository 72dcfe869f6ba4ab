"""A network becomes a file for ONNX Runtime or for torch alone, and is compared before it is handed over."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..foundation.devices import device_of, evaluating
from ..foundation.errors import FolderError, RunError, SettingError, missing_package, unknown_name
from ..foundation.files import check_folder

if TYPE_CHECKING:
    from .backbones import VideoNet

__all__ = ["export_network"]

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}  # what it becomes -> end of the file's name
_BATCHES = (2, 1, 3)  # the first is shown to the exporter, all are compared
ONNX_LIMIT = 2 << 30  # bytes of weights in one file: its format (protocol buffers) holds no more
TOLERANCE = 1e-3  # largest difference of a logit from the eager network's, as a share of the largest logit


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' progress, hints and log lines are not for our readers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_torch(net: VideoNet, clips: Tensor, card: str, file: Path) -> None:
    """Trace and write with torch.export."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(net, (clips,), dynamic_shapes=({0: batch},))
    torch.export.save(program, file, extra_files={"sda.card": card})


def _run_torch(file: Path) -> Callable[[Tensor], Tensor]:
    """The network in a file of torch.export."""
    return torch.export.load(file).module()


def _to_onnx(net: VideoNet, clips: Tensor, card: str, file: Path) -> None:
    """Trace and write with torch.onnx; names of input and output as in our docstrings."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        net,
        (clips,),
        dynamo=True,
        input_names=["clips"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
        optimize=False,  # ONNX Runtime does that when it opens a file; here it takes minutes for a ResNet-50
    )
    assert program is not None  # it is with dynamo
    program.model.metadata_props["sda.card"] = card
    program.save(str(file), external_data=False)


def _run_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    """The network in a file of ONNX, on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["logits"], {"clips": clips.numpy()})[0])


_WRITE: dict[str, tuple[Callable[..., None], Callable[[Path], Callable[[Tensor], Tensor]]]] = {
    "torch": (_to_torch, _run_torch),
    "onnx": (_to_onnx, _run_onnx),
}


def _need(to: str) -> None:
    """MissingPackageError before the work, where a package is missing."""
    if to not in FORMATS:
        raise unknown_name("form of a network", to, FORMATS)
    if to != "onnx":
        return
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as err:
            raise missing_package(package, "files for ONNX", "export") from err


def difference(
    net: VideoNet,  # eager, on the processor
    run: Callable[[Tensor], Tensor],  # the exported one
    shape: tuple[int, ...],  # of a clip, [T, 3, H, W]
) -> float:  # the largest of a logit, as a share of the largest logit
    """How far an exported network is from the eager one on random clips, in batches of several sizes."""
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for batch in _BATCHES:
        clips = torch.randn(batch, *shape, generator=generator)
        with torch.no_grad():
            truth = net(clips)
            answer = run(clips)
        if answer.shape != truth.shape:
            return float("inf")
        away = (answer - truth).abs().max() / truth.abs().max().clamp(min=1e-6)
        worst = max(worst, float(away.nan_to_num(float("inf"))))
    return worst


def export_network(
    net: VideoNet,  # left as it is
    path: str | Path,  # file to write, replaced if it exists; .onnx or .pt2
    to: str = "onnx",  # one of `FORMATS`: "onnx", or "torch" for torch.export
    num_frames: int | None = None,  # T of the clips; None: what the network was built for
    size: int | None = None,  # height and width; None: of its card's transform, else 224
) -> tuple[Path, float]:  # the file; largest difference from the eager network, see `difference`
    """Write a network for clips [batch, T, 3, size, size] of any batch; RunError where the file computes
    other numbers, and then there is no file."""
    _need(to)
    path = Path(path)
    if path.suffix != FORMATS[to]:
        raise SettingError(f"a file for {to} ends in {FORMATS[to]}, not {path.suffix!r}", subject=str(path))
    held = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    if to == "onnx" and held >= ONNX_LIMIT:
        what = (
            f"{net.name} has {held / 1e9:.1f} GB of weights, and a file of ONNX holds {ONNX_LIMIT / 1e9:.1f}"
        )
        raise SettingError(what, subject=net.name, remedy="--to torch, whose files have no limit")
    card = net.card
    frames = num_frames or net.num_frames
    side = size or (card.transform.get("size") if card else None) or 224
    check_folder(path.parent)
    shape = (frames, 3, side, side)
    write, load = _WRITE[to]
    at = device_of(net)
    with evaluating(net, gradients=None), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        net.to("cpu")
        try:
            clips = torch.zeros(_BATCHES[0], *shape)
            with _quiet(), torch.no_grad():
                write(net, clips, card.to_json() if card else "", part)
                away = difference(net, load(part), shape)
        except OSError as err:
            raise FolderError(f"{path} cannot be written: {err}", subject=str(path)) from err
        except Exception as err:  # whatever the exporters meet in a network
            reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
            raise RunError(f"{net.name} cannot be exported for {to}: {reason}", subject=net.name) from err
        finally:
            net.to(at)
        if not away <= TOLERANCE:
            text = f"the exported {net.name} computes other numbers, off by {away:.2%} of the largest logit"
            raise RunError(f"{text}; no file was written", subject=str(path))
        os.replace(part, path)
    return path, away
