"""What a configuration names is there, or it is told where that was named."""

import pytest

from shadowcat.cli.options import read_values
from shadowcat.config import SettingsError, build_reverse
from shadowcat.config.surroundings import check_surroundings
from tests.config.reading import URL, parse


def check(*arguments):
    values = read_values(parse(*arguments))
    check_surroundings(values, build_reverse(values))


def test_what_is_there_is_right(tmp_path):
    check("--upstream", URL, "--store", "sqlite", "--sqlite-path", str(tmp_path / "new.db"))
    check("--", "true")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "shadowcat-no-such-program"], "the command after --: "),
        (["--upstream", URL, "--tls-cert", "/no/such"], "--tls-cert: '/no/such' cannot be read: No such file"),
        (["--upstream", URL, "--ca-file", "/no/such"], "--ca-file: '/no/such' cannot be read: No such file"),
        (["--upstream", URL, "--ca-file", __file__], f"--ca-file: '{__file__}' holds no certificate in PEM"),
        (
            ["--upstream", URL, "--store", "sqlite", "--sqlite-path", "/no/such/x"],
            "--sqlite-path: there is no directory",
        ),
    ],
)
def test_what_is_not_there_is_named(arguments, said):
    with pytest.raises(SettingsError) as excinfo:
        check(*arguments)
    assert str(excinfo.value).startswith(said)
