"""Asks killwatch on this machine, over its Unix socket, with nothing but Python's standard library."""

import http.client
import json
import os
import socket

SOCKET = os.environ.get("KILLWATCH_API_SOCKET", "/run/killwatch/killwatch.sock")


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket. The timeout is for each step: a pool must not hang on whoever is there to help it."""

    def __init__(self) -> None:
        super().__init__("killwatch", timeout=5)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def _ask(method: str, path: str, body: object = None) -> tuple[int, dict]:
    connection = _Connection()
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else {}
    finally:
        connection.close()


def tag_self(**tags: str) -> None:
    """Says which job this process works on from now on."""
    status, said = _ask("PUT", "/v1/tags/self", tags)
    if status >= 300:
        raise OSError(f"killwatch refused the tags: {said.get('error', status)}")


def untag_self() -> None:
    """Says that this process works on no job any more."""
    _ask("DELETE", "/v1/tags/self")


def start_of(pid: int) -> str:
    """When a process was started: field 22 of /proc/PID/stat. With its pid it names the process; the pid alone may be given again."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()[19].decode()


def death(pid: int, start: str) -> dict | None:
    """What happened to a process that is gone: killwatch's record of its death, or None if it knows of none."""
    status, said = _ask("GET", f"/v1/deaths?pid={pid}&start={start}&wait=2s")
    if status != 200:
        raise OSError(f"killwatch: {said.get('error', status)}")
    return said["deaths"][0] if said["state"] == "dead" else None
