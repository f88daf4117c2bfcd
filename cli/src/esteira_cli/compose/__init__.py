"""The containers of docker-compose.yml as a stack: the topology of production on one machine."""

from esteira_cli.compose.stack import ComposeStack

__all__ = ["ComposeStack"]
