#!/usr/bin/env python3
"""`make observe`: a Hotbed under a bounded load, Prometheus beside it, and the dashboards.

Starts a Hotbed of its own on this machine's engine (or takes yours: --address and --key-file), a Prometheus with the
rules of alerts/, and a load of sessions, warm-ups, commands and builds. Where `grafana` is installed it is started with
the dashboards provisioned; else the panels are drawn as SVG. Prints where to look. Everything it started ends with it.
Python's standard library is all it needs.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import svg
from boards import BOARDS
from model import RATE

HERE = Path(__file__).resolve().parent
PREFIX = "observe"


def say(what, detail):
    print(f"{what:<9} {detail}", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, holds, seconds=120.0):
    """Asks until there is an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.2)
    raise SystemExit(f"observe: {what}: not within {seconds:.0f} s")


# ------------------------------------------------------------------------------------------------ HTTP


class Api:
    def __init__(self, address, key):
        self.address, self.key = address, key

    def call(self, method, path, body=None):
        """Status and answer; status 0 where nobody answers."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
        except OSError:
            return 0, None
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body):
        return self.call("POST", path, body)


# ------------------------------------------------------------------------------------------------ a Hotbed of its own

CONFIG = """\
listen: 127.0.0.1:{port}
state_dir: {dir}/state
budget: {{ memory: 8GiB, cpus: 16 }}
repos:
  - name: observe/api
    url: {dir}/api.git
    image: &image
      base: {{ packages: {{ suite: bookworm, include: [git] }} }}
      schedule: "* * * * *"
      setup: ["sleep 1; echo installed > /opt/installed"]
      warm: ["git log -1"]
      verify: "test -f README.md"
      max_age: 1h
    pool: {{ min: 2, max: 4, warmup_ttl: 5s }}
    resources: &small {{ cpus: 0.5, memory: 256MiB }}
    network: none
  - name: observe/web
    url: {dir}/web.git
    image: {{ base: {{ packages: {{ suite: bookworm, include: [git] }} }}, schedule: "*/30 * * * *" }}
    pool: {{ min: 1, max: 2 }}
    resources: {{ cpus: 0.5, memory: 256MiB }}
    network: none
  - name: observe/rare
    url: {dir}/rare.git
    image: {{ base: {{ packages: {{ suite: bookworm, include: [git] }} }}, schedule: "@daily" }}
    pool: {{ min: 0, max: 2 }}
    resources: {{ cpus: 0.5, memory: 256MiB }}
    network: none
