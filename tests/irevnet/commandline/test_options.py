import click
import pytest
from click.testing import CliRunner

from irevnet.commandline.options import depth_option, depths_option, layer_option, layers_option


@pytest.mark.parametrize(
    ("option", "spellings", "word", "expected"),
    [
        (depths_option, ("--depths", "--depth"), "3,1", {"depths": [1, 3]}),
        (depth_option, ("--depths", "--depth"), "3", {"depth": 3}),
        (layers_option, ("--layers", "--layer"), "fc,conv1", {"layers": ["fc", "conv1"]}),
        (layer_option, ("--layers", "--layer"), "fc", {"layer": "fc"}),
    ],
)
def test_depths_and_layers_have_two_spellings(option, spellings, word, expected):
    seen = []
    command = click.command()(option(lambda **options: seen.append(options)))
    for spelling in spellings:
        assert CliRunner().invoke(command, [spelling, word]).exit_code == 0
    assert seen == [expected, expected]
