"""What the fuzz tests share: a seed that changes every day, mutants of a file, and past failures."""

import datetime
import os
import random
from pathlib import Path

# another one each day, so that every day tries something new; a failure is repeated with the seed it names
SEED = int(os.environ.get("SDA_FUZZ_SEED") or datetime.date.today().toordinal())
CORPUS = Path(__file__).parent / "corpus"  # parser/anything: files that once failed


def mutants(whole: bytes, count: int, seed: object):
    """`count` damaged copies: bytes changed, cut off, doubled, swapped; digits and quotes more often."""
    rng = random.Random(repr(seed))
    odd = [
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b'"',
        b"\n",
        b"\0",
        b"\xff\xfe",
        b"{",
        b"]",
        b"NaN",
        b",",
    ]
    for case in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 32))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        at = rng.randrange(len(data))
        kind = case % 6
        if kind == 1:
            data = data[:at]
        elif kind == 2:
            data[at:at] = rng.choice(odd)
        elif kind == 3:
            data = bytearray(whole)  # one change only, in text that is otherwise well formed
            data[at : at + rng.randrange(4)] = rng.choice(odd)
        elif kind == 4:
            data[0:0] = data[at:]
        elif kind == 5:
            data = bytearray(whole[:at] + whole[rng.randrange(len(whole)) :])
        yield bytes(data)
