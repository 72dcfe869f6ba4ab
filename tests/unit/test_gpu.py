"""What only a machine with a GPU can show of a training over several processes: NCCL, and norms shared there.

The other tests for a GPU lie beside what they test: float16 and layouts in test_optimiser and test_backbones,
pinned memory in test_datasets.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import Clips, batch_of, same, small, weights

from sda.networks.backbones import create_model
from sda.training.norms import restore_norms
from sda.training.step import TrainingStep

STEPS = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
from test_gpu import shared_steps
found = shared_steps()
found["backend"] = torch.distributed.get_backend()
torch.save(found, {out!r} + "/" + os.environ["RANK"] + ".pt")
torch.distributed.destroy_process_group()
"""


def shared_steps(number=3):
    """Steps with norms over all processes, each with its share of eight clips; the weights at the end."""
    torch.manual_seed(0)
    network = create_model("sda_tsm_tiny", 3, num_frames=4, dropout=0.0)
    config = small(sync_bn=True, optimizer="sgd", dropout=0, device="cuda", lr=0.01)
    update = TrainingStep(config, network)
    rank = update.accelerator.process_index
    world = update.accelerator.num_processes
    losses = []
    for step in range(number):
        mine = [i + step for i in range(8)][rank::world]
        losses.append(float(update([batch_of(Clips(16), *mine)], 8).loss))
    kinds = {type(m).__name__ for m in network.modules()}
    restore_norms(network, update.ordinary)
    state = {name: value.cpu() for name, value in weights(network).items()}
    return dict(world=world, weights=state, losses=losses, shared="SyncBatchNorm" in kinds)


@pytest.mark.gpu
def test_processes_on_nccl_share_their_norms_and_end_with_the_weights_of_one(tmp_path):
    """Two processes where there are two GPUs; with one GPU, one process that goes through NCCL too."""
    processes = min(2, torch.cuda.device_count())
    script = tmp_path / "steps.py"
    script.write_text(STEPS.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, str(script)], check=True, timeout=300, env=env)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]
    alone = shared_steps()
    for found in ranks:
        assert found["backend"] == "nccl" and found["world"] == processes and found["shared"]
        assert same(found["weights"], ranks[0]["weights"]), "every process holds the same network"
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        for name, value in alone["weights"].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-3, msg=name)
    fresh = create_model("sda_tsm_tiny", 3, num_frames=4, dropout=0.0)
    assert not same(alone["weights"], weights(fresh)), "something was learnt"
