"""How each proxy is started. To add one: a function here, and perhaps a template in `conf/`."""

import functools
import glob
import os
import pathlib
import shutil
import string
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("EVENKEEL_BENCH_CACHE", pathlib.Path.home() / ".cache/evenkeel-bench"))
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
OWN = TARGET.resolve() / "release/evenkeel-bench-proxy"


class Missing(Exception):
    """A program that is not installed."""


def program(name):
    """An installed program."""
    wheels = glob.glob(f"{CACHE}/venv/lib/python3*/site-packages/*/_bin/{name}")
    path = wheels[0] if wheels else shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not path:
        raise Missing(f"{name} is not installed: run bench/proxy/install.sh")
    return path


def evenkeel_program():
    path = os.environ.get("EVENKEEL")
    if not path or not os.access(path, os.X_OK):
        raise Missing("EVENKEEL names no program: run.sh builds one")
    return os.path.abspath(path)


@functools.cache
def evenkeel_knows(option):
    text = subprocess.run([evenkeel_program(), "proxy", "--help"], capture_output=True, text=True, check=True).stdout
    return option in text


def evenkeel(place):
    """With its own defaults: least_request, health checks, figures for metrics."""
    workers = ["--workers", str(place.workers)] if evenkeel_knows("--workers") else []
    return [evenkeel_program(), "proxy", ",".join(place.backends), "--listen", place.listen, *workers]


def haproxy(place):
    return [program("haproxy"), "-db", "-f", template("haproxy.cfg", place)]


def haproxy_tcp(place):
    return [program("haproxy"), "-db", "-f", template("haproxy-tcp.cfg", place)]


def nginx(place):
    return [program("nginx"), "-e", "stderr", "-c", template("nginx.conf", place)]


def envoy(place):
    config = template("envoy.yaml", place)
    options = ["--concurrency", str(place.workers), "--log-level", "off", "--disable-hot-restart"]
    return [program("envoy"), "-c", config, *options]


def floor(place):
    return [str(OWN), "floor", place.listen, ",".join(place.backends)]


def direct(_place):
    """No proxy: the load calls one backend, and the CPU time is the backend's."""
    return None


PROXIES = {
    "evenkeel": evenkeel,
    "haproxy": haproxy,
    "nginx": nginx,
    "envoy": envoy,
    "haproxy-tcp": haproxy_tcp,
    "floor": floor,
    "direct": direct,
}


def template(name, place):
    """Fills a template. A line that names a backend is repeated for each of them."""
    host, port = place.listen.split(":")
    known = {"LISTEN": place.listen, "LISTEN_HOST": host, "LISTEN_PORT": port, "WORKERS": place.workers,
             "FOLDER": place.folder}
    lines = []
    for line in (HERE / "conf" / name).read_text().splitlines():
        if "$BACKEND" in line or "$HOST" in line:
            for number, backend in enumerate(place.backends):
                host, port = backend.split(":")
                values = known | {"NUMBER": number, "BACKEND": backend, "HOST": host, "PORT": port}
                lines.append(string.Template(line).substitute(values))
        else:
            lines.append(string.Template(line).substitute(known))
    filled = pathlib.Path(place.folder) / name
    filled.write_text("\n".join(lines) + "\n")
    return str(filled)


def version(name):
    """The first line of what a proxy says of itself; None for what has no versions."""
    commands = {"evenkeel": (evenkeel_program, "--version"), "haproxy": (lambda: program("haproxy"), "-v"),
                "nginx": (lambda: program("nginx"), "-v"), "envoy": (lambda: program("envoy"), "--version")}
    if name not in commands:
        return None
    find, option = commands[name]
    said = subprocess.run([find(), option], capture_output=True, text=True, check=True)
    return (said.stdout + said.stderr).strip().splitlines()[0].replace(find(), "").strip()
