"""Time of whole networks, as published, as they were, and as they are: `python benchmarks/networks.py`.

ResNet-50 on clips of 8 x 224 x 224, one thread. Parts: evaluation (one clip), training (a step of two
clips), layers (every bottleneck of one evaluation). All forms of a part take turns, so that a busy machine
burdens them alike; medians and ratios to the published form are kept. What changes a whole process (memory
that is kept, another checkout) gets a process of its own, and these take turns too. `published` is the
literal form in naive.py in a network without any of our means. `--before FOLDER` adds the library of
another checkout. Rewrites its parts of data/results/networks.json. On a GPU the same table: `--device cuda`.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "data/results/networks.json"
TSN, TSM, SDA = "tsn_resnet50", "tsm_resnet50", "sda_tsm_resnet50"
# process, form, network, precision
EVALUATION = [
    ("published", "published", SDA, "fp32"),
    ("before", "plain", TSM, "fp32"),
    ("before", "plain", SDA, "fp32"),
    ("kept", "published", SDA, "fp32"),
    ("kept", "plain", SDA, "fp32"),
    ("kept", "prepared", TSN, "fp32"),
    ("kept", "prepared", TSM, "fp32"),
    ("kept", "prepared", SDA, "fp32"),
    ("kept", "prepared", TSN, "bf16"),
    ("kept", "prepared", TSM, "bf16"),
    ("kept", "prepared", SDA, "bf16"),
]
TRAINING = [
    ("published", "published", SDA, "fp32"),
    ("before", "channels last", TSM, "fp32"),
    ("before", "channels last", SDA, "fp32"),
    ("kept", "published", SDA, "fp32"),
    ("kept", "channels last", TSN, "fp32"),
    ("kept", "channels last", TSM, "fp32"),
    ("kept", "channels last", SDA, "fp32"),
    ("kept", "channels last", TSM, "bf16"),
    ("kept", "channels last", SDA, "bf16"),
]


def network(form: str, name: str, precision: str, device: str) -> Any:
    """A network of 174 classes in one of the forms."""
    import torch

    from sda.networks.backbones import create_model

    torch.manual_seed(0)
    net = create_model(name, 174)
    if form == "published":
        from naive import published

        return published(net).to(device)
    if form == "prepared":
        from sda.networks.inference import prepare_for_inference

        return prepare_for_inference(net, precision, device)
    if form == "channels last":
        from sda.foundation.devices import set_layout

        set_layout(net, True)
    return net.to(device)


def evaluation(form: str, name: str, precision: str, device: str, clips: int) -> Any:
    """A function that answers clips."""
    import torch

    from sda.foundation.devices import dtype_of

    net = network(form, name, precision, device).eval()
    x = torch.randn(clips, 8, 3, 224, 224, device=device, dtype=dtype_of(net))

    def job() -> None:
        with torch.inference_mode():
            net(x)

    return job


def training(form: str, name: str, precision: str, device: str, clips: int) -> Any:
    """A function that makes the gradients of a step."""
    import torch

    net = network(form, name, precision, device).train()
    x = torch.randn(clips, 8, 3, 224, 224, device=device)
    if form != "published":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (clips, 8))
    labels = torch.arange(clips, device=device)

    def job() -> None:
        net.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            out = net(x)
        torch.nn.functional.cross_entropy(out.float(), labels).backward()

    return job


def layers(form: str, name: str, precision: str, device: str, clips: int) -> Any:
    """A function that answers clips and gives milliseconds of every bottleneck and of the block in it."""
    import torch

    from sda.foundation.devices import dtype_of

    net = network(form, name, precision, device).eval()
    x = torch.randn(clips, 8, 3, 224, 224, device=device, dtype=dtype_of(net))
    times: dict[str, float] = {}

    def begin(key: str) -> Any:
        return lambda *args: times.update({key: times.get(key, 0.0) - time.perf_counter()})

    def end(key: str) -> Any:
        return lambda *args: times.update({key: times[key] + time.perf_counter()})

    for key, module in net.named_modules():
        if key.startswith("layer") and key.count(".") == 1 or key.endswith(".gate"):
            module.register_forward_pre_hook(begin(key))
            module.register_forward_hook(end(key))

    def job() -> dict[str, float]:
        times.clear()
        start = time.perf_counter()
        with torch.inference_mode():
            net(x)
        return {"all": time.perf_counter() - start, **times}

    return job


PARTS = {"evaluation": evaluation, "training": training, "layers": layers}


def serve(line: Connection, folder: str, keep: bool, threads: int, device: str) -> None:
    """A process that builds jobs and runs them when it is told to."""
    sys.path[:0] = [folder, str(ROOT / "benchmarks")]
    import torch

    torch.set_num_threads(threads)
    if keep:
        from sda.foundation.devices import keep_memory

        keep_memory()
    jobs: dict[tuple, Any] = {}
    while (asked := line.recv()) is not None:
        part, *about = asked
        key = tuple(asked)
        if key not in jobs:
            jobs[key] = PARTS[part](*about)
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        found = jobs[key]()
        if device == "cuda":
            torch.cuda.synchronize()
        line.send(found or time.perf_counter() - start)


def measured(args: argparse.Namespace, part: str, forms: list[tuple]) -> list[dict[str, Any]]:
    """The rows of a part: medians over rounds in which all forms take turns."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    processes = []
    for place in dict.fromkeys(form[0] for form in forms):
        lines[place], theirs = context.Pipe()
        folder = str(args.before if place == "before" else ROOT)
        options = (theirs, folder, place == "kept", args.threads, args.device)
        processes.append(context.Process(target=serve, args=options, daemon=True))
        processes[-1].start()
    clips = 2 if part == "training" else 1
    seconds: dict[tuple, list[Any]] = {form: [] for form in forms}
    for turn in range(args.rounds + 1):
        for form in forms:
            lines[form[0]].send((part, *form[1:], args.device, clips))
            found = lines[form[0]].recv()
            if turn:  # the first is warm-up
                seconds[form].append(found)
    for line in lines.values():
        line.send(None)
    for process in processes:
        process.join()
    return [row(form, values) for form, values in seconds.items()]


