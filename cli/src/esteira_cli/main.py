"""The command `esteira`. Subcommands are imported when called, so that `esteira --help` is quick."""

from importlib import import_module

import click

from esteira.exceptions import EsteiraError

SUBCOMMANDS = {
    "up": ("esteira_cli.stack.commands", "Start the local stack, or what of it is down."),
    "down": ("esteira_cli.stack.commands", "Stop the local stack."),
    "status": ("esteira_cli.stack.commands", "Show processes and pipelines at one glance."),
    "logs": ("esteira_cli.stack.commands", "Show what a process of the stack wrote."),
    "tick": ("esteira_cli.tick", "Call the services' reconciliation, again and again."),
    "pubsub": ("esteira_cli.pubsub.command", "Run the Pub/Sub emulator."),
    "validate": ("esteira_cli.validate.command", "Check changed code against the model in production."),
    "deploy": ("esteira_cli.deploy.command", "Carry an image to Cloud Run, or back if it does not serve."),
    "predict": ("esteira_cli.predict.command", "Ask for the predictions of a row or a file."),
    "key": ("esteira_cli.key", "Draw an API key for a client of the predictor."),
    "promote": ("esteira_cli.promotion.commands", "Make a release the champion, or begin its canary."),
    "rollback": ("esteira_cli.promotion.commands", "End a canary, or bring the previous champion back."),
    "history": ("esteira_cli.promotion.commands", "Show what was promoted, tried out and rolled back."),
    "demo": ("esteira_cli.demo.command", "Watch a whole year of a pipeline go by."),
}
"""Name → module that holds a click command of that name, and the line that `esteira --help` shows for it."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when the subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The names, in the order in which one meets them."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports the module of `cmd_name` and takes the command from it."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command = getattr(import_module(SUBCOMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Lists the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in SUBCOMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Shows our own errors as a message, not as a traceback."""
        try:
            return super().invoke(ctx)
        except EsteiraError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="esteira-cli", prog_name="esteira")
def cli() -> None:
    """Esteira: an MLOps pipeline for tabular models, on this machine and on Google Cloud."""


if __name__ == "__main__":
    cli()
