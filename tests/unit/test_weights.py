"""Starting from weights of others: every layout a file may have, what is counted, and what is refused."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from training_runs import Clips, same, small, weights

from sda.assets import SAMPLE_CLIPS, shipped
from sda.commands.main import main, parse
from sda.data.datasets import clip_shares, epoch_plan
from sda.foundation.errors import DataError, RunError, SettingError, UnknownNameError
from sda.networks.backbones import create_model, list_models, new_parts
from sda.networks.checkpoints import ModelCard, load_model, load_weights, read_card, save_model
from sda.networks.sharing import load_folder
from sda.networks.weights import fit, our_name, read_weights
from sda.training.checking import rare_classes
from sda.training.norms import freeze, training_mode
from sda.training.optimiser import class_weights, mixed_loss
from sda.training.selecting import SelectionLoss
from sda.training.trainer import train


def learnt(model):
    """A network with weights that no new one has."""
    generator = torch.Generator().manual_seed(7)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return model


def plain(state):
    return dict(state)


def tsm_code(state):
    """TSM's public files: DataParallel, the ResNet inside, shifted conv1 wrapped, its classifier."""
    out = {}
    for name, tensor in state.items():
        if name.startswith("fc."):
            out[f"module.new_{name}"] = tensor
            continue
        wrapped = re.sub(r"^(layer.*\.conv1)\.weight$", r"\1.net.weight", name)
        out[f"module.base_model.{wrapped}"] = tensor
    return {"epoch": 45, "arch": "resnet50", "state_dict": out, "best_prec1": torch.tensor(47.3)}


def tsn_code(state):
    """TSN's and the paper's files without DataParallel and shift."""
    return {
        name.replace("fc.", "new_fc.") if name.startswith("fc.") else f"base_model.{name}": t
        for name, t in state.items()
    }


def mmaction(state, shift=False):
    """mmaction2: a convolution and its norm in one module."""
    out = {}
    for name, tensor in state.items():
        if name.startswith("fc."):
            out[f"cls_head.fc_cls.{name[3:]}"] = tensor
            continue
        name = re.sub(r"conv(\d)\.", r"conv\1.conv.", name)
        name = re.sub(r"bn(\d)\.", r"conv\1.bn.", name)
        name = name.replace("downsample.0.", "downsample.conv.").replace("downsample.1.", "downsample.bn.")
        if shift:
            name = re.sub(r"^(layer.*conv1\.conv)\.weight$", r"\1.net.weight", name)
        out[f"backbone.{name}"] = tensor
    return {"meta": {"epoch": 50}, "state_dict": out}


def mmaction_tsm(state):
    return mmaction(state, shift=True)


def mmaction_tpn(state):
    """TSM below a pyramid whose tensors nobody else has."""
    content = mmaction(state, shift=True)
    content["state_dict"]["neck.pyramid_fusion.conv.weight"] = torch.zeros(8, 8, 1, 1, 1)
    content["state_dict"]["neck.pyramid_fusion.bn.weight"] = torch.zeros(8)
    return content


def training_script(state):
    """timm's and torchvision's scripts keep more than the weights."""
    return {"model": dict(state), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 3}


def compiled(state):
    return {f"module._orig_mod.{name}": t for name, t in state.items()}


LAYOUTS = (plain, tsm_code, tsn_code, mmaction, mmaction_tsm, mmaction_tpn, training_script, compiled)


def test_names_of_ours_stay_as_they_are():
    with torch.device("meta"):
        for name in list_models("*_tiny"):
            for key in create_model(name, 3).state_dict():
                assert our_name(key) == key, name


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_network_starts_from_every_layout_with_other_classes_and_sda_on_top(layout, tmp_path):
    theirs = learnt(create_model("tsm_tiny", 7))
    torch.save(layout(theirs.state_dict()), tmp_path / "w.pth")
    net = create_model("sda_tsm_tiny", 3)
    before = weights(net)
    found = load_weights(net, tmp_path / "w.pth")
    image = {k for k in net.state_dict() if not set(k.split(".")) & new_parts(net)}
    gates = {k for k in net.state_dict() if ".gate." in k}
    for key, value in net.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key] if key in image else before[key]), key
    counted = found.counts()
    assert counted["taken"] == sum("num_batches" not in k for k in image)
    assert counted["new"] == 2 + sum("num_batches" not in k for k in gates)
    assert counted["left"] == 2 + 2 * (layout is mmaction_tpn)
    lines = str(found).splitlines()
    assert len(lines) == 3
    assert [int(re.search(r"(\d+) tensor", line)[1]) for line in lines] == list(counted.values())
    assert "gate in 4 blocks" in lines[1] and "7 classes there, 3 here" in lines[1]


