"""The last line of commands can be typed as it is, whatever the paths are."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vdm.cli.next_step import command, say_next
from vdm.cli.options.sample import SampleOptions
from vdm.cli.overrides import readable
from vdm.config.conf_dir import conf_dir


@pytest.mark.parametrize("path", ["runs/a", "runs/a/checkpoints/step=00000005", "my run's", "a,b", "$HOME/é!", "[1]"])
def test_a_command_that_is_printed_is_read_back_as_it_was_meant(path: str) -> None:
    line = command("vdm sample", checkpoint=path)

    program, name, *arguments = shlex.split(line)
    (override,) = readable(arguments, SampleOptions, conf_dir())
    assert (program, name) == ("vdm", "sample")
    assert OverridesParser.create().parse_override(override).value() == path


def test_further_commands_stand_below_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    say_next(command("vdm-data show", "my set"), command("vdm train", data__path="S", from_="x"))

    assert capsys.readouterr().out == "Next: vdm-data show 'my set'\n  or: vdm train data.path=S from=x\n"
