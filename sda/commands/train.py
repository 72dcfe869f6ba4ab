"""`sda train`: a network, a dataset and settings become a folder with model, history and record."""

import os
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import torch
from accelerate import Accelerator

from ..data.datasets import ClipDataset
from ..data.transforms import mirror_notes
from ..foundation.files import check_folder, file_words
from ..networks.backbones import VideoNet
from ..networks.cost import profile
from ..training.advice import Advice, sentences
from ..training.config import TrainConfig
from ..training.memory import memory_estimate
from ..training.optimiser import scaled_lr
from ..training.preparing import build_model
from ..training.recipes import load_config, recipe
from ..training.run import TrainResult
from ..training.step import make_accelerator
from ..training.trainer import train
from .options import Command, CommandLineError, first_process, open_clips, read_options

__all__ = ["Train"]


@dataclass
class Train(Command):
    """Train a network and leave model, history and record in a folder; an interrupted run goes on."""

    model: str = "sda_tsn_tiny"  # network, one of `sda models`
    options: tuple[str, ...] = ()  # options of the network, e.g. reduction=8 "dependencies=[LST,LT]"
    data: Path = Path("sets/moves")  # dataset folder: category.txt, img/, trainValTest/
    # list in trainValTest/ to validate on; Diving48 has no val: name test, or hold some clips out
    val: str = "val"
    out: Path | None = None  # folder of the run (default: runs/MODEL-RECIPE-seedSEED)
    # decode each clip once into DATA/cache; auto: when they are small
    cache: Literal["auto", "yes", "no"] = "auto"
    # stop: a damaged clip ends the run and is named; skip: all clips are decoded first, damaged ones left out
    on_bad_clip: Literal["stop", "skip"] = "stop"
    # auto: go on with the run in the folder; no: forget it and start again
    resume: Literal["auto", "no"] = "auto"
    # train nothing: tell model, multiply-adds, batches, memory and expected time of an epoch
    dry_run: bool = False
    settings: Path | None = None  # YAML file to take the settings below from, instead of a recipe
    # settings; --recipe NAME sets their defaults
    config: TrainConfig = field(default_factory=lambda: recipe("moves"))

    def run(self) -> None:
        """Open the clips, make the network, train."""
        c = self.config
        progress = not self.quiet
        cache = "no" if self.dry_run else self.cache
        out = self.out or Path("runs") / file_words(self.model, c.recipe, f"seed{c.seed}")
        if not self.dry_run:
            check_folder(out)
        data, val = (
            open_clips(self.data, split, c.sampling(), c.transform(), cache, progress, self.on_bad_clip)
            for split in ("train", self.val)
        )
        if first_process():
            print(*left_out(data), *left_out(val), sep="\n", end="")
        if self.dry_run:
            model = self.network(data.class_names)
            print(dry_run(c, model, data, val))
            if model.start:
                print(textwrap.indent(model.start.lines, "init     ", lambda line: True))
            return
        if first_process():
            print(settings_text(c), *(mirror_notes(data.class_names) if c.flip else []), sep="\n")
        model = self.network(data.class_names)
        if first_process() and model.start:
            print(f"starts from {c.init}", model.start.lines, sep="\n")
        result = train(c, model, data, val, out, resume=self.resume == "auto", progress=progress)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if first_process():
            self.tell(result, val.source, out)

    def tell(
        self,
        result: TrainResult,  # what `train` returned
        source: str,  # dataset and release of the clips; empty for clips of one's own
        out: Path,  # folder of the run
    ) -> None:
        """Print what came out."""
        name = f"{self.model} on {source}" if source else self.model
        before = " (trained before)" if result.reused else ""
        net = cast(VideoNet, result.model)
        if known := result.record.get("advice"):  # runs of earlier versions have none
            print(*sentences(Advice(**known), self.config, net, result.record["clips"]), sep="\n")
        print(f"{name}: {result.summary()}; {result.seconds:.0f} s{before}; {out / 'model.safetensors'}")

    def network(
        self,
        class_names: list[str],  # of the dataset
    ) -> VideoNet:
        """The network as it will be trained; a dry run downloads nothing."""
        c = self.config
        if self.dry_run and c.pretrained is True:
            c = replace(c, pretrained=False, freeze=())
        try:
            return build_model(c, self.model, class_names, **read_options(self.options))
        except TypeError as err:
            raise CommandLineError(
                f"{self.model} cannot be made with {' '.join(self.options)}: {err}"
            ) from err


def left_out(
    data: ClipDataset,  # clips of one split
) -> list[str]:  # lines
    """How many clips of a list are left out, and each of them with the reason."""
    if not data.left_out:
        return []
    total = len(data) + len(data.left_out)
    head = f"{data.split}.txt: {len(data.left_out)} of {total} clips are left out"
    return [head, *(f"  {why}" for why in data.left_out.values()), ""]


