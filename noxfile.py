"""The development sessions: `nox` runs the checks, `nox -s bench` and `nox -s demo` the rest."""

import re
import shutil
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
BLOCK = re.MULTILINE | re.DOTALL
# Of each adapter that is run with a framework: its tests, and the packages that they use.
OWN_TESTS = {
    "langgraph": ("test_langgraph.py", "langgraph", "langgraph-checkpoint-conformance"),
    "claude-agent": ("test_claude_agent.py", "claude-agent-sdk", "mcp"),
    "openai-agents": ("test_openai_agents.py", "openai-agents"),
    "pydantic-ai": ("test_pydantic_harness.py", "pydantic-ai-harness", "pydantic-ai-slim"),
    "otel": ("test_otel.py", "opentelemetry-sdk"),
    "mcp": ("test_mcp.py", "mcp"),
}
EVERY_CORE = ("--numprocesses", "auto", "--dist", "worksteal")  # as in README.md

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each installed Python of the classifiers; missing ones are skipped."""
    session.install("-e", ".[cli,test,frameworks,browser]")
    session.run("pytest", *EVERY_CORE, *session.posargs)


def lowest_versions(*extras: str) -> list[str]:
    """Return the lowest version that each direct dependency allows, as pip's constraints."""
    optional = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(line for e in extras for line in optional[e])]
    bounds = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in wanted]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests on the lowest versions that the dependencies allow."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions("cli", "test")), encoding="utf-8")
    session.install("-e", ".[cli,test]", "--constraint", str(constraints))
    session.run("pytest", *EVERY_CORE, *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and the sdist; each runs the README's example in a clean environment."""
    session.install("build")
    built = Path(session.create_tmp()).resolve() / "built"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built / "dist"))
    blocks = re.findall(r"^```python\n(.*?)^```$", Path("README.md").read_text("utf-8"), BLOCK)
    for package in sorted((built / "dist").iterdir()):
        python = str(built / "venv" / "bin" / "python")
        session.run("python", "-m", "venv", "--clear", str(built / "venv"))
        session.run(python, "-m", "pip", "install", "--quiet", str(package), external=True)
        with session.chdir(built):
            Path("agents.mva").unlink(missing_ok=True)
            session.run(python, "-W", "error", "-c", blocks[0], external=True, log=False)


