"""Class-activation maps: equal to a Grad-CAM by hand, the model untouched, no NaN, wrong names explained."""

import inspect
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hooks import hooks

from sda.explaining.cam import METHODS, ClipCam, cam_layers, clip_cam, clip_cams, gate_maps, shared_top
from sda.foundation.errors import MissingPackageError, SettingError, UnknownNameError
from sda.foundation.files import fingerprint
from sda.networks.backbones import create_model

pytest.importorskip("pytorch_grad_cam")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))


def make(name="sda_tsn_tiny", **options):
    torch.manual_seed(0)
    return create_model(name, 20, **options)


@pytest.fixture(scope="module")
def clip():
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def small(clip):
    """Two small frames: occlusion asks the network once for every tile."""
    return clip[:2, :, :32, :32]


def by_hand(model, clip, score, layer, combine):
    """Activation and gradient of the clip's score at a layer, combined."""
    kept = []

    def keep(module, args, output):
        kept.append((output, output.detach().clone()))  # the value before anything in place
        return output

    handle = dict(model.named_modules())[layer].register_forward_hook(keep)
    logits = model(clip[None])[0]
    handle.remove()
    (gradient,) = torch.autograd.grad(score(logits), kept[0][0])
    return combine(kept[0][1], gradient).sum(1).numpy()


def grad_cam(a, g):
    return g.mean((2, 3), keepdim=True) * a


def log_odds(k):
    """Score of a class: its probability against that of all others, as a logarithm."""

    def score(logits):
        p = logits.double().softmax(0)
        return (p[k] / (1 - p[k])).log()

    return score


def close(a, b):
    return np.allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", ["tsn_tiny", "sda_tsm_tiny"])
@pytest.mark.parametrize("layer", ["conv1", "layer2", "layer4.0", "layer3.0.conv2", "layer4.0.bn3"])
def test_equal_to_a_grad_cam_by_hand(name, layer, clip):
    model = make(name).eval()
    for score, number in (("logit", lambda y: y[7]), ("odds", log_odds(7))):
        cam = clip_cam(model, clip, 7, layer, "gradcam", score=score)
        assert close(cam.maps, by_hand(model, clip, number, layer, grad_cam)) and cam.maps.std() > 0


def test_targets(clip):
    model = make().eval()
    names = [f"class number {k}" for k in range(20)]
    with torch.no_grad():
        first, second = model(clip[None])[0].topk(2).indices.tolist()

    def maps(target):
        return clip_cam(model, clip, target, "layer2", "gradcam", class_names=names, score="logit")

    assert close(maps(None).maps, maps(first).maps) and maps(None).target == names[first]
    assert close(maps("runner-up").maps, maps(names[second]).maps)
    assert close(maps("difference").maps, maps(first).maps - maps(second).maps)
    assert close(maps((3, names[5])).maps, maps(3).maps - maps(5).maps)
    assert maps("difference").target == f"{names[first]} against {names[second]}"
    hand = by_hand(model, clip, lambda y: y[3] - y[5], "layer2", grad_cam)
    assert close(maps((3, 5)).maps, hand)


def test_hirescam_is_gradient_times_activation(clip):
    model = make().eval()
    cam = clip_cam(model, clip, 2, "layer2", "hirescam", score="logit")
    assert close(cam.maps, by_hand(model, clip, lambda y: y[2], "layer2", lambda a, g: g * a))
    assert all(
        np.isfinite(clip_cam(model, clip, 2, "layer3", method).maps).all()
        for method in METHODS
        if method != "occlusion"
    )


def test_the_gradient_is_that_of_the_whole_clip(clip):
    """Frame 0's map changes when frame 7 does: SDA carries it over, a frame-wise network does not."""
    other = clip.clone()
    other[7] += 1
    for name, carried in (("tsn_tiny", False), ("sda_tsn_tiny", True)):
        model = make(name).eval()
        a, b = (clip_cam(model, c, 0, "layer4", "gradcam", score="logit").maps[0] for c in (clip, other))
        assert close(a, b) != carried


