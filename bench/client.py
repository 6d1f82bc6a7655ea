"""The load client (`load.c`) as a process on core 1, and the build of the C programs."""

import http.client
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

BENCH_FOLDER = Path(__file__).resolve().parent


def build(folder: Path) -> Path:
    """Compile the C programs into `folder` and return it. Needs a C compiler named `cc`."""
    for program in ("load", "limit"):
        subprocess.run(["cc", "-O2", "-o", str(folder / program), str(BENCH_FOLDER / f"{program}.c")], check=True)
    return folder


@dataclass(frozen=True)
class Target:
    """A stream that many clients open: each sends `request` with one of `lines` for `{}`, after `pages` on the same
    connection. It is open when `hello` has arrived; each message begins with `mark`.
    """

    port: int
    lines: Path
    request: str
    hello: str = "event: CONNECTED"
    mark: str = "event: MESSAGE\n"
    pages: tuple[str, ...] = ()


def build_get(path: str, *headers: str, accept: str = "text/event-stream") -> str:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Accept: {accept}", *headers, "", ""])


class LoadClient:
    """`streams` open streams. `wait_until_open` waits for all; `wait_for_message` until the last one has it."""

    def __init__(self, programs: Path, target: Target, streams: int):
        arguments = [programs / "load", target.port, streams, target.lines, 900, target.hello, target.mark]
        words = map(str, [*arguments, *target.pages, target.request])
        self.process = subprocess.Popen(list(words), stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, {1})
        self.streams, self._request, self._received_at = streams, target.request, {}

    def wait_until_open(self) -> float:
        """Wait until all streams are open; return the seconds it took."""
        while (words := self._read_words())[0] != "ready":
            self._record_message(words)
        return float(words[1])

    def wait_for_message(self, number: int) -> float:
        """Return when the last stream had that message, in CLOCK_REALTIME seconds."""
        while number not in self._received_at:
            self._record_message(self._read_words())
        return self._received_at[number]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _read_words(self) -> list[str]:
        return self.process.stdout.readline().split() or self._fail("nothing")

    def _record_message(self, words: list[str]) -> None:
        if words[0] != "got":
            self._fail(" ".join(words))
        self._received_at[int(words[1])] = float(words[2])

    def _fail(self, output: str) -> NoReturn:
        raise SystemExit(
            f"{self._request.splitlines()[0]}: the load client said {output} when more messages were expected"
        )


class Browser:
    """A browser's session on one connection. `answer` is the last one, without its body."""

    def __init__(self, port: int, cookie: str):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Cookie": cookie}
        self.answer: http.client.HTTPResponse | None = None

    def start_get(self, path: str) -> None:
        self._connection.request("GET", path, headers=self._headers)

    def finish_get(self) -> bytes:
        """Return the body of what `start_get` asked for."""
        self.answer = self._connection.getresponse()
        body = self.answer.read()
        assert self.answer.status == 200, body
        return body

    def get(self, path: str) -> bytes:
        self.start_get(path)
        return self.finish_get()

    def close(self) -> None:
        self._connection.close()


def read_cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_memory(pid: int) -> int:
    """Return the memory of a process in bytes, without files; of what it shares with others, its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024
