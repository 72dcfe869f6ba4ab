"""Numbers of the library as they were when recorded, and whether today's code still gives them.

`python tests/golden.py record [NAME...]` computes items and writes them to tests/golden/; `python
tests/golden.py check [NAME...]` computes them again and compares. A NAME is the beginning of an item's
name, e.g. `trace` or `networks/tiny`. Every access to the library stands in the first part of this file.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from sda.commands.main import main as run_command
from sda.data.annotations import records_something_v2
from sda.data.assembly import make_dataset
from sda.data.datasets import open_dataset
from sda.data.make import write_dataset
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.data.video import open_video

# -- the library: every import of it, and small functions around it, are in this part alone
from sda.explaining import cam, effects, faithfulness
from sda.explaining import interventions as changing
from sda.explaining.answers import load_clips
from sda.explaining.attribution import from_trace
from sda.explaining.trace import trace_clips
from sda.moves.render import render
from sda.moves.truth import load_truth
from sda.networks.backbones import create_model, list_models, sda_blocks
from sda.networks.checkpoints import load_model
from sda.networks.cost import profile
from sda.testing.evaluate import evaluate, predict, protocol
from sda.testing.predictions import summary
from sda.training.recipes import recipe
from sda.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sda/assets/moves_sample"
CHECKPOINTS = ROOT / "sda/assets/checkpoints"
os.environ["SDA_PRECISION"] = "fp32"  # numbers of machines that would compute in bfloat16 differ
OFFICIAL = Path(os.environ.get("SDA_ANNOTATIONS", ROOT.parent / "shared/annotations"))
FOLDER = Path(__file__).resolve().parent / "golden"
STEMS = ("sda_tsn_moves", "sda_tsn_moves_fast_query", "tsn_moves")
WITH_SDA = STEMS[:2]
CLIP = SAMPLE / "img/test_0000_rightward.mp4"
SWITCHES = ("reverse", "shuffle", "freeze", "drop_frames", "patch_shuffle", "blur")


def shipped(stem):
    """A network that ships."""
    return load_model(CHECKPOINTS / f"{stem}.safetensors")


def sample_clips(net, views=""):
    """The sample clips as a network's card wants them."""
    sampling, crops, _ = protocol(net.card, views)
    return open_dataset(SAMPLE, "test", sampling, crops)


def scores(net, data):
    """Logits of every view [N,V,K], and the summary of the evaluation."""
    found = evaluate(net, data, progress=False)
    return found.logits, summary(found)


def in_memory(data, indices):
    """Clips [N,T,3,H,W] and their labels."""
    clips, labels, _ = load_clips(data, indices)
    return clips, labels


def traced(net, clips, responses=False):
    """Arrays of a trace by name, and the trace."""
    trace = trace_clips(net, clips, responses=responses)
    names = ("weights", "scores", "response_norm", "gate_mean", "gate_std", "logits")
    arrays = {name: getattr(trace, name) for name in names}
    arrays |= {
        "entropy": trace.entropy(),
        "contribution": trace.contribution(),
    }
    arrays |= {f"response {b} {n}": v for b, kept in trace.responses.items() for n, v in kept.items()}
    return arrays, trace


def stage_means(trace):
    """Mean selection per stage with its interval."""
    found = trace.by_stage()
    return {"by_stage": found.means, "by_stage_low": found.low, "by_stage_high": found.high}


def ablation(net, clips, labels, reading):
    """Fall of a reading without each dependency in each block [N,R,4]; a loss is positive, as it was."""
    return effects.ablation_map(net, clips, labels, reading).values


def weights_against_ablation(net, clips, labels):
    """Rank correlations of weight and contribution with the effect, as numbers."""
    trace = trace_clips(net, clips)
    judged = [from_trace(trace), from_trace(trace, "contribution")]
    found = effects.rank_agreement(judged, effects.ablation_map(net, clips, labels), draws=200)
    return found.to_numpy(float)


def shapley_of(net, clips, labels, reading):
    """Shapley values [N,4]."""
    return effects.attribute(net, clips, "shapley", labels, reading).values[:, 0]


def gradients(net, clips, labels):
    """Gradient times weight [N,R,4]."""
    return effects.attribute(net, clips, "gradient x weight", labels).values


