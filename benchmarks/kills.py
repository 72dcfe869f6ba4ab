"""A training that is killed again and again: `python benchmarks/kills.py`.

Runs `sda train --resume auto` in processes of its own and kills each with SIGKILL at a moment drawn from
the seed: some way through a step, after some bytes of a state or of the best weights are written, between
writing and renaming, or while the results are written. The same command is then given again, until a run
comes to its end. Its weights, history and metrics are compared, bit by bit, with those of a run nobody
disturbed. Then a short run is killed before every single rename, link, unlink and fsync that it makes, which
are found by counting them, and given again once; and pairs of runs are started together in one folder.
Writes bench_kills.json and bench_crashes.json into data/results.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import sda.commands.main  # noqa: E402
import sda.training.finishing  # noqa: E402
from sda.foundation.runs import new_record, save_record  # noqa: E402
from sda.training.step import TrainingStep  # noqa: E402

MOST = 6  # kills of one run
KINDS = ("in a step", "writing a state", "writing the best weights", "before a rename", "writing the results")
OFTEN = (10, 4, 2, 2, 2)  # shares of the kinds
CALLS = ("rename", "replace", "link", "unlink", "fsync")  # of `os`: what changes the disk under its names
RUNS = {  # each run uses other parts of the trainer; all save after every step
    "plain": ["--model", "sda_tsn_tiny", "--keep-states", "2"],
    "tricks": [
        "--model",
        "tsm_tiny",
        "--ema",
        "0.9",
        "--mixup",
        "0.3",
        "--accumulate",
        "2",
        "--keep",
        "best",
    ],
}
SETTINGS = [
    "--recipe",
    "moves",
    "--epochs",
    "3",
    "--batch-size",
    "4",
    "--num-frames",
    "4",
    "--size",
    "48",
    "--dropout",
    "0.3",
    "--save-every",
    "1",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--cache",
    "no",
    "--resume",
    "auto",
    "--quiet",
]


def small_set(root: Path) -> Path:
    """Ten training and four validation clips of the sample that ships."""
    sample = ROOT / "sda/assets/moves_sample"
    (root / "trainValTest").mkdir(parents=True)
    (root / "img").symlink_to(sample / "img")
    (root / "category.txt").write_text((sample / "category.txt").read_text())
    lines = (sample / "trainValTest/test.txt").read_text().splitlines()
    for split, part in {"train": lines[:10], "val": lines[10:14]}.items():
        (root / f"trainValTest/{split}.txt").write_text("\n".join(part) + "\n")
    return root


def die() -> None:
    """What a power cut looks like to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Cut:
    """A file that ends the process after so many bytes."""

    def __init__(self, file: io.BufferedWriter, left: int):
        self.file, self.left = file, left

    def write(self, data: bytes) -> int:
        """Write; die where the bytes run out, with those before them on the disk."""
        data = memoryview(data).cast("B")
        if len(data) >= self.left:
            self.file.write(data[: self.left])
            self.file.flush()
            die()
        self.left -= len(data)
        return self.file.write(data)

    def flush(self) -> None:
        """As the file itself."""
        self.file.flush()


