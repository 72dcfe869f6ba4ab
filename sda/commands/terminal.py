"""What a terminal gets to see: names and labels come from strangers' files, and none of them may steer it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# C0 and C1 controls but line feed and tab, marks that turn the direction of text, and further ends of lines
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_BAR = re.compile("(?:\x1b\\[A|[\r\n])+")  # what progress bars write to move about, and nothing else


def printable(text: str) -> str:
    """The text with every control character spelled out, as JSON spells it: \\u001b for escape."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class SafeStream:
    """A stream that passes on what people can read; progress bars may go back to the start of their line."""

    def __init__(self, stream: Any):  # sys.stdout or sys.stderr
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; what it contains of control characters is shown, not obeyed."""
        if _BAR.fullmatch(text):
            return self._stream.write(text)
        lines = text.replace("\r\n", "\n")
        start = "\r" if lines.startswith("\r") else ""
        end = "\r" if len(lines) > 1 and lines.endswith("\r") else ""
        self._stream.write(start + printable(lines[len(start) : len(lines) - len(end)]) + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Inside, whatever is printed and logged goes through `SafeStream`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (SafeStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