def test_the_study_looks_at_the_maps_that_users_get(clip):
    looking = pytest.importorskip("looking")
    model = make().eval()
    clips = torch.stack([clip, clip.flip(0), clip.roll(1, 0)])[..., :32, :32]
    classes = [3, 5, 7]
    for score in ("odds", "logit"):
        found = looking.all_maps(model, clips, classes, ["layer2", "layer3.0.conv2"], score, batch=2)
        for kind in looking.KINDS:
            wanted = clip_cams(model, clips, classes, "layer3.0.conv2", kind, score=score)
            assert close(found[f"layer3.0.conv2 {kind} {score}"], np.stack([cam.maps for cam in wanted])), (
                kind
            )
    assert hooks(model) == 0


def test_the_default_is_what_the_study_chose_on_validation_clips():
    record = json.loads((ROOT / "data" / "results" / "looking.json").read_text())
    defaults = {k: v.default for k, v in inspect.signature(clip_cam).parameters.items()}
    assert record["parts"]["choice"]["chosen"] == "{layer} {method} {score}".format(**defaults)


def test_any_number_of_frames(clip):
    for frames in (1, 3, 8):
        assert clip_cam(make(), clip[:frames], 0).maps.shape == (frames, 8, 8)


def test_the_model_is_untouched(clip):
    model = make().train()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    model(clip[None, :, :, :32, :32].repeat(2, 1, 1, 1, 1)).sum().backward()
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]

    def state():
        modes = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
        return fingerprint(model), modes, hooks(model)

    before = state()
    for _ in range(3):
        clip_cam(model, clip, layer="layer3")
    for bad in (
        {"layer": "layer9"},
        {"target": 99},
        {"method": "magic"},
        {"target": "nothing"},
        {"score": "loss"},
    ):
        with pytest.raises(ValueError):
            clip_cam(model, clip, **bad)
    cam_layers(model)
    assert state() == before and before[-1] == 0
    now = [p.grad for p in model.parameters()]
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(grads, now, strict=True))
    assert not clip.requires_grad and clip.grad is None


def shared_out(model, clip, method):
    """Maps of the same clip from several threads at once; the first that differs, else the first."""
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda _: clip_cam(model, clip, method=method), range(4)))
    return next((m for m in maps if not np.array_equal(m.maps, maps[0].maps)), maps[0])


def under(context):
    def call(model, clip, method):
        with context():
            return clip_cam(model, clip, method=method)

    return call


def ask(model, clip, method):
    return clip_cam(model, clip, method=method)


WAYS = {
    "no gradients": under(torch.no_grad),
    "inference": under(torch.inference_mode),
    "compiled": lambda model, *more: ask(torch.compile(model, backend="eager"), *more),
    "compiled in place": lambda model, *more: (model.compile(backend="eager"), ask(model, *more))[1],
    "parallel": lambda model, *more: ask(torch.nn.DataParallel(model), *more),
    "in threads": shared_out,
    "double input": lambda model, clip, method: ask(model, clip.double(), method),
}


# occlusion only calls the network: there are no hooks that a compiler could drop
AROUND = [("layercam", way) for way in WAYS]
AROUND += [("occlusion", way) for way in WAYS if "compiled" not in way]


@pytest.mark.parametrize("method, way", AROUND)
def test_the_same_map_whatever_is_around_the_network(clip, small, way, method):
    clip = small if method == "occlusion" else clip
    model = make("sda_tsn_tiny").eval()
    plain = ask(model, clip, method)
    found = WAYS[way](model, clip, method)
    assert np.allclose(found.maps, plain.maps, atol=1e-6) and found.layer == plain.layer
    assert all(p.requires_grad for p in model.parameters()) and not model.training


