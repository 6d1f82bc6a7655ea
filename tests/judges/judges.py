"""Each judge: what it is shown, and how its verdict is read."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.servers import Link
from tests.judges.frames import corpus
from tests.ports import free_port
from tests.servers import make_certificate, nginx
from tests.streams import Stream
from tests.system import TOP, System, wait_for
from tests.visitor import Visitor

HERE = Path(__file__).parent
_PYTHON = TOP / ".venv-judges/bin"
_NODE = HERE / "node_modules/.bin"
_PAGES = {
    "login": (None, "/login"),
    "error": (None, "/nothing-here"),
    "inbox": ("bob", "/inbox"),
    "inbox-list": ("bob", "/inbox/list"),
    "message": ("bob", "/inbox/{broadcast}"),
    "preferences": ("bob", "/preferences"),
    "console": ("alice", "/console/"),
    "console-new": ("alice", "/console/broadcasts/new"),
    "console-list": ("alice", "/console/broadcasts"),
    "console-broadcast": ("alice", "/console/broadcasts/{broadcast}"),
    "console-connections": ("alice", "/console/connections"),
    "account": ("bob", "/account"),
    **{
        "console-" + path.replace("/", "-"): ("alice", f"/console/{path}")
        for path in (
            "broadcasts/{broadcast}/edit",
            "broadcasts/{broadcast}/figures",
            "broadcasts/{broadcast}/missing",
            "audit",
            "dead-letters",
            "library",
            "library/templates/new",
            "people",
            "people/1",
            "people/new",
            "people/import",
            "tokens",
        )
    },
}
_LIGHTHOUSE = ("login", "inbox", "console", "console-new", "console-broadcasts-{broadcast}-figures", "console-people")
_FIGURES = ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift")
_SILENCE_SECONDS = 12  # of a proxied stream, before it must still be open


class NotHere(Exception):
    """The judge is not installed on this machine."""


@dataclass(frozen=True, slots=True)
class Verdict:
    is_content: bool
    sentence: str


Judge = Callable[[System, Path], Verdict]
JUDGES: dict[str, Judge] = {}


def judge(name: str) -> Callable[[Judge], Judge]:
    def register(function: Judge) -> Judge:
        JUDGES[name] = function
        return function

    return register


def _program(path: Path | str) -> str:
    found = shutil.which(str(path))
    if found is None:
        raise NotHere(Path(path).name)
    return found


def _run(
    *command: object,
    given: str | None = None,
    cwd: Path = HERE,
    environ: Mapping[str, str] | None = None,
    seconds: float = 300,
) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    done = subprocess.run(words, input=given, cwd=cwd, env=environ, capture_output=True, text=True, timeout=seconds)
    print((done.stdout + done.stderr)[-9000:].strip(), flush=True)
    return done


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1].strip()


@judge("sse-python")
def read_back_by_python(system: System, folder: Path) -> Verdict:
    done = _run(_program(_PYTHON / "python"), "readers.py", given="\n".join(corpus(3000)))
    return Verdict(done.returncode == 0, "; ".join(done.stdout.strip().splitlines()))


@judge("eventsource-parser")
def read_back_by_node(system: System, folder: Path) -> Verdict:
    done = _run(_program("node"), "read_back.mjs", given="\n".join(corpus(3000)))
    return Verdict(done.returncode == 0, _last_line(done.stdout))


@judge("eventsource")
def resume_by_eventsource(system: System, folder: Path) -> Verdict:
    """Cut off again and again while messages are published, it is given each of them once, in order."""
    link = Link("127.0.0.1", system.port)
    alice = Visitor(system, token=system.token("alice", "admin"))
    told = folder / "eventsource.jsonl"
    with told.open("w") as output:
        process = subprocess.Popen(
            [_program("node"), "resume.mjs", f"http://127.0.0.1:{link.port}/api/sse/connect", system.token("bob")],
            cwd=HERE, stdin=subprocess.PIPE, stdout=output,
        )  # fmt: skip
        wait_for(lambda: "CONNECTED" in told.read_text(), seconds=20, what="CONNECTED in eventsource")
        sent = []
        for n in range(100):
            sent.append(alice.publish(f"For eventsource {n}"))
            if n % 20 == 10:
                link.cut()

        def messages() -> list[int]:
            events = [json.loads(line) for line in told.read_text().splitlines()]
            ids = [event["data"]["id"] for event in events if event["type"] == "MESSAGE"]
            return [id for id in ids if id >= sent[0]]  # what was unread before comes first

        try:
            wait_for(lambda: len(set(messages())) >= len(sent), seconds=60, what="all messages in eventsource")
        except AssertionError as problem:
            print(problem)
        process.communicate(timeout=10)
    link.close()
    got = messages()
    how = "each once, in order" if got == sent else "not as published"
    return Verdict(got == sent, f"{len(sent)} published, cut off 5 times: {len(got)} given, {how}")


@judge("schemathesis")
def schemathesis(system: System, folder: Path) -> Verdict:
    """Without the streams, which do not end, and as an administrator whose requests are not limited."""
    done = _run(
        _program(_PYTHON / "schemathesis"), "--config-file", HERE / "schemathesis.toml", "run",
        f"{system.url}/api/openapi.json", "--url", system.url,
        "-H", f"Authorization: Bearer {system.token('alice', 'admin')}", "--exclude-path", "/api/sse/connect",
        "--exclude-checks", "positive_data_acceptance",
        "--max-examples", "40", "--request-timeout", "20", "--continue-on-failure", "--no-color",
        cwd=folder, seconds=900,
    )  # fmt: skip
    return Verdict(done.returncode == 0, _last_line(done.stdout).strip("= "))


def _publish(system: System) -> int:
    """A message that is there, whatever the judges before did."""
    alice = Visitor(system, token=system.token("alice", "admin"))
    content = "# Heading\n\n**bold** and a [link](https://example.org)\n\n- one\n- two"
    id = alice.publish(f"For the judges {secrets.token_hex(4)}", content=content)
    alice.close()
    return id


def _pages(system: System, folder: Path) -> dict[str, Path]:
    """Every page and fragment as a file."""
    broadcast = _publish(system)
    people = {name: Visitor.signed_in(system, name) for name in ("alice", "bob")} | {None: Visitor(system)}
    found = {}
    for name, (who, path) in _PAGES.items():
        path = path.format(broadcast=broadcast)
        answer = people[who].get(path)
        assert answer.status == (404 if name == "error" else 200), (path, answer.status)
        found[name] = folder / f"{name}.html"
        found[name].write_text(answer.text)
    return found


@judge("html-validate")
def html_validate(system: System, folder: Path) -> Verdict:
    files = _pages(system, folder)
    done = _run(_program(_NODE / "html-validate"), "--config", HERE / "htmlvalidate.json", *files.values())
    found = re.search(r"(\d+) problems?", done.stdout)
    return Verdict(done.returncode == 0, f"{len(files)} pages and fragments, {found[1] if found else 0} problems")


@judge("lighthouse")
def lighthouse(system: System, folder: Path) -> Verdict:
    """Accessibility 100, best practices ≥ 95, on each page."""
    scores, content, broadcast = [], True, _publish(system)
    for name in _LIGHTHOUSE:
        who, path = _PAGES[name]
        path = path.format(broadcast=broadcast)
        read = _lighthouse(system, folder, who, path, "accessibility", "best-practices")
        if isinstance(read, Verdict):
            return read
        scores.append(f"{path} {'/'.join(map(str, read))}")
        content &= read[0] == 100 and read[1] >= 95
    return Verdict(content, ", ".join(scores))


@judge("lighthouse_10000")
def lighthouse_with_10000_unread(system: System, folder: Path) -> Verdict:
    """Performance ≥ 95 of an inbox with 10,000 unread messages, as Lighthouse sees a phone and a desktop."""
    _program(_NODE / "lighthouse")  # before it takes the trouble
    system.run_module("tests.judges.fill", "10000")
    scores = {}
    for device, words in {"phone": (), "desktop": ("--preset=desktop",)}.items():
        read = _lighthouse(system, folder, "charlie", "/inbox", "performance", words=words)
        if isinstance(read, Verdict):
            return read
        [scores[device]] = read
    return Verdict(min(scores.values()) >= 95, ", ".join(f"{device} {score}" for device, score in scores.items()))


def _lighthouse(
    system: System, folder: Path, who: str | None, path: str, *categories: str, words: tuple[str, ...] = ()
) -> list[int] | Verdict:
    """The scores of one page in the order of `categories`; a verdict when there are none. Prints what fails and the figures."""
    chromium, program = _program("chromium"), _program(_NODE / "lighthouse")
    headers, report = folder / "headers.json", folder / f"report{path.replace('/', '-')}.json"
    headers.write_text(json.dumps({"Cookie": Visitor.signed_in(system, who).headers["Cookie"]} if who else {}))
    report.unlink(missing_ok=True)
    subprocess.run(
        [program, system.url + path, "--quiet", "--output=json", f"--output-path={report}", f"--extra-headers={headers}",
         f"--only-categories={','.join(categories)}", "--chrome-flags=--headless=new --no-sandbox", *words],
        env={"CHROME_PATH": chromium, "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
        cwd=HERE, timeout=240, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if not report.exists():
        return Verdict(False, f"lighthouse ended without a report on {path}")
    read = json.loads(report.read_text())
    found = [read["categories"][category]["score"] for category in categories]
    if None in found:
        return Verdict(False, f"no score for {path}: {read.get('runtimeError', {}).get('message', 'unknown')}")
    scores = [round(100 * score) for score in found]
    audits = read["audits"].values()
    failing = [audit["id"] for audit in audits if audit.get("score") == 0 and audit["scoreDisplayMode"] == "binary"]
    figures = [f"{a['id']} {a['displayValue']}" for a in audits if a["id"] in _FIGURES and "displayValue" in a]
    print(f"{path}: {scores} of {categories}; failing: {', '.join(failing) or 'nothing'}; {', '.join(figures)}")
    return scores


@judge("csp_evaluator")
def csp_evaluator(system: System, folder: Path) -> Verdict:
    policy = Visitor(system).get("/login").headers["Content-Security-Policy"]
    done = _run(_program("node"), "policy.mjs", policy)
    return Verdict(done.returncode == 0, _last_line(done.stdout))


@judge("observatory")
def observatory(system: System, folder: Path) -> Verdict:
    """MDN's, as its site runs it, but on a system as an operator has it: in production, behind `deploy/nginx.conf`."""
    node, _, _ = map(_program, ("node", "nginx", "openssl"))
    program = HERE / "node_modules/@mdn/mdn-http-observatory"
    if not program.exists():
        raise NotHere(program.name)
    (program / "conf/hsts-preload.json").write_text("{}")  # what browsers know beforehand; none knows localhost
    settings = {"APP_ENV": "production", "FORWARDED_HOPS": "1", "SECRET_KEY": secrets.token_hex(32)}
    (folder / "observed").mkdir()
    with ExitStack() as stack:
        observed = System(folder / "observed", **settings)
        stack.push(observed)
        observed.start()  # no more: in production no answer says which worker it is from
        certificate = make_certificate(folder / "tls")
        proxy = nginx(folder / "nginx", [observed.port, observed.port], certificate=certificate)
        stack.callback(proxy.stop)
        proxy.start()
        trusting = os.environ | {"NODE_EXTRA_CA_CERTS": str(certificate[0])}
        done = _run(node, program / "src/scan.js", f"localhost:{proxy.port}", environ=trusting)
    said = json.loads(done.stdout)
    if "error" in said:
        return Verdict(False, said["error"])
    scan = said["scan"]
    failed = [f", {name}: {test['result']}" for name, test in said["tests"].items() if not test["pass"]]
    return Verdict(scan["grade"] == "A+", f"{scan['grade']}, {scan['score']} points{''.join(failed)}")