def plant(moment: dict, seen: list[str]) -> None:
    """Note the calls that change the disk, and die before one of them."""

    def around(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            seen.append(name)
            if len(seen) == moment["number"]:
                die()
            return real(*args, **options)

        setattr(os, name, call)

    for name in CALLS:
        around(name)


def lie_in_wait(moment: dict) -> None:
    """Arrange that this process is killed at the moment; one that does not come lets the run end."""
    counts = Counter()
    real_step = TrainingStep.__call__
    real_replace = os.replace
    real_save = torch.save
    real_model = sda.training.finishing.save_model

    def due(kind: str) -> bool:
        counts[kind] += 1
        return kind == moment["kind"] and counts[kind] == moment["number"]

    def step(*args: object) -> object:
        if due("in a step"):
            threading.Timer(moment["share"] * moment["step_s"], die).start()
        return real_step(*args)

    def save(state: object, file: io.BufferedWriter) -> None:
        kind = KINDS[2] if "best" in Path(file.name).name else KINDS[1]
        real_save(state, Cut(file, 1 + int(moment["share"] * moment["bytes"])) if due(kind) else file)

    def replace(*args: object) -> None:
        if due("before a rename"):
            die()
        real_replace(*args)

    def model(path: Path, *args: object) -> Path:
        if due("writing the results"):
            path.write_bytes(b"half a file")
            die()
        return real_model(path, *args)

    TrainingStep.__call__ = step
    torch.save = save
    os.replace = replace
    sda.training.finishing.save_model = model


def command(words: list[str], moment: dict | None) -> None:
    """The command in this process, perhaps to be killed; what it prints is of no interest."""
    calls: list[str] = []
    if moment and moment["kind"] == "at a call":
        plant(moment, calls)
    elif moment:
        lie_in_wait(moment)
    with contextlib.redirect_stdout(io.StringIO()):
        status = sda.commands.main.main(words)
    if moment and moment.get("count"):
        Path(moment["count"]).write_text("\n".join(calls))
    sys.exit(status)


def start(words: list[str], moment: dict | None) -> int:
    """Exit status of the command in a process of its own, -9 when it was killed."""
    process = multiprocessing.get_context("forkserver").Process(target=command, args=(words, moment))
    process.start()
    process.join()
    return process.exitcode


def where(out: Path) -> dict:
    """What lies in the folder of a run that was killed."""
    if not (out / "state.pt").exists():
        return {"epoch": 0, "step": 0}
    progress = torch.load(out / "state.pt", weights_only=True)["progress"]
    return {"epoch": progress["epoch"], "step": progress["step"]}


def identical(one: Path, other: Path) -> bool:
    """Whether two runs left the same weights, history and metrics; only times may differ."""

    def result(out: Path) -> tuple:
        record = json.loads((out / "record.json").read_text())
        seconds = ("seconds", "clips_per_second")
        return (
            pd.read_csv(out / "history.csv").drop(columns=list(seconds)).to_csv(),
            {k: v for k, v in record["metrics"].items() if k not in seconds},
            sorted(p.name for p in out.iterdir()),
        )

    files = [p.name for p in one.glob("*.safetensors")]
    weights = [[load_file(out / name) for name in files] for out in (one, other)]
    return (
        bool(files)
        and result(one) == result(other)
        and all(
            a.keys() == b.keys() and all(a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)
            for a, b in zip(*weights, strict=True)
        )
    )


def disturbed(
    words: list[str], out: Path, draw: random.Random, step_s: float, size: int, left: list[str]
) -> list[dict]:
    """Give the command until the run ends; a list of the kills on the way, of the kinds that are `left`."""
    seen = []
    while True:
        kind = left.pop() if left and len(seen) < MOST else None
        number = draw.randint(1, 3) if kind in KINDS[:2] else 1
        moment = dict(kind=kind, number=number, share=draw.random(), step_s=step_s, bytes=size)
        status = start([*words, "--out", str(out)], moment if kind else None)
        if status == 0 and kind:
            left.insert(draw.randint(0, len(left)), kind)  # its moment did not come: another time
        if status == 0:
            return seen
        if status != -signal.SIGKILL:
            raise SystemExit(f"the command ended with {status}; {moment}")
        seen.append({"kind": kind, "share": round(moment["share"], 3), "left": where(out)})
        print(
            f"  killed {kind:25} at {moment['share']:4.0%}; goes on from epoch {seen[-1]['left']['epoch']}, "
            f"step {seen[-1]['left']['step']}",
            flush=True,
        )


def planted(words: list[str], whole: Path, work: Path, every: int) -> list[dict]:
    """Kill a run before each call that changes the disk, or before every so many; and give it again."""
    count = work / "calls.txt"
    moment = {"kind": "at a call", "number": 0}
    if start([*words, "--out", str(whole)], moment | {"count": str(count)}):
        raise SystemExit("the short run does not work")
    names = count.read_text().split()
    rows = []
    for number in range(1, len(names) + 1, every):
        out = work / f"{whole.name}-call-{number}"
        command_out = [*words, "--out", str(out)]
        killed = start(command_out, moment | {"number": number})
        again = start(command_out, None)
        same = killed == -signal.SIGKILL and again == 0 and identical(whole, out)
        rows.append({"call": number, "name": names[number - 1], "identical": same})
        if not same:
            print(f"  DIFFERENT: call {number}, {names[number - 1]}: {killed}, {again}", flush=True)
    print(f"{whole.name}: killed before {len(rows)} of {len(names)} calls", flush=True)
    return rows


def together(words: list[str], wholes: list[Path], out: Path) -> dict:
    """Two runs of different seeds started at once in one folder: one ends whole, the other is refused."""
    context = multiprocessing.get_context("forkserver")
    processes = [
        context.Process(target=command, args=([*words, "--seed", str(seed), "--out", str(out)], None))
        for seed in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    winner = codes.index(0) if 0 in codes else None
    return {
        "exit": codes,
        "identical": sorted(codes) == [0, 1] and identical(wholes[winner], out),
    }


def at_random(words: dict[str, list[str]], work: Path, draw: random.Random, number: int) -> tuple:
    """About so many kills at moments that are drawn; counts and rows of a record."""
    for name in RUNS:
        if start([*words[name], "--out", str(work / name)], None):
            raise SystemExit(f"the run {name} does not work")
    left = [
        kind
        for kind, n in zip(KINDS, OFTEN, strict=True)
        for _ in range(max(1, round(n * number / sum(OFTEN))))
    ]
    draw.shuffle(left)
    rows = []
    while left:
        name = list(RUNS)[len(rows) % len(RUNS)]
        step_s = pd.read_csv(work / name / "history.csv")["seconds"].sum() / 9
        size = 8 * (work / name / "model.safetensors").stat().st_size // 3
        out = work / f"{name}-{len(rows)}"
        kills = disturbed(words[name], out, draw, step_s, size, left)
        rows.append({"run": name, "kills": kills, "identical": identical(work / name, out)})
        print(
            f"{name}: {len(kills)} kills, {'identical' if rows[-1]['identical'] else 'DIFFERENT'}",
            flush=True,
        )
    kills = [kill for row in rows for kill in row["kills"]]
    numbers = {
        "kills": len(kills),
        "runs": len(rows),
        "identical": sum(row["identical"] for row in rows),
        **{kind: sum(k["kind"] == kind for k in kills) for kind in KINDS},
    }
    return numbers, rows


def at_calls(words: dict[str, list[str]], work: Path, every: int, pairs: int) -> tuple:
    """Kills before calls that change the disk, and pairs of runs in one folder; counts and rows."""
    short = {name: [*given, "--epochs", "1"] for name, given in words.items()}
    rows = []
    for name in RUNS:
        rows += planted(short[name], work / f"short-{name}", work, every)
    wholes = [work / f"seed{seed}" for seed in range(2)]
    for seed, whole in enumerate(wholes):
        if start([*short["plain"], "--seed", str(seed), "--out", str(whole)], None):
            raise SystemExit("the short run does not work")
    both = [together(short["plain"], wholes, work / f"pair{k}") for k in range(pairs)]
    numbers = {
        "kills": len(rows),
        "identical": sum(row["identical"] for row in rows),
        **{f"before {name}": sum(row["name"] == name for row in rows) for name in CALLS},
        "pairs": len(both),
        "pairs identical": sum(pair["identical"] for pair in both),
    }
    return numbers, [*both, *(row for row in rows if not row["identical"])]


def write(name: str, found: tuple, args: argparse.Namespace, seconds: float, protocol: str) -> None:
    """The record of one part."""
    numbers, rows = found
    record = new_record(
        "benchmark",
        model="sda_tsn_tiny, tsm_tiny",
        name=name,
        metrics=numbers,
        rows=rows,
        seed=args.seed,
        protocol=protocol,
        seconds=round(seconds, 1),
        command=" ".join(["python benchmarks/kills.py", *sys.argv[1:]]),
    )
    save_record(record, args.out / f"bench_{name}.json")
    print(f"{name}: {numbers}")


def main() -> None:
    """Kill, give again, compare; print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="about so many at random moments; 0: none")
    parser.add_argument("--every", type=int, default=1, help="of the calls, each so many; 0: none")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of runs started in one folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "data/results", help="folder of the records")
    args = parser.parse_args()
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore"
    )  # killed processes return no semaphores: the tracker would say so
    multiprocessing.set_forkserver_preload(["sda.commands.main"])
    good = True
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = small_set(work / "set")
        words = {name: ["train", *SETTINGS, *more, "--data", str(data)] for name, more in RUNS.items()}
        began = time.perf_counter()
        if args.kills:
            found = at_random(words, work, random.Random(args.seed), args.kills)
            protocol = "SIGKILL at moments drawn from the seed; weights, history and metrics bit by bit"
            write("kills", found, args, time.perf_counter() - began, protocol)
            good &= found[0]["identical"] == found[0]["runs"]
        began = time.perf_counter()
        if args.every:
            found = at_calls(words, work, args.every, args.pairs)
            which = "every" if args.every == 1 else f"every {args.every}th"
            protocol = (
                f"SIGKILL before {which} rename, link, unlink and fsync of a run, given again once; pairs "
            )
            protocol += (
                "of runs started at once in one folder; weights, history, metrics and files bit by bit"
            )
            write("crashes", found, args, time.perf_counter() - began, protocol)
            good &= found[0]["identical"] == found[0]["kills"]
            good &= found[0]["pairs identical"] == found[0]["pairs"]
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
