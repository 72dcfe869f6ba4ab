"""Model files from every side, and the released checkpoints against a literal version of the published
network."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from reference_net import Aggregate, ReferenceNet, make_clips, randomise
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sda.foundation.errors import DataError
from sda.networks.backbones import create_model, list_models
from sda.networks.checkpoints import (
    ModelCard,
    class_hash,
    load_model,
    load_reference,
    read_card,
    save_model,
)
from sda.networks.weights import our_name

NAMES = [
    "Pushing [something] from left to right",
    "Pushing [something] from right to left",
    "Öffnen, „leise“\n",
]


def clips(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def tiny(name="sda_tsm_tiny", num_classes=3, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes, **options).eval()


@pytest.fixture
def file(tmp_path):
    net = tiny()
    return save_model(tmp_path / "m.safetensors", net, ModelCard.of(net, NAMES, metrics={"top1": 0.5}))


# --- model files
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models("*ts[nm]_tiny"))  # every method: test_methods.py
@pytest.mark.parametrize("half", [False, True])
def test_round_trip(name, half, tmp_path):
    net = tiny(name, num_frames=4)
    card = ModelCard.of(
        net, NAMES, transform={"size": 64}, sampling={"views": 2}, recipe={"lr": 0.01, "epochs": 3}
    )
    path = save_model(tmp_path / "new" / "m.safetensors", net, card, half=half)
    back = load_model(path, class_names=NAMES)
    x = clips(2, 8, 3, 48, 48)
    assert (
        back.card == card
        and (back.name, back.num_classes, back.num_frames) == (name, 3, 4)
        and not back.training
    )
    assert {k: v.dtype for k, v in back.state_dict().items()} == {
        k: v.dtype for k, v in net.state_dict().items()
    }
    assert all(p.requires_grad for p in back.parameters())
    with torch.no_grad():
        torch.testing.assert_close(back(x), net(x), atol=1e-3 if half else 1e-7, rtol=1e-5)
    assert os.listdir(path.parent) == ["m.safetensors"]
    if half:
        assert path.stat().st_size < 0.62 * save_model(tmp_path / "b", net, card).stat().st_size


def test_a_loaded_model_trains_saves_and_does_not_hang_on_its_file(file, tmp_path):
    net = load_model(file)
    file.write_bytes(b"")  # gone, while the network lives
    net.train()(clips(2, 4, 3, 32, 32)).sum().backward()
    assert net.layer1[0].gate.attention.query.grad is not None
    again = save_model(tmp_path / "again.safetensors", net.to(memory_format=torch.channels_last), net.card)
    assert torch.equal(load_model(again).conv1.weight, net.conv1.weight)


def test_options_come_back(tmp_path):
    net = tiny(dependencies=("S122", "LT"), reduction=2, attention="uniform", dropout=0.1)
    back = load_model(save_model(tmp_path / "m.safetensors", net, ModelCard.of(net)))
    assert (
        back.options == net.options
        and back.layer1[0].gate.dependencies == ("S122", "LT")
        and back.dropout.p == 0.1
    )


def test_equal_models_are_equal_files_in_another_process(file, tmp_path):
    code = (
        "import sys; from sda.networks.checkpoints import *; m = load_model(sys.argv[1]);"
        "save_model(sys.argv[2], m, m.card)"
    )
    subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "b")], check=True, timeout=120)
    assert file.read_bytes() == (tmp_path / "b").read_bytes()


def test_card_is_readable_json_in_the_header(file):
    with safe_open(file, "pt") as f:
        header = f.metadata()
    data = json.loads(header["sda.card"])
    assert (
        data["class_names"] == NAMES
        and data["class_hash"] == class_hash(NAMES)
        and data["model"] == "sda_tsm_tiny"
    )
    assert data["library"]["sda"] and set(header) == {"sda.card"} and read_card(file).metrics == {"top1": 0.5}


def test_other_classes_are_refused(file):
    swapped = [NAMES[0], NAMES[2], NAMES[1]]
    for others, number, theirs, ours in ((swapped, 1, NAMES[1], NAMES[2]), ([*NAMES, "x"], 3, None, "x")):
        with pytest.raises(DataError) as err:
            load_model(file, class_names=others)
        assert err.value.subject == str(file) and err.value.choices == tuple(NAMES)
        assert "allow_other_classes=True" in err.value.remedy
        for told in (f"{len(others)} here", f"number {number}", repr(theirs), repr(ours)):
            assert told in str(err.value)
    assert load_model(file, class_names=swapped, allow_other_classes=True).card.class_names == NAMES


def rewrite(path, change, tensors=None):
    """The same file with another card."""
    data = json.loads(read_card(path).to_json())
    change(data)
    save_file(load_file(path) if tensors is None else tensors, path, {"sda.card": json.dumps(data)})


@pytest.mark.parametrize(
    "change, field, told",
    [
        (lambda d: d.update(model="sda_tsm_tinny"), "sda_tsm_tinny", "'sda_tsm_tiny'"),
        (lambda d: d.update(model="tsn_tiny", options={}), None, "layer1.0.gate.branches.LS.norm"),
        (lambda d: d.update(model="sda_tsm_resnet50"), None, "layer1.1.conv1.weight"),
        (lambda d: d["options"].update(reduction=2), None, "[16, 48, 1, 1] instead of [24, 48, 1, 1]"),
        (lambda d: d["options"].update(colour=1), "colour", "'colour'"),
        (lambda d: d["options"].update(pretrained=True), "pretrained", "'pretrained'"),
        (lambda d: d["options"].update(dependencies="LT"), None, "layer1.0.gate.branches.LST.norm"),
        (lambda d: d["options"].update(num_classes=3), None, "'num_classes'"),
        (
            lambda d: d.update(num_classes=10**12, class_names=[], class_hash=class_hash([])),
            "num_classes",
            "1000000000000",
        ),
        (lambda d: d.update(num_classes=-1, class_names=[], class_hash=class_hash([])), "num_classes", "-1"),
        (lambda d: d.update(num_classes=True), "num_classes", "int"),
        (lambda d: d.update(num_frames="8"), "num_frames", "int"),
        (lambda d: d.update(class_names=NAMES[::-1]), "class_hash", ""),
        (lambda d: d.update(class_names=[1, 2, 3]), "class_names", ""),
        (
            lambda d: d.update(class_names=NAMES[:2], class_hash=class_hash(NAMES[:2])),
            "class_names",
            "2 class names for 3 classes",
        ),
        (lambda d: d.pop("model"), "model", "str"),
        (lambda d: d.update(extra=1), "extra", "'extra'"),
    ],
)
def test_cards_that_lie(file, change, field, told):
    rewrite(file, change)
    with pytest.raises(DataError) as err:
        load_model(file)
    assert err.value.subject == str(file)
    assert str(file) in str(err.value) and told in str(err.value)
    assert getattr(err.value.__cause__, "subject", None) == field


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(num_frames=0),
        lambda d: d.update(num_frames=10**9),
        lambda d: d.update(transform={"size": 10**6}),
        lambda d: d.update(transform={"size": "64"}),
        lambda d: d.update(transform={"resize": 64.5}),
        lambda d: d.update(transform={"mean": [0.5, 0.5, 0.5, 0.5]}),
        lambda d: d.update(transform={"std": [0.2, 0.0, 0.2]}),
        lambda d: d.update(transform={"crop": ["random"]}),
        lambda d: d.update(transform=[]),
        lambda d: d.update(sampling={"views": 10**6}),
        lambda d: d.update(sampling={"num_frames": True}),
        lambda d: d.update(sampling={"step": float("inf")}),
        lambda d: d.update(metrics={"top1": float("nan")}),
        lambda d: d["options"].update(dropout=-1),
        lambda d: d.update(recipe="moves"),
        lambda d: d.update(weights="0" * 16),
        lambda d: d.update(weights=1),
    ],
)
def test_cards_are_checked_whole_when_they_are_loaded(file, change):
    """Types and limits: nobody learns of it when the first video is read, or when the memory is gone."""
    rewrite(file, change)
    with pytest.raises(DataError) as caught:
        load_model(file)
    assert caught.value.subject == str(file)


def test_a_card_lies_on_its_own_weights(file, tmp_path):
    """One run's card on another run's weights, of the same network."""
    other = tiny()
    with torch.no_grad():
        other.fc.weight[0, 0] += 1
    other_file = save_model(tmp_path / "b.safetensors", other, ModelCard.of(other, NAMES))
    assert read_card(file).weights != read_card(other_file).weights
    rewrite(file, lambda d: None, load_file(other_file))
    with pytest.raises(DataError) as caught:
        load_model(file)
    assert caught.value.subject == str(file) and caught.value.remedy


def test_files_of_before_have_no_digest_and_load(file):
    rewrite(file, lambda d: d.pop("weights"))
    assert load_model(file).card.weights == "" and read_card(file).metrics == {"top1": 0.5}


def test_a_card_that_is_too_deep_or_too_long_is_refused(file):
    weights = load_file(file)
    for card in ("[" * 100_000, '{"model": "' + "x" * 17_000_000 + '"}'):
        save_file(weights, file, {"sda.card": card})
        with pytest.raises(DataError) as caught:
            read_card(file)
        assert caught.value.subject == str(file)


def test_weights_that_do_not_fit(file):
    state = load_file(file)
    del state["layer1.0.gate.attention.query"]
    state["fc.bias"] = torch.zeros(4)
    state["extra.weight"] = torch.zeros(1)
    rewrite(file, lambda d: None, state)
    with pytest.raises(ValueError) as err:
        load_model(file)
    for part in (
        "missing: layer1.0.gate.attention.query",
        "unexpected: extra.weight",
        r"fc.bias [4] instead of [3]",
    ):
        assert part in str(err.value)


def test_files_that_are_no_models(file, tmp_path):
    good = file.read_bytes()
    for content in (
        b"",
        b"x",
        b"not a model at all, only text",
        good[:100],
        good[: len(good) // 2],
        b"\xff" * 4096,
    ):
        file.write_bytes(content)
        with pytest.raises(DataError) as err:
            load_model(file)
        assert err.value.subject == str(file) and isinstance(err.value.__cause__, SafetensorError)
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(DataError) as err:
        load_model(file)
    assert err.value.subject == str(file) and "load_reference" in err.value.remedy
    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError) as err:
            load_model(missing)
        assert str(missing) in str(err.value)
    save_file({"conv1.weight": torch.zeros(2)}, file)
    with pytest.raises(DataError) as err:
        load_model(file)
    assert err.value.subject == str(file) and not err.value.__cause__
    assert "load_reference" in err.value.remedy
    for card in ("{", "[]", "null", '{"model": 1}', "1" * 5000):
        save_file({"a": torch.zeros(2)}, file, {"sda.card": card})
        with pytest.raises(DataError) as err:
            load_model(file)
        assert err.value.subject == str(file) and "save_model" in err.value.remedy


def test_what_is_not_saved(tmp_path):
    net = tiny()
    path = tmp_path / "m.safetensors"
    card = ModelCard.of(net, NAMES)
    for other, field in ((tiny("tsm_tiny"), "model"), (tiny(reduction=2), "options")):
        with pytest.raises(DataError) as err:
            save_model(path, other, card)
        assert err.value.subject == field and "ModelCard.of" in err.value.remedy
    with pytest.raises(TypeError) as err:
        save_model(path, torch.nn.DataParallel(net), card)
    assert "DataParallel" in str(err.value)
    with pytest.raises(DataError) as err:
        save_model(path, net, ModelCard.of(net, NAMES, recipe={"optimizer": 1j}))
    assert err.value.subject == "1j"
    with pytest.raises(DataError) as err:
        ModelCard.of(net, NAMES[:1])
    assert err.value.subject == "class_names" and "3 classes" in str(err.value)
    net.layer1[0].bn1.running_var[0] = 1e6
    with pytest.raises(DataError) as err:
        save_model(path, net, card, half=True)
    assert err.value.subject == "layer1.0.bn1.running_var" and "half=False" in err.value.remedy
    save_model(path, net, card)
    before = path.read_bytes()
    net.layer1[0].bn1.running_var[0] = float("inf")
    with pytest.raises(DataError) as err:
        save_model(path, net, card)
    assert err.value.subject == "layer1.0.bn1.running_var" and not err.value.remedy
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.safetensors"]


# --- checkpoints of the released code
# --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """Literal SDA-TSN and SDA-TSM with weights like trained ones."""
    torch.manual_seed(0)
    return {
        name: randomise(ReferenceNet(11, shift=name == "sda_tsm_resnet50"), seed=5)
        for name in ("sda_tsn_resnet50", "sda_tsm_resnet50")
    }


def assert_same(net, reference, x, atol=1e-4):
    with torch.no_grad():
        truth = reference(x)
        ours = net.eval()(x)
    assert 20 > (truth[0] - truth[1]).abs().max() > 0.2, (
        "the comparison needs logits as large as a trained network's"
    )
    torch.testing.assert_close(ours, truth, atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["sda_tsn_resnet50", "sda_tsm_resnet50"])
def test_logits_of_the_published_network(published, name):
    net = load_reference(create_model(name, 11), published[name].state_dict())
    assert_same(net, published[name], make_clips(2, 8, 48, 48, seed=9))
    assert_same(net, published[name], make_clips(2, 4, 112, 80, seed=9))  # odd sizes, 7x5 from 3x2 in res4
    other = "sda_tsm_resnet50" if "tsn" in name else "sda_tsn_resnet50"
    with pytest.raises(AssertionError):
        assert_same(net, published[other], make_clips(2, 4, 48, 48, seed=9))


def test_the_algebra_is_exact(published, monkeypatch):
    """In float64, and without the 1e-8 that the published softmax adds, nothing but rounding is left."""
    monkeypatch.setattr(Aggregate, "epsilon", 0)
    reference = copy.deepcopy(published["sda_tsm_resnet50"]).double()
    net = load_reference(
        create_model("sda_tsm_resnet50", 11), published["sda_tsm_resnet50"].state_dict()
    ).double()
    assert_same(net, reference, make_clips(2, 4, 112, 80, seed=9).double(), atol=1e-10)


def test_every_parameter_of_sda_matters(published):
    """A test of the test above: each kind of parameter, disturbed in the literal network, moves the
    logits."""
    reference = published["sda_tsn_resnet50"]
    x = make_clips(2, 4, 48, 48, seed=9)
    state = {k: v.clone() for k, v in reference.state_dict().items()}
    kinds = {k.partition(".sda.")[2] for k in state if ".sda." in k and "num_batches" not in k}
    assert len(kinds) == 2 + 4 + 4 + 4 * 5 + 1  # down, up, two BatchNorms, four responses, query
    with torch.no_grad():
        truth = reference(x)
        try:
            for kind in sorted(kinds):
                reference.load_state_dict(
                    {
                        k: v.roll(1, -1 if "qVec" in k else 0) if k.endswith(f".sda.{kind}") else v
                        for k, v in state.items()
                    }
                )
                assert (reference(x) - truth).abs().max() > 1e-2, kind
        finally:
            reference.load_state_dict(state)


def test_two_halves_of_sixteen_frames(published):
    reference = published["sda_tsn_resnet50"]
    blocks = [b for stage in (1, 2, 3, 4) for b in getattr(reference.base_model, f"layer{stage}")]
    for b in blocks:
        b.segments = 8
    try:
        net = load_reference(create_model("sda_tsn_resnet50", 11, 16, split=8), reference.state_dict())
        assert_same(net, reference, make_clips(2, 16, 48, 48, seed=9))
    finally:
        for b in blocks:
            b.segments = None


@pytest.fixture(scope="module")
def small(published):
    """State dict in the published names for the tiny network, and our network that it must become."""
    net = create_model("sda_tsm_tiny", 3).eval()
    for m in net.modules():
        if hasattr(m, "running_var"):
            m.running_var.uniform_(0.5, 1.5), m.running_mean.normal_(0, 0.1)
    theirs = {our_name(k): k for k in published["sda_tsm_resnet50"].state_dict()}
    shapes = published["sda_tsm_resnet50"].state_dict()
    state = {}
    for k, v in net.state_dict().items():  # names and number of axes as published
        name = theirs[k]
        ones = shapes[name].ndim - v.ndim
        state[name] = v.clone().reshape((1,) * ones + v.shape if "qVec" in name else v.shape + (1,) * ones)
    return net, state


def variants(state):
    with_module = {f"module.{k}": v for k, v in state.items()}
    yield "as it is", state
    yield "module", with_module
    yield (
        "in a dictionary",
        {"epoch": 49, "arch": "x", "state_dict": with_module, "best_prec1": torch.tensor(1.0)},
    )
    yield "base_model.fc", {k.replace("new_fc", "base_model.fc"): v for k, v in state.items()}
    yield (
        "wrapped conv1",
        {
            k.replace(".conv1.weight", ".conv1.net.weight") if ".layer" in k else k: v
            for k, v in with_module.items()
        },
    )
    yield (
        "profiled",
        {
            **with_module,
            "module.total_ops": torch.zeros(1),
            "total_params": torch.zeros(1),
            "module.base_model.layer1.0.sda.mdm.0.total_ops": torch.zeros(1),
        },
    )
    yield "no counters", {k: v for k, v in state.items() if "num_batches" not in k}
    yield "half", {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


KINDS = [
    "as it is",
    "module",
    "in a dictionary",
    "base_model.fc",
    "wrapped conv1",
    "profiled",
    "no counters",
    "half",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["memory", "pth", "pth.tar", "safetensors"])
def test_variants(small, kind, store, tmp_path):
    net, state = small
    content = dict(variants(state))[kind]
    source = tmp_path / f"checkpoint.{store}"
    if store == "memory":
        source = content
    elif store == "safetensors":
        save_file(dict(content.get("state_dict", content)), source)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=store == "pth")
    back = load_reference(create_model("sda_tsm_tiny", 3), source)
    assert back.training  # left as it was
    tolerance = 1e-3 if kind == "half" else 0
    for key, value in net.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(back.state_dict()[key], value, atol=tolerance, rtol=tolerance, msg=key)


def test_plain_tsn_and_tsm_checkpoints(small):
    state = {k: v for k, v in small[1].items() if ".sda." not in k}
    for name in ("tsn_tiny", "tsm_tiny"):
        assert torch.equal(
            load_reference(create_model(name, 3), state).layer3[0].conv2.weight,
            state["base_model.layer3.0.conv2.weight"],
        )


def test_what_does_not_fit_is_listed_and_nothing_is_changed(small):
    state = dict(small[1])
    del state["base_model.layer2.0.sda.mdm.2.conv.weight"], state["base_model.layer4.0.bn2.running_mean"]
    state["base_model.layer1.0.extra.weight"] = torch.zeros(1)
    net = create_model("sda_tsm_tiny", 5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError) as err:
        load_reference(net, state)
    for part in (
        "missing: ",
        "layer2.0.gate.branches.LS.conv.weight",
        "layer4.0.bn2.running_mean",
        "unexpected: layer1.0.extra.weight",
        "fc.weight [3, 256] instead of [5, 256]",
        "with 5 classes",
    ):
        assert part in str(err.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(DataError) as err:
        load_reference(create_model("sda_tsm_tiny", 3, attention="uniform"), small[1])
    assert "layer1.0.gate.attention.query" in str(err.value)
    with pytest.raises(DataError) as err:
        load_reference(net, {**small[1], "base_model.fc.bias": torch.zeros(3)})
    assert err.value.subject == "base_model.fc.bias"
    transposed = {**small[1], "base_model.layer1.0.sda.mdm.1.conv.weight": torch.zeros(3, 3, 16, 16)}
    with pytest.raises(DataError) as err:
        load_reference(create_model("sda_tsm_tiny", 3), transposed)
    assert "layer1.0.gate.branches.LT.conv.weight [3, 3, 16, 16] instead of [16, 16, 3, 3]" in str(err.value)


class Trap:
    """Unpickling it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_bad_checkpoint_files(small, tmp_path):
    net = create_model("sda_tsm_tiny", 3)
    path = tmp_path / "c.pth"
    with pytest.raises(FileNotFoundError) as err:
        load_reference(net, path)
    assert str(path) in str(err.value)
    torch.save({"state_dict": small[1], "args": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(DataError) as err:
        load_reference(net, path)
    assert err.value.subject == str(path) and err.value.choices == (f"{os.mkdir.__module__}.mkdir",)
    assert not (tmp_path / "sprung").exists()
    for content in (b"", b"text", path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(DataError) as err:
            load_reference(net, path)
        assert err.value.subject == str(path) and "copy it again" in err.value.remedy
        assert not err.value.choices
    for content, told in (([1, 2], "list"), ({}, "state_dict"), ({"epoch": 3}, "epoch")):
        torch.save(content, path)
        with pytest.raises(DataError) as err:
            load_reference(net, path)
        assert err.value.subject == str(path) and told in str(err.value)


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
def test_files_have_the_permissions_of_the_umask(tmp_path):
    model = create_model("tsn_tiny", 2)
    before = os.umask(0o027)
    try:
        path = save_model(tmp_path / "m.safetensors", model, ModelCard.of(model))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
