"""Networks around image networks of others: their ResNets, or any network by names of modules."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..foundation.errors import SettingError
from .backbones import Bottleneck, Site, Stage, VideoNet, check_clips
from .foreign import (
    HOMES,
    check_norms,
    check_place,
    check_resnet,
    image_network,
    is_resnet,
    look_through,
    refuse_places,
    site_of,
    stage_blocks,
    timm_library,
)
from .insert import ResidualBlock
from .weights import image_weights, our_name, read_weights


class FrameResNet(VideoNet):
    """A ResNet of torchvision or timm that reads clips; its modules keep their names."""

    def __init__(
        self,
        model: nn.Module,  # whose modules become those of this network
        places: Callable[[Site], dict[str, nn.Module]],  # the method: blocks for one residual block
        num_classes: int,  # K
        num_frames: int,  # T that blocks are built for
        dropout: float,  # before the classifier, per frame
        where: Sequence[str] | None,  # stages and blocks that get SDA; None: all
    ):
        nn.Module.__init__(self)
        self.identify(num_classes, num_frames)
        self.stages = ["layer1", "layer2", "layer3", "layer4"]
        depths = tuple(len(getattr(model, stage)) for stage in self.stages)
        for name, child in model.named_children():
            if name not in self.stages:
                self.add_module(name, child)
                continue
            blocks = []
            for i, block in enumerate(getattr(model, name)):
                chosen = places(site_of(block, self.stages.index(name) + 1, i, depths, num_frames))
                if where is not None and not {name, f"{name}.{i}"} & set(where):
                    chosen.pop("gate", None)
                refuse_places(set(chosen) - {"enter", "adapt", "gate"})
                blocks.append(ResidualBlock(block, chosen))
            self.add_module(name, Stage(*blocks))
        self.dropout = nn.Dropout(dropout)
        self.before = [n for n in ("conv1", "bn1", "act1", "relu", "maxpool") if n in self._modules]
        self.pool = next(n for n in ("avgpool", "global_pool") if n in self._modules)

    def stem(self, clips: Tensor) -> Tensor:  # [B*T, C, h, w], the frames of one clip contiguous
        """Everything before the first stage."""
        x = clips.flatten(0, 1)
        for name in self.before:
            x = getattr(self, name)(x)
        return x

    def head(self, x: Tensor, num_frames: int, below: Tensor) -> Tensor:  # logits [B, K]
        """Pooled as the image network does, classified, and averaged over frames."""
        x = getattr(self, self.pool)(x).flatten(1)
        return self.fc(self.dropout(x)).unflatten(0, (-1, num_frames)).mean(1)


class Gated(nn.Module):
    """A module of others with SDA behind it; called as the module is."""

    new_parts = ("gate",)

    def __init__(
        self,
        inner: nn.Module,  # gives maps [B*T, C, H, W]
        gate: nn.Module,  # SDA
        num_frames: int,  # T, set before every pass
    ):
        super().__init__()
        self.inner = inner
        self.gate = gate
        self.num_frames = num_frames

    def forward(
        self,
        *args: Any,  # of the module
    ) -> Tensor:  # [B*T, C, H, W]
        """The module's maps, gated."""
        return self.gate(self.inner(*args), self.num_frames)