@pytest.mark.parametrize("store", ["pth", "tar", "safetensors", "memory", "ours", "run"])
def test_every_kind_of_file(store, tmp_path):
    theirs = learnt(create_model("tsn_tiny", 3))
    source = tmp_path / f"w.{store}"
    if store == "memory":
        source = theirs.state_dict()
    elif store in ("ours", "run"):
        source = tmp_path if store == "run" else tmp_path / "model.safetensors"
        save_model(tmp_path / "model.safetensors", theirs, ModelCard.of(theirs, ["a", "b", "c"]), half=True)
    elif store == "safetensors":
        save_file(theirs.state_dict(), source)
    else:
        torch.save(theirs.state_dict(), source, _use_new_zipfile_serialization=store == "pth")
    net = create_model("tsn_tiny", 3)
    found = load_weights(net, source, class_names=["a", "b", "c"])
    tolerance = 1e-3 if store in ("ours", "run") else 0
    assert found.counts()["new"] == found.counts()["left"] == 0
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[key], atol=tolerance, rtol=0)


def test_a_classifier_for_other_classes_starts_anew_though_they_are_as_many(tmp_path):
    theirs = learnt(create_model("tsn_tiny", 3))
    path = save_model(tmp_path / "m.safetensors", theirs, ModelCard.of(theirs, ["a", "b", "c"]))
    net = create_model("tsn_tiny", 3)
    head = net.fc.weight.detach().clone()
    found = load_weights(net, path, class_names=["c", "b", "a"])
    assert set(found.new) == set(found.left) == {"fc.weight", "fc.bias"}
    assert torch.equal(net.fc.weight, head)


@pytest.mark.parametrize("name", ["gst_tiny", "c3d_tiny"])
def test_a_method_that_replaces_conv2_is_made_from_it(name):
    theirs = learnt(create_model("tsn_tiny", 3))
    net = create_model(name, 3)
    before = weights(net)
    found = load_weights(net, theirs.state_dict())
    assert found.counts()["left"] == 0
    assert not same(
        {k: v for k, v in weights(net).items() if ".mix." in k},
        {k: v for k, v in before.items() if ".mix." in k},
    )


def test_another_method_leaves_its_blocks(tmp_path):
    theirs = learnt(create_model("sda_tsm_tiny", 3))
    found = load_weights(create_model("tsm_tiny", 3), theirs.state_dict())
    assert found.counts()["new"] == 0 and all(".gate." in k for k in found.left)


@pytest.mark.parametrize(
    "library, name, ours, counted",
    [
        ("torchvision", "resnet50", "tsn_resnet50", dict(taken=265, new=2, left=2)),
        ("timm", "resnet50", "tsn_resnet50", dict(taken=265, new=2, left=2)),
        ("timm", "resnet18", "sda_tsm_resnet18", dict(taken=100, new=250, left=2)),
        ("timm", "resnet50d", "sda_tsm_timm:resnet50d", dict(taken=275, new=498, left=2)),
        ("timm", "seresnet50", "tsn_timm:seresnet50", dict(taken=329, new=2, left=2)),
    ],
)
def test_torchvision_and_timm_weights_fit_without_their_classifier(library, name, ours, counted):
    made = pytest.importorskip(library)
    make = made.create_model if library == "timm" else made.models.get_model
    with torch.device("meta"):
        theirs = make(name).state_dict()
        net = create_model(ours, 174)
    found = fit(theirs, net.state_dict(), new_parts(net))
    assert found.counts() == counted and set(found.left) == {"fc.weight", "fc.bias"}


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_by_name_and_not_run(tmp_path):
    net = create_model("tsn_tiny", 3)
    path = tmp_path / "w.pth"
    for old in (False, True):
        torch.save(
            {"state_dict": net.state_dict(), "args": Trap(tmp_path / "sprung")},
            path,
            _use_new_zipfile_serialization=not old,
        )
        with pytest.raises(DataError) as caught:
            read_weights(path)
        assert caught.value.subject == str(path) and caught.value.choices[0].endswith(".mkdir")
        assert not (tmp_path / "sprung").exists()


def deeper(net):
    """One block more in the second stage."""
    more = {k.replace("layer2.0", "layer2.1"): v for k, v in net.state_dict().items() if "layer2" in k}
    return {**more, **net.state_dict()}


