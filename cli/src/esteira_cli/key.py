"""`esteira key`: draws an API key for a client of the predictor."""

import hashlib
import re
import secrets

import click

KEY_BYTES = 32
ADMIN = "admin"
"""What stands among the pipelines of a line for the routes below /admin."""


@click.command()
@click.argument("client")
@click.argument("pipelines", nargs=-1)
@click.option("--admin", is_flag=True, help="Open the routes below /admin too.")
def key(client: str, pipelines: tuple[str, ...], admin: bool) -> None:
    """Draw an API key for CLIENT, for PIPELINES or for all of them.

    The key is shown once and kept nowhere; the line for the predictor's API_KEYS holds its hash alone.
    """
    for name in (client, *pipelines):
        if not re.fullmatch(r"[A-Za-z0-9_.@-]+" if name is client else r"[a-z][a-z0-9_]*", name):
            raise click.UsageError(f"{name!r}: use letters, digits and _ for pipelines, and . @ - besides for a client")
    if ADMIN in pipelines:
        raise click.UsageError(f"{ADMIN!r} would open the routes below /admin: say so with --admin")
    drawn = secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(drawn.encode()).hexdigest()
    scopes = ",".join([*(pipelines or ["*"]), *([ADMIN] if admin else [])])
    click.echo(f"for {client}, to be sent as X-Api-Key:  {drawn}")
    click.echo(f"for API_KEYS of the predictor:  {client} {digest} {scopes}")
