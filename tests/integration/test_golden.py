"""Today's code gives the numbers that were recorded; see golden.py, which also runs by itself."""

import golden
import pytest

# minutes of larger networks: `python tests/golden.py check`
BY_HAND = ("networks/resnet50", "networks/resnet101", "networks/rubiks")


@pytest.mark.parametrize("name", [n for n in golden.ITEMS if n not in BY_HAND])
def test_golden(name):
    faults, said = golden.check(name)
    if faults is None:
        pytest.skip(said)
    assert not faults, f"{name}: {said}"


def test_every_item_is_recorded():
    assert set(golden.load()[1]) == set(golden.ITEMS)
