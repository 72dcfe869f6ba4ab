"""Settings of a training: help, files, recipes, and numbers that mean nothing."""

import dataclasses
import json
import re

import pytest
import tyro
from training_runs import Clips, small

from sda.data.sampling import Sampling
from sda.data.transforms import TransformConfig
from sda.foundation.errors import RunError, SettingError, UnknownNameError
from sda.networks.backbones import create_model
from sda.training.checking import check_data
from sda.training.config import TrainConfig
from sda.training.recipes import ASSUMED, RECIPES, config_from_dict, load_config, recipe, save_config
from sda.training.trainer import train


def test_command_line_and_help_come_from_the_dataclass(capsys):
    config = tyro.cli(TrainConfig, args=["--lr", "0.1", "--milestones", "3", "4", "--precision", "bf16"])
    assert (config.lr, config.milestones, config.precision) == (0.1, (3, 4), "bf16")
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "rate multiplier of the attention queries" in text and "crops are cut" in text


def test_every_setting_has_help(capsys, monkeypatch):
    """The command line says something of each, beside its default."""
    monkeypatch.setenv("COLUMNS", "250")
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    lines = re.sub(r"\x1b\[[0-9;]*m|[│╭╰─╮╯]", "", capsys.readouterr().out).splitlines()
    text = "\n".join(line.strip() for line in lines)
    entries = re.split(r"\n(?=--[a-z])", text)
    for field in dataclasses.fields(TrainConfig):
        option = "--" + field.name.replace("_", "-")
        [entry] = [e for e in entries if re.match(rf"{option}[ ,\n]", e)]
        said = re.sub(r"\(default:.*?\)|--\S+|\{.*?\}|\b[A-Z]{3,}\b", "", entry, flags=re.S)
        assert len(said.split()) >= 2, option


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name, tmp_path):
    assert load_config(save_config(RECIPES[name], tmp_path / "c.yaml")) == RECIPES[name]
    config_from_dict(json.loads(json.dumps(dataclasses.asdict(RECIPES[name]))))


@pytest.mark.parametrize(
    "values, error, subject, choice",
    [
        ({"weigth_decay": 1}, UnknownNameError, "weigth_decay", "weight_decay"),
        ({"lr": "fast"}, SettingError, "lr", None),
        ({"precision": "fp8"}, SettingError, "precision", "fp32"),
        ({"epochs": 2.5}, SettingError, "epochs", None),
        ({"flip": "no"}, SettingError, "flip", None),
    ],
)
def test_bad_settings(values, error, subject, choice):
    with pytest.raises(error) as caught:
        config_from_dict(values)
    assert caught.value.subject == subject and (choice is None or choice in caught.value.choices)


