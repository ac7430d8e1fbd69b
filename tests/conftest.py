"""What tests share: event loops, hypothesis profiles, real data, stores that get verified."""

import gc
import importlib.util
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings

from memvid_async import Store, StoreConfig, open_store
from tests.support.depth import DEEP, EXAMPLES, UVLOOP
from tests.support.nats_server import MISSING, NatsCluster, NatsServer, find_server
from tests.support.on_streams import ALWAYS, CANNOT

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# A failing example is printed as a line to paste: a run elsewhere is repeated without its database.
COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("default", max_examples=EXAMPLES, derandomize=DEEP, **COMMON)
settings.register_profile("long", max_examples=5_000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if importlib.util.find_spec("uvloop"):
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts them in the background has tests and their children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where the stores of `make_store` are: `nox -s stream` runs the same tests on streams.
STORES = os.environ.get("STORES", "file")
ON_STREAMS = STORES != "file"

MakeStore = Callable[..., Awaitable[Store]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every async test under each event loop; session scope groups the tests by loop."""
    path = metafunc.definition.path.relative_to(ROOT / "tests").as_posix()
    if f"{path}::{metafunc.definition.originalname}" in ALWAYS and not ON_STREAMS:
        metafunc.parametrize("store_kind", ["file", "stream"], indirect=True)
    if "anyio_backend" in metafunc.fixturenames:
        is_alone = metafunc.definition.get_closest_marker("one_loop")
        loops = LOOPS if path.startswith(UVLOOP) and not is_alone else LOOPS[:1]
        metafunc.parametrize("anyio_backend", loops, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot hold on a stream, where the stores are on streams."""
    for item in items if ON_STREAMS else ():
        path = item.path.relative_to(ROOT / "tests").as_posix()
        why = CANNOT.get(f"{path}::{getattr(item, 'originalname', '')}")
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=f"not on a stream: {why}"))


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Return where the stores of the test are: "file", "stream", or "cluster" (three nodes)."""
    return getattr(request, "param", STORES)


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Return the event loop of the test, as anyio's plugin wants it named."""
    return request.param


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository; skip the test without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Start a server, which is gone after the tests; skip the test where it is not installed."""
    if find_server() is None:
        pytest.skip(MISSING)
    server = NatsServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def nats_cluster() -> Iterator[NatsCluster]:
    """Start three nodes, which are gone after the tests: deep runs only, as they take seconds."""
    if find_server() is None:
        pytest.skip(MISSING)
    if not DEEP and STORES != "cluster":
        pytest.skip("three nodes start where CI is set")
    cluster = NatsCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def own_garbage() -> Iterator[None]:
    """Keep the collector from what thousands of other tests left in this process."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def make_store(
    anyio_backend: object, tmp_path: Path, request: pytest.FixtureRequest, store_kind: str
) -> AsyncIterator[MakeStore]:
    """Open stores in the test's folder; when the test ends, close each and demand that it verifies.

    `check=False` is for tests that damage their file on purpose. Where `STORES=stream` is set, and
    for the tests that say so, they are on streams; where `STORES=cluster`, on three nodes each.
    """
    stores: list[Store] = []
    paths: dict[str | Path, bool] = {}
    server: NatsServer | NatsCluster | None = None
    default = StoreConfig()
    if store_kind == "stream":
        server = request.getfixturevalue("nats_server")
    elif store_kind == "cluster":
        server, default = request.getfixturevalue("nats_cluster"), StoreConfig(replicas=3)
    mine = uuid4().hex

    async def make(
        name: str | Path = "store.mva",
        *,
        config: StoreConfig | None = None,
        read_only: bool = False,
        check: bool = True,
    ) -> Store:
        path: str | Path = tmp_path / name
        if server is not None:
            path = server.address(f"{mine}-{'-'.join(re.findall('[a-z0-9]+', str(name)))}")
        used = default if config is None else evolve(config, replicas=default.replicas)
        store = await open_store(path, config=used, read_only=read_only)
        stores.append(store)
        paths[path] = check and paths.get(path, True)
        return store

    yield make
    for store in stores:
        await store.aclose()
    for path in [path for path, check in paths.items() if check]:
        async with open_store(path, read_only=True) as store:
            report = await store.verify()
        assert report.ok, f"{path}: {report.problems}"