@pytest.mark.parametrize(
    "state, fits, not_there, left",
    [
        (deeper, "layer2", "nothing", "layer2"),
        (
            lambda net: {k: v for k, v in net.state_dict().items() if "layer3" not in k},
            "layer4",
            "layer3",
            "fc",
        ),
        (lambda net: {f"blocks.{k}": v for k, v in net.state_dict().items()}, "nothing", "layer1", "blocks"),
        (
            lambda net: {
                k: v[:, :, None].repeat(1, 1, 3, 1, 1) if v.ndim == 4 else v
                for k, v in net.state_dict().items()
            },
            "bn1",
            "conv1",
            "conv1",
        ),
    ],
    ids=["deeper", "a stage is missing", "other names", "3-D"],
)
def test_weights_of_another_network_are_refused_with_what_fits_and_what_not(state, fits, not_there, left):
    theirs = learnt(create_model("tsn_tiny", 5))
    net = create_model("tsn_tiny", 3)
    before = weights(net)
    with pytest.raises(DataError) as caught:
        load_weights(net, state(theirs))
    assert same(weights(net), before), "nothing is changed"
    said = re.search(r"fits: (.*); does not fit or is not there: (.*); left over: (.*);", str(caught.value))
    assert [word in part for word, part in zip((fits, not_there, left), said.groups(), strict=True)] == [
        True
    ] * 3


