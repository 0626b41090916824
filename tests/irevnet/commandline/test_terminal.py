import click
import pytest
from click.testing import CliRunner

from irevnet.commandline.terminal import Command


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_errors_name_options_for_parameters_in_backticks(error):
    def fail(**options):
        raise error("pass `image_size`, `learning_rate` or `normalise`, not `other` or `images`")

    options = [["--image-size"], ["--lr", "learning_rate"], ["-n", "--normalise/--no-normalise"]]
    params = [*map(click.Option, options), click.Argument(["images"], required=False)]
    result = CliRunner().invoke(Command("work", callback=fail, params=params), [])
    assert "pass --image-size, --lr or --normalise, not `other` or `images`" in result.stderr
