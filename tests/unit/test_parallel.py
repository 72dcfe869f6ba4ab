"""A network with SDA in two processes (gloo, DistributedDataParallel) and in DataParallel without GPUs."""

import subprocess
import sys

import torch
from torch import nn
from torchvision.models import resnet18

from sda.networks.backbones import sda_blocks
from sda.networks.insert import insert_sda
from sda.networks.selection import scored_attention

PIECE = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path[:0] = sys.argv[4:]
from unit.test_parallel import batch, gradients, network

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=sys.argv[3], rank=rank, world_size=2)
net = network()
for parameter in net.parameters():
    parameter.data += rank  # what the first process has counts
x = batch()[2 * rank : 2 * rank + 2]
model = DistributedDataParallel(net)
torch.save(gradients(model, x), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def network():
    """SDA in torchvision's ResNet-18, in evaluation mode: norms see the same statistics in every process."""
    torch.manual_seed(0)
    net = insert_sda(resnet18(num_classes=3), num_frames=2, where="layer2", dropout=0.0)
    last = list(sda_blocks(net).values())[-1]  # one block with the published query, one with gates
    last.attention = scored_attention("gated", len(last.attention.query), 4, 1.0, {})
    return net.eval()


def batch():
    """Four clips of two frames."""
    return torch.rand(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(model, x):
    """Of the mean of a loss over the clips, by name of the parameter."""
    model(x).square().mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def test_two_processes_average_the_gradients_of_one(tmp_path):
    start = [(tmp_path / "meet").as_uri(), *sys.path]
    pieces = [
        subprocess.Popen([sys.executable, "-c", PIECE, str(rank), str(tmp_path), *start]) for rank in (0, 1)
    ]
    try:
        assert [piece.wait(timeout=120) for piece in pieces] == [0, 0]
    finally:
        for piece in pieces:
            piece.kill()
    whole = gradients(network(), batch())
    assert any("gate" in name for name in whole)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == whole.keys()
        for name, grad in whole.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-7, msg=name)


def test_data_parallel_without_gpus_is_the_network():
    net = network()
    whole = gradients(net, batch())
    net.zero_grad()
    model = nn.DataParallel(net)
    assert sda_blocks(net) and torch.equal(model(batch()), net(batch()))
    again = gradients(model, batch())
    assert all(torch.equal(again[name], grad) for name, grad in whole.items())
