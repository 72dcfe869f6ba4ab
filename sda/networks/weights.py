"""Weights of others become ours: read as tensors alone, renamed, fitted to a network, and counted."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..assets import model_file, no_model_file
from ..foundation.errors import DataError, RunError, listed
from ..foundation.files import fingerprint

__all__ = ["read_weights"]

# pattern in a file of somebody, our name; in this order
_NAMES = (
    # around everything: DataParallel, torch.compile, the ResNet inside TSN, mmaction2, training scripts
    (r"^(?:(?:module|_orig_mod|base_model|backbone|model|network)\.)+", ""),
    (r"^new_fc\.", "fc."),  # the classifier of TSN's code, when trained with dropout
    (r"^cls_head\.fc_cls\.", "fc."),  # mmaction2's
    (r"\.net\.", "."),  # TSM wraps conv1
    (r"(^|\.)conv(\d)\.conv\.", r"\1conv\2."),  # mmaction2 keeps a convolution and its norm together
    (r"(^|\.)conv(\d)\.bn\.", r"\1bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"\.sda\.channel_down\.", ".gate.down."),  # the paper's code
    (r"\.sda\.bn1\.", ".gate.down_norm."),
    (r"\.sda\.mdm\.0\.", ".gate.branches.LST."),
    (r"\.sda\.mdm\.1\.", ".gate.branches.LT."),
    (r"\.sda\.mdm\.2\.", ".gate.branches.LS."),
    (r"\.sda\.mdm\.3\.", ".gate.branches.S122."),
    (r"(\.gate\.branches\.\w+)\.bn\.", r"\1.norm."),
    (r"\.sda\.agg\.qVec$", ".gate.attention.query"),
    (r"\.sda\.channel_up\.", ".gate.up."),
    (r"\.sda\.bn2\.", ".gate.up_norm."),
)
# what training scripts call the part of their file that holds the weights
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")
# not learnt: a profiler's, and how often a norm was trained
_COUNTERS = ("total_ops", "total_params", "num_batches_tracked")
_IMAGE = re.compile(r"^(?:(?:conv1|bn1)\.|layer\d+\.\d+\.(?:conv\d|bn\d|downsample)\.)")
_BLOCK = re.compile(r"^(layer\d+)\.(\d+)\.(\w+)")
ENOUGH = 0.9  # share of the image network that must be found, and of the file's that must be used


def our_name(
    name: str,  # of a tensor in a file of ours, of SDA, TSN, TSM, mmaction2, torchvision or timm
) -> str:  # its name in our networks
    """Translate one name; names of ours stay as they are."""
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name


def is_counter(
    name: str,  # of a tensor
) -> bool:
    """Whether a tensor only counts something, so that nobody misses it."""
    return name.rpartition(".")[2] in _COUNTERS


def _is_safetensors(path: Path) -> bool:
    """A length, then a JSON object."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _refused(path: Path, err: Exception) -> DataError:
    """The error for a file that is damaged or would have to be executed, naming what it wants to run."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(err))
    if asked:
        remedy = "if you trust it, load it elsewhere and torch.save its state_dict alone"
        text = f"{path} holds more than tensors: it asks for {asked[1]}, which could run code and is not read"
        return DataError(text, subject=str(path), choices=[asked[1]], remedy=remedy)
    # torch's own advice is to read the file unsafely
    reason = (
        "" if "weights_only" in str(err) else f" ({str(err).strip().splitlines()[0]})" if str(err) else ""
    )
    remedy = "fetch or copy it again; tensors saved by torch.save or safetensors are read"
    return DataError(f"{path} is damaged, or no file of weights{reason}", subject=str(path), remedy=remedy)


def read_weights(
    # .pth, .pt, .pth.tar or .safetensors; the folder of a run, for its model; or the name of a shipped one
    path: str | Path,
) -> dict[str, Tensor]:  # by the names in the file, without wrappers and counters
    """Read the weights in a file without running anything in it; DataError names what a pickle asks for."""
    path = model_file(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    if not path.is_file():
        raise no_model_file(path, "checkpoint")
    import torch  # not at the top: names are translated without it

    try:
        if _is_safetensors(path):
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # torch and pickle have many for files that are none
        raise _refused(path, err) from err
    return state_in(content, str(path))


def state_in(
    content: object,  # what a file holds: a state dict, or one inside what a script has saved
    what: str = "the checkpoint",  # how errors call it
) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without counters of a profiler."""
    while isinstance(content, Mapping):
        inner = [content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        raise DataError(f"{what} is a state dict or holds one, not {type(content).__name__}", subject=what)
    state = {str(k): v for k, v in content.items() if str(k).rpartition(".")[2] not in _COUNTERS[:2]}
    if other := [k for k, v in state.items() if not isinstance(v, Tensor)]:
        raise DataError(f"{what} holds entries that are not tensors: {listed(other, most=30)}", subject=what)
    if not state:
        raise DataError(f"{what} holds no tensors", subject=what, remedy="store a state_dict with torch.save")
    return state


def renamed(
    state: Mapping[str, Tensor],  # by the names of a file
    want: Mapping[str, Tensor],  # what the network has
) -> dict[str, Tensor]:  # by our names, in our shapes where only axes of length one differ
    """Rename and reshape; DataError when two entries claim the same name."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = name if name in want else our_name(name)
        if key in out:
            raise DataError(f"two entries of the checkpoint are {key}, one of them {name}", subject=name)
        like = want.get(key)
        if like is not None and [n for n in like.shape if n > 1] == [n for n in tensor.shape if n > 1]:
            tensor = tensor.reshape(like.shape)
        out[key] = tensor
    return out


def parts_of(
    names: Iterable[str],  # of tensors, by our names
) -> str:  # "conv1, bn1, layer1, gate in 4 blocks"
    """The parts of a network that these tensors belong to: stages, blocks of a method, the rest by name."""
    found: dict[str, set[str]] = {}
    for name in names:
        block = _BLOCK.match(name)
        if block is None:
            found.setdefault(name.partition(".")[0], set())
        elif _IMAGE.match(name):
            found.setdefault(block[1], set())
        else:
            found.setdefault(block[3], set()).add(f"{block[1]}.{block[2]}")
    return ", ".join(
        f"{part} in {len(where)} block{'s' * (len(where) != 1)}" if where else part
        for part, where in found.items()
    )


def _size(tensors: Iterable[Tensor]) -> int:
    """Numbers in tensors."""
    return sum(t.numel() for t in tensors)


@dataclass
class Fit:
    """Which tensors of a file a network takes, which of its own start anew, which of the file's are left."""

    taken: dict[str, Tensor] = field(default_factory=dict)  # by our names
    new: dict[str, Tensor] = field(default_factory=dict)  # of the network, as it was made
    left: dict[str, Tensor] = field(default_factory=dict)  # of the file, by our names
    said: list[str] = field(default_factory=list)  # about what is new: why
    from_conv2: dict[str, str] = field(default_factory=dict)  # conv2 in the file -> the block made of it

    def __str__(self) -> str:
        """Three lines with counts."""

        def line(title: str, tensors: Mapping[str, Tensor], *more: str) -> str:
            learnt = {k: v for k, v in tensors.items() if not is_counter(k)}
            many = f"{title:10}{len(learnt)} tensor{'s' * (len(learnt) != 1)}"
            if not learnt:
                return many
            numbers = _size(learnt.values()) / 1e6
            why = f" ({'; '.join(more)})" if more else ""
            return f"{many}, {numbers:.3f} M numbers: {parts_of(learnt)}{why}"

        lines = [line("taken", self.taken), line("new", self.new, *self.said), line("left over", self.left)]
        return "\n".join(lines)

    def counts(self) -> dict[str, int]:
        """How many tensors were taken, are new and were left over; counters are not counted."""
        kinds = {"taken": self.taken, "new": self.new, "left": self.left}
        return {kind: sum(not is_counter(name) for name in tensors) for kind, tensors in kinds.items()}


def fit(
    state: Mapping[str, Tensor],  # by the names of the file
    want: Mapping[str, Tensor],  # the network's state dict
    new: Collection[str],  # names of parts that an image network does not have, with the classifier
    mixes: Mapping[str, str] | None = None,  # conv2 of the image network -> the block that stands for it
    keep_classifier: bool = True,  # False: it starts anew, e.g. because its classes are others
) -> Fit:  # nothing is changed
    """Find which tensors of a file belong to which of a network."""
    found = Fit()
    given = renamed(state, want)
    for name, ours in want.items():
        theirs = given.pop(name, None)
        head = name.startswith("fc.")
        if theirs is not None and theirs.shape == ours.shape and (keep_classifier or not head):
            found.taken[name] = theirs
            continue
        if theirs is not None:
            found.left[name] = theirs
        if is_counter(name):
            continue
        found.new[name] = ours
        if theirs is None:
            continue
        if not head:
            found.said.append(f"{name} is {list(theirs.shape)} there and {list(ours.shape)} here")
        elif ours.ndim > 1:
            there, here = len(theirs), len(ours)
            found.said.append(
                f"fc: {there} classes there, {here} here" if there != here else "fc: other classes"
            )
    for conv2, block in (mixes or {}).items():
        if conv2 in given and any(name.startswith(block + ".") for name in found.new):
            found.taken[conv2] = given.pop(conv2)
            found.from_conv2[conv2] = block
    if found.from_conv2:
        found.said.append("mix is made from conv2 of the file")
    found.left |= {name: tensor for name, tensor in given.items() if not is_counter(name)}
    shapes = [text for text in found.said if " is [" in text]
    if len(shapes) > 3:
        rest = [text for text in found.said if text not in shapes]
        found.said = [*shapes[:3], f"{len(shapes) - 3} more of other shapes", *rest]
    return found


def check_fit(
    found: Fit,
    want: Mapping[str, Tensor],  # the network's state dict
    new: Collection[str],  # names of parts that an image network does not have, with the classifier
    what: str,  # how errors call the file
    model: str,  # how errors call the network
) -> None:
    """DataError unless nearly all of the image network is in the file, and the file holds little more."""

    def image(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: v for k, v in tensors.items() if not is_counter(k) and not set(k.split(".")) & set(new)}

    if broken := [k for k, t in found.taken.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise DataError(
            f"{what} holds NaN or infinity in {listed(broken)}: that training diverged", subject=what
        )
    whole = _size(image(want).values())
    have = sum(t.numel() for k, t in found.taken.items() if k in image(want) or k in found.from_conv2)
    whole += sum(found.taken[k].numel() for k in found.from_conv2)
    extra = _size(t for k, t in found.left.items() if _IMAGE.match(k))
    share = have / max(whole, 1)
    if share >= ENOUGH and extra <= (1 - ENOUGH) * max(have, 1):
        return
    missing = image(found.new)
    text = f"{what} is of another network than {model}: {share:.0%} of the image network is in it, "
    text += f"{extra / max(extra + have, 1):.0%} of its own finds no place"
    fits = f"fits: {parts_of(image(found.taken)) or 'nothing'}"
    lacks = f"does not fit or is not there: {parts_of(missing) or 'nothing'}"
    if shapes := [said for said in found.said if " is [" in said]:
        lacks += f" ({'; '.join(shapes)})"
    over = f"left over: {parts_of(found.left) or 'nothing'}"
    if found.left and not found.taken:
        over += f" (its names are like {listed(found.left)})"
    remedy = "start from a file of the same backbone, or choose the network that it is of"
    raise DataError(f"{text}; {fits}; {lacks}; {over}", subject=what, choices=[model], remedy=remedy)


@dataclass(frozen=True)
class Start:
    """What a network started from, without the weights."""

    source: str  # file
    lines: str  # taken, new, left over
    counts: dict[str, int]  # tensors of each
    digest: str  # of the tensors that were taken

    @classmethod
    def of(
        cls,
        source: str | Path,  # file
        found: Fit,  # from `load_weights`
    ) -> Start:
        """Forget the tensors."""
        return cls(str(source), str(found), found.counts(), fingerprint(found.taken))


@contextmanager
def _no_endless_wait(seconds: float = 30) -> Iterator[None]:
    """Let a silent network end in an error."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def image_weights(
    name: str,  # of a network of torchvision
) -> dict[str, Tensor]:  # RunError without a connection
    """ImageNet weights from torchvision's cache, or from its server."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        with _no_endless_wait():
            return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as err:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise RunError(
            f"the ImageNet weights could not be fetched ({err}). torchvision loads them with {weights}."
            "get_state_dict()",
            subject=str(weights),
            remedy=f"offline, put the file of {weights.url} at {place}, or name it: pretrained=FILE",
        ) from err
