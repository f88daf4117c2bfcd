import hashlib

from click.testing import CliRunner

from esteira_cli.key import key


def test_the_line_for_the_predictor_holds_the_hash_of_the_key_and_what_it_opens() -> None:
    drawn, line = CliRunner().invoke(key, ["web", "sales", "--admin"]).stdout.splitlines()
    digest = hashlib.sha256(drawn.split()[-1].encode()).hexdigest()
    assert line.endswith(f"web {digest} sales,admin")


def test_admin_is_no_pipeline() -> None:
    found = CliRunner().invoke(key, ["boss", "admin"])
    assert (found.exit_code, found.stdout) == (2, "")
    assert "--admin" in found.stderr
