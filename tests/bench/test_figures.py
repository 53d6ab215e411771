"""Pictures that can be read again."""

import io
import math
from pathlib import Path

import pytest
import torch
from helpers import drawn, mask
from matplotlib.figure import Figure
from PIL import Image
from results import made_result

from planaria.errors import OutputFailed
from planaria_lab.bench import demonstration, figures


def saved(figure: Figure, folder: Path) -> Image.Image:
    figures.save_figure(figure, folder / "figure.png")
    with Image.open(folder / "figure.png") as picture:
        picture.load()
    return picture


@pytest.mark.parametrize("interval", [0.25, None])
@pytest.mark.parametrize(("network", "lines"), [("A", True), ("B", False)])
def test_curves_show_every_method_and_the_talk_for_network_a(
    network: str, lines: bool, interval: float | None, tmp_path: Path
) -> None:
    result = made_result(interval=interval)
    figure = figures.recovery_curves(network, result["networks"][network], result["the_talk"])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert {"zero", "neighbour, flat", "kriging", "reference recipe", "default recipe"} <= set(labels)
    assert any("talk" in label for label in labels) is lines
    assert saved(figure, tmp_path).format == "PNG"


def test_curves_are_written_for_every_network(tmp_path: Path) -> None:
    paths = demonstration.draw_curves(made_result(), tmp_path)
    assert [path.name for path in paths] == ["recovery_a.png", "recovery_b.png"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_the_gallery_has_a_row_a_version_and_a_column_a_neuron(tmp_path: Path) -> None:
    grids = {name: drawn(5, 6, 7) for name in ("intact", "damaged", "regrown")}
    figure = figures.gallery(grids, mask(5, 6, 7), neurons=(0, 4))
    assert len(figure.axes) == 6
    saved(figure, tmp_path)


def test_missing_weights_are_dark_in_the_damaged_panel(tmp_path: Path) -> None:
    panels = {"intact": drawn(4, 6, 7), "90 % missing": drawn(4, 6, 7)}
    figure = figures.triptych(panels, torch.zeros(4, 6, 7, dtype=torch.bool))
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    dark = [(picture == (32, 32, 40)).all(-1).mean() for picture in shown]
    assert dark[0] == 0 and dark[1] > 0.5
    saved(figure, tmp_path)


def test_a_loss_curve_is_drawn_even_where_looks_left_the_finite_range(tmp_path: Path) -> None:
    saved(figures.loss_curve([1.0, 0.5, 0.25], [(0, 1.0), (2, math.inf), (3, 0.5)]), tmp_path)


def test_the_animation_has_a_frame_a_state_and_holds_the_end() -> None:
    states, intact = [drawn(5, 6, 7, seed=seed) for seed in range(4)], drawn(5, 6, 7)
    content = figures.rollout_gif(iter(states), intact=intact, known=mask(5, 6, 7))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "GIF" and picture.n_frames == 4
        durations = []
        for number in range(4):
            picture.seek(number)
            durations.append(picture.info["duration"])
    assert durations == [1200, 120, 120, 2500]


def test_a_tensor_of_zeros_can_be_drawn(tmp_path: Path) -> None:
    saved(figures.gallery({"intact": torch.zeros(2, 3, 3)}, mask(2, 3, 3), neurons=(0, 1)), tmp_path)


def test_a_figure_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed):
        figures.save_figure(Figure(), tmp_path / "nowhere" / "figure.png")
