"""Bodies painted into the frames of Moves: nine shapes, four textures, the same pixels on every machine."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .classes import FRAMES, SIZE


def _box(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    """Distance to an upright box of half sizes a and b."""
    return np.maximum(np.abs(u) - a, np.abs(v) - b)


def _far(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the origin."""
    return np.sqrt(u * u + v * v)


SHAPES = {  # distance in units of the radius; u to the right, v down
    "disc": lambda u, v: _far(u, v) - 1,
    "square": lambda u, v: _box(u, v, 0.85, 0.85),
    "triangle": lambda u, v: np.maximum(v - 0.55, 0.8660254 * np.abs(u) - 0.5 * v - 0.55),
    "cross": lambda u, v: np.minimum(_box(u, v, 1, 0.34), _box(u, v, 0.34, 1)),
    "ring": lambda u, v: np.abs(_far(u, v) - 0.72) - 0.28,
    "bar": lambda u, v: _box(u, v, 1.1, 0.42),
    "ell": lambda u, v: np.minimum(_box(u + 0.5, v, 0.32, 1), _box(u - 0.05, v - 0.68, 0.87, 0.32)),
    "arrow": lambda u, v: np.minimum(
        _box(u + 0.45, v, 0.6, 0.3), np.maximum(-u, 0.8660254 * np.abs(v) + 0.5 * u - 0.55)
    ),
    "half": lambda u, v: np.maximum(_far(u, v) - 1, v - 0.1),
}
TURNING = ("triangle", "bar", "ell", "arrow", "half")  # a turn of the others is hard to see or not there


def mix(texture: str, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray | float:
    """Share of the second colour, 0 to 1, at object coordinates u and v."""
    if texture == "plain":
        return 0.0
    if texture == "gradient":
        return np.clip(0.5 * u + 0.5, 0, 1)
    # stripes 6 to 8 pixels apart, spots 13 to 16: at equal distances a small net tells them apart only by
    # chance; periods per radius, radius of a spot in periods
    repeats, dot = (2.4, 0.0) if texture == "striped" else (1.1, 0.36)
    a, b = (w * repeats - np.floor(w * repeats) - 0.5 for w in (u, v))
    away = np.abs(a) - 0.25 if texture == "striped" else _far(a, b) - dot
    return np.clip(0.5 - away * radius / repeats, 0, 1)


def still(value: float) -> np.ndarray:
    """A value that stays: [T]."""
    return np.full(FRAMES, float(value))


def on_grid(values: Iterable[float]) -> np.ndarray:
    """Values on a grid of 2^-20, which hides the last bits in which maths libraries differ."""
    return np.rint(np.array(list(values)) * 2.0**20) / 2.0**20


@dataclass
class Body:
    """A thing to paint, with a state per frame."""

    shape: str  # key of SHAPES
    texture: str  # plain, gradient, striped or spotted
    colours: np.ndarray  # two RGB colours [2, 3], 0 to 255
    x: np.ndarray  # centre in pixels [T]
    y: np.ndarray  # centre in pixels, down [T]
    radius: np.ndarray  # pixels [T]
    angle: np.ndarray = field(default_factory=lambda: still(0))  # radians, clockwise on the screen [T]
    show: np.ndarray = field(default_factory=lambda: still(1))  # opacity 0 to 1 [T]
    role: str = "object"  # object, cover or distractor
    cos: np.ndarray = field(init=False)  # of the angle [T]
    sin: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.cos = on_grid(map(math.cos, self.angle))
        self.sin = on_grid(map(math.sin, self.angle))


def paint(canvas: np.ndarray, body: Body, t: int, dx: int, dy: int) -> np.ndarray:
    """Paint a body's frame t, moved by the camera, into canvas [H, W, 3]; its mask [H, W]."""
    mask = np.zeros(canvas.shape[:2], bool)
    r = body.radius[t]
    x = body.x[t] + dx
    y = body.y[t] + dy
    half = 1.5 * r + 2
    (x0, x1), (y0, y1) = ((max(0, int(c - half)), min(SIZE, int(c + half) + 2)) for c in (x, y))
    if body.show[t] <= 0 or x0 >= x1 or y0 >= y1:
        return mask
    gx = (np.arange(x0, x1) - x) / r
    gy = ((np.arange(y0, y1) - y) / r)[:, None]
    u = body.cos[t] * gx + body.sin[t] * gy
    v = body.cos[t] * gy - body.sin[t] * gx
    alpha = np.clip(0.5 - SHAPES[body.shape](u, v) * r, 0, 1) * body.show[t]
    first, second = body.colours
    colour = first + np.asarray(mix(body.texture, u, v, r))[..., None] * (second - first)
    window = canvas[y0:y1, x0:x1]
    window += alpha[..., None] * (colour - window)
    mask[y0:y1, x0:x1] = alpha >= 0.5
    return mask


def state(bodies: list[Body], t: int, shift: np.ndarray, seen: float) -> list[float]:
    """Mean x, y, radius, angle of what shows in frame t (else of everything), and the seen share."""
    objects = [b for b in bodies if b.role == "object"]
    shown = [b for b in objects if b.show[t] >= 0.5] or objects
    x, y, radius, angle = (
        sum(float(v) for v in values) / len(shown)
        for values in zip(*((b.x[t], b.y[t], b.radius[t], b.angle[t]) for b in shown), strict=True)
    )
    return [x + shift[0], y + shift[1], radius, angle, seen]
