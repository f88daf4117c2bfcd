"""`python -m esteira_cli.pubsub`: the emulator on its own."""

from esteira_cli.pubsub.command import pubsub

if __name__ == "__main__":
    pubsub()
