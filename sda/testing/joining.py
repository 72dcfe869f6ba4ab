"""Sets of scores are joined by video id, and only if videos, labels and classes are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..foundation.errors import DataError
from .predictions import Predictions

_EPIC = {"EPIC-KITCHENS-55": (125, 352), "EPIC-KITCHENS-100": (97, 300)}  # classes of verbs and of nouns


def video_order(
    first: Predictions,  # whose order counts
    other: Predictions,  # of the same videos in any order
) -> list[int]:  # row of the other for every video of the first
    """Where the first's videos are in the other; a video in one set only is an error."""
    if odd := sorted(set(first.ids) ^ set(other.ids)):
        raise DataError(
            f"{len(odd)} videos are in one set only, e.g. {odd[0]!r}: test on the same list.",
            subject=odd[0],
            remedy="test on the same list",
        )
    place = {i: k for k, i in enumerate(other.ids)}
    return [place[i] for i in first.ids]


def same_videos(
    *several: Predictions,  # at least one; of the same videos in any order
) -> list[Predictions]:
    """The same predictions in the order of the first; other ids, labels or classes are refused."""
    first = several[0]
    joined = []
    for other in several:
        if other.class_names != first.class_names:
            text = "The class names differ or have another order: nothing can be joined."
            odd = [name for name in other.class_names if name not in first.class_names]
            raise DataError(text, subject=(odd or other.class_names)[0], choices=first.class_names)
        order = video_order(first, other)
        if (other.labels[order] != first.labels).any():
            video = first.ids[int(np.argmax(other.labels[order] != first.labels))]
            raise DataError(f"The labels of the same videos differ, e.g. of {video!r}.", subject=video)
        joined.append(replace(first, logits=other.logits[order]))
    return joined


def check_kinds(
    verbs: Sequence[str],  # class names of the verb run
    nouns: Sequence[str],  # of the noun run
) -> None:
    """Refuse two sets of one kind, or the two kinds exchanged: both would give a number."""
    remedy = "test the network of verbs, and name the scores of the network of nouns"
    said = ""
    wrong = "nouns"
    if sorted(verbs) == sorted(nouns):
        said = f"verbs and nouns have the same {len(verbs)} classes: one set cannot be both"
    for release, (many_verbs, many_nouns) in _EPIC.items():
        if len(nouns) == many_verbs:
            said = f"the scores given as nouns have {many_verbs} classes, as the verbs of {release} have"
        elif len(verbs) == many_nouns:
            said = f"the scores given as verbs have {many_nouns} classes, as the nouns of {release} have"
            wrong = "verbs"
    if said:
        raise DataError(said, subject=wrong, remedy=remedy)
