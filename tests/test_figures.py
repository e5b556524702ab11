"""Figures show what they were given, in one look per method, and refuse what they cannot show."""

from __future__ import annotations

import io
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from stepsize import figures, landscapes, stats
from stepsize.optim import OPTIMIZERS
from stepsize.rules import RULES


def drawn(figure, label):
    """The line of that label: its places, and the artist."""
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == label]
    return line.get_xydata(), line


def linear(color):
    return np.array([x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(color)])


def luminance(color):
    return float(np.dot([0.2126, 0.7152, 0.0722], linear(color)))


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


# What is left of a colour, in linear RGB, without one kind of cone (Viénot, Brettel and Mollon 1999).
SIGHT = {
    "full": np.eye(3),
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


def lab(color, sight):
    """CIE L*a*b*, in which distances are about as large as they look; 2 is just noticeable."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(xyz @ np.clip(SIGHT[sight] @ linear(color), 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# -- Looks --------------------------------------------------------------------------------------------------------


def test_no_two_methods_look_the_same():
    styles = [figures.look(name) for name in figures.LOOKS]
    assert len(set(styles)) == len(styles)


@pytest.mark.parametrize("name", sorted({*RULES, *OPTIMIZERS}))
def test_every_method_has_a_look_of_its_own(name):
    assert name in figures.LOOKS


@pytest.mark.parametrize("color", figures.HUES)
def test_lines_stand_out_on_a_light_page_and_on_a_dark_one(color):
    assert contrast(color, "#ffffff") >= 3
    assert contrast(color, "#14181e") >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_hues_are_far_apart_for_every_eye(sight):
    for one, other in itertools.combinations(figures.HUES, 2):
        assert np.linalg.norm(lab(one, sight) - lab(other, sight)) > 25, f"{one} and {other}"


def test_a_method_keeps_its_look_whatever_else_is_drawn():
    path = torch.zeros(3, 2)
    alone = figures.trajectories("quadratic", {"sgdm, momentum 0.9": path})
    among = figures.trajectories("beale", {"mine": path, "sgdm": path, "sgd (lr 1)": path})
    assert drawn(alone, "sgdm, momentum 0.9")[1].get_color() == drawn(among, "sgdm")[1].get_color()
    assert drawn(among, "sgd (lr 1)")[1].get_color() == figures.look("sgd").color


def test_lines_of_one_figure_differ_even_where_their_labels_ask_for_one_look():
    labels = ["sgd", "sgd, lr 1", "sgd, lr 2", "plain", "other"]
    assert len(set(figures.looks(labels))) == len(labels)


# -- Figures ------------------------------------------------------------------------------------------------------


def test_figure_is_sharp_small_and_repeats_byte_for_byte():
    path = landscapes.trajectory("sgd", "rosenbrock", steps=50, lr=1e-3)
    figure = figures.trajectories("rosenbrock", {"sgd": path})
    png, metadata = figure._repr_png_()
    assert metadata == {"width": 640}
    assert Image.open(io.BytesIO(png)).size == (1280, 800)
    assert len(png) < 120_000
    assert png == figures.trajectories("rosenbrock", {"sgd": path})._repr_png_()[0]


def test_text_is_readable_on_a_phone():
    figure = figures.lines([1, 2], {"sgd": [[1.0], [2.0]]}, xlabel="lr", ylabel="loss")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    texts = [ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *figure.legends[0].get_texts()]
    # At 390 CSS pixels a figure of 640 is shown at 0.61 of its size; a point is 100/72 of its pixels.
    assert min(text.get_fontsize() for text in texts) * 100 / 72 * 390 / 640 >= 10


def test_drawing_leaves_matplotlibs_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.lines([1, 2], {"sgd": [[1.0], [2.0]]}, xlabel="lr", ylabel="loss")
    assert dict(mpl.rcParams) == before


def test_trajectories_are_drawn_where_they_went():
    path = landscapes.trajectory("sgdm", "quadratic", steps=30, lr=0.02)
    figure = figures.trajectories("quadratic", {"sgdm": path})
    places = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 31]
    assert all(np.array_equal(xy, path.numpy()) for xy in places) and places
    stars = [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert np.array_equal(stars[0], [[0.0, 0.0]])


def test_divergent_trajectory_is_cut_and_leaves_the_map_as_it_is():
    path = landscapes.trajectory("sgd", "quadratic", steps=3000, lr=1.0)
    assert not torch.isfinite(path).all()
    figure = figures.trajectories("quadratic", {"sgd": path})
    assert figure.axes[0].get_ylim() == landscapes.get("quadratic").view[1]
    figure._repr_png_()


def test_landscape_over_one_coordinate_is_drawn_as_its_curve():
    path = landscapes.trajectory("sgd", "parabola", steps=3, lr=0.5)
    figure = figures.trajectories("parabola", {"sgd": path})
    places = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 4]
    assert np.allclose(places[0], [[-2, 2], [-1, 0.5], [-0.5, 0.125], [-0.25, 0.03125]])


def test_trajectory_of_a_wrong_shape_gets_one_sentence():
    says = "paths['sgd'] must have shape (steps + 1, 2), got (2, 3, 2)"
    with pytest.raises(ValueError, match=re.escape(says)):
        figures.trajectories("quadratic", {"sgd": torch.zeros(2, 3, 2)})


def band_of(figure, number=0):
    """The lower and upper edge of a band, per place."""
    points = figure.axes[0].collections[number].get_paths()[0].vertices
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in points[:, 0]}


def test_lines_show_the_mean_and_its_interval():
    values = [[1.0, 2.0, 3.0], [2.0, 4.0, 9.0]]
    figure = figures.lines([1, 10], {"sgd": values}, xlabel="lr", ylabel="loss", logy=False)
    assert drawn(figure, "sgd")[0].tolist() == [[1, 2], [10, 5]]
    for place, sample in zip([1, 10], values, strict=True):
        _, low, high, _ = stats.interval(sample)
        assert band_of(figure)[place] == pytest.approx((low, high))


def test_lines_refuse_values_that_do_not_fit_the_places():
    with pytest.raises(ValueError, match=re.escape("values['sgd'] must have shape (3, n), got (2, 1)")):
        figures.lines([1, 2, 3], {"sgd": [[1.0], [2.0]]}, xlabel="lr", ylabel="loss")


@pytest.fixture
def runs():
    """What ``sweep`` returns, in little: SGD and SGDM at three rates, three seeds; SGDM diverges at the largest."""
    rows, points = [], []
    for optimizer, lr, seed in itertools.product(["sgdm", "sgd"], [0.01, 0.1, 1.0], range(3)):
        key = f"{optimizer}-{lr}-{seed}"
        lost = optimizer == "sgdm" and lr == 1.0 and seed == 2
        loss = (1 + abs(np.log10(lr) + (1 if optimizer == "sgdm" else 0))) * (1 + seed / 10)
        rows.append({"key": key, "optimizer": optimizer, "lr": lr, "seed": seed, "diverged": lost,
                     "final_train_loss": np.nan if lost else loss})  # fmt: skip
        points += [{"key": key, "step": step, "value": loss / (1 + step)} for step in (0, 5, 10)]
    frame, course = pd.DataFrame(rows), pd.DataFrame(points)
    chosen = {"sgdm": 0.1, "sgd": 1.0}
    settings = [
        {"optimizer": name, "lr": lr, "keys": list(part["key"]), "chosen": chosen[name] == lr}
        for (name, lr), part in frame.groupby(["optimizer", "lr"])
    ]
    return SimpleNamespace(
        frame=lambda: frame, curves=lambda metric: course, settings=lambda: pd.DataFrame(settings), course=course
    )


def test_rate_basin_shows_mean_best_and_divergence(runs):
    figure = figures.rate_basin(runs)
    assert drawn(figure, "sgd")[0] == pytest.approx(np.array([[0.01, 3.3], [0.1, 2.2], [1.0, 1.1]]))
    assert drawn(figure, "sgdm")[0] == pytest.approx(np.array([[0.01, 2.2], [0.1, 1.1]])), "no mean where a run is lost"
    stars = [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert np.concatenate(stars) == pytest.approx(np.array([[0.1, 1.1], [1.0, 1.1]]))
    crosses = [line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(x) for x in crosses] == [[1.0], []]
    assert "diverged" in figure.axes[0].get_xlabel()
    low, high = band_of(figure, 1)[0.01]
    assert (low, high) == pytest.approx(stats.interval([3.0, 3.3, 3.6])[1:3])


def test_rate_basin_takes_a_frame_too(runs):
    assert drawn(figures.rate_basin(runs.frame()), "sgd")[0] == pytest.approx(drawn(figures.rate_basin(runs), "sgd")[0])


def test_rate_basin_refuses_to_average_over_more_than_seeds(runs):
    twice = pd.concat([runs.frame(), runs.frame()])
    with pytest.raises(ValueError, match=r"several runs share optimizer sgdm, lr 0.01, seed 0: pass fewer runs, or as"):
        figures.rate_basin(twice)


@pytest.mark.parametrize("missing", ["optimizer", "lr", "final_train_loss"])
def test_missing_column_is_named(runs, missing):
    with pytest.raises(ValueError, match=f"the table has no column '{missing}'; it has"):
        figures.rate_basin(runs.frame().drop(columns=missing))


def test_intervals_fill_the_dots_of_those_that_are_clear_of_the_line():
    table = pd.DataFrame({"task": ["near", "far"], "mean": [1.1, 2.0], "low": [0.9, 1.5], "high": [1.3, 2.7]})
    figure = figures.intervals(table, xlabel="ratio", none=1.0, logx=True)
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["far", "near"]
    dots = {line.get_xdata()[0]: line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"}
    assert dots == {2.0: figures.HUES[0], 1.1: "white"}
    assert any(np.allclose(line.get_xdata(), [1.5, 2.7]) for line in ax.lines)


def test_curves_show_each_optimizer_at_its_chosen_rate(runs):
    figure = figures.curves(runs, "train_loss")
    expected = np.array([[0, 1.1], [5, 1.1 / 6], [10, 0.1]])
    assert drawn(figure, "sgdm")[0] == pytest.approx(expected)
    assert drawn(figure, "sgd")[0] == pytest.approx(expected)
    assert figure.axes[0].get_ylabel() == "train loss"


def test_curves_of_a_tidy_table_need_no_runs(runs):
    table = runs.course.assign(kind="all")
    assert len(drawn(figures.curves(table, by="kind"), "all")[0]) == 3


def test_curves_refuse_to_average_over_more_than_seeds(runs):
    with pytest.raises(ValueError, match=re.escape("several runs share lr 0.01, seed 0")):
        figures.curves(runs, "train_loss", by="lr")


def test_curves_ask_for_the_metric(runs):
    with pytest.raises(ValueError, match=re.escape("metric must be named, such as metric='train_loss'")):
        figures.curves(runs)


# -- Source and steps ---------------------------------------------------------------------------------------------


def plain(page):
    """The text a reader sees, without what is struck out."""
    kept = [
        line for line in re.sub("<del[^>]*>.*?</del>", "\0", page).splitlines() if line.strip(" \0") or "\0" not in line
    ]
    text = re.sub("<[^>]*>", "", "\n".join(kept))
    return text.replace("\0", "").replace("&lt;", "<").replace("&gt;", ">").replace("&#x27;", "'").replace("&amp;", "&")


@pytest.mark.parametrize("name", RULES, ids=str)
def test_source_is_the_rules_source(name):
    assert str(figures.rule_source(name)) == RULES[name].source.rstrip()
    assert plain(figures.rule_source(name)._repr_html_()) == RULES[name].source.rstrip()


def test_source_marks_the_words_that_are_new_since_the_previous_method():
    page = figures.rule_source("nag", previous="sgdm")._repr_html_()
    marked = re.findall("<mark[^>]*>(.*?)</mark>", page)
    assert "".join(marked).replace(" ", "") == "momentum*-lr*g"
    assert "<del" not in page
    assert plain(page) == RULES["nag"].source.rstrip()
    assert str(figures.rule_source("nag", previous="sgdm")).splitlines()[-1].startswith("+     return p - momentum *")


def test_unchanged_method_has_no_mark():
    assert "<mark" not in figures.rule_source("nag", previous="nag")._repr_html_()


def test_source_of_a_deviation_shows_what_it_took_away():
    source = figures.rule_source("nag:torch")
    removed = [line[2:] for line in str(source).splitlines() if line.startswith("-")]
    added = [line[2:] for line in str(source).splitlines() if line.startswith("+")]
    rule, deviation = RULES["nag"], RULES["nag"].deviations["torch"].rule
    assert removed == [line for line in rule.source.splitlines() if line not in deviation.source.splitlines()]
    assert added == [line for line in deviation.source.splitlines() if line not in rule.source.splitlines()]
    assert "<del" in source._repr_html_()


def test_deviation_written_as_a_function_goes_by_its_rules_name():
    assert str(figures.rule_source("sgdm:torch")).startswith("  def sgdm(")


def test_steps_table_holds_the_hand_worked_displacements():
    table = figures.steps_table(["sgd", "sgdm", "sgdm:torch"], [1.0, 1.0, -1.0], lr=0.1, momentum=0.5, dampening=0.5)
    assert list(table.columns) == ["step 1", "step 2", "step 3"]
    assert table.loc["sgd"].tolist() == [-0.1, -0.1, 0.1]
    assert table.loc["sgdm"].tolist() == [-0.05, -0.075, 0.0125]
    assert table.loc["sgdm:torch"].tolist() == [-0.1, -0.1, 0.0]


def test_steps_table_takes_vectors():
    table = figures.steps_table(["sgd"], [[1.0, 0.0], [2.0, -4.0]], start=[0.0, 0.0], lr=0.5)
    assert table.loc["sgd"].tolist() == [(-0.5, 0.0), (-1.0, 2.0)]


def test_steps_table_refuses_what_no_rule_knows():
    with pytest.raises(TypeError, match="none of sgd, sgdm has a hyper-parameter 'momentun'"):
        figures.steps_table(["sgd", "sgdm"], [1.0], momentun=0.9)
    with pytest.raises(ValueError, match=re.escape("momentum must be in [0, 1), got 2")):
        figures.steps_table(["sgd", "sgdm"], [1.0], momentum=2)


def test_heat_maps_have_a_map_each_and_a_star_on_the_lowest_mean():
    places = itertools.product(["adam", "adamw"], [0.01, 0.1, 1.0], [1e-4, 1e-3], [0, 1])
    table = pd.DataFrame(places, columns=["optimizer", "lr", "weight_decay", "seed"])
    best = (table["lr"] == 0.1) & (table["weight_decay"] == 1e-3) & (table["optimizer"] == "adamw")
    table["val_loss"] = np.where(best, 0.5, 2.0) + table["seed"] / 10
    figure = figures.heat_maps(table, "val_loss", top=1.0)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["adam", "adamw"]
    (star,) = figure.axes[1].lines
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.1, 1e-3)
    assert figure.axes[1].collections[0].get_clim() == (0.55, 1.0)
    with pytest.raises(ValueError, match="no column 'val_err'"):
        figures.heat_maps(table, "val_err")


def test_a_schedules_source_is_its_body_without_docstring_and_types_and_marks_what_is_new():
    assert str(figures.schedule_source("cosine")).splitlines() == [
        "def cosine(step, total_steps, *, end=0.0):",
        '    return _cosine(1.0, _fraction("end", end), _run(step, total_steps))',
    ]
    changed = str(figures.schedule_source("triangular2", previous="triangular")).splitlines()
    assert changed[0].startswith("  def triangular2(") and "stepsize=None, low=0.25" in changed[0]
    assert changed[1].startswith("+") and changed[2].endswith("/ 2 ** (cycle - 1)")
