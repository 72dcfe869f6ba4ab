"""What is drawn at random for a clip of Moves: nine sources of moving bodies, and the world around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bodies import SHAPES, TURNING, Body, on_grid, still
from .classes import FRAMES, SIZE


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between low and high."""
    return low + (high - low) * rng.random()


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    """One of the choices."""
    return choices[int(rng.random() * len(choices))]


def new_colour(rng: np.random.Generator, *others: np.ndarray, apart: int = 90) -> np.ndarray:
    """An RGB colour [3] that differs from each of the others by `apart` in some channel."""
    while True:
        colour = np.floor(np.array([between(rng, 10, 246) for _ in range(3)]))
        if all(np.abs(colour - other).max() >= apart for other in others):
            return colour


def dress(
    rng: np.random.Generator, backdrop: np.ndarray, shapes: Sequence[str] = tuple(SHAPES)
) -> dict[str, Any]:
    """Shape, texture and colours of a thing that stands out from the backdrop [3]."""
    first = new_colour(rng, backdrop)
    second = np.clip(first + np.floor(np.array([between(rng, -60, 61) for _ in range(3)])), 0, 255)
    return dict(
        shape=pick(rng, shapes), texture=pick(rng, ("plain", "gradient")), colours=np.stack([first, second])
    )


def progress(rng: np.random.Generator) -> np.ndarray:
    """How far a movement is, 0 to 1 [T], with random start, stop and easing."""
    start = between(rng, 0, 4)
    stop = FRAMES - 1 - between(rng, 0, 4)
    s = np.clip((np.arange(FRAMES) - start) / (stop - start), 0, 1)
    return pick(rng, (s, s * s, s * (2 - s), s * s * (3 - 2 * s)))


def orientation(rng: np.random.Generator) -> np.ndarray:
    """An orientation that stays [T]."""
    return still(between(rng, -math.pi, math.pi))


