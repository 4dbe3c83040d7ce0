"""The repository's own files: what deploys Millrace, what keeps its parts apart, what pins it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROFILES = {"select": "select", "api": "http"}  # of roles that a pipeline has if its file says so
ROLES = ("ingest", "features", "learn", "serve", "train", *PROFILES)


def compose() -> dict[str, Any]:
    """Read the compose file as written, its merge keys resolved."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return content


def program(name: str) -> str:
    """Find a program of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str) -> None:
    """Run a checker; its output is the failure's message."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_the_compose_schema() -> None:
    """The schema is the one of the compose specification."""
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_every_role_is_a_service_that_serves_metrics() -> None:
    """One service per role, started by the command a user would type."""
    services = compose()["services"]
    for role in ROLES:
        command = services[role]["command"]

        assert command[:2] == ["run", role]
        assert command[-2:] == ["--metrics", "0.0.0.0:9100"]
        assert services[role]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
        assert services[role]["environment"].items() >= {
            ("MILLRACE_KAFKA", "kafka:9092"),
            ("MILLRACE_REDIS", "redis://redis:6379/0"),
        }
        assert services[role].get("profiles", []) == ([PROFILES[role]] if role in PROFILES else [])
    assert {"kafka", "redis", "prometheus", "grafana"} <= services.keys()


def test_every_image_is_pinned_and_every_file_is_there() -> None:
    """A foreign image without a tag changes under our feet; a missing file becomes an empty directory."""
    content = compose()
    for name, service in content["services"].items():
        if name not in ROLES:
            assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            is_there = (ROOT / source).is_file() if source.startswith(".") else source in content["volumes"]
            assert is_there, volume


def test_only_this_machine_reaches_the_published_ports() -> None:
    """Nothing here asks for a password, so nothing may listen to the network."""
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_prometheus_asks_every_role() -> None:
    """A role without a scrape would be a blind spot."""
    content = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
    (targets,) = content["scrape_configs"][0]["dns_sd_configs"]

    assert tuple(targets["names"]) == ROLES
    assert targets["port"] == 9100


def test_the_dashboard_shows_only_documented_metrics() -> None:
    """Each name in a panel is in docs/metrics.md."""
    documented = set(re.findall(r"millrace_[a-z_]+", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")))
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "millrace.json").read_text(encoding="utf-8"))
    asked = {
        name.removesuffix("_bucket")
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"millrace_[a-z_]+", target["expr"])
    }

    assert asked
    assert asked <= documented


def test_parts_import_one_way_and_through_their_doors() -> None:
    """Layers and doors as pyproject.toml declares them."""
    run(program("lint-imports"))


def test_object_stores_have_one_door() -> None:
    """import-linter knows packages, not their parts: `pyarrow.fs` is named in one file alone."""
    sources = [path for part in ("streams", "models", "consumers", "serving") for path in (ROOT / part).glob("*.py")]
    naming = [
        path.name for path in sources if re.search(r"pyarrow(\.| import.*\b)fs\b", path.read_text(encoding="utf-8"))
    ]

    assert naming == ["object_folder.py"]


def test_the_lock_is_exact_and_is_what_runs() -> None:
    """Versions only, no registry; what is installed is what is pinned."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    lines = [line.partition(" ;")[0] for line in lines]  # what only torch on Linux needs says so
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", f"{name}=={at}") for name, at in pinned.items())
    assert {name: version(name) for name in pinned} == pinned


def test_what_the_package_asks_for_is_in_the_lock() -> None:
    """No dependency is installed by luck."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-") for requirement in asked}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower().replace("_", "-")

    assert {name for name in names - {"millrace"} if f"\n{name}==" not in lock} == set()


def test_the_lock_names_whatever_its_packages_need() -> None:
    """Nothing is left for pip to choose."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if line and not line.startswith("#")}
    needed = {
        canonicalize_name(requirement.name)
        for name in pinned
        for requirement in map(Requirement, requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }

    assert needed - pinned == set()


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_shell_and_executable(script: str) -> None:
    """A fresh clone can run them."""
    path = ROOT / script
    run("bash", "-n", script)

    assert path.stat().st_mode & 0o111


def test_every_test_that_the_page_on_exactness_names_is_there() -> None:
    """Each sentence of rules 9 to 17 has a test, by file and name."""
    page = (ROOT / "docs" / "exactness.md").read_text(encoding="utf-8").partition("## Where each rule is tested")[2]
    table = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \d", line)]
    named = [re.findall(r"`(\w+/\w+\.py)::(\w+)`", tests) for _, _, tests in table]
    missing = [
        f"{file}::{name}"
        for tests in named
        for file, name in tests
        if f"\ndef {name}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]

    assert sorted({int(rule.strip("| ")) for rule, _, _ in table}) == list(range(9, 19))
    assert all(named)
    assert missing == []
