from pathlib import Path

from click.testing import CliRunner

from esteira_cli.main import cli


def test_without_a_terminal_data_are_removed_by_yes_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").touch()
    down = ["down", "--wipe", "--state-dir", str(home)]
    asked = CliRunner().invoke(cli, down)
    assert (asked.exit_code, "no terminal; --yes" in asked.output, home.exists()) == (2, True, True)
    assert (CliRunner().invoke(cli, [*down, "--yes"]).exit_code, home.exists()) == (0, False)