def row(form: tuple, values: list[Any]) -> dict[str, Any]:
    """One form: its names and its median milliseconds, of the whole or of every layer."""
    names = dict(zip(("process", "form", "model", "precision"), form, strict=True))
    if isinstance(values[0], dict):
        found = {k: round(1e3 * statistics.median(v[k] for v in values), 2) for k in values[0]}
        return names | {"layers_ms": found}
    return names | {"ms": round(1e3 * statistics.median(values), 1), "least_ms": round(1e3 * min(values), 1)}


def main() -> None:
    """Measure, print the tables, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="after one of warm-up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--before", type=Path, help="another checkout, measured in the same run")
    parser.add_argument("--out", type=Path, default=RECORD)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from sda.foundation.runs import new_record, save_record

    old = json.loads(args.out.read_text()) if args.out.exists() else {}
    tables = old.get("tables", {})
    for part in args.part:
        forms = {"evaluation": EVALUATION, "training": TRAINING}.get(part)
        forms = forms or [f for f in EVALUATION if f[2] == SDA and f[3] == "fp32"]
        forms = [f for f in forms if f[3] in args.precisions and (f[0] != "before" or args.before)]
        rows = measured(args, part, forms)
        first = rows[0].get("ms")
        for one in rows:
            if first:
                one["times_published"] = round(first / one["ms"], 2)
                print(" ".join(f"{v!s:>16}" for v in one.values()), flush=True)
        tables[part] = {"rounds": args.rounds, "threads": args.threads, "device": args.device, "rows": rows}
    options = {"model": "resnet50", "name": "networks", "metrics": {}, "tables": tables}
    command = "python " + " ".join(["benchmarks/networks.py", *sys.argv[1:]])
    save_record(new_record("benchmark", device=args.device, command=command, **options), args.out)


if __name__ == "__main__":
    main()
