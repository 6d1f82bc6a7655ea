"""The external audits: the input of each program, and how its result is read."""

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support.external_audits.frame_corpus import build_frame_corpus
from tests.support.http_session import HttpSession
from tests.support.servers import make_nginx, make_self_signed_certificate
from tests.support.system import PROJECT_ROOT, System, wait_for
from tests.support.tcp_proxy import TcpProxy

AUDITS_DIR = Path(__file__).parent
_PYTHON_BIN_DIR = PROJECT_ROOT / ".venv-judges/bin"
_NODE_BIN_DIR = AUDITS_DIR / "node_modules/.bin"
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
_LIGHTHOUSE_PAGES = (
    "login",
    "inbox",
    "console",
    "console-new",
    "console-broadcasts-{broadcast}-figures",
    "console-people",
)
_LIGHTHOUSE_METRICS = (
    "first-contentful-paint",
    "largest-contentful-paint",
    "total-blocking-time",
    "cumulative-layout-shift",
)


class AuditUnavailable(Exception):
    """The program is not installed on this machine."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    has_passed: bool
    summary: str


Audit = Callable[[System, Path], AuditResult]
AUDITS: dict[str, Audit] = {}


def register_audit(name: str) -> Callable[[Audit], Audit]:
    def register(function: Audit) -> Audit:
        AUDITS[name] = function
        return function

    return register


def find_program(path: Path | str) -> str:
    program_path = shutil.which(str(path))
    if program_path is None:
        raise AuditUnavailable(Path(path).name)
    return program_path


def _run_program(
    *command: object,
    stdin: str | None = None,
    cwd: Path = AUDITS_DIR,
    environ: Mapping[str, str] | None = None,
    timeout_seconds: float = 300,
) -> subprocess.CompletedProcess:
    command_args = [str(word) for word in command]
    result = subprocess.run(
        command_args, input=stdin, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout_seconds
    )
    print((result.stdout + result.stderr)[-9000:].strip(), flush=True)
    return result


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1].strip()


@register_audit("sse-python")
def check_frames_with_python(system: System, folder: Path) -> AuditResult:
    result = _run_program(
        find_program(_PYTHON_BIN_DIR / "python"), "read_frames.py", stdin="\n".join(build_frame_corpus(3000))
    )
    return AuditResult(result.returncode == 0, "; ".join(result.stdout.strip().splitlines()))


@register_audit("eventsource-parser")
def check_frames_with_node(system: System, folder: Path) -> AuditResult:
    result = _run_program(find_program("node"), "read_frames.mjs", stdin="\n".join(build_frame_corpus(3000)))
    return AuditResult(result.returncode == 0, _last_line(result.stdout))


@register_audit("eventsource")
def check_resume_with_eventsource(system: System, folder: Path) -> AuditResult:
    """A client that is disconnected repeatedly during publishing gets every message once, in order."""
    proxy = TcpProxy("127.0.0.1", system.port)
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    output_path = folder / "eventsource.jsonl"
    with output_path.open("w") as output:
        process = subprocess.Popen(
            [find_program("node"), "resume.mjs", f"http://127.0.0.1:{proxy.port}/api/sse/connect", system.get_token("bob")],
            cwd=AUDITS_DIR, stdin=subprocess.PIPE, stdout=output,
        )  # fmt: skip
        wait_for(lambda: "CONNECTED" in output_path.read_text(), seconds=20, description="CONNECTED in eventsource")
        sent_ids = []
        for n in range(100):
            sent_ids.append(alice.publish(f"For eventsource {n}"))
            if n % 20 == 10:
                proxy.disconnect()

        def read_message_ids() -> list[int]:
            events = [json.loads(line) for line in output_path.read_text().splitlines()]
            ids = [event["data"]["id"] for event in events if event["type"] == "MESSAGE"]
            return [id for id in ids if id >= sent_ids[0]]  # earlier unread messages come first

        try:
            wait_for(
                lambda: len(set(read_message_ids())) >= len(sent_ids),
                seconds=60,
                description="all messages in eventsource",
            )
        except AssertionError as error:
            print(error)
        process.communicate(timeout=10)
    proxy.close()
    received_ids = read_message_ids()
    conclusion = "each once, in order" if received_ids == sent_ids else "not as published"
    return AuditResult(
        received_ids == sent_ids, f"{len(sent_ids)} published, cut off 5 times: {len(received_ids)} given, {conclusion}"
    )


@register_audit("schemathesis")
def run_schemathesis(system: System, folder: Path) -> AuditResult:
    """Skips the streams, which do not end; runs as an administrator without rate limits."""
    result = _run_program(
        find_program(_PYTHON_BIN_DIR / "schemathesis"), "--config-file", AUDITS_DIR / "schemathesis.toml", "run",
        f"{system.url}/api/openapi.json", "--url", system.url,
        "-H", f"Authorization: Bearer {system.get_token('alice', 'admin')}", "--exclude-path", "/api/sse/connect",
        "--exclude-checks", "positive_data_acceptance",
        "--max-examples", "40", "--request-timeout", "20", "--continue-on-failure", "--no-color",
        cwd=folder, timeout_seconds=900,
    )  # fmt: skip
    return AuditResult(result.returncode == 0, _last_line(result.stdout).strip("= "))


def _publish_message(system: System) -> int:
    """Publish a message that exists whatever earlier audits did; return its id."""
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    content = "# Heading\n\n**bold** and a [link](https://example.org)\n\n- one\n- two"
    id = alice.publish(f"For the judges {secrets.token_hex(4)}", content=content)
    alice.close()
    return id


def _save_pages(system: System, folder: Path) -> dict[str, Path]:
    """Save every page and fragment as a file."""
    broadcast_id = _publish_message(system)
    sessions = {name: HttpSession.sign_in(system, name) for name in ("alice", "bob")} | {None: HttpSession(system)}
    paths = {}
    for name, (username, path) in _PAGES.items():
        path = path.format(broadcast=broadcast_id)
        response = sessions[username].get(path)
        assert response.status == (404 if name == "error" else 200), (path, response.status)
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(response.text)
    return paths


@register_audit("html-validate")
def run_html_validate(system: System, folder: Path) -> AuditResult:
    files = _save_pages(system, folder)
    result = _run_program(
        find_program(_NODE_BIN_DIR / "html-validate"), "--config", AUDITS_DIR / "htmlvalidate.json", *files.values()
    )
    match = re.search(r"(\d+) problems?", result.stdout)
    return AuditResult(result.returncode == 0, f"{len(files)} pages and fragments, {match[1] if match else 0} problems")


@register_audit("lighthouse")
def run_lighthouse(system: System, folder: Path) -> AuditResult:
    """Accessibility 100 and best practices ≥ 95 on each page."""
    scores, has_passed, broadcast_id = [], True, _publish_message(system)
    for name in _LIGHTHOUSE_PAGES:
        username, path = _PAGES[name]
        path = path.format(broadcast=broadcast_id)
        page_scores = _score_page(system, folder, username, path, "accessibility", "best-practices")
        if isinstance(page_scores, AuditResult):
            return page_scores
        scores.append(f"{path} {'/'.join(map(str, page_scores))}")
        has_passed &= page_scores[0] == 100 and page_scores[1] >= 95
    return AuditResult(has_passed, ", ".join(scores))


@register_audit("lighthouse_10000")
def run_lighthouse_with_10000_unread(system: System, folder: Path) -> AuditResult:
    """Performance ≥ 95 for an inbox with 10,000 unread messages, with Lighthouse's mobile and desktop settings."""
    find_program(_NODE_BIN_DIR / "lighthouse")  # fail before the slow seeding
    system.run_module("tests.support.external_audits.seed_messages", "10000")
    scores = {}
    for device, options in {"phone": (), "desktop": ("--preset=desktop",)}.items():
        page_scores = _score_page(system, folder, "charlie", "/inbox", "performance", options=options)
        if isinstance(page_scores, AuditResult):
            return page_scores
        [scores[device]] = page_scores
    return AuditResult(min(scores.values()) >= 95, ", ".join(f"{device} {score}" for device, score in scores.items()))