def selection_changes(trace):
    """Interventions on the selection, by name."""
    return {
        "drop": changing.drop("LT"),
        "keep": changing.keep("LST", "S122", where="layer2"),
        "none": changing.keep(),
        "one_hot": changing.force("LS"),
        "uniform": changing.uniform(),
        "temperature": changing.temperature(2.0),
        "given": changing.set_weights({"LST": 0.4, "S122": 0.6}),
        "from_clip": changing.from_clip(trace, trace.videos[1]),
    }


def input_changes():
    """Interventions on the clips, by name."""
    arguments = {"drop_frames": (1, 2)}
    return {name: getattr(changing, name)(*arguments.get(name, ())) for name in SWITCHES}


def under(net, clips, labels, change):
    """Logits under an intervention, and under two random draws of it."""
    found = effects.measure(net, clips, change, labels, draws=2)
    return np.concatenate([found.after[None], found.at_random])


def activation_maps(net, clips, **how):
    """Class-activation maps [N,T,h,w] and what is said of them."""
    found = cam.clip_cams(net, clips, **how)
    return np.stack([one.maps for one in found]), found[0].scaled()


def gates(net, clip):
    """Gate maps by block."""
    return {f"gate {name}": one.maps for name, one in cam.gate_maps(net, clip).items()}


def has_selection(net):
    """Whether a network has SDA blocks."""
    return bool(sda_blocks(net))


def new_network(name, num_classes=7, num_frames=8):
    """A network by name."""
    return create_model(name, num_classes, num_frames)


def costs(net, size):
    """Parameters and multiply-adds, in all and by block."""
    found = profile(net, size, 8)
    return f"{found.params} {found.macs} {digest(found.per_block.to_csv())}"


def trained(net, out):
    """One epoch on the sample clips with augmentation: weights by name, and the history without its times."""
    config = recipe(
        "moves",
        epochs=1,
        batch_size=4,
        num_frames=4,
        size=32,
        resize=36,
        lr=1e-3,
        dropout=0.3,
        device="cpu",
        threads=1,
    )
    data, val = (
        open_dataset(SAMPLE, "test", config.sampling(), config.transform(), train=on) for on in (True, False)
    )
    result = train(config, net, data, val, out, progress=False)
    history = result.history.drop(columns=["seconds", "clips_per_second"])
    return result.model.state_dict(), history


