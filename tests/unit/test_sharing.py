"""Networks for other people: folders, pages, the hub that is not there, and files for other runtimes."""

import json
import sys
import time

import pytest
import torch

from sda.commands.main import main
from sda.foundation.errors import DataError, MissingPackageError, RunError, SettingError, UnknownNameError
from sda.networks import export
from sda.networks.backbones import VideoNet, create_model
from sda.networks.checkpoints import ModelCard, save_model
from sda.networks.export import export_network
from sda.networks.sharing import readme

NAMES = ["Pushing left", "Pushing right", "Falling"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = create_model("tsn_tiny", 3, num_frames=4).eval()
    net.card = ModelCard.of(
        net,
        NAMES,
        metrics={"val_top1": 0.85, "val_loss": 0.5},
        data={"dataset": "Pushes", "train_clips": 200, "val_clips": 40},
        recipe={"lr": 0.01},
        transform={"size": 32},
    )
    return net


def test_a_folder_holds_all_that_another_needs(net, tmp_path):
    folder = net.save_pretrained(tmp_path / "new" / "shared")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "model.safetensors"]
    for source in (folder, str(folder), folder / "model.safetensors"):
        back = VideoNet.from_pretrained(source)
        assert back.card == net.card and not back.training
        clips = torch.rand(1, 4, 3, 32, 32)
        torch.testing.assert_close(back(clips), net(clips))


def test_the_page_says_what_the_card_says(net):
    page = readme(net.card, "user/pushes")
    for part in (*NAMES, "Pushes", '"lr": 0.01', "user/pushes", "tsn_tiny"):
        assert part in page
    (row,) = [line for line in page.splitlines() if line.startswith("| val_top1")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["val_top1", "0.85", "40", "0.709 to 0.929"]  # Wilson's interval of 34 in 40
    assert page.startswith("---\nlibrary_name: ")


def test_the_page_of_a_bare_network_claims_nothing():
    page = readme(ModelCard.of(create_model("tsn_tiny", 3)))
    assert "Not measured." in page and "Not recorded." in page and "names are not recorded" in page


class Hub:
    """What `huggingface_hub` offers, without a network; `files` are those of the repository."""

    def __init__(self, real, online, files=()):
        self.real, self.online, self.files = real, online, dict(files)
        self.errors, self.asked, self.uploaded = real.errors, [], {}
        self.constants = type("Constants", (), {"HF_HUB_OFFLINE": False, "ENDPOINT": "https://hub"})

    def get_session(self):
        return self

    def head(self, url, timeout):
        if not self.online:
            raise OSError("Name or service not known")

    def hf_hub_download(self, name, file, revision, token, local_files_only):
        self.asked.append((name, revision, local_files_only))
        if file in self.files:
            return self.files[file]
        raise (
            self.errors.LocalEntryNotFoundError("not there")
            if local_files_only
            else (self.errors.EntryNotFoundError("404"))
        )

    def HfApi(self, token):
        return self

    def create_repo(self, name, private, exist_ok):
        self.uploaded[name] = None

    def upload_folder(self, repo_id, folder_path, commit_message):
        from pathlib import Path

        self.uploaded[repo_id] = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})


def hub(monkeypatch, **options):
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors

    fake = Hub(huggingface_hub, **options)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_a_name_on_the_hub_is_fetched_and_found_again_without_network(net, tmp_path, monkeypatch):
    file = net.save_pretrained(tmp_path / "a") / "model.safetensors"
    for online in (True, False):
        fake = hub(monkeypatch, online=online, files={"model.safetensors": str(file)})
        assert VideoNet.from_pretrained("user/pushes", revision="v1").card == net.card
        assert fake.asked == [("user/pushes", "v1", not online)]


def test_a_name_that_cannot_be_fetched_is_said_at_once(net, monkeypatch):
    hub(monkeypatch, online=False)
    start = time.monotonic()
    with pytest.raises(RunError) as caught:
        VideoNet.from_pretrained("user/pushes")
    assert caught.value.subject == "user/pushes" and caught.value.remedy and time.monotonic() - start < 5
    with pytest.raises(RunError):
        net.push_to_hub("user/pushes")
    hub(monkeypatch, online=True)
    with pytest.raises(DataError) as other:
        VideoNet.from_pretrained("user/something")
    assert other.value.subject == "user/something"
    with pytest.raises(DataError):
        VideoNet.from_pretrained("no such folder")
    with pytest.raises(SettingError):
        net.push_to_hub("nobody")


def test_what_is_pushed_is_the_folder(net, tmp_path, monkeypatch):
    fake = hub(monkeypatch, online=True)
    assert net.push_to_hub("user/pushes").endswith("user/pushes")
    files = fake.uploaded["user/pushes"]
    assert sorted(files) == ["README.md", "model.safetensors"]
    assert files["model.safetensors"] == (net.save_pretrained(tmp_path) / "model.safetensors").read_bytes()
    assert b"user/pushes" in files["README.md"]


# --- other runtimes


@pytest.mark.parametrize("to, end", [("torch", ".pt2"), ("onnx", ".onnx")])
def test_an_exported_network_answers_any_batch_as_the_original(to, end, net, tmp_path, capsys):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model = save_model(tmp_path / "m.safetensors", net, net.card)
    assert main(["export", str(model), "--to", to]) == 0
    file = tmp_path / f"m{end}"
    clips = torch.rand(5, 4, 3, 32, 32)
    if to == "torch":
        extra = {"sda.card": ""}
        answer = torch.export.load(file, extra_files=extra).module()(clips)
        card = extra["sda.card"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        answer = torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])
        card = session.get_modelmeta().custom_metadata_map["sda.card"]
    # of a file, so it knows its weights, which the card of a network in memory does not
    assert json.loads(card) | {"weights": ""} == json.loads(net.card.to_json())
    with torch.no_grad():
        torch.testing.assert_close(answer, net(clips), atol=1e-4, rtol=1e-3)
    before = file.read_bytes()
    assert main(["export", str(model), "--to", to]) == 2, "what is there is not replaced"
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [file.name, model.name]
    )


def test_an_export_that_computes_other_numbers_leaves_no_file(net, tmp_path, monkeypatch):
    def write(net, clips, card, file):
        file.write_text("a network")

    # the table of writers and readers is private: no exporter writes wrong numbers when it is asked to
    for wrong in (lambda clips: net(clips) * 1.1, lambda clips: net(clips[:1]), lambda clips: net(clips) / 0):
        monkeypatch.setitem(export._WRITE, "torch", (write, lambda file, wrong=wrong: wrong))
        with pytest.raises(RunError) as caught:
            export_network(net, tmp_path / "x.pt2", "torch")
        assert caught.value.subject and not list(tmp_path.iterdir())
    monkeypatch.setitem(export._WRITE, "torch", (write, lambda file: net))
    assert export_network(net, tmp_path / "x.pt2", "torch")[1] == 0
    assert net.card.transform["size"] == 32 and net.training is False


def test_what_an_export_asks_for(net, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError):
        export_network(net, tmp_path / "x.onnx", "onyx")
    with pytest.raises(SettingError):
        export_network(net, tmp_path / "x.txt", "torch")
    monkeypatch.setattr(export, "ONNX_LIMIT", 1000)
    pytest.importorskip("onnxruntime")
    with pytest.raises(SettingError) as caught:
        export_network(net, tmp_path / "x.onnx", "onnx")
    assert caught.value.remedy and not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError) as caught:
        export_network(net, tmp_path / "x.onnx", "onnx")
    assert caught.value.subject == "onnxscript" and "[export]" in caught.value.remedy