def _score_page(
    system: System, folder: Path, username: str | None, path: str, *categories: str, options: tuple[str, ...] = ()
) -> list[int] | AuditResult:
    """Return a page's scores in the order of `categories`, or a result without them. Prints failures and metrics."""
    chromium, program = find_program("chromium"), find_program(_NODE_BIN_DIR / "lighthouse")
    headers, report = folder / "headers.json", folder / f"report{path.replace('/', '-')}.json"
    headers.write_text(
        json.dumps({"Cookie": HttpSession.sign_in(system, username).headers["Cookie"]} if username else {})
    )
    report.unlink(missing_ok=True)
    subprocess.run(
        [program, system.url + path, "--quiet", "--output=json", f"--output-path={report}", f"--extra-headers={headers}",
         f"--only-categories={','.join(categories)}", "--chrome-flags=--headless=new --no-sandbox", *options],
        env={"CHROME_PATH": chromium, "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
        cwd=AUDITS_DIR, timeout=240, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if not report.exists():
        return AuditResult(False, f"lighthouse ended without a report on {path}")
    report_data = json.loads(report.read_text())
    raw_scores = [report_data["categories"][category]["score"] for category in categories]
    if None in raw_scores:
        return AuditResult(
            False, f"no score for {path}: {report_data.get('runtimeError', {}).get('message', 'unknown')}"
        )
    scores = [round(100 * score) for score in raw_scores]
    audits = report_data["audits"].values()
    failing = [audit["id"] for audit in audits if audit.get("score") == 0 and audit["scoreDisplayMode"] == "binary"]
    metrics = [
        f"{a['id']} {a['displayValue']}" for a in audits if a["id"] in _LIGHTHOUSE_METRICS and "displayValue" in a
    ]
    print(f"{path}: {scores} of {categories}; failing: {', '.join(failing) or 'nothing'}; {', '.join(metrics)}")
    return scores


@register_audit("csp_evaluator")
def run_csp_evaluator(system: System, folder: Path) -> AuditResult:
    policy = HttpSession(system).get("/login").headers["Content-Security-Policy"]
    result = _run_program(find_program("node"), "policy.mjs", policy)
    return AuditResult(result.returncode == 0, _last_line(result.stdout))


@register_audit("observatory")
def run_observatory(system: System, folder: Path) -> AuditResult:
    """Run MDN's Observatory as its site does, on a production system behind `deploy/nginx.conf`."""
    node, _, _ = map(find_program, ("node", "nginx", "openssl"))
    package_dir = AUDITS_DIR / "node_modules/@mdn/mdn-http-observatory"
    if not package_dir.exists():
        raise AuditUnavailable(package_dir.name)
    (package_dir / "conf/hsts-preload.json").write_text("{}")  # the browsers' preload list; it has no localhost
    settings = {"APP_ENV": "production", "TRUSTED_PROXY_HOPS": "1", "SECRET_KEY": secrets.token_hex(32)}
    (folder / "observed").mkdir()
    with ExitStack() as stack:
        target_system = System(folder / "observed", **settings)
        stack.push(target_system)
        target_system.start()  # not `with`: that waits for worker ids, which production responses do not have
        certificate = make_self_signed_certificate(folder / "tls")
        proxy = make_nginx(folder / "nginx", [target_system.port, target_system.port], certificate=certificate)
        stack.callback(proxy.stop)
        proxy.start()
        environ = os.environ | {"NODE_EXTRA_CA_CERTS": str(certificate[0])}
        result = _run_program(node, package_dir / "src/scan.js", f"localhost:{proxy.port}", environ=environ)
    report = json.loads(result.stdout)
    if "error" in report:
        return AuditResult(False, report["error"])
    scan = report["scan"]
    failed_tests = [f", {name}: {test['result']}" for name, test in report["tests"].items() if not test["pass"]]
    return AuditResult(scan["grade"] == "A+", f"{scan['grade']}, {scan['score']} points{''.join(failed_tests)}")


@register_audit("slowhttptest")
def run_slowhttptest(system: System, folder: Path) -> AuditResult:
    """Others are served while 500 connections send slow headers (-H), slow bodies (-B) or read slowly (-X)."""
    program, slowest_seconds, lines = find_program("slowhttptest"), 0.0, []
    for attack in ("-H", "-B", "-X"):
        process = subprocess.Popen(
            [program, attack, "-c", "500", "-r", "200", "-i", "2", "-l", "12", "-u", f"{system.url}/login", "-p", "3"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        worst_seconds, failed_count = 0.0, 0
        while process.poll() is None:
            started_at = time.monotonic()
            try:
                status = HttpSession(system).get("/login").status
            except OSError:
                status = None
            failed_count += status != 200
            worst_seconds = max(worst_seconds, time.monotonic() - started_at)
            time.sleep(0.2)
        slowest_seconds = max(slowest_seconds, worst_seconds)
        lines.append(f"{attack} worst {worst_seconds:.1f} s, {failed_count} failed")
        print(lines[-1])
    return AuditResult(all(line.endswith(" 0 failed") for line in lines), "; ".join(lines))