@pytest.mark.parametrize("method", ["layercam", "occlusion"])
def test_short_numbers_give_nearly_the_same_map(clip, small, method):
    model = make("sda_tsn_tiny").eval()
    clip = small if method == "occlusion" else clip
    plain = clip_cam(model, clip, 3, method=method).maps
    with torch.autocast("cpu", torch.bfloat16):
        mixed = clip_cam(model, clip, 3, method=method).maps
    short = clip_cam(make("sda_tsn_tiny").eval().bfloat16(), clip, 3, method=method).maps
    for maps in (mixed, short):
        assert np.isfinite(maps).all() and maps.shape == plain.shape
    if method == "layercam":
        assert np.corrcoef(mixed.ravel(), plain.ravel())[0, 1] > 0.9


def test_evidence_against_only(clip):
    model = make().eval()
    with torch.no_grad():
        model.fc.weight[0] = -model.fc.weight.abs()[0]  # features are not negative
    cam = clip_cam(model, clip, 0, "layer4", "gradcam", score="logit")
    assert cam.range[1] <= 0 and cam.note == "no positive evidence for class 0 at layer4"
    for scale in ("clip", "frame"):
        assert (cam.scaled(scale) == 0).all()
    assert (cam.scaled("shared", top=shared_top(cam)) == 0).all()


def test_scales_keep_what_they_promise():
    rng = np.random.default_rng(0)
    a, b = (
        ClipCam(factor * rng.normal(size=(4, 5, 5)), np.zeros(3), "class 0", "layer4", "gradcam", (20, 30))
        for factor in (1, 3)
    )
    assert a.scaled().shape == (4, 20, 30)
    for scale in ("clip", "frame"):
        assert 0 <= a.scaled(scale).min() <= a.scaled(scale).max() <= 1
    top = shared_top(a, b)
    assert top == b.range[1] and a.scaled("shared", top).max() < b.scaled("shared", top).max()
    ratio = a.scaled()[0].sum() / a.scaled()[1].sum()  # frames keep their proportion under one scale
    assert np.isclose(ratio, np.maximum(a.maps[0], 0).sum() / np.maximum(a.maps[1], 0).sum(), rtol=0.3)
    for wrong in (("shared", None), ("shared", top / 10), ("video", None)):
        with pytest.raises(ValueError):
            b.scaled(*wrong)


def test_layers_of_a_large_network():
    table = cam_layers(create_model("sda_tsn_resnet50", 5, num_frames=2), size=32).set_index("layer")
    assert table.loc["layer4"].tolist() == [2048, 1, 1] and "layer3.5" in table.index
    assert "fc" not in table.index and not table.index.str.contains("gate").any()


def test_wrong_names_are_explained(clip):
    model = make()
    with pytest.raises(UnknownNameError) as error:
        clip_cam(model, clip, layer="layer_4")
    assert error.value.subject == "layer_4" and "'layer4'" in error.value.remedy
    with pytest.raises(SettingError) as error:
        clip_cam(model, clip, layer="fc")
    assert error.value.subject == "fc"
    with pytest.raises(SettingError):
        clip_cam(model, clip, "jumping")
    names = ["walking"] + ["x"] * 19
    with pytest.raises(UnknownNameError) as error:
        clip_cam(model, clip, "walkin", class_names=names)
    assert error.value.choices == tuple(names) and "'walking'" in error.value.remedy
    with pytest.raises(SettingError) as error:
        clip_cam(model, clip[None])
    assert "clip_cams" in str(error.value), "the function that takes several clips"
    with pytest.raises(SettingError):
        clip_cam(model, clip * float("nan"))
    with pytest.raises(SettingError) as error:
        gate_maps(make("tsn_tiny"), clip)
    assert error.value.subject == "tsn_tiny", "it has no gates"
    with pytest.raises(UnknownNameError) as error:
        gate_maps(model, clip, ["layer2.1"])
    assert "'layer2.0'" in error.value.remedy


def test_gates_are_between_0_and_1(clip):
    gates = gate_maps(make(), clip)
    assert all(0 < gate.range[0] <= gate.range[1] < 1 for gate in gates.values()) and len(gates) == 4


def test_missing_package_names_the_install_line(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(MissingPackageError) as caught:
        clip_cam(make(), clip)
    assert caught.value.subject == "grad-cam" and "[cam]" in caught.value.remedy