@judge("slowhttptest")
def slow_requests(system: System, folder: Path) -> Verdict:
    """Slow heads (-H), slow bodies (-B) and slow readers (-X) by 500 connections; meanwhile others are served."""
    program, slowest, said = _program("slowhttptest"), 0.0, []
    for kind in ("-H", "-B", "-X"):
        process = subprocess.Popen(
            [program, kind, "-c", "500", "-r", "200", "-i", "2", "-l", "12", "-u", f"{system.url}/login", "-p", "3"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        worst, failed = 0.0, 0
        while process.poll() is None:
            began = time.monotonic()
            try:
                answered = Visitor(system).get("/login").status
            except OSError:
                answered = None
            failed += answered != 200
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.2)
        slowest = max(slowest, worst)
        said.append(f"{kind} worst {worst:.1f} s, {failed} failed")
        print(said[-1])
    return Verdict(all(line.endswith(" 0 failed") for line in said), "; ".join(said))


_PROXIES = {
    "nginx": (
        ["nginx", "-p", "{folder}", "-c", "{conf}", "-e", "stderr"],
        """daemon off; pid nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path b; proxy_temp_path p;
        fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
        server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{target}; proxy_buffering on;
        proxy_read_timeout 8s; proxy_http_version 1.1; }} }} }}""",
    ),
    "haproxy": (
        ["haproxy", "-db", "-f", "{conf}"],
        "defaults\n mode http\n timeout connect 5s\n timeout client 8s\n timeout server 8s\n option http-buffer-request\n"
        "frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{target}\n",
    ),
    "caddy": (
        ["caddy", "run", "--adapter", "caddyfile", "--config", "{conf}"],
        "{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{target}\n}}\n",
    ),
}


@judge("proxies")
def proxies(system: System, folder: Path) -> Verdict:
    """Behind nginx (buffering on), haproxy and caddy, idle timeouts of 8 s and heartbeats of 5: first byte, and still open."""
    said, content = [], True
    (folder / "proxied").mkdir()
    with System(folder / "proxied", HEARTBEAT_SECONDS="5") as proxied:
        for name, (command, text) in _PROXIES.items():
            try:
                first, is_open = _through(name, command, text, proxied, folder)
            except NotHere:
                said.append(f"{name} not here")
                continue
            content &= is_open
            said.append(
                f"{name}: CONNECTED after {1000 * first:.0f} ms, {'open' if is_open else 'cut'} for {_SILENCE_SECONDS} s"
            )
            print(said[-1])
    return Verdict(content, "; ".join(said))


def _through(name: str, command: list[str], text: str, system: System, folder: Path) -> tuple[float, bool]:
    """Seconds until CONNECTED, and whether the same connection is still open after _SILENCE_SECONDS without a message."""
    _program(command[0])
    port, conf = free_port(), folder / f"{name}.conf"
    conf.write_text(text.format(port=port, target=system.port))
    filled = [word.format(folder=folder, conf=conf) for word in command]
    process = subprocess.Popen(filled, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _accepts(port), seconds=15, what=f"{name} to listen")
        began = time.monotonic()
        stream = Stream(f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {system.token('bob')}"})
        first = stream.wait_for("CONNECTED", seconds=20).at - began
        time.sleep(_SILENCE_SECONDS)
        is_open = len(stream.heads) == 1
        stream.close()
        return first, is_open
    finally:
        process.terminate()
        process.wait(20)


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