"""


class Hotbed:
    """`hotbed serve` with three small repos, and nothing left of it afterwards."""

    def __init__(self, binary, cache):
        self.dir = Path(tempfile.mkdtemp(prefix="hotbed-observe-"))
        self.repos = ["observe/api", "observe/web", "observe/rare"]
        for name in self.repos:
            self.commit(name, "first")
        bases = self.dir / "state" / "bases"
        if cache and (cache / "bases").is_dir():
            # A root filesystem takes a minute to make, and the demo has made this one.
            bases.mkdir(parents=True)
            for file in (cache / "bases").iterdir():
                os.link(file, bases / file.name)
        os.chmod(self.dir, 0o700)
        port = free_port()
        config = self.dir / "hotbed.yaml"
        config.write_text(CONFIG.format(port=port, dir=self.dir))
        self.address, self.key_file = f"127.0.0.1:{port}", self.dir / "state" / "api.key"
        self.log = open(self.dir / "log", "w")
        self.child = subprocess.Popen([binary, "serve", "--config", config], stdin=subprocess.DEVNULL, stderr=self.log)
        until("Hotbed is up", lambda: self.ended() or Api(self.address, "").get("/healthz")[0] == 200)

    def ended(self):
        if self.child.poll() is not None:
            raise SystemExit(f"observe: hotbed serve ended with {self.child.returncode}:\n{(self.dir / 'log').read_text()[-2000:]}")

    def commit(self, repo, text, **files):
        """A commit on `main` upstream; makes the repository where there is none."""
        bare = self.dir / f"{repo.split('/')[1]}.git"
        work = self.dir / f"{repo.split('/')[1]}-work"
        git = ["git", "-c", "user.name=Upstream", "-c", "user.email=up@example.invalid", "-c", "init.defaultBranch=main"]

        def run(*args, cwd=work):
            subprocess.run([*git, *args], cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        if not bare.exists():
            run("init", "-q", "--bare", str(bare), cwd=self.dir)
            run("clone", "-q", str(bare), str(work), cwd=self.dir)
        (work / "README.md").write_text(text + "\n")
        run("add", "-A")
        run("commit", "-q", "-m", text)
        run("push", "-q", "origin", "HEAD:main")

    def end(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(40)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()
        self.clean_engine()
        shutil.rmtree(self.dir, ignore_errors=True)

    def clean_engine(self):
        """A server that stops leaves its sandboxes to the next; this one has no next."""
        database = self.dir / "state" / "hotbed.db"
        if database.exists():
            with sqlite3.connect(database) as db:
                (instance,) = db.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
            subprocess.run([HERE.parent / "scripts" / "clean-engine", instance.decode()], check=False)


# ------------------------------------------------------------------------------------------------ load


class Load(threading.Thread):
    """People at work, a few at a time: types, gets a session, runs a command or two, goes. Bounded in time."""

    def __init__(self, api, repos, seconds, commit):
        super().__init__(daemon=True)
        self.api, self.repos, self.commit = api, repos, commit
        self.until = time.monotonic() + seconds
        self.stop = threading.Event()
        self.done = 0

    def run(self):
        turn = 0
        while time.monotonic() < self.until and not self.stop.is_set():
            turn += 1
            # Mostly one repo, sometimes several at once, so that a pool runs empty.
            crowd = 4 if turn % 5 == 0 else 1
            people = [threading.Thread(target=self.person, args=(turn * 10 + i,), daemon=True) for i in range(crowd)]
            for person in people:
                person.start()
            for person in people:
                person.join(120)
            if turn % 6 == 3 and self.commit:
                self.commit(self.repos[0], f"change {turn}")
            self.stop.wait(0.5)

    def person(self, n):
        repo = self.repos[0] if n % 7 else self.repos[n // 7 % len(self.repos)]
        order = {"repo": repo, "user": {"login": f"user-{n % 9}"}}
        if n % 2:
            _, warmup = self.api.post("/v1/warmups", {"repo": repo, "client": f"tab-{n}"})
            if n % 9 == 1:
                return  # changed its mind
            if isinstance(warmup, dict) and "id" in warmup:
                order["warmup"] = warmup["id"]
        status, session = self.api.post("/v1/sessions", order)
        if status != 201:
            return
        path = f"/v1/sessions/{session['id']}"
        # Waits at the gate until the tree is at the tip.
        self.api.call("PUT", f"{path}/files/note.txt", {"from": n})
        self.api.get(f"{path}/sync?wait_seconds=60")
        work = "echo x >> work.txt && git add -A && git commit -qm Work && git push -q origin HEAD"
        for command in ("git status --short", "sleep 0.2", work):
            self.api.post(f"{path}/exec", {"cmd": command, "wait": True})
        if n % 3 == 0:
            self.api.post(f"{path}/pull-requests", {"title": "Work"})
            self.api.post(f"{path}/snapshots", {})
        self.api.call("DELETE", f"{path}?wait=true")
        if n % 4 == 0:
            status, follow = self.api.post("/v1/sessions", {"parent": session["id"], "user": order["user"]})
            if status == 201:
                self.api.get(f"/v1/sessions/{follow['id']}/sync?wait_seconds=60")
                self.api.call("DELETE", f"/v1/sessions/{follow['id']}?wait=true&discard=true")
        self.done += 1


# ------------------------------------------------------------------------------------------------ Prometheus


class Prometheus:
    def __init__(self, dir, address, key_file, port):
        self.address = f"127.0.0.1:{port or free_port()}"
        (dir / "alerts").mkdir(parents=True, exist_ok=True)
        for rules in sorted((HERE / "alerts").glob("*.yml")):
            # Nobody waits five minutes for the first of them here.
            (dir / "alerts" / rules.name).write_text(rules.read_text().replace("interval: 5m", "interval: 5s"))
        config = (HERE / "prometheus.yml").read_text()
        for what, by in (("127.0.0.1:7070", address), ("/var/lib/hotbed/api.key", str(key_file)), ("15s", "2s")):
            assert what in config, what
            config = config.replace(what, by)
        (dir / "prometheus.yml").write_text(config)
        self.log = open(dir / "prometheus.log", "w")
        self.child = subprocess.Popen(
            [
                "prometheus", "--enable-feature=exemplar-storage", f"--config.file={dir / 'prometheus.yml'}", f"--storage.tsdb.path={dir / 'data'}",
                f"--web.listen-address={self.address}", "--storage.tsdb.retention.time=7d", "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        until("Prometheus is up", lambda: self.get("/-/ready")[0] == 200, 60)

    def get(self, path):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def ask(self, route, **params):
        status, text = self.get(f"/api/v1/{route}?{urllib.parse.urlencode(params)}")
        answer = json.loads(text) if text else {}
        if status != 200:
            raise SystemExit(f"observe: Prometheus refuses {params}: {answer.get('error', status)}")
        return answer["data"]

    def end(self):
        self.child.terminate()
        self.child.wait()
        self.log.close()


def named(legend, labels):
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend or labels.get("__name__", "")


def ask_panel(prometheus, panel, repo, begin, end):
    """The series of a panel, as svg.py draws them; those without a number are left out."""
    series = []
    for query in panel.queries:
        expr = query.expr.replace(RATE, "1m").replace("$repo", repo)
        if panel.kind == "lines":
            step = max(1, round((end - begin) / 240))
            found = prometheus.ask("query_range", query=expr, start=begin, end=end, step=step)["result"]
            points = [(s["metric"], s["values"]) for s in found]
        else:
            data = prometheus.ask("query", query=expr, time=end)
            found = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
            points = [(s["metric"], [s["value"]]) for s in found]
        for labels, values in points:
            numbers = [(float(at), float(value)) for at, value in values]
            numbers = [(at, value) for at, value in numbers if value == value and abs(value) != float("inf")]
            if numbers:
                series.append((named(query.legend, labels), numbers))
    return series


def draw(prometheus, out, repo, begin, end):
    """Draws every dashboard; answers the panels that have nothing to show."""
    empty, pages = [], []
    for board in BOARDS:
        drawn = []
        for i, panel in enumerate(board.panels()):
            series = ask_panel(prometheus, panel, repo, begin, end)
            if not series:
                empty.append(f"{board.title}: {panel.title}")
            drawn.append(svg.draw(panel, series))
            folder = out / board.uid
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02}.svg").write_text(drawn[-1])
        (out / f"{board.uid}.html").write_text(svg.page(board, drawn))
        pages.append(f'<li><a href="{board.uid}.html">{board.title}</a>: {board.about}</li>')
    index = f'<!doctype html><meta charset="utf-8"><title>Hotbed</title><ul>{"".join(pages)}</ul>'
    (out / "index.html").write_text(index)
    return empty


# ------------------------------------------------------------------------------------------------ Grafana


class Grafana:
    """Started with the dashboards provisioned, open to whoever is on this machine."""

    def __init__(self, binary, dir, source):
        self.address = f"127.0.0.1:{free_port()}"
        provisioning = dir / "provisioning"
        for file in (HERE / "provisioning").rglob("*.yml"):
            target = provisioning / file.relative_to(HERE / "provisioning")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text().replace("http://127.0.0.1:9090", f"http://{source}")
            target.write_text(text.replace("/etc/hotbed/dashboards/grafana", str(HERE / "grafana")))
        port = self.address.rsplit(":", 1)[1]
        env = os.environ | {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1", "GF_SERVER_HTTP_PORT": port, "GF_PATHS_DATA": str(dir / "grafana"),
            "GF_PATHS_PROVISIONING": str(provisioning), "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false", "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        }
        command = [binary, "server"] if Path(binary).name == "grafana" else [binary]
        home = next((d for d in ("/usr/share/grafana", "/usr/local/share/grafana") if Path(d).is_dir()), None)
        command += [f"--homepath={home}"] if home else []
        self.log = open(dir / "grafana.log", "w")
        self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def end(self):
        self.child.terminate()
        self.child.wait()
        self.log.close()


# ------------------------------------------------------------------------------------------------ the whole


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--binary", help="the `hotbed` to start")
    parser.add_argument("--cache", type=Path, help="the demo's cache, for its root filesystem")
    parser.add_argument("--address", help="a Hotbed that runs: host:port; it gets no load")
    parser.add_argument("--key-file", type=Path, help="its API key")
    parser.add_argument("--seconds", type=int, default=90, help="how long the load lasts")
    parser.add_argument("--out", type=Path, default=HERE.parent / "target" / "observe", help="where to draw")
    parser.add_argument("--port", type=int, default=0, help="where Prometheus listens; a free port if not given")
    parser.add_argument("--once", action="store_true", help="end when everything is drawn")
    args = parser.parse_args()
    if bool(args.address) == bool(args.binary) or bool(args.address) != bool(args.key_file):
        parser.error("either --binary, or --address with --key-file")
    return args


def main():
    args = arguments()
    if not shutil.which("prometheus"):
        raise SystemExit("observe: there is no `prometheus`; `make setup` installs Debian's package")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    running = []
    try:
        observe(args, running)
    except KeyboardInterrupt:
        print()
    finally:
        for thing in reversed(running):
            thing.end()


def observe(args, running):
    begin, own = time.time(), None
    if args.binary:
        own = Hotbed(args.binary, args.cache)
        running.append(own)
    address, key_file = (own.address, own.key_file) if own else (args.address, args.key_file)
    api = Api(address, key_file.read_text().strip())
    say("hotbed", f"http://{address}")
    prometheus = Prometheus(args.out / "prometheus", address, key_file.resolve(), args.port)
    running.append(prometheus)
    say("prometheus", f"http://{prometheus.address}/alerts, …/graph; its files are in {args.out / 'prometheus'}")
    repos = [item["name"] for item in api.get("/v1/repos")[1]["items"]]
    binary = shutil.which("grafana") or shutil.which("grafana-server")
    if binary:
        grafana = Grafana(binary, args.out, prometheus.address)
        running.append(grafana)
        say("grafana", f"http://{grafana.address}/d/hotbed-overview (and …-repo, -builds, -sessions, -engine, -cost, -slo)")
    if own:
        say("images", "are being built")
        until("every repo has an image", lambda: own.ended() or all(r["image"] for r in api.get("/v1/repos")[1]["items"]), 300)
        say("load", f"{args.seconds} s of sessions on {', '.join(repos)}")
        load = Load(api, repos, args.seconds, own.commit)
        load.start()
        load.join()
        say("load", f"{load.done} people have worked")
        time.sleep(5)  # the last of it is scraped
    empty = draw(prometheus, args.out, repos[0], begin, time.time())
    say("drawn", f"file://{args.out / 'index.html'}" + ("" if binary else " (Grafana is not installed here)"))
    if empty:
        say("no data", "; ".join(empty))
    if not args.once:
        print("\nEverything stays up, and the drawings are made anew every 30 s; end it with Ctrl-C.", flush=True)
        while True:
            time.sleep(30)
            draw(prometheus, args.out, repos[0], max(begin, time.time() - 3600), time.time())


if __name__ == "__main__":
    main()