def tested(stem, out, *more):
    """The record that `sda test` writes."""
    words = [
        "test",
        CHECKPOINTS / f"{stem}.safetensors",
        "--data",
        SAMPLE,
        "--out",
        out,
        "--device",
        "cpu",
        "--quiet",
        *more,
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        status = run_command([str(word) for word in words])
    if status:
        raise RuntimeError(f"sda test ended with status {status}")
    [file] = out.glob("*.json")
    return json.loads(file.read_text(encoding="utf-8"))


def make_lists(root, *words, **options):
    """The lists of a dataset folder, as `sda data make` writes them."""
    make_dataset(root, *words, **options)


def validation_lists(root, official):
    """All lines of Something-Something V2's validation file, with lengths by rule."""
    base = f"{official}/something-something-v2-"
    records, names, _ = records_something_v2(f"{base}validation.json", f"{base}labels.json")
    write_dataset(root, {"val": [replace(r, num_frames=1 + k % 60) for k, r in enumerate(records)]}, names)


def moves_clip(key):
    """Frames and truth of one rendered clip."""
    made = render(key, 3, "val", 11)
    return {name: np.asarray(getattr(made, name)) for name in ("frames", "object", "evidence", "track")}


def sample_truth():
    """The truth about the sample clips: arrays by clip."""
    return {name: (truth.object, truth.evidence, truth.track) for name, truth in load_truth(SAMPLE).items()}


def decoded(source, backend=None, short_side=None, indices=None):
    """Frames uint8 [T,H,W,3] of a clip."""
    video = open_video(source, backend, short_side)
    return video.frames(list(range(len(video))) if indices is None else indices).numpy()


def frame_choices():
    """Frame numbers of every strategy, by name."""
    kinds = {
        "segments": Sampling("segments", 8),
        "legacy": Sampling("segments_legacy", 8),
        "twice": Sampling("twice", 8, views=2),
        "dense": Sampling("dense", 8, views=3),
    }
    return {f"{name} of {n}": np.array(one.indices(n)) for name, one in kinds.items() for n in (5, 24, 100)}


def transformed(frames, seed):
    """A clip through the transforms of training and of testing."""
    config = TransformConfig(size=32, resize=36)
    generator = torch.Generator().manual_seed(seed)
    clip = torch.from_numpy(frames)
    return {
        "train": config.train(["left", "right"])(clip, 0, generator)[0].numpy(),
        "test": config.test()(clip, 0)[0].numpy(),
    }


def masks_of(data, indices):
    """Masks of the truth [N,T,H,W] by name."""
    return faithfulness.clip_masks(data, SAMPLE, indices)


def pointing(maps, masks):
    """Pointing game per clip: hit, energy, area."""
    return faithfulness.pointing_game(maps, masks).to_numpy(float)


def curves(net, clips, maps, over):
    """Probabilities along the deletion and insertion curves, and their areas."""
    found = faithfulness.deletion_insertion(net, clips, maps, over, steps=4, draws=1)
    return {
        f"{over} curves": found.probability.to_numpy(),
        f"{over} areas": faithfulness.curve_areas(found).to_numpy(float),
    }


def randomised(net, clips):
    """Rank correlations of a map with itself under random weights; rests on the order modules are made in."""
    return faithfulness.parameter_randomisation(net, clips).to_numpy(float)


def norms(net, clips):
    """Length of the features at every place."""
    return faithfulness.norm_maps(net, clips)


# -- the items: nothing of the library is named below


def digest(value):
    """SHA-256 of text, or of an array with its type and shape."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    value = np.ascontiguousarray(value)
    return hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + value.tobytes()).hexdigest()


@dataclass(frozen=True)
class Item:
    """Something that is recorded."""

    compute: object  # () -> dict of arrays and texts
    needs: tuple[str, ...] = ()  # packages it cannot do without
    official: str = ""  # folder of official annotations it cannot do without
    rounding: bool = False  # its digests change with the rounding of another machine

    def lacks(self):
        """What is missing here, in words; empty if nothing is."""
        gone = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if gone:
            return f"needs {', '.join(gone)}"
        return (
            f"needs {OFFICIAL / self.official}"
            if self.official and not (OFFICIAL / self.official).is_dir()
            else ""
        )


ITEMS = {}


def item(name, *arguments, **about):
    """Enter a function, called with these arguments."""

    def enter(function):
        ITEMS[name] = Item(lambda: function(*arguments), **about)
        return function

    return enter


def for_each(names, prefix, **about):
    """Enter a function once for every name, which it is called with."""

    def enter(function):
        for name in names:
            item(f"{prefix}/{name}", name, **about)(function)
        return function

    return enter


@cache
def net_and_clips(stem):
    """A shipped network and three sample clips with labels."""
    net = shipped(stem)
    return net, *in_memory(sample_clips(net), [3, 8, 17])


@for_each(STEMS, "answers", needs=("av",))
def answers(stem):
    net = shipped(stem)
    logits, summary = scores(net, sample_clips(net))
    table = predict([str(p) for p in sorted((SAMPLE / "img").glob("*.mp4"))], net, top=3)
    return {
        "logits": logits,
        "predicted": digest("\n".join(table["class"])),
        "probability": table.probability.to_numpy(),
        **flat(summary, "summary"),
    }


@for_each(WITH_SDA, "trace", needs=("av",))
def trace(stem):
    net = shipped(stem)
    arrays, found = traced(net, sample_clips(net))
    some, _ = traced(net, net_and_clips(stem)[1][:1], responses=True)
    return (
        arrays
        | stage_means(found)
        | {name: value for name, value in some.items() if name.startswith("response ")}
    )


@for_each(WITH_SDA, "effects", needs=("av",))
def effect_numbers(stem):
    net, clips, labels = net_and_clips(stem)
    found = {
        f"{what.__name__} {reading}": what(net, clips, labels, reading)
        for what in (ablation, shapley_of)
        for reading in ("probability", "margin")
    }
    return found | {
        "gradients": gradients(net, clips, labels),
        "ranks": weights_against_ablation(net, clips, labels),
    }


@for_each(WITH_SDA, "interventions", needs=("av",))
def interventions(stem):
    net, clips, labels = net_and_clips(stem)
    changes = selection_changes(traced(net, clips)[1]) | input_changes()
    return {name: under(net, clips, labels, change) for name, change in changes.items()}


@for_each(STEMS, "maps", needs=("av", "pytorch_grad_cam"))
def maps(stem):
    net, clips, labels = net_and_clips(stem)
    found = dict(zip(("default", "scaled"), activation_maps(net, clips, target=labels), strict=True))
    for method in ("gradcam", "hirescam", "gradcam++"):
        found[method] = activation_maps(net, clips[:1], method=method, layer="layer3", target="difference")[0]
    if stem == STEMS[0]:
        found["occlusion"] = activation_maps(net, clips[:1], method="occlusion")[0]
    return found | (gates(net, clips[0]) if has_selection(net) else {})


@item("views/3x72to64", needs=("av",))
def views():
    net = shipped(STEMS[0])
    logits, summary = scores(net, sample_clips(net, "3x72to64"))
    return {"logits": logits, **flat(summary, "summary")}


@item("trust/maps", needs=("av", "pytorch_grad_cam"))
def faithful_maps():
    net, clips, labels = net_and_clips(STEMS[0])
    marked = activation_maps(net, clips[:2], target=labels[:2])[0]
    masks = masks_of(sample_clips(net), [3, 8])
    found = {f"pointing {name}": pointing(marked, mask) for name, mask in masks.items()}
    found |= {f"mask {name}": digest(mask) for name, mask in masks.items()} | {"norms": norms(net, clips[:2])}
    for over in ("space", "frames"):
        found |= curves(net, clips[:2], marked, over)
    return found


@item("trust/randomisation", needs=("av", "pytorch_grad_cam"))
def faithful_weights():
    net, clips, _ = net_and_clips(STEMS[0])
    return {"rho": randomised(net, clips[:2])}


FAMILIES = {"tiny": "*_tiny", "resnet50": "*_resnet50", "resnet101": "*_resnet101", "rubiks": "rubiks_*"}


def value_of(name, shape, dtype, table):
    """The value of a parameter or buffer from its name: signals neither vanish nor grow."""
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    numel = int(np.prod(shape))
    last = name.split(".")[-1]
    start = zlib.crc32(name.encode()) % (len(table) // 2)
    copies = -(-numel // (len(table) - start))
    drawn = (table[start:].repeat(copies) if copies > 1 else table[start:])[:numel].reshape(shape)
    if last == "running_var":
        return 1 + 0.2 * drawn.abs()
    if last in ("running_mean", "bias"):
        return 0.1 * drawn
    if last in ("query", "shift"):
        return drawn.clone()
    return 1 + 0.1 * drawn if len(shape) == 1 else drawn * (numel / shape[0]) ** -0.5


@cache
def normal_numbers():
    """Normally distributed numbers; no filter size divides their odd count, so repeated filters differ."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal(2_000_003).astype(np.float32))


def filled(name):
    """A network whose weights depend on their names alone, not on the order in which modules are made."""
    with torch.device("meta"):
        net = new_network(name)
    state = net.state_dict()
    if {key for key, _ in net.named_buffers()} - set(state):  # values that no file holds
        net = new_network(name)
        state = net.state_dict()
    values = {key: value_of(key, v.shape, v.dtype, normal_numbers()) for key, v in state.items()}
    net.load_state_dict(values, assign=True)
    return net.eval()


@for_each(FAMILIES, "networks")
def networks(family):
    clip = torch.randn(1, 8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    names = list_models(FAMILIES[family])
    found = {}
    for name in names if family != "rubiks" else [n for n in names if not n.endswith("_tiny")]:
        net = filled(name)
        with torch.no_grad():
            found[f"logits {name}"] = net(clip)[0].numpy()
        shapes = sorted(
            f"{key} {tuple(value.shape)} {value.dtype}" for key, value in net.state_dict().items()
        )
        found[f"state {name}"] = digest("\n".join(shapes))
        found[f"costs {name}"] = costs(net.to("meta"), 64)
    return found


@item("networks/names")
def network_names():
    return {"names": "\n".join(sorted(list_models()))}


@item("networks/initial", rounding=True)
def initial_weights():
    """What a seed makes of a new network; rests on the order modules are made in."""
    found = {}
    for name in list_models("*_tiny"):
        torch.manual_seed(0)
        found[name] = state_digest(new_network(name).state_dict())
    return found


def state_digest(state):
    """Digest of all values by name."""
    return digest("\n".join(f"{key} {digest(state[key].numpy())}" for key in sorted(state)))


@for_each(("sda_tsm_tiny", "tsn_tiny"), "training", needs=("av",), rounding=True)
def training(name):
    net = new_network(name, 20, 4)
    net.load_state_dict(
        {k: value_of(k, v.shape, v.dtype, normal_numbers()) for k, v in net.state_dict().items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        state, history = trained(net, Path(folder) / "run")
    return {
        "weights": state_digest(state),
        "columns": " ".join(history.columns),
        "history": history.to_numpy(float),
    }


def flat(value, name):
    """Numbers and texts of a nested value, by path."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    elif isinstance(value, float):
        return {name: np.array(value)}
    else:
        return {name: json.dumps(value)}
    found = {f"{name}.empty": json.dumps(value)} if not value else {}
    for key, part in parts:
        found |= flat(part, f"{name}.{key}")
    return found


MOVING = (
    "created",
    "commit",
    "machine",
    "library",
    "seconds",
    "device",
    "precision",
)  # of a record: what, when and where, not how much


@item("record/centre", STEMS[1], needs=("av",))
@item("record/views", STEMS[0], "--views", "3x72to64", "--average", "both", needs=("av",))
def record(stem, *more):
    with tempfile.TemporaryDirectory() as folder:
        found = tested(stem, Path(folder), *more)
        # scores were not named like their record, and no table had a line per clip, when this was recorded
        name = found.pop("scores").removesuffix(".npz")
        was = "-".join(filter(None, [found["model"], found["split"], found["views"].replace("centre", "")]))
        found["logits"] = [file.replace(name, was) for file in found["logits"]]
        paths = {
            f.name.replace(name, was): f for f in Path(folder).iterdir() if f.name != f"{name}-clips.csv"
        }
        tables = {k: digest(f.read_text(encoding="utf-8")) for k, f in paths.items() if f.suffix == ".csv"}
        files = "\n".join(sorted(".json" if f.suffix == ".json" else k for k, f in paths.items()))
    return flat({k: v for k, v in found.items() if k not in MOVING}, "record") | tables | {"files": files}


def written(root):
    """Digests of the lists and tables of a dataset folder."""
    files = [root / "category.txt", *sorted((root / "trainValTest").glob("*.txt")), root / "source.json"]
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}
    if not (root / "lists.txt").exists():
        return found
    report = (root / "lists.txt").read_text(encoding="utf-8")  # its places name folders of this machine
    return found | {"lists.txt": digest(" ".join(word for word in report.split() if "/" not in word))}


def lists(*words, **options):
    """Make a dataset folder, and digest what was written."""
    with tempfile.TemporaryDirectory() as folder:
        make_lists(Path(folder) / "set", *words, **options)
        return written(Path(folder) / "set")


@for_each(("verb", "noun"), "lists/epic55", official="epic-kitchens-55")
def epic_lists(target):
    return lists("epic55", OFFICIAL / "epic-kitchens-55", target=target, frames=True)


@item("lists/something_v2", official="something-something-v2")
def something_lists():
    official = OFFICIAL / "something-something-v2"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        validation_lists(root / "all", official)
        found = {f"all {name}": value for name, value in written(root / "all").items()}
        shutil.copy(official / "something-something-v2-labels.json", root)
        rows = json.loads((official / "something-something-v2-validation.json").read_text(encoding="utf-8"))[
            :300
        ]
        (root / "something-something-v2-validation.json").write_text(json.dumps(rows), encoding="utf-8")
        for k, row in enumerate(rows):
            pictures(root / "clips" / str(row["id"]), 1 + k % 5)
        make_lists(root / "some", "something_v2", root, root / "clips", frames=True)
        return found | {f"some {name}": value for name, value in written(root / "some").items()}


def pictures(folder, count):
    """A clip as a folder of small pictures."""
    from PIL import Image

    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (40, 40), (9 * k, 0, 0)).save(folder / f"{k + 1:05d}.jpg")


@item("lists/something_v1")
def small_something_lists():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "something-something-v1-labels.csv").write_text("b, with a comma\na\n")
        (root / "something-something-v1-train.csv").write_text("1;b, with a comma\n2;a\n3;a\n")
        (root / "something-something-v1-validation.csv").write_text("4;a\n5;b, with a comma\n")
        for k in range(1, 6):
            pictures(root / "clips" / str(k), 4 + k)
        return lists("something_v1", root, root / "clips")


@for_each(("V1", "V2"), "lists/diving48")
def diving_lists(release):
    marked = "V2_" * (release == "V2")
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Reverse", "25som", "NoTwis", "PIKE"]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
        for split in ("train", "test"):
            rows = [
                {"vid_name": f"-{split}{n % 4}_{n:05d}", "label": n % 2, "start_frame": n % 3, "end_frame": 8}
                for n in range(12)
            ]
            (root / f"Diving48_{marked}{split}.json").write_text(json.dumps(rows))
            for row in rows:
                pictures(root / "rgb" / row["vid_name"], 8)
        return lists("diving48", root, root / "rgb", frames=True, hold_out=0.25, seed=2)


@item("lists/own")
def own_lists():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [(f"shots/{n}", "left" if n % 2 else "right", f"take {n // 4}") for n in range(24)]
        for path, *_ in rows:
            pictures(root / path, 2)
        for n in range(10):
            pictures(root / f"clips/{'jump' if n % 2 else 'wave'}/{n}", 3 + n)
        (root / "clips.csv").write_text("path,label,take\n" + "\n".join(map(",".join, rows)) + "\n")
        found = {
            "table": lists("csv", root / "clips.csv", seed=3, group="take"),
            "folder": lists("folder", media=root / "clips"),
        }
    return {f"{kind} {name}": value for kind, files in found.items() for name, value in files.items()}


@for_each(("rightward", "shake", "sparse"), "moves", rounding=True)
def moves(key):
    return {name: digest(value) for name, value in moves_clip(key).items()}


@item("moves/truth")
def truth():
    found = {name: [digest(part) for part in parts] for name, parts in sample_truth().items()}
    return {"sample": digest(json.dumps(found))}


@item("decoding/pyav", "pyav", needs=("av",), rounding=True)
@item("decoding/decord", "decord", needs=("decord",), rounding=True)
def decoding(backend):
    return {
        "all": digest(decoded(CLIP, backend)),
        "small": digest(decoded(CLIP, backend, 36)),
        "some": digest(decoded(CLIP, backend, indices=[5, 2, 2, 23])),
    }


@item("decoding/pictures", needs=("av",), rounding=True)
def decoding_pictures():
    from PIL import Image

    frames = decoded(CLIP)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "jpg"):
            root = Path(folder) / suffix
            root.mkdir()
            for k, frame in enumerate(frames):
                Image.fromarray(frame).save(root / f"{k + 1:05d}.{suffix}")
            for kind in ("zip", "tar"):
                shutil.make_archive(str(root), kind, root)
                found[f"{kind} {suffix}"] = digest(decoded(root.with_suffix(f".{kind}"), indices=[0, 7, 3]))
            found |= {
                f"folder {suffix}": digest(decoded(root)),
                f"small {suffix}": digest(decoded(root, short_side=36)),
            }
    return found | {"memory": digest(decoded(frames, short_side=36))}


@item("sampling")
def sampling():
    return frame_choices()


@item("transforms", needs=("av",))
def transforms():
    return transformed(decoded(CLIP, indices=[0, 7, 14, 21]), 3)


# -- recording and comparing


def here():
    """What the last bits of a result depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    return {"torch": torch.__version__, "cpu": cpu}


def compute(name):
    """The values of one item: arrays and texts by name."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        return ITEMS[name].compute()
    finally:
        torch.use_deterministic_algorithms(deterministic)


def load():
    """Machine, texts and arrays as recorded."""
    texts = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / "arrays.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    values = {}
    for key, value in (texts["values"] | arrays).items():
        name, _, part = key.partition("|")
        values.setdefault(name, {})[part] = value
    return texts["machine"], values


def save(values):
    """Write the values of all items."""
    FOLDER.mkdir(exist_ok=True)
    parts = {
        f"{name}|{part}": value for name, found in sorted(values.items()) for part, value in found.items()
    }
    texts = {key: value for key, value in parts.items() if isinstance(value, str)}
    np.savez_compressed(
        FOLDER / "arrays.npz", **{k: np.asarray(v) for k, v in parts.items() if k not in texts}
    )
    (FOLDER / "texts.json").write_text(
        json.dumps({"machine": here(), "values": texts}, indent=1) + "\n", encoding="utf-8"
    )


def difference(old, new, same_machine, rounding):
    """What differs between two values, in words (empty: nothing that counts), and the largest difference."""
    if isinstance(old, str) or isinstance(new, str):
        if isinstance(old, str) and isinstance(new, str) and (old == new or rounding and not same_machine):
            return "", 0.0
        return f"{str(old)[:70]!r} became {str(new)[:70]!r}", 0.0
    new = np.asarray(new)
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        return f"{old.dtype} {list(old.shape)} became {new.dtype} {list(new.shape)}", 0.0
    if old.tobytes() == new.tobytes():
        return "", 0.0
    if old.dtype.kind != "f":
        return "whole numbers differ", float(np.abs(old.astype(float) - new).max())
    if (np.isnan(old) != np.isnan(new)).any():
        return "NaN in other places", float("nan")
    worst = float(np.nanmax(np.abs(old - new)))
    size = float(np.nanmax(np.abs(old)))
    allowed = (1e-6 if same_machine else 1e-4) * max(1.0, size)
    return (f"differs by {worst:.3g}, allowed {allowed:.3g}" if not worst <= allowed else ""), worst


def compare(name, recorded, found, same_machine):
    """Faults of one item in lines, and a word on how equal it is."""
    if missing := set(recorded) ^ set(found):
        return [f"in one of both only: {sorted(missing)[:5]}"], "other parts"
    rounding = ITEMS[name].rounding
    faults = []
    worst = 0.0
    equal = 0
    for part, old in recorded.items():
        said, apart = difference(old, found[part], same_machine, rounding)
        if said:
            faults.append(f"{part}: {said}")
        equal += not said and apart == 0
        worst = max(worst, apart)
    skipped = "; digests not compared: they were recorded with another torch or CPU" * (
        rounding and not same_machine
    )
    bits = "equal bit by bit" if equal == len(recorded) else f"max abs difference {worst:.3g}"
    return faults, ("DIFFERS" if faults else bits) + skipped


def check(name):
    """Compute one item and compare: faults, and a word; None and the reason where it cannot be computed."""
    if reason := ITEMS[name].lacks():
        return None, reason
    machine, values = load()
    return compare(name, values[name], compute(name), machine == here())


def chosen(beginnings):
    """Items whose names begin like one of these; all when none are given."""
    names = [name for name in ITEMS if not beginnings or name.startswith(tuple(beginnings))]
    if not names:
        raise SystemExit(f"no item begins with {' or '.join(beginnings)}; there are {', '.join(ITEMS)}")
    return names


def main():
    """Record or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("names", nargs="*", help="how the names of items begin")
    options = parser.parse_args()
    bad = 0
    values = {}
    if options.action == "record" and options.names:
        values = load()[1]
    for name in chosen(options.names):
        start = time.perf_counter()
        if options.action == "check":
            faults, said = check(name)
            if faults is None:
                faults = []
                said = f"SKIPPED, {said}"
        elif reason := ITEMS[name].lacks():
            faults = [reason]
            said = "NOT RECORDED"
        else:
            values[name], faults, said = compute(name), [], "recorded"
        bad += bool(faults)
        print(
            f"{name:34} {time.perf_counter() - start:6.1f} s  {said}", *faults[:8], sep="\n    ", flush=True
        )
    if options.action == "record":
        if bad:
            raise SystemExit("nothing is written: an item could not be computed")
        save(values)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