def _across(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """From left to right; the start's law mirrors the end's."""
    look = dress(rng, backdrop)
    radius = between(rng, 8, 12)
    angle = orientation(rng)
    p = progress(rng)
    x0 = between(rng, 12, 24)
    x1 = between(rng, 47, 59)
    y0 = between(rng, 20, 51)
    drift = between(rng, -6, 6)
    return [Body(**look, x=x0 + (x1 - x0) * p, y=y0 + drift * p, radius=still(radius), angle=angle)]


def _vertical(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """From top to bottom: the script above with x and y exchanged."""
    [body] = _across(rng, backdrop, variant)
    body.x, body.y = body.y, body.x
    return [body]


def _zoom(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """Growing, as if coming closer."""
    look = dress(rng, backdrop)
    angle = orientation(rng)
    p = progress(rng)
    x, y, near, far = (between(rng, *limits) for limits in ((28, 43), (28, 43), (14, 20), (5, 8)))
    return [Body(**look, x=still(x), y=still(y), radius=far + (near - far) * p, angle=angle)]


def _turn(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """Turning clockwise in place by 115 to 220 degrees."""
    look = dress(rng, backdrop, TURNING)
    p = progress(rng)
    x, y, radius = (between(rng, *limits) for limits in ((26, 45), (26, 45), (11, 16)))
    angle = orientation(rng) + between(rng, 2.0, 3.8) * p
    return [Body(**look, x=still(x), y=still(y), radius=still(radius), angle=angle)]


def _swing(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """One period to and fro along some direction, from a random phase."""
    look = dress(rng, backdrop)
    angle = orientation(rng)
    phase = between(rng, 0, FRAMES)
    way = between(rng, 0, math.pi)
    x, y, radius, reach = (between(rng, *limits) for limits in ((28, 43), (28, 43), (8, 12), (7, 13)))
    wave = reach * on_grid(math.sin(2 * math.pi * (t + phase) / FRAMES) for t in range(FRAMES))
    dx, dy = on_grid([math.cos(way), math.sin(way)])
    return [Body(**look, x=x + dx * wave, y=y + dy * wave, radius=still(radius), angle=angle)]


def _event(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """Nothing, then something: at once or over two frames."""
    look = dress(rng, backdrop)
    angle = orientation(rng)
    begin = 7 + int(rng.random() * 11)
    fade = pick(rng, (1, 3))
    x, y, radius = (between(rng, *limits) for limits in ((18, 53), (18, 53), (8, 13)))
    show = np.clip((np.arange(FRAMES) - begin + (fade + 1) / 2) / fade, 0, 1)
    return [Body(**look, x=still(x), y=still(y), radius=still(radius), angle=angle, show=show)]


def _side(rng: np.random.Generator) -> tuple[float, float]:
    """A way out of the picture, in pixels."""
    return pick(rng, ((-60.0, 0.0), (60.0, 0.0), (0.0, -60.0), (0.0, 60.0)))


def _cover(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """A disc, a cover over it, then a cross."""
    rest = 6 + 2 * int(rng.random() * 2)
    middle = pick(rng, (11.0, 12.0))
    x, y, radius, slide = (between(rng, *limits) for limits in ((28, 43), (28, 43), (9, 12), (4, 5.5)))
    frame = np.arange(FRAMES) + 0.5  # centres of the frames, so that the law is the same backwards
    before, after = (np.clip((late - rest / 2) / slide, 0, 1) for late in (middle - frame, frame - middle))
    (ax, ay), (bx, by) = _side(rng), _side(rng)
    things = [
        Body(
            **{**dress(rng, backdrop), "shape": shape},
            x=still(x),
            y=still(y),
            radius=still(radius),
            show=show,
        )
        for shape, show in (("disc", 1.0 * (frame < middle)), ("cross", 1.0 * (frame > middle)))
    ]
    look: dict[str, Any] = dict(
        shape="square",
        texture="gradient",
        role="cover",
        colours=np.stack(
            [new_colour(rng, backdrop, *(b.colours[0] for b in things), apart=60) for _ in range(2)]
        ),
    )
    return [
        *things,
        Body(
            **look,
            x=x + ax * before + bx * after,
            y=y + ay * before + by * after,
            radius=still(1.3 * radius + 3),
        ),
    ]


def _texture(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """Striped or spotted, moving, growing and turning at will."""
    look = dress(rng, backdrop)
    p = progress(rng)
    spin = pick(rng, (0.0, -2.5, 2.5))
    look |= dict(
        texture=variant,
        colours=np.stack([look["colours"][0], new_colour(rng, look["colours"][0], apart=110)]),
    )
    x, y, radius = ([between(rng, *limits) for _ in range(2)] for limits in ((22, 49), (22, 49), (14, 18)))
    moves = rng.random(2) < 0.6  # travels; changes size
    x, y, radius = (a + (b - a) * p * m for (a, b), m in ((x, moves[0]), (y, moves[0]), (radius, moves[1])))
    return [Body(**look, x=x, y=y, radius=radius, angle=orientation(rng) + spin * p)]


def _flakes(rng: np.random.Generator, backdrop: np.ndarray, variant: str) -> list[Body]:
    """Falling flakes; their number per frame is log-normal with mean 9 or 24."""
    mean = {"sparse": 9, "dense": 24}[variant]
    spread = 0.7
    pool = 80
    normal = rng.random((FRAMES, 12)).sum(1) - 6  # Irwin-Hall: normal enough, and exact arithmetic
    counts = np.array([round(mean * math.exp(spread * z - spread**2 / 2)) for z in normal]).clip(1, pool)
    colour = np.stack([new_colour(rng, backdrop)] * 2)
    state = rng.random((4, pool))
    bodies = []
    for k, (x, y, radius, speed) in enumerate(zip(*state, strict=True)):
        fall = 80 * y + (1.5 + 1.5 * speed) * np.arange(FRAMES)
        bodies.append(
            Body(
                "disc",
                "plain",
                colour,
                x=still(72 * x),
                y=fall - 80 * np.floor(fall / 80) - 4,
                radius=still(1.3 + radius),
                show=1.0 * (counts > k),
            )
        )
    return bodies


SCRIPTS = {
    "across": _across,
    "vertical": _vertical,
    "zoom": _zoom,
    "turn": _turn,
    "swing": _swing,
    "event": _event,
    "cover": _cover,
    "texture": _texture,
    "flakes": _flakes,
}


@dataclass
class World:
    """Everything in a clip that is not the object."""

    background: np.ndarray  # float [80, 80, 3]: 4 pixels to spare on each side
    shift: np.ndarray  # camera position per frame, whole pixels [T, 2]
    gain: np.ndarray  # brightness factor per frame [T]
    noise: np.ndarray  # sensor noise, integer [T, H, W, 3]
    distractors: list[Body]


def new_world(rng: np.random.Generator) -> tuple[np.ndarray, World]:
    """Backdrop colour [3] and world of one clip."""
    backdrop = np.floor(np.array([between(rng, 30, 226) for _ in range(3)]))
    grid = backdrop + between(rng, 5, 30) * (2 * rng.random((11, 11, 3)) - 1)
    w = np.arange(8) / 8
    rows = (grid[:-1, None] * (1 - w)[:, None, None] + grid[1:, None] * w[:, None, None]).reshape(80, 11, 3)
    background = (rows[:, :-1, None] * (1 - w)[:, None] + rows[:, 1:, None] * w[:, None]).reshape(80, 80, 3)
    shakes = rng.random() < 0.7
    flickers = rng.random() < 0.5
    grain = 1 + int(rng.random() * 6)
    shift = np.floor(rng.random((FRAMES, 2)) * 5).astype(int) - 2
    gain = 1 + flickers * 0.1 * (rng.random(FRAMES) - 0.5)
    grey = np.frombuffer(rng.bytes(2 * FRAMES * SIZE * SIZE * 3), np.uint8) % grain
    first, second = grey.reshape(2, FRAMES, SIZE, SIZE, 3)
    distractors = [
        Body(
            **dress(rng, backdrop),
            x=still(between(rng, 4, 68)),
            y=still(between(rng, 4, 68)),
            radius=still(between(rng, 2.5, 4.5)),
            angle=orientation(rng),
            role="distractor",
        )
        for _ in range(int(rng.random() * 3))
    ]
    return backdrop, World(background, shift * shakes, gain, first.astype(np.int16) - second, distractors)