@nox.session
def wheels(session: nox.Session) -> None:
    """Ask the package index for wheels of every dependency, for each Python and platform of ours.

    `-- core cli` asks about these extras only.
    """
    session.install("pip>=25.1")
    session.run("python", "scripts/check_wheels.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests once under coverage and print what they leave out.

    What reads, keeps and writes bytes is covered to the last branch, or this fails.
    """
    session.install("-e", ".[cli,test]")
    session.run("coverage", "erase")
    # Under coverage a crash state takes five times as long, and shows no other line.
    few = {"CI": "1", "CRASH_STATES": "20000"}
    # And how late a timer is says nothing there.
    timed = (
        "--ignore=tests/engine/test_loop_latency.py",
        "--ignore=tests/memory/test_frame_latency.py",
    )
    session.run("coverage", "run", "-m", "pytest", *timed, *session.posargs, env=few)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    kept = ",".join(
        f"*/memvid_async/{name}" for name in ("format/*", "storage/*", "engine/writer.py")
    )
    session.run("coverage", "report", f"--include={kept}", "--fail-under=100")


@nox.session(name="suite-langgraph")
def suite_langgraph(session: nox.Session) -> None:
    """Hold our LangGraph adapter, and savers that are broken on purpose, to LangGraph's own suite;
    then run the tests of LangGraph and of its SQLite packages that take a saver or a store."""
    session.install("-e", ".[test,langgraph]")
    suites = ["langgraph==1.2.24", "langgraph-checkpoint-sqlite==3.1.2"]
    pinned = [*suites, "langgraph-checkpoint==4.3.2", "langgraph-checkpoint-conformance==0.0.2"]
    session.install("--upgrade", *pinned)
    run_own(session, "langgraph")
    session.install("langgraph-checkpoint-postgres", "psycopg[binary]", "redis", "pycryptodome")
    # Some of theirs expect that ten milliseconds are enough, and may be run a second time.
    session.install("pytest-mock", "syrupy", "httpx", "pytest-asyncio", "pytest-retry")
    server = ("tests/test_remote_graph.py", "tests/test_remote_graph_v3.py", "tests/example_app")
    session.env["NO_DOCKER"], again = "true", ("tests", "--retries", "1")
    run_suite(session, suites[0], "langgraph_suite", *again, *(f"--ignore={one}" for one in server))
    run_suite(session, suites[1], "langgraph_suite", *again)


@nox.session(name="suite-claude-agent")
def suite_claude_agent(session: nox.Session) -> None:
    """Hold our session store to the Claude Agent SDK's contracts, from its sdist: the wheel carries
    a program of 180 MB, which the store does not need."""
    session.install("-e", ".[test]", "mcp")
    session.install("--no-binary", "claude-agent-sdk", "claude-agent-sdk==0.2.189")
    run_own(session, "claude-agent")


@nox.session(name="suite-openai-agents")
def suite_openai_agents(session: nox.Session) -> None:
    """Hold our session to the Agents SDK's own tests of sessions, from its sdist, but for those
    that look into SQLite."""
    session.install("-e", ".[test,openai-agents]")
    session.install("pytest-asyncio", "aiosqlite", "cryptography", "httpx", "sqlalchemy[asyncio]")
    sdk = "openai-agents==0.24.0"
    session.install("--upgrade", sdk)
    run_own(session, "openai-agents")
    run_suite(session, sdk, "openai_suite", "tests/memory")


@nox.session(name="suite-pydantic-ai")
def suite_pydantic_ai(session: nox.Session) -> None:
    """Hold our stores to the tests of Pydantic AI's harness, but for those that look into files
    and tables; from the last sdist that has them."""
    session.install("-e", ".[test,pydantic-ai]")
    harness = "pydantic-ai-harness==0.36.0"
    session.install("--upgrade", harness, "pydantic-ai-slim==2.44.0")
    run_own(session, "pydantic-ai")
    session.install("dirty-equals", "inline-snapshot")
    steps = "tests/step_persistence"
    run_suite(session, harness, "pydantic_suite", steps, f"--ignore={steps}/test_mongo.py")


@nox.session
@nox.parametrize("framework", list(OWN_TESTS))
def newest(session: nox.Session, framework: str) -> None:
    """Run an adapter's own tests with the newest releases of its framework, and name them.

    `nox -s "newest(framework='mcp')"` runs one.
    """
    ours = "test" if framework == "claude-agent" else f"test,{framework}"
    session.install("-e", f".[{ours}]")
    # The wheel of Claude's SDK carries a program of 180 MB.
    source = ("--no-binary", "claude-agent-sdk")
    _, *packages = OWN_TESTS[framework]
    session.install("--upgrade", "--upgrade-strategy", "eager", *source, *packages)
    run_own(session, framework)
    session.run("pip", "list")


def run_own(session: nox.Session, framework: str) -> None:
    """Run our tests of an adapter, without the plugin that theirs need: it warns about our
    settings."""
    session.run("pytest", "-p", "no:asyncio", f"tests/interop/{OWN_TESTS[framework][0]}")


def run_suite(session: nox.Session, package: str, plugin: str, *options: str) -> None:
    """Run tests of a package's sdist, unpacked outside of the project. ``plugin``: the file of
    tests/suites that puts ours in the place of theirs."""
    folder = Path(session.create_tmp()).resolve() / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    source = ("--no-deps", "--no-binary", ":all:")
    session.run("pip", "download", "--quiet", *source, "--dest", str(folder), package)
    (archive,) = folder.iterdir()
    shutil.unpack_archive(archive, folder, filter="data")
    (unpacked,) = (entry for entry in folder.iterdir() if entry.is_dir())
    ours = {"PYTHONPATH": str(Path("tests").resolve())}
    with session.chdir(unpacked):
        session.run("pytest", "-p", f"suites.{plugin}", *EVERY_CORE, *options, env=ours)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*PROJECT["project"]["optional-dependencies"]["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Type-check the library, the benchmarks and a file written as a user would write it."""
    session.install("-e", ".[cli,test,types,nox]")
    session.run("mypy")
    session.run("pytest", "tests/house/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site strictly; check links, code and public names, there and in
    README. `-- site` keeps it in this folder."""
    session.install("-e", ".[cli,docs]")
    site = Path(*(session.posargs or (session.create_tmp(), "site"))).resolve()
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # what the theme says of another program
    session.run("mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site), env=quiet)
    session.run("python", "scripts/check_docs.py", str(site))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure and write benchmarks/report.md (`-- --quick` for a trial run)."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the README's demonstration."""
    session.install(".[cli]")
    session.run("memvid-async", "demo", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Seed bugs below the log and above it, and print which check or test finds each."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.crash.hunt", *session.posargs)
    session.run("python", "-m", "tests.mutants.above_the_log", *session.posargs)


@nox.session
def stream(session: nox.Session) -> None:
    """Hold a store on a stream to its tests, on one node and on three; then kill nodes and writers.

    `-- --faults 10 --kills 50` does that less often.
    """
    session.install("-e", ".[cli,test]")
    tests = ("tests/stream", "tests/engine/test_event_log.py")
    session.run("pytest", *tests, env={"CI": "1"})
    # Tests of files, with their stores on streams: on one node, then on three.
    for stores in ("stream", "cluster"):
        session.run("python", "-m", "tests.support.on_streams", env={"STORES": stores})
    kills = session.posargs or ["--faults", "100", "--kills", "500"]
    session.run("python", "-m", "tests.torture.cluster", *kills)
    # Writers that ack before the servers did: it must find that something is lost.
    early = ("--early", "--faults", "0", "--kills", "4")
    session.run("python", "-m", "tests.torture.cluster", *early, success_codes=[1])


@nox.session
def load(session: nox.Session) -> None:
    """Load one file with writers, subscribers, finds and compactions for ten minutes."""
    session.install("-e", ".")
    session.run("python", "-m", "scripts.load", *(session.posargs or ["600"]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed hostile files to everything that reads one, guided by coverage, for five minutes.

    A finding is left as `crash-…`; once it is mended, it joins fuzz/corpus, which the tests replay.
    """
    session.install("-e", ".[vector]", "atheris>=3.0")
    found = Path(session.create_tmp()) / "corpus"
    found.mkdir(exist_ok=True)
    bound = () if session.posargs else ("-max_total_time=300",)
    command = ("python", "-m", "fuzz.fuzz_open", str(found), "fuzz/corpus")
    session.run(*command, *bound, *session.posargs)


@nox.session
def torture(session: nox.Session) -> None:
    """Kill writers 10,000 times, also at the Nth system call, and agents that are resumed 2,000
    times, then cut the power 2,000 times."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.torture.resuming", "--kills", "2000")
    session.run("python", "-m", "tests.crash.full_disk")
    session.run("python", "-m", "tests.torture", "--kills", "10000", *session.posargs)
    session.run("python", "-m", "tests.torture", "--strace", "--kills", "500", *session.posargs)
    for kind in ("ext4", "xfs"):
        powercut = ("python", "-m", "tests.torture.powercut", "--file-system", kind)
        session.run(*powercut, "--cuts", "2000")
        # Without the sync it must lose something, or it proves nothing.
        session.run(*powercut, "--cuts", "50", "--no-sync")
