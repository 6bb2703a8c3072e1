"""The documentation matches the code: options, exit codes, JSON, plugin examples, links."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import jsonschema
import pytest

from ezpz import errors
from ezpz.cli.app import InternalError, main
from ezpz.launch.launchers.base import LAUNCHERS
from ezpz.yeet.engines.base import ENGINES
from ezpz.yeet.strategies.base import STRATEGIES
from tests.waiting import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ezpz.runtime.plugins import Registry

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
SCHEMAS = DOCS / "reference" / "schemas"
PAGES = sorted([*DOCS.rglob("*.md"), *(REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG"))])
COMMANDS = (("yeet", "env"), ("yeet", "tar"), ("yeet", "status"), ("yeet", "clean"), ("launch",))
JOB_VARIABLES = ("EZPZ_", "PBS_", "SLURM_", "HOSTFILE", "VIRTUAL_ENV", "CONDA_")
DEVELOPMENT_PATHS = re.compile(r"(?<![\w.])(/work/|/root\b|/var/tmp|~?/\.pyenv|\.\./shared)")


def page(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, without the headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if "---" not in line]


# The command line


def command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        ctx = click.Context(found)
        inner = found.get_command(ctx, name)
        assert inner is not None
        found = inner
    return found


def declared(path: tuple[str, ...]) -> dict[frozenset[str], frozenset[str]]:
    """Return the options of a command by their names, with their environment variables."""
    found = {}
    for option in command(path).params:
        if isinstance(option, click.Option):
            variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
            found[frozenset((*option.opts, *option.secondary_opts))] = frozenset(variables)
    return found


def documented(path: tuple[str, ...]) -> dict[frozenset[str], frozenset[str]]:
    found = {}
    for cells in rows(section(page("reference/cli.md"), f"ezpz {' '.join(path)}")):
        names = frozenset(re.findall(r"(?<![\w-])--?[a-z][a-z_-]*", cells[0]))
        if names:
            found[names] = frozenset(re.findall(r"EZPZ_[A-Z_]+", cells[2]))
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_has_every_option_and_its_variables(path: tuple[str, ...]) -> None:
    assert documented(path) == declared(path)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_has_the_defaults(path: tuple[str, ...]) -> None:
    table = {tuple(re.findall(r"--[a-z-]+", cells[0]))[:1]: cells for cells in rows(page("reference/cli.md"))}
    for option in command(path).params:
        if isinstance(option, click.Option) and option.show_default and option.default is not None:
            default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
            assert f"`{default}`" in table[(option.opts[-1],)][1]


@pytest.mark.parametrize(
    ("path", "option", "registry"),
    [
        (("yeet", "env"), "--strategy", STRATEGIES),
        (("yeet", "env"), "--engine", ENGINES),
        (("launch",), "--launcher", LAUNCHERS),
    ],
)
def test_help_and_page_list_every_built_in_choice(
    path: tuple[str, ...], option: str, registry: Registry[object]
) -> None:
    (found,) = (each for each in command(path).params if isinstance(each, click.Option) and option in each.opts)
    (cells,) = (row for row in rows(section(page("reference/cli.md"), f"ezpz {' '.join(path)}")) if option in row[0])
    names = set(registry.names())
    assert names - set(re.findall(r"[\w-]+", found.help or "")) == set()
    assert names - set(re.findall(r"`([\w-]+)`", cells[-1])) == set()


def test_every_command_has_a_section() -> None:
    group = command(("yeet",))
    assert isinstance(group, click.Group)
    names = {("yeet", name) for name in group.commands} | {(name,) for name in main.list_commands(click.Context(main))}
    older = section(page("reference/cli.md"), "Older names")
    for name in names - {("yeet",)} - set(COMMANDS):
        assert f"ezpz {' '.join(name)}`" in older


# Exit codes


def classes() -> Iterator[type[errors.EzpzError]]:
    pending = [errors.EzpzError]
    while pending:
        each = pending.pop(0)
        if each.__module__ in ("ezpz.errors", "ezpz.cli.app"):
            yield each
            pending += each.__subclasses__()


def test_the_page_has_every_exit_code() -> None:
    found = [
        (int(cells[0]), cells[1].strip("`"), cells[2].strip("`"))
        for cells in rows(page("reference/exit-codes.md"))
        if cells[0].isdigit() and cells[1]
    ]
    assert sorted(found) == sorted((each.exit_code, each.code, each.__name__) for each in classes())


# JSON


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """Return every schema by the `schema` or `format` of its documents."""
    found = {}
    for path in SCHEMAS.glob("*.schema.json"):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        mark = schema["properties"].get("schema") or schema["properties"]["format"]
        assert schema["$id"] == f"urn:{mark['const'].replace('/', ':')}"
        found[mark["const"]] = schema
    return found


class Here:
    """`ezpz` on this host only, with a working directory."""

    def __init__(self, directory: Path, schemas: Mapping[str, Any]) -> None:
        self.directory = directory
        self.schemas = schemas
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(JOB_VARIABLES)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "ezpz", *arguments]
        return subprocess.run(
            argv,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def document(self, *arguments: str) -> tuple[dict[str, Any], int]:
        """Return the JSON document that a command prints, checked with its schema, and the exit status."""
        done = self.run(*arguments, "--json")
        document = json.loads(done.stdout)
        self.validate(document, document["schema"])
        return document, done.returncode

    def validate(self, document: object, schema: str) -> None:
        jsonschema.Draft202012Validator(self.schemas[schema]).validate(document)


@pytest.fixture
def here(tmp_path: Path, schemas: dict[str, Any]) -> Here:
    host = Here(tmp_path, schemas)
    source = tmp_path / "demo" / "bin"
    source.mkdir(parents=True)
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "alias").symlink_to("tool")
    return host


ME = ("--hosts", "localhost")


@pytest.mark.processes
def test_a_report_is_as_its_schema_says(here: Here) -> None:
    done, status = here.document("yeet", "demo", "--dst", str(here.directory / "copy"), *ME)
    assert (done["schema"], status, done["status"]) == ("ezpz/yeet-report/1", 0, "success")
    again, _ = here.document("yeet", "demo", "--dst", str(here.directory / "copy"), *ME)
    assert again["nodes"][0]["unchanged"]


@pytest.mark.processes
def test_a_failed_report_is_as_its_schema_says(here: Here) -> None:
    (here.directory / "copy").mkdir()
    done, status = here.document("yeet", "demo", "--dst", str(here.directory / "copy"), *ME)
    assert (done["status"], status) == ("failure", 21)
    assert done["nodes"][0]["failure"]["code"] == "destination-not-ours"


@pytest.mark.processes
def test_a_plan_is_as_its_schema_says(here: Here) -> None:
    done, status = here.document("yeet", "demo", "--dry-run", "--min-success-nodes", "1", *ME)
    assert (done["schema"], status) == ("ezpz/yeet-plan/1", 0)
    assert done["plan"]["threshold"] == 1


@pytest.mark.processes
def test_an_archive_and_its_plan_are_as_their_schemas_say(here: Here) -> None:
    done, status = here.document("yeet", "tar", "demo")
    assert (done["schema"], status) == ("ezpz/archive/1", 0)
    plan, _ = here.document("yeet", "demo.tar.zst", "--dry-run", *ME)
    assert plan["plan"]["source"]["kind"] == "archive"
    report, _ = here.document("yeet", "demo.tar.zst", "--dst", str(here.directory / "copy"), *ME)
    assert report["kind"] == "tool"


@pytest.mark.processes
def test_a_status_is_as_its_schema_says(here: Here) -> None:
    destination = str(here.directory / "copy")
    absent, status = here.document("yeet", "status", destination, *ME)
    assert (absent["destinations"][0]["nodes"][0]["state"], status) == ("absent", 1)
    here.document("yeet", "demo", "--dst", destination, *ME)
    current, status = here.document("yeet", "status", destination, *ME)
    state = current["destinations"][0]["nodes"][0]["state"]
    assert (current["schema"], state, status) == ("ezpz/yeet-status/2", "current", 0)


@pytest.mark.processes
def test_a_clean_is_as_its_schema_says(here: Here) -> None:
    destination = str(here.directory / "copy")
    here.document("yeet", "demo", "--dst", destination, *ME)
    shown, status = here.document("yeet", "clean", destination, *ME)
    assert (shown["schema"], shown["done"], status) == ("ezpz/yeet-clean/1", False, 2)
    done, status = here.document("yeet", "clean", destination, "--yes", *ME)
    assert (done["done"], done["freed"], status) == (True, shown["frees"], 0)
    assert not (here.directory / "copy").exists()


@pytest.mark.processes
def test_leaks_are_as_their_schema_says(here: Here) -> None:
    source, destination = here.directory / "env", str(here.directory / "copy")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", source], check=True)
    here.document("yeet", str(source), "--dst", destination, *ME)
    none, status = here.document("yeet", "status", "--leaks", destination, *ME)
    assert (none["schema"], none["leaks"], status) == ("ezpz/yeet-leaks/1", [], 0)
    here.environment["PYTHONPATH"] = str(source / "lib")
    some, status = here.document("yeet", "status", "--leaks", destination, *ME)
    assert ([(leak["what"], leak["path"]) for leak in some["leaks"]], status) == ([("PYTHONPATH", f"{source}/lib")], 1)


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [("yeet", "nowhere"), ("yeet", "--retries", "-1"), ("launch",)], ids=str)
def test_an_error_is_as_its_schema_says(here: Here, arguments: tuple[str, ...]) -> None:
    done, status = here.document(*arguments)
    assert (done["schema"], status) == ("ezpz/error/1", done["error"]["exit_code"])


@pytest.mark.processes
def test_a_launch_is_as_its_schema_says(here: Here) -> None:
    done = here.run("launch", "--json", *ME, "true")
    here.validate(json.loads(done.stdout), "ezpz/launch/2")
    watched = here.run(
        "launch", "--json", "--check", "--log-dir", str(here.directory / "logs"), *ME, "sh", "-c", "exit 3"
    )
    here.validate(json.loads(watched.stdout), "ezpz/launch/2")
    assert json.loads(done.stdout)["exit_code"] == 0
    planned = here.run("launch", "--json", "--dry-run", *ME, "true")
    here.validate(json.loads(planned.stdout), "ezpz/launch/2")


@pytest.mark.processes
def test_a_receipt_is_as_its_schema_says(here: Here) -> None:
    here.document("yeet", "demo", "--dst", str(here.directory / "copy"), *ME)
    receipt = json.loads((here.directory / "copy" / ".ezpz-yeet-receipt.json").read_text())
    here.validate(receipt, "ezpz/receipt/1")
    shown = re.search(r"```json\n(.*?)```", page("reference/receipt.md"), re.DOTALL)
    assert shown
    here.validate(json.loads(shown[1]), "ezpz/receipt/1")


def test_the_schemas_are_strict_and_say_the_same_of_a_plan(schemas: dict[str, Any]) -> None:
    assert schemas["ezpz/yeet-plan/1"]["$defs"]["plan"] == schemas["ezpz/yeet-report/1"]["$defs"]["plan"]
    for schema in schemas.values():
        for each in objects(schema):
            assert each.get("additionalProperties") is not None


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Yield every part of a schema that describes an object."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_the_schemas_know_every_code(schemas: dict[str, Any]) -> None:
    known = set(schemas["ezpz/error/1"]["properties"]["error"]["properties"]["code"]["enum"])
    assert known == {each.code for each in classes()}
    node = schemas["ezpz/yeet-report/1"]["properties"]["nodes"]["items"]["properties"]
    failure = node["failure"]["anyOf"][1]["properties"]["code"]["enum"]
    assert set(failure) == known - {InternalError.code}


# Plugins


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory like site-packages with the package of the page about plugins."""
    site = tmp_path_factory.mktemp("site")
    text = page("how-to/plugins.md")
    blocks = re.findall(r'```(\w+) title="([^"]+)"\n(.*?)```', text, re.DOTALL)
    points = []
    for language, title, content in blocks:
        if language == "toml":
            points.append(content.replace("[project.entry-points.", "[").replace('"', "").replace("[ ", "["))
        else:
            (site / title).parent.mkdir(exist_ok=True)
            (site / title).write_text(content)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(points))
    return site


