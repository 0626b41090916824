import importlib
import inspect
import re
from dataclasses import fields
from typing import get_type_hints

import pytest

from analysis.results.register import STUDIES, load_result


@pytest.mark.parametrize("spec", STUDIES.values(), ids=STUDIES)
def test_a_study_has_a_function_a_figure_and_a_documented_result(spec):
    study = importlib.import_module(f"analysis.studies.{spec.module}")
    assert get_type_hints(getattr(study, spec.function))["return"] is spec.result
    assert hasattr(importlib.import_module(f"figures.studies.{spec.module}"), "FIGURE")
    hints, descriptions = get_type_hints(spec.result), documented(spec.result)
    assert descriptions.keys() == {field.name for field in fields(spec.result)}
    for name, text in descriptions.items():
        dims = hints[name].dim_str.split()
        assert f"`({', '.join(dims)}{',' if len(dims) == 1 else ''})`" in text, name
        assert not re.match("(of|to|in|where|which|who|how|its|their|the same)\\b", text), name


def documented(kind: type) -> dict[str, str]:
    """The description of each field."""
    found: dict[str, str] = {}
    for each in kind.__mro__:
        attributes = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def test_studies_are_in_the_order_of_the_paper():
    names = ["training-curves", "invert", "interpolate", "spectrum", "depth-probe", "pca", "geometry", "metamers"]
    followed = [f"{name}-over-training" for name in ("geometry", "depth-probe", "spectrum")]
    assert list(STUDIES) == names + followed
    assert [spec.name for spec in STUDIES.values() if spec.optional] == followed


def test_any_saved_result_is_loaded(tmp_path, probe, inversion):
    for result in (probe, inversion):
        result.save(tmp_path / result.STUDY, {})
        loaded = load_result(tmp_path / result.STUDY)
        assert type(loaded) is type(result)
        assert loaded.summary() == result.summary()


def test_a_folder_without_one_result_is_refused(tmp_path, probe):
    with pytest.raises(FileNotFoundError, match=r"holds no result of a study; expected one of training-curves, invert"):
        load_result(tmp_path)
    probe.save(tmp_path, {})
    (tmp_path / "invert.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results of several studies \(invert, depth-probe\); load each by its own"):
        load_result(tmp_path)
