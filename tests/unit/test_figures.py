"""Plots: PNG bytes, everything inside the picture, no global state, honest scales."""

import base64
import importlib
import io
import pkgutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager, rc_context
from matplotlib.text import Text
from PIL import Image

import sda.figures
from sda.figures.clips import animation, fig_cam_strip, fig_clip, fig_contact_sheet, fig_top_k
from sda.figures.effects import (
    fig_attribution,
    fig_checks,
    fig_curves,
    fig_interventions,
    fig_over_seeds,
    fig_randomisation,
    fig_triptych,
)
from sda.figures.groups import (
    fig_class_stages,
    fig_confusions,
    fig_map,
    fig_responses,
    fig_selection_by_class,
    fig_selection_by_stage,
)
from sda.figures.live import Live
from sda.figures.selection import (
    class_intervals,
    confused_pairs,
    fig_depth,
    fig_difference,
    fig_selection,
    nearest_clips,
    selection_map,
)
from sda.figures.style import COLOURS, HeatTable, fig_tables, new_figure, picture, to_png
from sda.figures.training import fig_confusion, fig_history, fig_lr_sweep, fig_reliability
from sda.foundation.errors import SettingError
from sda.networks.blocks import DEPENDENCIES

RNG = np.random.default_rng(0)
LONG = "Pretending to put something underneath something else but failing"
Y, X = np.mgrid[:64, :64]
FRAMES = np.stack([np.stack([4 * X, 4 * Y, 0 * X + 20 * t], -1) for t in range(8)]).astype(np.uint8)
MAPS = np.stack([np.exp(-((X - 8 * t) ** 2 + (Y - 32) ** 2) / 200) for t in range(8)])
DEEP = [f"layer{s + 1}.{b}" for s, n in enumerate((3, 4, 6, 3)) for b in range(n)]
MEANS = RNG.dirichlet([1] * 4, size=4)
MANY = RNG.dirichlet([1] * 4, size=(30, 16))
CLASS_STAGES = class_intervals(MANY[:, :4], [0] * 20 + [1] * 10, 3)
HISTORY = [
    {"epoch": e, "train_loss": 3 / e, "val_loss": 4 / e, "train_top1": 1 - 1 / e, "val_top1": 0.9 - 0.8 / e}
    for e in range(1, 5)
]
SWEEP = pd.DataFrame({"lr": np.geomspace(1e-5, 1, 40), "loss": 3 + RNG.random(40), "smooth": [3.4] * 40})
BINS = pd.DataFrame({"from": [0, 0.5], "to": [0.5, 1], "n": [0, 12], "accuracy": [np.nan, 0.75]})
STEPS = [(over, share) for over in ("deletion", "insertion") for share in np.linspace(0, 1, 6)]
CURVES = pd.DataFrame(
    [
        ("space", curve, order, draw, share, clip, RNG.random())
        for curve, share in STEPS
        for order, draw in (("map", 0), ("random", 0), ("random", 1), ("centre", 0))
        for clip in range(4)
    ],
    columns=["over", "curve", "order", "draw", "share", "clip", "probability"],
)
LEFT = pd.DataFrame({"rho": [0.9, 0.1], "low": [0.8, -0.1], "high": [1, 0.3], "n": 7}, ["classifier", "stem"])
RESULTS = pd.DataFrame(
    [
        ("share of clips", LONG, 0.75, 0.5, 0.9, 8, False),
        ("share of clips", "chance", 0.1, np.nan, np.nan, 8, True),
        ("rank correlation", "weight", np.nan, np.nan, np.nan, 0, False),
    ],
    columns=["unit", "what", "value", "low", "high", "n", "control"],
)
OVER_SEEDS = {
    "weight": ("weight", *RNG.random((3, 5, 8))),
    "effect": ("effect", *RNG.normal(size=(3, 5, 8))),
}
FIGURES = {
    "tables": lambda: fig_tables(
        [HeatTable(MEANS, title=LONG), HeatTable(MEANS - 0.3, "effect", "b", "loss")], DEEP[:4], words=LONG
    ),
    "table with notes": lambda: fig_tables([HeatTable(MEANS)], DEEP[:4], notes=["LT, H 0.987"] * 4),
    "attribution": lambda: fig_attribution(MEANS - 0.2, DEEP[:4], "ablation", "margin, n = 7", title=LONG),
    "curves": lambda: fig_curves(CURVES, LONG),
    "randomisation": lambda: fig_randomisation({LONG: LEFT, "b": LEFT}, LONG),
    "checks": lambda: fig_checks(RESULTS, LONG),
    "over seeds": lambda: fig_over_seeds(OVER_SEEDS, ["left/right"] * 5, DEEP[:2], LONG),
    "history": lambda: fig_history(HISTORY, [(s, 3 / (s + 1)) for s in range(40)], 10),
    "history of nothing yet": lambda: fig_history([]),
    "sweep": lambda: fig_lr_sweep(SWEEP, 1e-3),
    "confusion": lambda: fig_confusion(RNG.integers(0, 9, (20, 20)), [f"class {k}" for k in range(20)]),
    "confusion of 99": lambda: fig_confusion(np.zeros((99, 99)), ["class"] * 99),
    "reliability": lambda: fig_reliability(BINS, 0.12),
    "clip": lambda: fig_clip(FRAMES, range(8), np.arange(8) / 12, LONG),
    "clip of 16": lambda: fig_clip(np.tile(FRAMES, (2, 1, 1, 1)), title=LONG),
    "clip of 1": lambda: fig_clip(FRAMES[:1]),
    "portrait": lambda: fig_clip(FRAMES[:, :, :36]),
    "selection": lambda: fig_selection(MEANS, [f"layer{i}.0" for i in range(4)], title="clip 17"),
    "selection of 16": lambda: fig_selection(RNG.dirichlet([1] * 4, size=16), DEEP, title="clip 17"),
    "selection of halves": lambda: fig_selection(MEANS, [f"layer{i}.0[8:16]" for i in range(4)]),
    "selection of two": lambda: fig_selection([[np.nan, 0.3, np.nan, 0.7]], ["layer1.0"]),
    "classes": lambda: fig_selection_by_class(MEANS, [LONG, "b", "c", "d"], [5, 0, 1, 2500]),
    "clip of 2": lambda: fig_clip(FRAMES[:2], title=LONG),
    "50 classes": lambda: fig_selection_by_class(
        np.tile(MEANS, (13, 1))[:50], [f"c{k}" for k in range(50)], [9] * 50
    ),
    "stages": lambda: fig_selection_by_stage(MEANS, MEANS - 0.1, MEANS + 0.1, DEEP[::5], 9),
    "cam": lambda: fig_cam_strip(FRAMES, MAPS, (-3.25, 12.5), LONG, "no positive evidence"),
    "cam of 16": lambda: fig_cam_strip(np.tile(FRAMES, (2, 1, 1, 1)), np.tile(MAPS, (2, 1, 1)), (0, 1)),
    "cam of 1": lambda: fig_cam_strip(
        FRAMES[:1], np.zeros((1, 64, 64)), (-1, 0), "a", "no positive evidence"
    ),
    "cam of 11": lambda: fig_cam_strip(
        np.tile(FRAMES, (2, 1, 1, 1))[:11], np.tile(MAPS, (2, 1, 1))[:11], (0, 1)
    ),
    "top": lambda: fig_top_k([LONG, "b", "c"], [0.2, 0.5, 0.3], true=LONG, k=2, title="clip 17"),
    "responses": lambda: fig_responses(
        {"LST": RNG.random(16), "LT": RNG.random((8, 8)), "LS": RNG.random(8), "S122": RNG.random((8, 4, 4))},
        LONG,
    ),
    "triptych": lambda: fig_triptych(
        MEANS, MEANS[::-1], MEANS[::-1] - 0.3, [f"layer{i}.0" for i in range(4)], title=LONG
    ),
    "triptych of 16": lambda: fig_triptych(
        *[RNG.dirichlet([1] * 4, size=16)] * 3, DEEP, reading="probability, n = 7"
    ),
    "triptych of one": lambda: fig_triptych(
        [[np.nan, 0.3, np.nan, 0.7]], [[np.nan, 0.9, np.nan, 0.1]], [[np.nan, -2.5, np.nan, 1]], ["layer1.0"]
    ),
    "interventions": lambda: fig_interventions(
        [LONG, "without S122"], [-0.9, 0.1], [-0.3, -0.2], [0, 0], [0.3, 0.2], 10, title=LONG
    ),
    "intervention without draws": lambda: fig_interventions(["b"], [0], [np.nan], [np.nan], [np.nan], 0),
    "depth": lambda: fig_depth(MANY, DEEP, title=LONG),
    "depth of one clip": lambda: fig_depth(MANY[:1, :1], DEEP[:1]),
    "class and stage": lambda: fig_class_stages(*CLASS_STAGES, [LONG, "b", "never seen"], DEEP[:4]),
    "map": lambda: fig_map(*selection_map(MANY), ["static", "motion"] * 15, LONG),
    "contact sheet": lambda: fig_contact_sheet(
        [FRAMES, FRAMES[:1], FRAMES[:, :, :36]] * 3, [LONG, "b", "c"] * 3, LONG
    ),
    "contact sheet of one": lambda: fig_contact_sheet([FRAMES], ["a"]),
    "confusions": lambda: fig_confusions(
        confused_pairs(MANY[:, 0], [0] * 15 + [1] * 15, [0, 1, 2] * 10, [LONG, "b", "c"])
    ),
    "difference": lambda: fig_difference(MANY[0], MANY[1], DEEP, (LONG, "b"), title=LONG),
    "difference of one": lambda: fig_difference([[0.25] * 4], [[0.1, 0.2, 0.3, 0.4]], ["layer1.0"]),
    "one response": lambda: fig_responses({"LS": RNG.random(8)}),
    "silent responses": lambda: fig_responses({"LT": np.zeros((4, 4)), "S122": np.zeros((2, 4, 4))}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_png_of_plausible_size_with_every_word_inside(name):
    figure = FIGURES[name]()
    data = to_png(figure)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and 500 < len(data) < 400_000
    picture = Image.open(io.BytesIO(data))
    assert picture.size == tuple(int(n) for n in figure.get_size_inches() * 80) and min(picture.size) > 60
    assert np.asarray(picture.convert("L")).std() > 3  # not an empty page
    box = figure.get_tightbbox()
    (width, height) = figure.get_size_inches()  # of everything drawn, inches
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, box
    words = figure.findobj(
        lambda artist: getattr(artist, "get_text", str)() and hasattr(artist, "get_fontsize")
    )
    assert min(word.get_fontsize() for word in words) >= 9


def test_a_dollar_in_a_name_is_a_dollar():
    assert to_png(fig_top_k(["$\\frac{1$", "b"], [0.5, 0.5], title="$x_$")).startswith(b"\x89PNG")


NAMES = ["推门", "from $5 to $6 x_1^{", "a<b & c>d"]  # of classes, as people give them
NAMED = {
    "top": lambda: fig_top_k(NAMES, [0.2, 0.5, 0.3], true=NAMES[1], title=NAMES[1]),
    "confusion": lambda: fig_confusion(np.eye(3), NAMES),
    "classes": lambda: fig_selection_by_class(MEANS[:3], NAMES, [5, 1, 2]),
    "class and stage": lambda: fig_class_stages(*CLASS_STAGES, NAMES, DEEP[:4]),
    "interventions": lambda: fig_interventions(NAMES[1:], [0, 0], [0, 0], [0, 0], [0, 0], 2, title=NAMES[1]),
    "map": lambda: fig_map(*selection_map(MANY), NAMES * 10, NAMES[1]),
    "sheet": lambda: fig_contact_sheet([FRAMES] * 3, NAMES),
    "difference": lambda: fig_difference(MANY[0], MANY[1], DEEP, (NAMES[1], NAMES[2]), title=NAMES[1]),
}


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
@pytest.mark.parametrize("name", NAMED)
def test_names_are_drawn_and_never_read_as_mathematics(name, kind):
    """By every way of drawing: `to_png`, `savefig`, and the canvas, which is TensorBoard's way."""
    figure = NAMED[name]()
    figure.savefig(buffer := io.BytesIO(), format=kind)
    assert len(buffer.getvalue()) > 1000
    figure = NAMED[name]()
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if "$5" in text.get_text()]
    assert shown and not any(text.get_parse_math() for text in shown)
    box = figure.get_tightbbox()
    assert np.isfinite([box.x0, box.x1]).all()


def test_numbers_of_an_axis_keep_their_notation():
    figure = new_figure(3, 2, "from $5 to $6 x_1^{")
    axes = figure.subplots()
    axes.plot([1, 1000], [1e-9, 2e-9])
    axes.set_xscale("log")
    figure.canvas.draw()
    ticks = [tick for tick in axes.get_xticklabels() if tick.get_text()]
    assert any("10^" in tick.get_text() and tick.get_parse_math() for tick in ticks)


def test_letters_are_taken_from_a_font_that_has_them():
    """Where the usual font is one of the bare Latin alphabet, Cyrillic comes from another one."""
    fonts = [(e.name, font_manager.get_font(e.fname).get_charmap()) for e in font_manager.fontManager.ttflist]
    bare = [name for name, letters in fonts if ord("b") in letters and ord("к") not in letters]
    if not bare:
        pytest.skip("every font of this machine has Cyrillic letters")
    with rc_context({"font.family": bare[:1]}):
        figure = fig_top_k(["класс", "b"], [0.5, 0.5])
        figure.canvas.draw()
        figure.canvas.draw()
    [(usual, found)] = {tuple(t.get_fontfamily()) for t in figure.findobj(Text) if "класс" in t.get_text()}
    assert usual == bare[0]
    letters = font_manager.get_font(font_manager.findfont(found)).get_charmap()
    assert {*map(ord, "класс")} <= set(letters)


def test_letters_that_no_font_has_are_said_once():
    code = (
        "from sda.figures.clips import fig_top_k; from sda.figures.style import to_png\n"
        "for name in ('\\U0001bc6b', '\\U0001bc6a'): to_png(fig_top_k([name, 'b'], [0.5, 0.5]))"
    )  # letters of Duployan shorthand
    run = subprocess.run(
        [sys.executable, "-W", "error:Glyph", "-c", code], timeout=60, capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stderr.count("no installed font") == 1, run.stderr


def test_same_numbers_same_bytes():
    for name in ("selection", "stages", "top"):
        assert to_png(FIGURES[name]()) == to_png(FIGURES[name]())


def test_more_dots_make_a_larger_picture():
    small, large = (Image.open(io.BytesIO(to_png(FIGURES["top"](), dpi))) for dpi in (80, 160))
    assert large.width == 2 * small.width


def as_drawn(figure):
    """What matplotlib draws; from now on, as a layout that is found again may differ by a dot."""
    figure.savefig(io.BytesIO(), format="png", dpi=160)
    figure.set_layout_engine("none")
    figure.savefig(drawn := io.BytesIO(), format="png", dpi=160)
    return np.asarray(Image.open(drawn).convert("RGB")).astype(int)


def as_packed(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", ["triptych", "cam", "depth"])
def test_a_packed_picture_is_smaller_and_looks_the_same(name):
    figure = FIGURES[name]()
    drawn = as_drawn(figure)
    data = to_png(figure, 160)
    Image.fromarray(drawn.astype(np.uint8)).save(usual := io.BytesIO(), "PNG", optimize=True)
    assert len(data) < 0.8 * len(usual.getvalue())
    off = np.abs(as_packed(data) - drawn)
    assert off.max() <= 19 and off.mean() < 2  # of 255; half a step of eight shades


def public_figures():
    rooms = [
        importlib.import_module(m.name) for m in pkgutil.iter_modules(sda.figures.__path__, "sda.figures.")
    ]
    return {name: getattr(room, name) for room in rooms for name in room.__all__ if name.startswith("fig_")}


def test_every_public_figure_is_drawn_here(monkeypatch):
    drawn = set()
    for name, figure in public_figures().items():
        monkeypatch.setitem(
            globals(), name, lambda *a, made=figure, **k: drawn.add(made.__name__) or made(*a, **k)
        )
    for make in FIGURES.values():
        make()
    assert drawn == set(public_figures())


def test_no_pyplot():
    code = (
        "import sys; from sda.figures.clips import fig_top_k; from sda.figures.style import to_png;"
        "to_png(fig_top_k(['a'], [1.]));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_colours_are_fixed_and_tell_apart():
    assert tuple(COLOURS) == DEPENDENCIES
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS.values()]) / 255
    linear = rgb**2.2
    # how a reader without green-sensitive cones sees them (Vienot 1999), brightness included
    lms = linear @ np.array([[17.8824, 43.5161, 4.1194], [3.4557, 27.1554, 3.8671], [0.03, 0.1843, 1.4671]]).T
    lms[:, 1] = 0.4942 * lms[:, 0] + 1.2483 * lms[:, 2]
    distance = np.linalg.norm(lms[:, None] - lms[None], axis=-1)[~np.eye(4, dtype=bool)]
    assert distance.min() > 3


@pytest.mark.parametrize("weights", [[[0.24, 0.25, 0.25, 0.26]], [[0.02, 0.02, 0.02, 0.94]]])
def test_a_colour_is_the_same_weight_in_every_figure(weights):
    norm = fig_selection(weights, ["layer1.0"]).axes[0].images[0].norm
    assert (norm.vmin, norm.vcenter, norm.vmax) == (0, 0.25, 1)


def test_cam_colours_are_absolute():
    faint = fig_cam_strip(FRAMES, np.full((8, 64, 64), 0.1), (0, 1))
    assert {
        image.get_clim()
        for axes in faint.axes
        for image in axes.images
        if image.get_array().ndim == 2 and image.get_array().shape == (64, 64)
    } == {(0, 1)}


def test_numbers_are_printed():
    texts = [t.get_text() for t in fig_selection([[0.07, 0.13, 0.31, 0.49]], ["layer1.0"]).axes[0].texts]
    assert texts == ["0.07", "0.13", "0.31", "0.49"]


def outlines(axes):
    return [(round(p.get_x() + 0.46), round(p.get_y() + 0.42)) for p in axes.patches]


def test_triptych_outlines_the_largest_of_each_row_and_keeps_scales_comparable():
    weights = [[0.1, 0.2, 0.3, 0.4], [0.25] * 4, [0.7, 0.1, 0.1, 0.1]]
    effects = [[0.01, 0, 0.02, 0.03], [np.nan, -0.3, 0.01, np.nan], [0, 0, 0, 0]]
    figure = fig_triptych(weights, weights, effects, ["layer1.0", "layer1.1", "layer2.0"])
    assert [outlines(axes) for axes in figure.axes[:3]] == [
        [(3, 0), (0, 2)],
        [(3, 0), (0, 2)],
        [(3, 0), (2, 1)],
    ]
    assert [axes.images[0].get_clim() for axes in figure.axes[:3]] == [(0, 1), (0, 1), (-0.5, 0.5)]
    lines = [[line.get_ydata()[0] for line in axes.lines] for axes in figure.axes[:3]]
    assert lines == [[1.5]] * 3, "one line where the second stage begins"


def test_interventions_keep_their_order_and_their_range():
    axes = fig_interventions(["a", "b"], [-0.5, 0.2], [-0.1, -0.2], [0, 0], [0.1, 0.3], draws=7).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"] and axes.yaxis_inverted()
    assert [(round(p.get_x(), 6), round(p.get_width(), 6)) for p in axes.patches] == [
        (-0.1, 0.2),
        (-0.2, 0.5),
    ]


def test_class_intervals_hold_the_mean_and_narrow_with_clips():
    means, low, high, counts = CLASS_STAGES
    assert counts == [20, 10, 0] and np.isnan(means[2]).all()
    np.testing.assert_allclose(means[1], MANY[20:, :4].mean(0))
    assert (low[:2] <= means[:2]).all() and (means[:2] <= high[:2]).all()
    few = class_intervals(MANY[:4, :4], [0] * 4, 1)
    assert (few[2] - few[1]).mean() > 1.5 * (high - low)[0].mean()


def test_map_puts_alike_clips_together_and_is_the_same_every_time():
    two = np.repeat([[[0.7, 0.1, 0.1, 0.1]], [[0.1, 0.1, 0.1, 0.7]]], 5, axis=0) + RNG.normal(
        0, 0.01, (10, 1, 4)
    )
    places, held = selection_map(two)
    assert held[0] > 0.9 and (np.sign(places[:5, 0]) == -np.sign(places[5:, 0])).all()
    np.testing.assert_array_equal(places, selection_map(two)[0])
    absent = two.copy()
    absent[..., 1] = np.nan
    assert np.isfinite(selection_map(absent)[0]).all()


def test_nearest_clips_by_hand():
    weights = np.array([[[1, 0, 0, 0]], [[0.9, 0.1, 0, 0]], [[0, 1, 0, 0]]])
    found = nearest_clips(weights, 0, k=9)
    assert found[0] == [1, 2] and np.allclose(found[1], [0.1, 1])
    with pytest.raises(SettingError) as caught:
        nearest_clips(weights, 3)
    assert caught.value.subject == "3"


def test_confusions_count_and_compare_within_the_class():
    table = confused_pairs(
        [[0.4, 0.6, 0, 0], [0.2, 0.8, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0]],
        [0, 0, 0, 1, 0],
        [0, 1, 1, 0, 0],
        ["a", "b"],
    )
    assert table[["true", "answer", "wrong", "right"]].to_numpy().tolist() == [
        ["a", "b", 2, 2],
        ["b", "a", 1, 0],
    ]
    np.testing.assert_allclose(
        table.loc[0, list(DEPENDENCIES)].astype(float), [0.1 - 0.7, 0.4 - 0.3, 0.5, 0], atol=1e-9
    )
    assert table.loc[1, list(DEPENDENCIES)].isna().all()  # no right clip to compare with


def test_animation_shows_every_frame_in_order():
    frames = np.stack([np.full((32, 48, 3), 25 * t, np.uint8) for t in range(8)])
    film = Image.open(io.BytesIO(animation(frames, seconds=0.2, height=64)))
    assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (8, (96, 64), 200, 0)
    for t in range(8):
        film.seek(t)
        assert abs(int(np.asarray(film.convert("L"))[5, 5]) - 25 * t) < 3
    assert Image.open(io.BytesIO(animation(frames, MAPS[:, :32, :48], height=64))).size == (192, 64)


@pytest.mark.parametrize(
    "call, subject, told",
    [
        (lambda: fig_depth(MANY[0], DEEP), "values", "[16, 4]"),
        (lambda: fig_difference(MANY[0], MANY[0][:3], DEEP), "b", "[3, 4]"),
        (lambda: class_intervals(MANY, [0], 1), "labels", "1 labels for 30 clips"),
        (lambda: fig_map(np.zeros((2, 2)), [1, 0], ["a"]), "groups", "1 groups for 2 clips"),
        (lambda: fig_contact_sheet([], []), "captions", "0 clips"),
        (lambda: fig_confusions(confused_pairs(MANY[:, 0], [0] * 30, [0] * 30, ["a"])), "pairs", ""),
        (lambda: animation(FRAMES, MAPS[:3]), "maps", "[3, 64, 64]"),
        (lambda: animation(FRAMES, seconds=0), "seconds", "0 seconds"),
        (lambda: fig_clip(FRAMES[0]), "frames", "[64, 64, 3]"),
        (lambda: fig_clip(FRAMES.astype(float)), "frames", "between 0 and 1"),
        (lambda: fig_clip(np.full((2, 8, 8, 3), np.nan)), "frames", "nan"),
        (lambda: fig_clip(FRAMES[:0]), "frames", "[0, 64, 64, 3]"),
        (lambda: fig_selection(MEANS[0], ["layer1.0"]), "values", "[4]"),
        (lambda: fig_selection(np.zeros((0, 4)), []), "values", "0 rows"),
        (lambda: fig_selection_by_stage(MEANS, MEANS[:2], MEANS, list("abcd"), 3), "values", "[2, 4]"),
        (lambda: fig_cam_strip(FRAMES, np.zeros((8, 32, 32)), (0, 1)), "maps", "[8, 32, 32]"),
        (lambda: fig_top_k(["a", "b"], [1.0]), "probabilities", "2 classes"),
        (lambda: fig_triptych(MEANS, MEANS, MEANS[:2], list("abcd")), "values", "[2, 4]"),
        (lambda: fig_interventions([], [], [], [], [], 0), "changes", "0 interventions"),
    ],
)
def test_wrong_arrays_are_explained(call, subject, told):
    with pytest.raises(SettingError) as caught:
        call()
    assert caught.value.subject == subject and told in str(caught.value)


def test_a_figure_with_controls_follows_them_and_stays_as_a_picture():
    widgets = pytest.importorskip("ipywidgets")
    drawn = []

    def draw(weight, name):
        if weight > 1:
            raise ValueError("<too much>")
        drawn.append((weight, name))
        figure = new_figure(2, 1, f"{name} {weight}")
        figure.subplots()
        return figure

    controls = {"weight": widgets.FloatText(0.5), "name": widgets.Dropdown(options=["a", "b"])}
    live = Live(draw, **controls)
    first = bytes(live.image.value)
    controls["weight"].value = 0.25
    live.set(weight=0.75, name="b")
    assert drawn == [(0.5, "a"), (0.25, "a"), (0.75, "b")] and bytes(live.image.value) != first
    controls["weight"].value = 2
    assert "&lt;too much&gt;" in live.said.value and repr(live).startswith("b 0.75")
    data, metadata = DisplayFormatter().format(live)  # as a notebook asks
    assert base64.b64decode(data["image/png"]) == live.image.value
    assert metadata["image/png"] == {"width": 160, "alt": "b 0.75"}
    with pytest.raises(SettingError) as caught:
        live.set(colour=1)
    assert list(caught.value.choices) == ["weight", "name"]


def test_a_picture_for_a_page_is_twice_as_sharp_and_photographs_lose_nothing_visible():
    pytest.importorskip("IPython")
    figure = new_figure(2, 1)
    axes = figure.subplots()
    axes.imshow(RNG.random((20, 40, 3)), aspect="auto")
    axes.plot([20], [10], "s", color=COLOURS["LS"], ms=3)
    drawn = as_drawn(figure)
    shown = picture(figure, "noise with a green dot")
    assert shown.width == 160 and shown.alt == "noise with a green dot"
    packed = as_packed(shown.data)
    assert packed.shape == (160, 320, 3)
    box = axes.get_window_extent().extents.astype(int) * 2
    inside = slice(160 - box[3] + 4, 160 - box[1] - 4), slice(box[0] + 4, box[2] - 4)
    assert np.abs(packed - drawn)[inside].max() <= 5  # half a step of 32 shades


@pytest.mark.parametrize("cells", [(1, 4000), (30, 40), (200, 300)], ids=["scale", "cells", "fine map"])
def test_a_scale_and_its_bar_keep_all_their_colours(cells):
    values = np.linspace(0, 1, np.prod(cells)).reshape(cells)
    figure = new_figure(4, 3, "A title whose letters have edges")
    axes = figure.subplots()
    bar = figure.colorbar(axes.imshow(values, aspect="auto", cmap="viridis"))
    drawn = as_drawn(figure)
    packed = as_packed(to_png(figure, 160))
    height = len(drawn)
    for place in (axes, bar.ax):
        left, bottom, right, top = (place.get_window_extent().extents * 2).round().astype(int)
        inside = slice(height - top + 3, height - bottom - 3), slice(left + 3, right - 3)
        assert (packed[inside] == drawn[inside]).all()
    assert len(np.unique(packed.reshape(-1, 3), axis=0)) < len(np.unique(drawn.reshape(-1, 3), axis=0))


def test_few_colours_are_kept_in_a_palette():
    figure = FIGURES["depth"]()
    image = Image.open(io.BytesIO(to_png(figure, 160)))
    assert image.mode == "P"
