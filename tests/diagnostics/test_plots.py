"""What is drawn: the data of images, lines and bands, labels, and what is wrong in words."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlstm.diagnostics import plots

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  once it has its backend
from matplotlib.figure import Figure  # noqa: E402

VALUES = np.array([[0.1, -0.5], [0.2, 0.3], [np.nan, 0.4]])  # (T, H)
TEXT = "a$\n"


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def drawn(axes):
    """The Axes, after everything in them was drawn, warnings being errors."""
    axes.figure.canvas.draw()
    return axes


def image(axes):
    (found,) = drawn(axes).images
    return found.get_array().filled(np.nan), found.get_cmap().name, found.get_clim()


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heat_map():
    axes = plots.heat_map(VALUES, TEXT)
    grid, colours, bounds = image(axes)
    np.testing.assert_array_equal(grid, VALUES.T)
    assert (colours, bounds) == ("RdBu_r", (-0.5, 0.5))
    assert labels(axes.xaxis) == ["a", "$", "¶"]
    assert axes.get_ylabel() == "unit"
    assert len(axes.figure.axes) == 2  # one is the bar of colours


def test_heat_map_of_a_series():
    axes = plots.heat_map(jnp.abs(VALUES))
    _, colours, bounds = image(axes)
    assert (colours, bounds) == ("viridis", (0, 0.5))
    assert axes.get_xlabel() == "time"
    assert image(plots.heat_map(VALUES, bounds=(0, 1)))[1:] == ("viridis", (0, 1))
    assert image(plots.heat_map(np.zeros((3, 2), bool)))[2] == (0, 1)
    half = plots.heat_map(jnp.ones((3, 2), jnp.bfloat16))
    assert (image(half)[0] == 1).all()


def test_what_can_not_be_seen_and_words():
    axes = plots.heat_map(VALUES, ["\t", "\x00\x1b", "two words"])
    assert labels(drawn(axes).xaxis) == ["→", "··", "two words"]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}


def test_coloured_text():
    text = "abcd\nef$gh_"
    axes = plots.coloured_text(text, np.arange(11), columns=4)
    grid, colours, bounds = image(axes)
    n = np.nan
    expected = [[0, 1, 2, 3, 4], [5, 6, 7, 8, n], [9, 10, n, n, n]]
    np.testing.assert_array_equal(grid, expected)
    assert (colours, bounds) == ("Oranges", (0, 10))
    found = {(t.get_position(), t.get_text()) for t in axes.texts}
    lines = ["abcd¶", "ef$g", "h_"]
    assert found == {((c, r), a) for r, line in enumerate(lines) for c, a in enumerate(line)}
    assert not axes.axison


def test_coloured_text_of_two_signs():
    axes = plots.coloured_text("\n\nx", [-2.0, np.nan, 1.0])
    grid, colours, bounds = image(axes)
    np.testing.assert_array_equal(grid, [[-2], [np.nan], [1]])
    assert (colours, bounds) == ("RdBu_r", (-2, 2))


def test_attention_map():
    weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    axes = plots.attention_map(weights, text=["le", "chat"], memory="abc")
    grid, _, bounds = image(axes)
    np.testing.assert_array_equal(grid, weights)
    assert bounds == (0, 1)
    assert (labels(axes.xaxis), labels(axes.yaxis)) == (["a", "b", "c"], ["le", "chat"])
    assert axes.xaxis.get_ticks_position() == "top"
    axes = plots.attention_map(weights)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("memory", "time")


SEEDS = np.array([[4.0, 1.0, 7.0], [3.0, 2.0, 6.0], [2.0, 5.0, 5.0], [1.0, 3.0, 0.0]])


@pytest.mark.parametrize("draw", [plots.gradient_norms, plots.loss_curves])
def test_curves_are_medians_with_bands(draw):
    axes = drawn(draw({"some": SEEDS, "one": jnp.array([3.0, 2.0])}))
    some, one = axes.lines
    start = 1 if draw is plots.gradient_norms else 0
    np.testing.assert_array_equal(some.get_xdata(), start + np.arange(3))
    np.testing.assert_array_equal(some.get_ydata(), np.median(SEEDS, 0))
    np.testing.assert_array_equal(one.get_xydata(), [[start, 3], [start + 1, 2]])
    assert labels_of_legend(axes) == ["some", "one"]
    for band, fractions in zip(axes.collections, ((0, 1), (0.25, 0.75)), strict=True):
        edges = np.quantile(SEEDS, fractions, axis=0, method="midpoint")
        (path,) = band.get_paths()
        for x, pair in enumerate(edges.T, start):
            assert {y for at, y in path.vertices if at == x} == {*pair}


def labels_of_legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_seed_that_is_lost_is_the_worst():
    losses = SEEDS[:3].copy()
    losses[0, 1:] = np.nan
    (line,) = drawn(plots.loss_curves({"a": losses})).lines
    np.testing.assert_array_equal(line.get_ydata(), [3, 5, 6])
    losses[1, 2] = np.inf
    (line,) = drawn(plots.loss_curves({"a": losses})).lines
    np.testing.assert_array_equal(line.get_ydata(), [3, 5, np.inf])


def test_scales_and_places():
    axes = drawn(plots.gradient_norms({"a": [1.0, 0.1, 0.0]}, lags=[0, 5, 10]))
    assert (axes.get_yscale(), axes.get_xlabel()) == ("log", "lag, in steps")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 5, 10])
    assert drawn(plots.gradient_norms({"a": SEEDS})).get_yscale() == "log"  # with a zero in it
    axes = plots.loss_curves({"a": SEEDS}, steps=np.array([10, 20, 30]))
    assert (axes.get_yscale(), axes.get_xlabel(), axes.get_ylabel()) == ("linear", "step", "loss")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [10, 20, 30])


@pytest.mark.parametrize(
    "draw",
    [
        lambda axes: plots.heat_map(VALUES, TEXT, axes),
        lambda axes: plots.coloured_text(TEXT, VALUES[:, 1], axes),
        lambda axes: plots.attention_map(abs(VALUES), axes),
        lambda axes: plots.gradient_norms({"a": SEEDS}, axes),
        lambda axes: plots.loss_curves({"a": SEEDS}, axes),
    ],
    ids=["heat_map", "coloured_text", "attention_map", "gradient_norms", "loss_curves"],
)
def test_axes_are_those_given_or_new_ones(draw, monkeypatch):
    figure = Figure()
    monkeypatch.setattr(plt, "show", None)
    axes = figure.subplots()
    assert draw(axes) is axes
    assert plt.get_fignums() == []
    figure.savefig("/dev/null", format="png")
    new = draw(None)
    assert plt.get_fignums() == [new.figure.number]
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxlstm\[plots\]'"):
        draw(None)


def test_the_diagnostics_do_not_load_matplotlib():
    code = (
        "import sys, jaxlstm.diagnostics; assert 'matplotlib' not in sys.modules; "
        "import jaxlstm.diagnostics.plots; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_say_what_is_wrong():
    for call, message in (
        (lambda: plots.heat_map(VALUES[0]), r"values: expected numbers \(T, H\), got shape \(2,\)"),
        (lambda: plots.heat_map(VALUES[:0]), r"values: expected numbers \(T, H\), got shape \(0,"),
        (lambda: plots.heat_map([["a"]]), r"values: expected numbers \(T, H\), got shape"),
        (lambda: plots.heat_map(VALUES, "ab"), "text: expected 3 characters or words.*, got 2"),
        (lambda: plots.heat_map(VALUES, bounds=(1, 0)), "bounds: expected the lower one before"),
        (lambda: plots.coloured_text("", []), "text: expected a str of characters, got ''"),
        (lambda: plots.coloured_text(["a"], [1]), "text: expected a str of characters"),
        (lambda: plots.coloured_text("a", [[1]]), r"values: expected numbers \(T,\), got shape"),
        (lambda: plots.coloured_text("a", [1, 2]), "text: expected 2 characters or words"),
        (lambda: plots.coloured_text("a", [1], columns=0), "columns: expected a positive integer"),
        (lambda: plots.attention_map([1.0]), r"weights: expected numbers \(T, M\)"),
        (lambda: plots.attention_map(VALUES, text="ab"), "text: expected 3 characters or words"),
        (lambda: plots.attention_map(VALUES, memory="a"), "memory: expected 2 characters or words"),
        (lambda: plots.gradient_norms({}), "norms: expected a dict of arrays, got {}"),
        (lambda: plots.loss_curves(SEEDS), "losses: expected a dict of arrays"),
        (
            lambda: plots.gradient_norms({"a": VALUES[None]}),
            r"norms 'a': expected numbers \(T,\) or \(seeds, T\), got shape \(1, 3, 2\)",
        ),
        (
            lambda: plots.loss_curves({"a": SEEDS}, steps=[1, 2]),
            "losses 'a': expected 2 steps, as steps has them, got 3",
        ),
        (
            lambda: plots.gradient_norms({"a": SEEDS}, lags=[[1]]),
            r"lags: expected numbers \(T,\), got shape",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert plt.get_fignums() == []
