"""Trace: right numbers, nothing left behind, any source of clips, files without the model."""

import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hooks import hooks
from reference_net import Aggregate, ReferenceNet, make_clips

from sda.data.crops import MultiCrop
from sda.data.datasets import open_dataset
from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.explaining.answers import logits_of
from sda.explaining.trace import Trace, compare_traces, responses_of, trace_clips
from sda.explaining.tracer import Tracer
from sda.foundation.errors import DataError, RunError, SettingError, UnknownNameError, VideoError
from sda.foundation.files import fingerprint
from sda.networks.backbones import create_model, sda_blocks
from sda.networks.blocks import DEPENDENCIES
from sda.networks.checkpoints import ModelCard, load_reference

MOVES = Path(__file__).resolve().parents[2] / "sda" / "assets" / "moves_sample"
TRANSFORM = TransformConfig(size=64, resize=None, flip=False)


def make(name="sda_tsn_tiny", seed=0, **options):
    torch.manual_seed(seed)
    model = create_model(name, 20, **options)
    norms = [m for m in model.modules() if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0  # one batch sets the statistics, as training would
    with torch.no_grad():
        model(torch.randn(4, options.get("num_frames", 8), 3, 48, 48))
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def clips():
    return torch.randn(5, 8, 3, 48, 40, generator=torch.Generator().manual_seed(1))


def state(model):
    return fingerprint(model), [m.training for m in model.modules()], hooks(model)


def at_full_size(response, like):
    """A response [B,r,T or 1,h,w] spread over time and space as it counts in the sum."""
    frames = response.transpose(1, 2).flatten(0, 1)
    full = torch.nn.functional.adaptive_avg_pool2d(frames, like.shape[-2:])
    return full.unflatten(0, (len(like), -1)).transpose(1, 2).expand_as(like)


@pytest.mark.parametrize("name", ["sda_tsn_tiny", "sda_tsm_tiny"])
def test_every_number_is_that_of_a_computation_by_hand(name, clips):
    model = make(name).eval()
    inputs = {}

    def keep(name):
        def hook(module, args, output):
            inputs[name] = (args[0].clone(), output.clone())

        return hook

    handles = [block.register_forward_hook(keep(name)) for name, block in sda_blocks(model).items()]
    with torch.no_grad():
        logits = model(clips)
    for handle in handles:
        handle.remove()
    trace = trace_clips(model, clips, batch_size=5)
    assert np.allclose(trace.logits, logits, atol=1e-5)
    for r, (block, sda) in enumerate(sda_blocks(model).items()):
        x, y = inputs[block]
        reduced = torch.relu(sda.down_norm(sda.down(x))).unflatten(0, (5, 8)).transpose(1, 2)  # [B,r,T,H,W]
        full = [at_full_size(branch(reduced), reduced).detach() for branch in sda.branches.values()]
        scores = torch.stack([f.mean((2, 3, 4)) for f in full], 1) @ sda.attention.query
        assert trace.blocks[r] == block
        assert np.allclose(trace.scores[:, r], scores.detach(), rtol=1e-4, atol=1e-5)
        assert np.allclose(trace.weights[:, r], scores.softmax(1).detach(), atol=1e-5)
        norms = torch.stack([f.flatten(1).norm(dim=1) for f in full], 1)
        assert np.allclose(trace.response_norm[:, r], norms, rtol=1e-4)
        gate = (y / x).unflatten(0, (5, 8)).flatten(1)
        assert np.allclose(trace.gate_mean[:, r], gate.mean(1).detach(), atol=1e-4)
        assert np.allclose(trace.gate_std[:, r], gate.std(1, correction=0).detach(), atol=1e-4)
    assert np.allclose(trace.weights.sum(-1), 1, atol=1e-5) and trace.weights.std() > 1e-4
    share = trace.frame().share_norm.to_numpy().reshape(trace.weights.shape)
    assert np.allclose(share, trace.weights * trace.response_norm)


@pytest.mark.parametrize("name", ["sda_tsn_tiny", "sda_tsm_tiny"])
def test_looking_changes_nothing_to_the_last_bit(name, clips):
    model = make(name).eval()
    with torch.no_grad():
        before = model(clips)
        with Tracer(model, responses=True):
            assert torch.equal(model(clips), before)
    assert np.array_equal(trace_clips(model, clips, batch_size=5).logits, before.numpy())


def test_scores_of_mirrored_views_are_put_back(model):
    data = open_dataset(MOVES, "test", "segments", MultiCrop("10x48", resize=64, size=48))
    data.records = data.records[:2]
    found = trace_clips(model, data).logits.reshape(2, 10, 20)
    mean = logits_of(model.eval(), data)
    names = data.class_names
    mirrored = list(range(20))
    for left, right in [
        ("Moving something from left to right", "Moving something from right to left"),
        ("Pushing something to the left and back", "Pushing something to the right and back"),
        ("Turning something clockwise", "Turning something anticlockwise"),
    ]:
        mirrored[names.index(left)] = names.index(right)
        mirrored[names.index(right)] = names.index(left)
    for n in (0, 1):
        with torch.no_grad():
            plain = model(data[n]["clip"]).numpy()  # ten crops, the last five mirrored
        assert np.allclose(found[n], np.concatenate([plain[:5], plain[5:][:, mirrored]]), atol=1e-4)
        assert np.allclose(mean[n], found[n].mean(0), atol=1e-4)


def test_fifty_uses_leave_nothing_behind(clips):
    model = make().train()
    model.layer2.eval()  # a mixed state must come back as it was
    before = state(model)
    for _ in range(50):
        with Tracer(model):
            pass
        trace_clips(model, clips[:1, :2, :, :32, :32])
    assert state(model) == before and hooks(model) == 0


def test_an_exception_leaves_nothing_behind(model, clips):
    class OnPurposeError(Exception):
        pass

    before = state(model.train())
    for _ in range(10):
        with pytest.raises(OnPurposeError), Tracer(model):
            raise OnPurposeError
        with pytest.raises(SettingError) as error:
            trace_clips(model, clips[..., :16])
        assert "resize" in error.value.remedy and "16" in str(error.value) and "32" in str(error.value)
        with pytest.raises(RunError) as error:
            trace_clips(model, torch.cat([clips[:2], clips[:1] * float("nan")]))
        assert error.value.subject == "clip-2"
    assert state(model) == before


def test_a_broken_pass_is_not_mixed_with_a_whole_one(model, clips):
    def stop(module, args):
        raise KeyboardInterrupt

    model.eval()
    with Tracer(model) as tracer, torch.no_grad():
        model(clips[:1])
        handle = model.layer3.register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            model(clips[:2])
        handle.remove()
        with pytest.raises(RunError) as error:
            tracer.take()
        assert "again" in error.value.remedy
        model(clips[:2])
        assert {len(rows["weights"]) for rows in tracer.take().values()} == {2}


def test_foreign_hooks_survive(model, clips):
    seen = []
    handle = model.layer1[0].gate.attention.register_forward_hook(lambda *a: seen.append(1))
    trace_clips(model, clips[:1])
    assert hooks(model) == 1 and seen
    handle.remove()


def test_changed_weights_are_heard_in_either_order(model, clips):
    weights = sda_blocks(model)["layer2.0"].hook_weights

    def one_hot(module, args, given):
        return torch.eye(4)[1].expand_as(given)

    model.eval()
    for first in (True, False):
        with Tracer(model) as tracer, torch.no_grad():
            handle = weights.register_forward_hook(one_hot, prepend=first)
            model(clips[:2])
            handle.remove()
            assert (
                tracer.take()["layer2.0"]["weights"] == [0, 1, 0, 0]
            ).all() == first  # the advice: prepend=True


@pytest.mark.parametrize("dependencies", [("S122",), ("LS", "LT"), ("S122", "LS", "LT", "LST")])
def test_subsets_keep_four_columns_in_order(dependencies, clips):
    trace = trace_clips(make(dependencies=dependencies), clips[:2])
    have = [name in dependencies for name in DEPENDENCIES]
    assert (~np.isnan(trace.weights) == have).all() and (~np.isnan(trace.response_norm) == have).all()
    assert list(trace.frame().groupby("dependency").size().index) == [
        n for n in DEPENDENCIES if n in dependencies
    ]
    assert np.allclose(np.nansum(trace.weights, -1), 1, atol=1e-5)
    assert np.allclose(np.nansum(trace.contribution(), -1), 1, atol=1e-5)
    assert (trace.entropy() == 0).all() if len(dependencies) == 1 else (trace.entropy() > 0).all()


def test_split_has_two_rows_per_block_that_are_those_of_the_halves(clips):
    torch.manual_seed(0)
    long = torch.randn(3, 16, 3, 32, 32)
    model = make(num_frames=16, split=8)
    trace = trace_clips(model, long, responses=True)
    assert trace.blocks[:2] == ["layer1.0[0:8]", "layer1.0[8:16]"] and trace.weights.shape == (3, 8, 4)
    halves = [trace_clips(model, half) for half in (long[:, :8], long[:, 8:])]
    for h in (0, 1):  # with TSN the first SDA block sees the same features
        assert np.allclose(trace.weights[:, h], halves[h].weights[:, 0], atol=1e-5)
        assert np.allclose(trace.gate_mean[:, h], halves[h].gate_mean[:, 0], atol=1e-5)
    assert responses_of(trace, 0, "layer1.0[8:16]")["LS"].shape == (8,)
    assert trace.by_stage().stages == ["layer1", "layer2", "layer3", "layer4"]


def test_fifty_layers():
    trace = trace_clips(create_model("sda_tsn_resnet50", 3), torch.randn(1, 2, 3, 32, 32))
    assert len(trace.blocks) == 16 and trace.blocks[-1] == "layer4.2" and np.isfinite(trace.weights).all()


def test_half_precision_parameters(clips):
    trace = trace_clips(make().bfloat16(), clips[:2])
    assert trace.weights.dtype == np.float32 and np.allclose(trace.weights.sum(-1), 1, atol=0.02)


def card_model():
    model = make()
    model.card = ModelCard.of(
        model,
        [f"c{k}" for k in range(20)],
        transform=TRANSFORM.to_dict(),
        sampling=Sampling(num_frames=8).to_dict(),
    )
    return model


def test_dataset_paths_and_tensor_agree():
    model = card_model()
    data = open_dataset(MOVES, "test", transform=TRANSFORM)
    data.records = data.records[:4]
    items = [data[i] for i in range(4)]
    from_data = trace_clips(model, data, batch_size=3)
    from_paths = trace_clips(model, [r.path for r in data.records])
    from_tensor = trace_clips(
        model,
        torch.stack([item["clip"] for item in items]),
        labels=[r.label for r in data.records],
        videos=[r.id for r in data.records],
    )
    for other in (from_paths, from_tensor):
        assert np.allclose(from_data.weights, other.weights, atol=1e-5)
    assert from_data.videos == from_tensor.videos == [r.id for r in data.records]
    assert (
        from_data.labels == from_tensor.labels == [r.label for r in data.records]
        and from_paths.labels is None
    )
    assert from_data.class_names == data.class_names and from_paths.class_names == model.card.class_names


def test_a_bad_file_is_named(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"this is not a video")
    broken = tmp_path / "broken.mp4"
    with pytest.raises(VideoError) as error:
        trace_clips(card_model(), [broken])
    assert error.value.subject == str(broken)
    with pytest.raises(SettingError) as error:
        trace_clips(make(), [broken])
    assert error.value.subject == "card" and "load_model" in error.value.remedy
    with pytest.raises(SettingError) as error:
        trace_clips(card_model(), str(broken))
    assert error.value.subject == str(broken) and f"[{str(broken)!r}]" in error.value.remedy


def test_training_clips_are_refused(model):
    with pytest.raises(SettingError) as error:
        trace_clips(model, open_dataset(MOVES, "test", transform=TRANSFORM, train=True))
    assert "train=False" in error.value.remedy


def test_one_pass_with_bounded_memory(model):
    class Lazy:  # a long dataset that counts
        class_names = None
        reads = []
        alive = weakref.WeakSet()
        most = 0

        def __len__(self):
            return 41

        def __getitem__(self, i):
            self.reads.append(i)
            clip = torch.zeros(2, 3, 32, 32)
            self.alive.add(Handle(clip))
            Lazy.most = max(Lazy.most, len(self.alive))
            return {"clip": clip, "label": 0, "id": f"v{i}"}

    class Handle:  # lives as long as its clip
        def __init__(self, clip):
            clip.handle = self

    sizes = []
    data = Lazy()
    handle = model.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    trace = trace_clips(model, data, batch_size=4)
    handle.remove()
    assert sizes == [4] * 10 + [1] and len(trace) == 41 and data.reads[0] == 0
    assert sorted(set(data.reads)) == list(range(41)) and len(data.reads) == 41  # every clip decoded once
    assert 4 <= Lazy.most <= 9, "two batches of 4 and the clip that comes next are in memory, not the dataset"


def test_views_are_rows_and_videos_are_counted_once(model, clips):
    views = torch.stack([clips[:4], clips[:4].flip(2)], 1)  # [N,V,T,3,H,W]
    trace = trace_clips(model, views, labels=[0, 0, 1, 1], batch_size=3)
    assert trace.videos[:2] == ["clip-0", "clip-0"] and trace.views[:2] == [0, 1] and len(trace) == 8
    assert trace.by_class().counts[:2] == [2, 2] and trace.by_stage().n == 4
    assert np.allclose(trace.by_class().means[1], trace.weights[4:].mean((0, 1)), atol=1e-6)


def test_views_of_a_dataset_are_rows(model):
    data = open_dataset(MOVES, "test", Sampling("twice", num_frames=8, views=2), TRANSFORM)
    data.records = data.records[:2]
    trace = trace_clips(model, data)
    assert trace.videos == [r.id for r in data.records for _ in (0, 1)] and trace.views == [0, 1, 0, 1]
    alone = trace_clips(model, torch.stack([data[1]["clip"][1]]))
    assert np.allclose(trace.weights[3], alone.weights[0], atol=1e-5) and "4 views of 2 videos" in repr(trace)


@pytest.mark.parametrize("frames, split, count", [(4, None, 2), (16, 8, 1)])
def test_loaded_reference_checkpoints_are_traced_as_the_literal_network_selects(frames, split, count):
    torch.manual_seed(0)
    reference = ReferenceNet(5, segments=split).eval()
    seen = []

    def literal(module, args, output):
        keys = torch.stack([y.mean((2, 3, 4)) for y in args[0]], 1)
        seen.append(
            ((keys @ module.qVec[0]).softmax(1), torch.stack([y.flatten(1).norm(dim=1) for y in args[0]], 1))
        )

    for part in reference.modules():
        if isinstance(part, Aggregate):
            part.register_forward_hook(literal)
            part.qVec.data.normal_(0, 3)
    model = load_reference(create_model("sda_tsn_resnet50", 5, frames, split=split), reference.state_dict())
    clips = make_clips(count, frames, 32, 32)
    trace = trace_clips(model, clips)
    with torch.no_grad():
        reference(clips)
    weights, norms = (
        torch.stack(values, 1).numpy() for values in zip(*seen, strict=True)
    )  # [clips * parts, 16, 4]
    ours = [
        a.reshape(count, 16, -1, 4).transpose(0, 2, 1, 3).reshape(-1, 16, 4)
        for a in (trace.weights, trace.response_norm)
    ]
    assert np.allclose(ours[0], weights, atol=1e-4) and np.allclose(ours[1], norms, rtol=1e-3, atol=1e-4)
    assert weights.std() > 0.01 and len(trace.blocks) == 16 * (2 if split else 1)


def test_clips_of_two_sizes(model, clips):
    items = [{"clip": clips[0], "label": 0, "id": "a"}, {"clip": clips[1, ..., :32], "label": 0, "id": "b"}]
    assert len(trace_clips(model, items)) == 2  # weights have no size
    with pytest.raises(DataError) as error:
        trace_clips(model, items, responses=True)
    assert error.value.subject == "layer1.0" and error.value.remedy
    assert "(1, 12, 8)" in str(error.value) and "(1, 12, 10)" in str(error.value)


def test_round_trip_without_pickle_and_without_the_model(model, clips, tmp_path):
    trace = trace_clips(model, clips, responses=True, labels=range(5), videos=["a", "ü/б", "c d", "e", "f"])
    file = trace.save(tmp_path / "sub" / "t.npz")
    again = Trace.load(file)
    for name in ("weights", "scores", "response_norm", "gate_mean", "gate_std", "logits"):
        assert np.array_equal(getattr(trace, name), getattr(again, name), equal_nan=True)
    for name in (
        "videos",
        "views",
        "labels",
        "blocks",
        "class_names",
        "model",
        "fingerprint",
        "dependencies",
    ):
        assert getattr(trace, name) == getattr(again, name)
    assert all(
        np.array_equal(v, again.responses[b][n])
        for b, kept in trace.responses.items()
        for n, v in kept.items()
    )
    assert again.frame().equals(trace.frame())
    with np.load(file, allow_pickle=False) as arrays:
        assert all(arrays[key].dtype != object for key in arrays.files)


def test_a_trace_opens_in_another_process(model, clips, tmp_path):
    file = trace_clips(model, clips).save(tmp_path / "t.npz")
    code = (
        "import json; from sda.explaining.trace import Trace; "
        f"print(json.dumps([*Trace.load({str(file)!r}).blocks]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(out.stdout) == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]


def test_broken_trace_files(model, clips, tmp_path):
    file = trace_clips(model, clips).save(tmp_path / "t.npz")
    (tmp_path / "half.npz").write_bytes(file.read_bytes()[:-200])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", names=np.array([{"format": 1}], dtype=object))
    for name in ("half", "text", "empty", "other", "pickled"):
        with pytest.raises(DataError) as error:
            Trace.load(tmp_path / f"{name}.npz")
        assert error.value.subject == str(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError) as error:
        Trace.load(tmp_path / "none.npz")
    assert str(tmp_path / "none.npz") in str(error.value)
    with pytest.raises(SettingError) as error:
        trace_clips(model, clips).save(tmp_path / "t.pickle")
    assert error.value.subject == str(tmp_path / "t.pickle") and ".npz" in str(error.value)


def test_wrong_requests_are_explained(model, clips):
    with pytest.raises(SettingError) as error:
        trace_clips(make("tsm_tiny"), clips)
    assert error.value.subject == "tsm_tiny" and "sda_tsm_tiny" in error.value.choices
    a = trace_clips(model, clips)
    b = trace_clips(make(seed=5), clips)
    with pytest.raises(SettingError) as error:
        compare_traces(a, b)
    assert error.value.subject == "sda_tsn_tiny" and b.fingerprint in str(error.value)
    other = compare_traces(a, b, allow_other_model=True)
    assert len(other) == 5 * 4 * 4 and other.difference.abs().max() > 0
    for options, kind, subject in [
        ({"videos": ["a", "a"]}, DataError, "videos"),
        ({"videos": ["a"]}, SettingError, "videos"),
        ({"labels": [0, 20]}, DataError, "labels"),
    ]:
        with pytest.raises(kind) as error:
            trace_clips(model, clips[:2], **options)
        assert error.value.subject == subject
    with Tracer(model) as tracer, pytest.raises(RunError) as error:
        tracer.__enter__()
    assert "Tracer(model)" in error.value.remedy
    assert hooks(model) == 0


def test_names_that_are_not_there(model, clips):
    trace = trace_clips(model, clips, labels=range(5), videos=["left", "right", "up", "down", "still"])
    assert trace.rows("up") == [2]
    for ask, subject, choice in [
        (lambda: trace.rows("lift"), "lift", "left"),
        (lambda: trace.by_class("layer9"), "layer9", "layer1"),
        (
            lambda: responses_of(trace_clips(model, clips[:1], responses=True), 0, "layer2"),
            "layer2",
            "layer2.0",
        ),
    ]:
        with pytest.raises(UnknownNameError) as error:
            ask()
        assert error.value.subject == subject and choice in error.value.choices
    with pytest.raises(SettingError):
        responses_of(trace, 0, "layer2.0")


@pytest.mark.parametrize("name", ["sda_tsn_moves", "sda_tsn_moves_fast_query"])
def test_traces_written_before_still_load(name):
    trace = Trace.load(Path(__file__).resolve().parents[2] / "data" / "results" / f"{name}-trace.npz")
    assert len(trace) == 500 and len(trace.by_class().counts) == 20
    assert np.allclose(trace.weights.sum(-1), 1, atol=1e-5)
