"""The words of class names, and what a mirror makes of them: sides and turns are exchanged, as words."""

import re

_SIDES = {"left": "right", "links": "rechts", "gauche": "droite", "izquierda": "derecha", "左": "右"}
_SIDES |= {other: word for word, other in _SIDES.items()}
_TURNS = {"clockwise": "anticlockwise", "anticlockwise": "clockwise"}
_SIDE = f"(?:{'|'.join(_SIDES)})"
SIDE_WORD = rf"(?<!\w)(?:{_SIDE}(?=(?:wards?|most|hand(?:ed)?)?\b)|(?:anti)?clockwise\b)|[左右]"


def mirror_name(
    name: str,  # e.g. "Pushing something from left to right"
) -> str:  # e.g. "Pushing something from right to left"
    """Exchange the whole words left and right, keeping capitals."""

    def swap(match: re.Match) -> str:
        word = match[0]
        other = "right" if word.lower() == "left" else "left"
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return re.sub(r"\b(left|right)\b", swap, name, flags=re.IGNORECASE)


def words_of(name: str) -> str:
    """The words of a class name in small letters, split at blanks, `_`, `-`, digits and capitals."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+", name)
    text = " ".join(parts).lower()
    text = re.sub(r"\bccw\b", "anticlockwise", re.sub(r"\bcw\b", "clockwise", text))
    return re.sub(r"\b(anti|counter) ?clockwise\b", "anticlockwise", text)


def mirror_words(words: str) -> list[str]:
    """What a mirror makes of the words of a class: sides exchanged as words, and wherever they stand."""
    turned = re.sub(r"\b(anti)?clockwise\b", lambda m: _TURNS[m[0]], words)
    whole = re.sub(SIDE_WORD, lambda m: _SIDES.get(m[0], m[0]), turned)
    # the second finds swipeleft; upright names no side
    return [whole, re.sub(rf"(?<!up){_SIDE}", lambda m: _SIDES[m[0]], turned)]


def class_words(class_names: list[str]) -> list[str]:
    """The words of every class; numbers in front that only number the classes are left out."""
    words = [words_of(name) for name in class_names]
    first = [re.match(r"\d+ (?=.)", text) for text in words]
    if all(first) and len({m[0] for m in first if m}) == len(words) > 1:
        return [re.sub(r"^\d+ ", "", text) for text in words]
    return words


def words_about_mirroring(class_names: list[str], pairs: dict[int, int], alone: list[int]) -> list[str]:
    """What mirroring does to the labels, for people: the pairs found, and the classes left alone."""
    found = [f"{class_names[a]!r} and {class_names[b]!r}" for a, b in pairs.items() if a < b]
    notes = [f"mirroring exchanges {'; '.join(found)}"] if found else []
    if alone:
        names = ", ".join(repr(class_names[k]) for k in alone)
        notes.append(f"never mirrored, for no class is the mirror image: {names}")
    return notes
