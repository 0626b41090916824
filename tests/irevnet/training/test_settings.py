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


def test_checkpoints_are_kept_as_the_run_was_begun(finished_run, tmp_path):
    content = json.loads((finished_run / "config.json").read_text())
    del content["keep_every"]  # as in runs from before there was such
    for given, kept in (({}, None), ({"keep_every": 20}, 20)):
        (tmp_path / "config.json").write_text(json.dumps({**content, **given}))
        assert read_settings(tmp_path).keep_every == kept
    with pytest.raises(ValueError, match="was started with keep_every=20, not 10; omit it, or start a new run"):
        check_unchanged(tmp_path, {"keep_every": 10})
    with pytest.raises(ValueError, match="`keep_every` is 0; expected a positive number of steps, such as 100"):
        choose_settings({"keep_every": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "JSONDecodeError"),
        ({"data": ...}, "KeyError: 'data'"),
        ({"classes": 3}, "ValueError: its classes are not a list of names"),
        ({"classes": "0123456789"}, "ValueError: classes is '0123456789'; expected"),
        ({"seed": "0"}, "ValueError: seed is '0'; expected int"),
        ({"keep_every": 0.5}, r"ValueError: keep_every is 0.5; expected int \| None"),
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