def test_yaml_numbers_and_wrong_files(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 4e-3\nbetas: [0.9, 0.99]\n")
    assert load_config(tmp_path / "a.yaml") == recipe("moves", lr=4e-3, betas=(0.9, 0.99))
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(SettingError) as caught:
        load_config(tmp_path / "b.yaml")
    assert caught.value.subject == str(tmp_path / "b.yaml")


def test_unknown_recipe():
    with pytest.raises(UnknownNameError) as caught:
        recipe("paper_somethin")
    assert "paper_something" in caught.value.remedy and set(caught.value.choices) == set(RECIPES)


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", 0),
        ("epochs", -2),
        ("patience", -1),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", -1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("mixup", -1),
        ("warmup", 3),
        ("momentum", 2),
        ("weight_decay", -1),
        ("keep_states", 0),
        ("save_every", -1),
        ("seed", -1),
        ("accumulate", 100),
        ("betas", (-0.1, 0.9)),
        ("dropout", 1.5),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, value, tmp_path):
    with pytest.raises(SettingError) as caught:
        recipe("moves", **{name: value})
    assert caught.value.subject == name
    with pytest.raises(SettingError) as caught:
        train(
            dataclasses.replace(small(), **{name: value}),
            "tsn_tiny",
            Clips(),
            None,
            tmp_path / "run",
            progress=False,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text, named, choice",
    [
        ("recipe: nonsense", "'nonsense'", "moves"),
        ("a: [", "line 1", None),
        ("epochss: 3", "'epochss'", "epochs"),
        ("epochs: 0", "'epochs'", None),
    ],
)
def test_settings_files_are_checked_by_name(text, named, choice, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_config(file)
    assert caught.value.subject == str(file) and named in str(caught.value)
    assert choice in caught.value.choices if choice else not caught.value.choices


def test_a_settings_file_starts_from_the_recipe_it_names(tmp_path):
    (tmp_path / "run.yaml").write_text("recipe: paper_something\nepochs: 3")
    assert load_config(tmp_path / "run.yaml") == recipe("paper_something", epochs=3)


def test_published_recipes_are_the_published_numbers():
    paper = recipe("paper_something")
    assert (paper.optimizer, paper.momentum, paper.lr, paper.lr_batch, paper.weight_decay) == (
        "sgd",
        0.9,
        0.01,
        64,
        1e-4,
    )
    assert (paper.epochs, paper.schedule, paper.milestones, paper.gamma) == (50, "step", (20, 40), 0.1)
    assert (paper.dropout, paper.clip_grad, paper.sda_lr, paper.partial_bn, paper.flip) == (
        0.5,
        20,
        5,
        False,
        True,
    )
    assert recipe("paper_something_tsm").weight_decay == 5e-4 and recipe("paper_diving48").clip_grad == 20
    small_set = recipe("finetune_small")
    assert small_set.partial_bn and small_set.patience and small_set.lr < paper.lr


def test_fast_query_differs_in_one_number():
    a, b = (dataclasses.asdict(RECIPES[n]) for n in ("moves", "moves_fast_query"))
    assert {k for k in a if a[k] != b[k]} == {"recipe", "query_lr"} and b["query_lr"] == 10


def test_recipes_without_a_published_command_say_so(tmp_path, caplog):
    assert (
        set(ASSUMED) == {"paper_something", "paper_diving48", "paper_epic55"}
        and ASSUMED.keys() <= RECIPES.keys()
    )
    config = small(recipe="paper_epic55", epochs=1)
    train(config, "tsn_tiny", Clips(4), None, tmp_path, progress=False)
    assert "P01 to P25" in caplog.text and recipe("paper_diving48").epochs == 50


def test_a_description_reaches_the_clips(tmp_path):
    """Every augmentation field, and the seed of random frames and crops."""
    config = small(
        crop="resized",
        area=[0.5, 1],
        colour="jitter",
        strength=0.3,
        rand_augment=4,
        erase=0.2,
        flip=True,
        seed=3,
    )
    assert config.transform() == TransformConfig(
        32,
        32,
        "resized",
        area=(0.5, 1.0),
        colour="jitter",
        strength=0.3,
        rand_augment=4,
        erase=0.2,
        flip=True,
    )
    assert small().transform() == TransformConfig(32, 32, "random", colour="permute", flip=False)
    data = Clips(4)
    data.seed = 0
    train(small(epochs=1, seed=3), "tsn_tiny", data, None, tmp_path, progress=False)
    assert data.seed == 3


class Other(Clips):
    class_names = ["a", "c", "b"]


class Real(Clips):
    transform_config = TransformConfig(size=32, resize=40)
    sampling = Sampling("segments", 4)


@pytest.mark.parametrize(
    "data, val, subject, remedy",
    [
        (Clips(0), None, "training", "list"),
        (Clips(), Clips(0), "validation", "list"),
        (Clips(), Other(), "validation", "category.txt"),
        (Clips(size=48), None, "training", "num_frames and size"),
        (Real(), None, "training", "config.transform()"),
    ],
)
def test_clips_that_do_not_fit_are_refused(data, val, subject, remedy):
    with pytest.raises(RunError) as caught:
        check_data(small(), create_model("tsn_tiny", 3), data, val)
    assert caught.value.subject == subject and remedy in caught.value.remedy