@pytest.fixture
def extended(here: Here, plugins: Path) -> Here:
    here.environment["PYTHONPATH"] = str(plugins)
    return here


@pytest.mark.processes
def test_the_command_of_the_page_runs(extended: Here) -> None:
    done = extended.run("hello", "--hosts", "n[1-2]", "--hsn", "off")
    assert (done.stdout, done.returncode) == ("hello n1\nhello n2\n", 0)


@pytest.mark.processes
def test_the_strategy_of_the_page_runs(extended: Here) -> None:
    destination = extended.directory / "copy"
    done = extended.run("yeet", "demo", "--dst", str(destination), "--strategy", "reflink", *ME)
    assert done.returncode == 0, done.stderr
    assert (destination / "bin" / "alias").is_symlink()


@pytest.mark.processes
def test_the_engine_of_the_page_runs(extended: Here) -> None:
    arguments = ("--dst", str(extended.directory / "copy"), "--engine", "nowhere", "--hosts", "n1", "--hsn", "off")
    done = extended.run("yeet", "demo", *arguments)
    assert (done.returncode, "reaches nobody" in done.stdout) == (errors.NodeLost.exit_code, True), done.stderr


@pytest.mark.processes
def test_the_scheduler_of_the_page_runs(extended: Here) -> None:
    hosts = extended.directory / "hosts"
    hosts.write_text("n7\nn7\nn8\n")
    extended.environment |= {"LSB_DJOB_HOSTFILE": str(hosts), "LSB_JOBID": "12"}
    done, _ = extended.document("yeet", "demo", "--dry-run", "--hsn", "off")
    allocation = done["plan"]["allocation"]
    assert (allocation["scheduler"], allocation["job_id"], allocation["nodes"]) == ("lsf", "12", ["n7", "n8"])


