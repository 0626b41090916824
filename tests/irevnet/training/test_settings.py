import json

import pytest

from irevnet.training.config import RECIPES, recipe
from irevnet.training.settings import RunSettings, check_unchanged, choose_settings, read_settings


def test_default_settings_train_the_small_net_on_digits():
    assert choose_settings({}) == RunSettings(model="irevnet-small", data="digits", training=RECIPES["digits"])


def test_what_is_given_goes_where_it_belongs():
    given = {"model": "irevnet-b", "data": "cifar10", "classes": 5, "class_seed": 3, "epochs": 2, "seed": 7}
    assert choose_settings(given) == RunSettings(
        model="irevnet-b", data="cifar10", classes=5, class_seed=3, seed=7, training=recipe("fast", epochs=2)
    )
    assert choose_settings(given, recipe_name="imagenet").training.memory == "reversible"
    assert choose_settings({"model": "resnet-50"}, recipe_name="imagenet").training.memory == "plain"


def test_a_run_goes_on_as_it_was_begun(finished_run):
    check_unchanged(finished_run, {"model": "irevnet-small", "epochs": 5, "seed": 0})
    with pytest.raises(ValueError, match="digits was started with epochs=5, not 30; omit it, or start a new run"):
        check_unchanged(finished_run, {"model": "irevnet-small", "epochs": 30})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "JSONDecodeError"),
        ({"data": ...}, "KeyError: 'data'"),
        ({"classes": 3}, "ValueError: its classes are not a list of names"),
        ({"classes": "0123456789"}, "ValueError: classes is '0123456789'; expected"),
        ({"seed": "0"}, "ValueError: seed is '0'; expected int"),
        ({"training": {"epochs": "20"}}, r"ValueError: epochs is '20'; expected int \| None"),
    ],
)
def test_missing_and_damaged_settings_are_named(finished_run, tmp_path, change, message):
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no config.json\); give the folder of a run"):
        read_settings(tmp_path)
    content = json.loads((finished_run / "config.json").read_text()) | (change or {})
    kept = {name: value for name, value in content.items() if value is not ...}
    (tmp_path / "config.json").write_text(json.dumps(kept) if change else "{")
    with pytest.raises(ValueError, match=rf"config\.json is damaged: {message}"):
        read_settings(tmp_path)