def _exchange(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one was."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class FrameNet(VideoNet):
    """Any image network that reads frames, with SDA behind some of its modules."""

    def __init__(
        self,
        model: nn.Module,  # changed: it becomes `backbone`
        gates: dict[str, nn.Module],  # module name -> SDA
        classifier: str | None,  # name of its last linear layer, which becomes `fc`; None leaves it inside
        num_classes: int,  # K
        num_frames: int,  # T that blocks are built for
        dropout: float,  # before `fc`
    ):
        nn.Module.__init__(self)
        self.identify(num_classes, num_frames)
        self.fc = nn.Identity()
        if classifier is not None:
            self.fc = model.get_submodule(classifier)
            _exchange(model, classifier, nn.Identity())
        for name in sorted(gates, key=lambda n: -n.count(".")):  # what lies deeper first: names stay true
            _exchange(model, name, Gated(model.get_submodule(name), gates[name], num_frames))
        self.backbone = model
        self.dropout = nn.Dropout(dropout if classifier is not None else 0.0)
        self.stages = ["backbone"]
        self.classifier = classifier
        self.map_layer = f"backbone.{list(gates)[len(gates) // 2]}" if gates else "backbone"

    def forward(
        self,
        clips: Tensor,  # float [B, T, 3, H, W]
    ) -> Tensor:  # logits [B, K], the mean over frames
        """Classify clips."""
        check_clips(clips)
        for module in self.modules():
            if isinstance(module, Gated) and module.num_frames != clips.shape[1]:
                module.num_frames = clips.shape[1]
        x = self.backbone(clips.flatten(0, 1))
        return self.fc(self.dropout(x)).unflatten(0, clips.shape[:2]).mean(1)


def around(
    image_net: str | nn.Module,  # LIBRARY:NAME, or the image network itself, which stays as it is
    places: Callable[[Site], dict[str, nn.Module]],  # the method
    num_classes: int,  # K
    num_frames: int,  # T that blocks are built for
    dropout: float,  # before the classifier
    bottleneck: Any,  # class of the method's blocks
    *,
    where: str
    | Sequence[str]
    | None = None,  # stages and blocks of a ResNet, or module names; None: all blocks
) -> VideoNet:
    """Put a method into an image network of others."""
    if bottleneck is not Bottleneck:
        raise SettingError(
            "this method has blocks of its own kind, which only our own networks have: "
            "take tsn or tsm, with or without SDA"
        )
    model = image_network(image_net, num_classes) if isinstance(image_net, str) else copy.deepcopy(image_net)
    names = [where] if isinstance(where, str) else None if where is None else list(where)
    if names == [] or len(set(names or ())) < len(names or ()):
        raise SettingError("where is empty, or names something twice: name each place once")
    if is_resnet(model):
        known = {*stage_blocks(model), "layer1", "layer2", "layer3", "layer4"}
        if names is None or known.issuperset(names):
            check_resnet(model)
            return FrameResNet(model, places, num_classes, num_frames, dropout, names)
    shapes, _, classifier = look_through(model)
    if names is None and "gate" in places(Site(64, 64, 1, num_frames, 1, 0, (1,))):
        check_norms(model, shapes)
    gates = {}
    for i, name in enumerate(names or ()):
        channels = check_place(model, name, shapes)
        blocks = places(Site(channels, channels, 1, num_frames, 1, i, (len(names or ()),)))
        refuse_places(set(blocks) - {"gate"}, name)
        if "gate" in blocks:
            gates[name] = blocks["gate"]
    return FrameNet(model, gates, classifier, num_classes, num_frames, dropout)


def foreign_names(
    pattern: str,  # shell pattern with a colon
) -> list[str]:  # TSN and TSM, without and with SDA, in the ResNets of both libraries
    """Model names with backbones of other libraries."""
    from torchvision import models

    home = HOMES[0]
    known = [n for n in models.list_models(module=models) if models.get_model_builder(n).__module__ == home]
    backbones = [f"torchvision:{name}" for name in known]
    if "torchvision:" not in pattern:
        backbones += [f"timm:{name}" for name in timm_library().list_models(module="resnet")]
    return [f"{gate}{method}_{b}" for b in backbones for method in ("tsn", "tsm") for gate in ("", "sda_")]


def image_state(
    net: VideoNet,  # from `around`
    backbone: str,  # LIBRARY:NAME
    source: bool | str | Path,  # True: the library's weights; or a file
) -> dict[str, Tensor]:  # under the names of `net`
    """ImageNet weights for a network of others."""
    library, _, name = backbone.partition(":")
    if source is not True:
        if not isinstance(source, (str, Path)) or not Path(source).is_file():
            raise FileNotFoundError(f"no file of ImageNet weights at {source}")
        state = {our_name(key): tensor for key, tensor in read_weights(source).items()}
    elif library == "timm":
        state = timm_library().create_model(name, pretrained=True).state_dict()
    else:
        state = image_weights(name)
    if not isinstance(net, FrameNet):
        return state
    gated = [n for n, m in net.backbone.named_modules() if isinstance(m, Gated)]
    plain = {n.replace(".inner", ""): n for n in net.backbone.state_dict()} if gated else {}
    head = f"{net.classifier}."
    return {f"backbone.{plain.get(k, k)}": v for k, v in state.items() if not k.startswith(head)}