@pytest.mark.processes
def test_the_launcher_of_the_page_runs(extended: Here) -> None:
    hosts, stub = extended.directory / "hosts", extended.directory / "programs" / "aprun"
    hosts.write_text("n1\nn2\n")
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nwhile [ "$1" != sh ]; do shift; done\nALPS_APP_PE=3 exec "$@"\n')
    stub.chmod(0o755)
    extended.environment |= {"PBS_NODEFILE": str(hosts), "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    line = ("launch", "--hsn", "off", "--ppn", "2", "--cpu-bind", "depth")
    done = extended.run(*line, "--", "sh", "-c", "echo $RANK/$WORLD_SIZE $NODE_RANK")
    assert (done.stdout, done.returncode) == ("3/4 1\n", 0), done.stderr
    done = extended.run(*line, "--dry-run", "true")
    assert "launcher  aprun: aprun is on PATH" in done.stdout
    assert "command   aprun -n 4 -N 2 -L n1,n2 -cc depth sh -c" in done.stdout


# Pages


def prose(text: str) -> str:
    """Return a page without its code blocks, which contain no links."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors that mkdocs and GitHub make of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s]+", "-", each) for each in words}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_has_a_target(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.is_relative_to(REPOSITORY), target
        assert found.is_file(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_page_mentions_paths_of_the_development_machine(path: Path) -> None:
    assert not DEVELOPMENT_PATHS.findall(path.read_text())


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text().partition("nav:")[2]
    for path in DOCS.rglob("*.md"):
        assert str(path.relative_to(DOCS)) in navigation


def test_the_picture_loads_nothing_from_the_network() -> None:
    picture = (DOCS / "images" / "run.svg").read_text()
    assert "url(http" not in picture
    assert "@import" not in picture


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        for line in re.findall(r"^(?:\w+=\S+ )?make (\w+)", (REPOSITORY / name).read_text(), re.MULTILINE):
            assert shlex.split(line)[0] in targets
