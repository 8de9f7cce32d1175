"""A TCP proxy in front of a server, to cut connections in places that no network would hit so exactly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Called with what the client sent, and how much it had sent before; True cuts both sides once this has been passed on.
Cut = Callable[[bytes, int], bool]

COMMIT = b"COMMIT\0"


class Proxy:
    """Passes everything on between clients and a server's socket until `cut` says otherwise, which it does once. The
    server's side of a cut connection stays for `linger` seconds."""

    def __init__(self, server: Path | tuple[str, int], cut: Cut, linger: float = 0) -> None:
        self._server = server
        self._linger = linger
        self._cut: Cut | None = cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End all connections, and take no more."""
        for end in (self._listener, *self._ends):
            _shut(end)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX if isinstance(self._server, Path) else socket.AF_INET)
            try:
                server.connect(str(self._server) if isinstance(self._server, Path) else self._server)
            except OSError:  # it restarts
                client.close()
                server.close()
                continue
            self._ends += [client, server]
            silenced = threading.Event()
            for way in (self._upstream, self._downstream):
                self._threads.append(threading.Thread(target=way, args=(client, server, silenced), daemon=True))
                self._threads[-1].start()

    def _upstream(self, client: socket.socket, server: socket.socket, silenced: threading.Event) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                cutting = self._cut is not None and self._cut(data, passed)
                if cutting:
                    silenced.set()
                    self._cut = None
                    self.cuts += 1
                server.sendall(data)
                passed += len(data)
                if cutting:
                    break
        _shut(client)
        client.close()
        if silenced.is_set():
            time.sleep(self._linger)
        _shut(server, socket.SHUT_WR)

    def _downstream(self, client: socket.socket, server: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not silenced.is_set():
                    client.sendall(data)
        _shut(client)
        _shut(server)
        server.close()


def _shut(end: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)


@contextmanager
def proxied(url: str, cut: Cut, linger: float = 0) -> Iterator[tuple[str, Proxy]]:
    """An URL by which the server of `url` is reached through a proxy that cuts where `cut` says."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    folder = str(parsed.query.get("host", ""))
    server = Path(folder) / f".s.PGSQL.{parsed.query.get('port', parsed.port or 5432)}" if folder else None
    proxy = Proxy(server or (parsed.host or "localhost", parsed.port or 5432), cut, linger)
    try:
        yield f"postgresql://{parsed.username}@127.0.0.1:{proxy.port}/{parsed.database}?sslmode=disable", proxy
    finally:
        proxy.close()


def after_bytes(count: int) -> Cut:
    """Cut a connection once its client has sent so many bytes."""
    return lambda data, passed: passed + len(data) > count


def at_commit(number: int) -> Cut:
    """Cut between the client's COMMIT, the `number`th of all, and its answer."""
    seen = 0

    def cut(data: bytes, _passed: int) -> bool:
        nonlocal seen
        seen += data.count(COMMIT)
        return seen >= number

    return cut
