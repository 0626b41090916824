import matplotlib.image

from figures import plot, save_figures
from figures.saving import save_figure


def test_figures_are_saved_for_the_screen_and_for_print(tmp_path, probe):
    png, pdf = save_figure(plot(probe), tmp_path, "depth-probe")
    height, width = matplotlib.image.imread(png).shape[:2]
    assert (width, height) == (990, 1020)  # 3.3 x 3.4 inches at 300 dots
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType fonts, embedded
    assert b"/Type3" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth-probe.pdf", "depth-probe.png"]


def test_all_files_of_a_result_are_saved(tmp_path, blank_figures, interpolation, probe):
    files = save_figures(interpolation, tmp_path)
    assert [file.name for file in files] == ["interpolate.png", "interpolate.pdf", "interpolate.gif"]
    assert all(file.stat().st_size > 0 for file in files)
    files = save_figures(probe, tmp_path, relative=True)
    assert [file.name for file in files] == ["depth-probe.png", "depth-probe.pdf"]