def test_files_that_hold_no_weights(tmp_path):
    net = create_model("tsn_tiny", 3)
    path = tmp_path / "w.pth"
    with pytest.raises(FileNotFoundError):
        load_weights(net, path)
    with pytest.raises(FileNotFoundError):
        load_weights(net, tmp_path)
    for content in (b"", b"text", b"\x00" * 100, b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_weights(net, path)
        assert caught.value.subject == str(path)
    for content in ([1, 2], {}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": {"a": "b"}}):
        torch.save(content, path)
        with pytest.raises(DataError):
            load_weights(net, path)
    with pytest.raises(DataError) as caught:
        load_weights(
            net,
            {
                k: v * float("nan") if "layer1" in k and v.is_floating_point() else v
                for k, v in net.state_dict().items()
            },
        )
    assert "layer1.0.conv1.weight" in str(caught.value)


# --- training


def norm_statistics(net):
    return {k: v.clone() for k, v in net.state_dict().items() if "running" in k}


def test_a_run_starts_from_a_file_and_its_record_says_so(tmp_path):
    theirs = learnt(create_model("tsn_tiny", 7))
    torch.save(tsm_code(theirs.state_dict()), tmp_path / "w.pth")
    config = small(init=str(tmp_path / "w.pth"), epochs=1, lr=1e-9)
    result = train(config, "sda_tsm_tiny", Clips(4), None, tmp_path / "run", progress=False)
    torch.testing.assert_close(
        result.model.layer1[0].conv2.weight, theirs.layer1[0].conv2.weight, atol=1e-4, rtol=0
    )
    counted = result.record["start"]
    assert counted["left"] == 2 and counted["taken"] > counted["left"]
    assert result.model.card.recipe["init"] == result.record["config"]["init"] == "w.pth", (
        "no folder of this machine"
    )
    again = train(config, "sda_tsm_tiny", Clips(4), None, tmp_path / "run", progress=False)
    assert again.reused


def test_frozen_stages_keep_weights_and_statistics_and_all_else_learns(tmp_path):
    torch.save(create_model("tsn_tiny", 7).state_dict(), tmp_path / "w.pth")
    start = torch.load(tmp_path / "w.pth")
    config = small(init=str(tmp_path / "w.pth"), epochs=1)
    for parts in (("backbone",), ("stem", "layer1")):
        from dataclasses import replace

        result = train(
            replace(config, freeze=parts), "sda_tsm_tiny", Clips(4), None, tmp_path / parts[0], progress=False
        )
        new = new_parts(result.model)
        for key, value in result.model.state_dict().items():
            names = key.split(".")
            stage = names[0] if names[0].startswith("layer") else "stem"
            if set(names) & new or ("backbone" not in parts and stage not in parts):
                continue
            assert torch.equal(value, start[key]), key
        assert not torch.equal(result.model.fc.bias, torch.zeros(3))
        assert ("backbone" in parts) == torch.equal(
            result.model.layer4[0].conv1.weight, start["layer4.0.conv1.weight"]
        )
        assert all(p.requires_grad for p in result.model.parameters()), "a trained network is free again"


def test_what_cannot_be_frozen_is_named(tmp_path):
    net = create_model("tsn_tiny", 3)
    with pytest.raises(UnknownNameError) as caught:
        freeze(net, ["layer9"])
    assert "layer4" in caught.value.choices
    with pytest.raises(SettingError) as setting:
        train(small(freeze=("backbone",)), "tsn_tiny", Clips(4), None, tmp_path, progress=False)
    assert setting.value.subject == "freeze"


def test_a_frozen_norm_is_evaluated_while_its_network_trains():
    net = create_model("sda_tsn_tiny", 3)
    freeze(net, ["layer2"])
    training_mode(net)
    assert not net.layer2[0].bn1.training and not net.layer2[0].downsample[1].training
    assert net.layer1[0].bn1.training and net.layer2[0].gate.down_norm.training


@pytest.mark.parametrize(
    "words, value",
    [
        (["--pretrained"], True),
        (["--pretrained", "--epochs", "3"], True),
        (["--pretrained", "w.pth"], "w.pth"),
        (["--pretrained=w.pth"], "w.pth"),
        (["--recipe", "finetune_small"], True),
        (["--recipe", "finetune_small", "--no-pretrained"], False),
        ([], False),
    ],
)
def test_pretrained_is_yes_no_or_a_file(words, value):
    config = parse(["train", *words]).config
    assert config.pretrained == value and type(config.pretrained) is type(value)


def test_a_dry_run_counts_what_fits_and_downloads_nothing(tmp_path, monkeypatch, capsys):
    root = tmp_path / "set"
    (root / "trainValTest").mkdir(parents=True)
    for name in ("img", "category.txt"):
        (root / name).symlink_to(SAMPLE_CLIPS / name)
    for split in ("train", "val"):
        (root / "trainValTest" / f"{split}.txt").symlink_to(SAMPLE_CLIPS / "trainValTest" / "test.txt")
    moves = ["train", "--data", str(root), "--dry-run", "--model", "sda_tsm_tiny", "--quiet"]
    torch.save(create_model("tsm_tiny", 7).state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr("sda.networks.imagenet.image_weights", lambda name: pytest.fail("a download"))
    monkeypatch.setattr("sda.commands.train.dry_run", lambda *_: "what it costs")
    assert main([*moves, "--init", str(tmp_path / "w.pth"), "--pretrained", "--freeze", "backbone"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "tensors" in line]) == 3
    assert main([*moves, "--init", str(tmp_path / "none.pth")]) == 1


# --- networks that ship, by name


def test_a_network_that_ships_is_read_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = shipped()
    assert {"sda_tsn_moves", "sda_tsn_moves_gated"} <= files.keys()
    for name, file in files.items():
        net = load_model(file)
        assert same(weights(load_model(name)), weights(net)) and read_card(name) == net.card
        assert same(weights(load_folder(name)), weights(net)) and same(read_weights(name), read_weights(file))
        by_name, by_path = (load_weights(create_model(net.name, 3), n, "abc") for n in (name, file))
        assert same(by_name.taken, by_path.taken) and by_name.counts() == by_path.counts()


def test_a_file_or_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped()["tsn_moves"], "sda_tsn_moves")
    assert load_model("sda_tsn_moves").name == load_model("tsn_moves").name == "tsn_tiny"
    (tmp_path / "sda_tsn_moves_gated").mkdir()
    for read in (read_weights, load_model):
        with pytest.raises(FileNotFoundError) as caught:
            read("sda_tsn_moves_gated")
        assert str(caught.value).endswith("sda_tsn_moves_gated")  # it is no name here
    shutil.copy(shipped()["tsn_moves"], "sda_tsn_moves_gated/model.safetensors")
    assert same(read_weights("sda_tsn_moves_gated"), read_weights("tsn_moves"))


@pytest.mark.parametrize("read", (read_card, load_model, read_weights))
def test_an_unknown_name_is_answered_with_those_that_ship(read):
    with pytest.raises(FileNotFoundError, match="sda_tsn_movse") as caught:
        read("sda_tsn_movse")
    assert all(name in str(caught.value) for name in shipped())


def test_a_run_that_starts_from_a_name_goes_on_and_is_the_one_that_starts_from_its_file(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = small(init="sda_tsn_moves", lr=1e-4)
    whole = train(config, "sda_tsn_tiny", Clips(), None, tmp_path / "whole", progress=False)
    assert whole.record["config"]["init"] == "sda_tsn_moves.safetensors" and whole.record["start"]["taken"]
    with pytest.raises(KeyboardInterrupt):
        train(config, "sda_tsn_tiny", Clips(stop=15), None, tmp_path / "run", progress=False)
    by_path = replace(config, init=str(shipped()["sda_tsn_moves"]))
    rest = train(by_path, "sda_tsn_tiny", Clips(), None, tmp_path / "run", progress=False)
    assert same(weights(rest.model), weights(whole.model))
    assert train(config, "sda_tsn_tiny", Clips(), None, tmp_path / "run", progress=False).reused
    save_model("sda_tsn_moves", rest.model, rest.model.card)  # now the name means another start
    with pytest.raises(RunError, match="start:"):
        train(config, "sda_tsn_tiny", Clips(), None, tmp_path / "run", progress=False)


def test_a_teacher_is_found_by_its_name():
    net = load_model("sda_tsn_moves_gated")
    teacher = SelectionLoss(small(init="sda_tsn_moves_gated", distill=1.0), net).teacher
    assert same(weights(teacher), weights(net))


# --- small and uneven sets


class Uneven(Clips):
    """Twelve clips of one class, one of the next, none of the third."""

    labels = [0] * 12 + [1]

    def __init__(self):
        super().__init__(13)

    def __getitem__(self, i):
        return super().__getitem__(i) | {"label": self.labels[i]}


def test_class_weights_even_the_classes_out_and_keep_the_scale():
    labels = Uneven.labels
    counts = torch.tensor([12.0, 1.0])
    assert class_weights(labels, 3, "none") is None
    for how, ratio in (("balanced", 12.0), ("sqrt", 12.0**0.5)):
        weights = class_weights(labels, 3, how)
        assert weights[2] == 0 and float(weights[1] / weights[0]) == pytest.approx(ratio)
        assert float((weights[:2] * counts).sum()) == pytest.approx(13)
    logits = torch.randn(2, 3)
    both = mixed_loss(logits, torch.tensor([0, 1]), weights=weights)
    alone = [mixed_loss(logits[i : i + 1], torch.tensor([i])) for i in (0, 1)]
    torch.testing.assert_close(both, weights[0] * alone[0] + weights[1] * alone[1])


def test_balanced_sampling_draws_rare_clips_often_and_no_clip_more_than_its_share():
    labels = [0] * 12 + [1] * 3 + [2]
    for how, shares in (("balanced", [16 / 36] * 12 + [16 / 9] * 3 + [16 / 3]), ("none", None)):
        found = clip_shares(labels, how)
        assert found is None if shares is None else np.allclose(found, shares)
    found = clip_shares(labels, "balanced")
    for epoch in range(20):
        steps = epoch_plan(16, 6, seed=1, epoch=epoch, shares=found)
        order = [i for step in steps for piece in step.pieces for i in piece]
        often = np.bincount(order, minlength=16)
        assert len(order) == 16 and (np.abs(often - found) < 1).all()
    again = epoch_plan(16, 6, seed=1, epoch=19, shares=found)
    assert again == steps, "the order follows from seed and epoch"
    ranks = [epoch_plan(16, 6, seed=1, epoch=19, shares=found, rank=r, world=2) for r in (0, 1)]
    for step, *parts in zip(steps, *ranks, strict=True):
        assert sorted(step.pieces[0]) == sorted(i for part in parts for i in part.pieces[0])


def test_uneven_training_clips_are_said_and_settings_help(tmp_path, caplog):
    said = rare_classes(Uneven(), Uneven())
    assert sorted(said.values()) == ["b", "c", "c"] and len(said) == 3
    plain = train(small(epochs=1), "tsn_tiny", Uneven(), None, tmp_path / "a", progress=False)
    assert "no training clip" in caplog.text and "a single training clip" in caplog.text
    for setting in ("class_weights", "class_sampling"):
        other = train(
            small(epochs=1, **{setting: "balanced"}),
            "tsn_tiny",
            Uneven(),
            None,
            tmp_path / setting,
            progress=False,
        )
        assert not same(weights(plain.model), weights(other.model))
        with pytest.raises(SettingError) as caught:
            train(
                small(epochs=1, **{setting: "balanced"}),
                "tsn_tiny",
                Clips(),
                None,
                tmp_path / "c",
                progress=False,
            )
        assert caught.value.subject == setting