def _word_after(args: Sequence[str], name: str) -> str | None:
    """The word after `--name`, or after `--name=`."""
    for word, after in zip(args, [*args[1:], None], strict=False):
        if word == name:
            return after
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def spelled(
    args: Sequence[str],  # words after `sda train`
) -> list[str]:
    """`--pretrained` alone, `--no-pretrained` and `--pretrained FILE` as the one option that they are."""
    words = []
    for word, after in zip(args, [*args[1:], "--"], strict=False):
        if word == "--no-pretrained":
            words += ["--pretrained", "False"]
        elif word == "--pretrained" and after.startswith("--"):
            words += ["--pretrained", "True"]
        else:
            words.append(word)
    return words


def defaults(
    args: Sequence[str],  # words after `sda train`
) -> Train:
    """The options before the words are read: those of the recipe or of the settings file that they name."""
    settings = _word_after(args, "--settings")
    name = _word_after(args, "--recipe")
    if settings and name:
        raise CommandLineError(f"give --settings or --recipe: a file may name its recipe (recipe: {name})")
    if settings and settings.startswith("--"):
        raise CommandLineError("--settings needs a file, e.g. --settings my_run.yaml")
    return Train(config=load_config(settings) if settings else recipe(name or "moves"))


def settings_text(
    config: TrainConfig,  # settings of the run
) -> str:  # lines of at most 116 letters
    """Every setting of a run in lines that fit a terminal, and the arithmetic of its learning rate."""
    words = "; ".join(f"{name} {value}" for name, value in asdict(config).items())
    return f"{textwrap.fill(words, 116)}\n{scaled_lr(config)[1]}"


def seconds_per_clip(
    model: VideoNet,  # on the accelerator's device
    clips: torch.Tensor,  # [B,T,3,H,W]
    accelerator: Accelerator,  # device and precision
    train: bool = True,  # backward too
) -> float:  # the best of three
    """Seconds of a clip through the model on its device: forward, and backward too for training."""
    model.train(train)
    clips = clips.to(accelerator.device)
    times = []
    for _ in range(3):  # the first one warms up
        start = time.perf_counter()
        with torch.set_grad_enabled(train), accelerator.autocast():
            loss = model(clips).float().sum()
            if train:
                loss.backward()
        loss.item()  # waits for a GPU
        times.append((time.perf_counter() - start) / len(clips))
    return min(times)


def expected_seconds(
    config: TrainConfig,  # settings of the run
    model: VideoNet,  # is moved to the device of the run
    data: ClipDataset,  # training clips, one at least
    val: ClipDataset,  # validation clips
) -> tuple[float, float, str]:
    """Seconds of an epoch on this machine: computing, reading without a cache; and the kind of device."""
    accelerator = make_accelerator(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    start = time.perf_counter()
    clips = torch.stack([data[i % len(data)]["clip"] for i in range(2)])
    reading = (time.perf_counter() - start) / 2 * (len(data) + len(val)) / max(config.num_workers, 1)
    model = model.to(accelerator.device)
    step, look = (seconds_per_clip(model, clips, accelerator, train) for train in (True, False))
    return len(data) * step + len(val) * look, reading, accelerator.device.type


def dry_run(
    config: TrainConfig,  # settings of the run
    model: VideoNet,  # network as it would be trained
    data: ClipDataset,  # training clips
    val: ClipDataset,  # validation clips
) -> str:  # six lines
    """What a run would be: model, clips, batches, learning rate, memory, time of an epoch here."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    at_once = -(-config.batch_size // (config.accumulate * processes))
    cost = profile(model, config.size, config.num_frames)
    memory = memory_estimate(
        model,
        at_once,
        config.num_frames,
        config.size,
        config.optimizer,
        config.precision != "fp32",
        bool(config.ema),
    )
    computing, reading, device = expected_seconds(config, model, data, val)
    several = "es" if processes > 1 else ""
    return "\n".join(
        [
            f"model    {model.name}: {cost.params / 1e6:.3f} M parameters, {cost.macs / 1e9:.3f} G "
            "multiply-adds a clip",
            f"clips    {len(data)} for training, {len(val)} for validation, {len(data.class_names)} classes; "
            f"each of {config.num_frames} frames of {config.size}x{config.size}",
            f"batches  {-(-len(data) // config.batch_size)} an epoch of {config.batch_size} clips, {at_once} "
            f"at once on each of {processes} process{several}; {config.epochs} epochs",
            f"rate     {scaled_lr(config)[1]}; {config.schedule}, {config.optimizer}, {config.precision}",
            f"memory   about {memory['total']:.2f} GB a process, {memory['activations']:.2f} GB of it "
            "activations",
            f"time     about {computing / processes / 60:.1f} min an epoch on this {device}, and "
            f"{reading / processes / 60:.1f} min to read the clips, once if they are cached",
        ]
    )
