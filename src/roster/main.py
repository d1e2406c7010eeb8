"""Owns the wiring: settings → adapters → operations → doors. The only place that knows them all."""

from __future__ import annotations

import gc
import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Any

import structlog

from roster.base.errors import Error
from roster.cli import Wiring, build_cli, run_cli, show_progress, tell
from roster.engine.compaction import compact
from roster.engine.connection import Duck, DuckLimits
from roster.engine.duckdb import DuckEngine
from roster.engine.enriched import Enriched
from roster.engine.events import DuckEvents
from roster.engine.lists import DuckLists
from roster.engine.shared_answers import SharedAnswers
from roster.engine.tables import DuckTables
from roster.intake.buffer import Applier, EventLog
from roster.intake.geo import Geo
from roster.intake.rejected import RejectedStore
from roster.intake.samples import Samples
from roster.intake.state import Intake
from roster.intake.tally import Tally
from roster.intake.traces import Drop, Traces, drop_from_folder
from roster.model.access import KeyKind
from roster.operations.context import Context, Limits, Records
from roster.operations.keys import create_key
from roster.operations.load import load_events, load_table, materialise_profiles, recover
from roster.operations.retention import EVERY_S, FIRST_S, Retention
from roster.operations.segment_snapshots import renew_snapshots
from roster.operations.syncing import Pace, Syncs
from roster.operations.use_log import UseLog
from roster.ports import Budget, Notices
from roster.settings import Settings, read_settings
from roster.sources.process import ChildSources, SourceLimits
from roster.store.database import Database
from roster.store.jobs import BackgroundJobs
from roster.store.secret import load_or_create_secret
from roster.store.vault import NONCE_BYTES, AesVault
from roster.sync.work import Ports, Rules
from roster.worker import Repeater, run_behind, step_behind

if TYPE_CHECKING:
    from rich.console import Console
    from starlette.applications import Starlette

OTHER_WORKERS = 2
"""Threads for looks, retries and the webhook, beside those that sync."""
DEMO_SEED = 20_261_123


class SystemClock:
    """The real clock and the real dice."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def new_secret(self) -> str:
        return token_hex(32)


def duck_limits(settings: Settings) -> DuckLimits:
    """The ceilings of the engine, from the settings."""
    return DuckLimits(settings.engine_memory, settings.engine_threads, settings.engine_spill)


def limits_of(settings: Settings) -> Limits:
    """The limits operations obey, each the setting of the same name."""
    return Limits(**{f.name: getattr(settings, f.name) for f in fields(Limits)})


class Product:
    """Everything open on one data folder: exactly one process at a time."""

    def __init__(self, settings: Settings, clock: SystemClock) -> None:
        self.settings = settings
        folder = settings.data
        limits = duck_limits(settings)
        # a query begins on the thread that asks; the engine's own threads come to its help when they are free
        self.duck = run_behind(lambda: Duck(folder / "engine.duckdb", limits))
        self.store = open_store(folder, clock)
        enriched = Enriched(self.duck)
        self.events = DuckEvents(self.duck, enriched.renew_profiles)
        self.tables = DuckTables(self.duck, enriched.change_source, snapshot_ttl_ms=int(settings.snapshot_ttl_s * 1000))
        self.log = EventLog(folder / "log", after=self.events.applied_segment(), bytes_max=settings.log_bytes_max)
        self.applier = Applier(self.log, self.events, clock.now_ms, interval_s=settings.apply_interval_s)
        self.materialiser = Repeater("materialise", lambda: materialise_profiles(self.context))
        own = DuckEngine(self.duck, enriched)
        engine = SharedAnswers(own, lambda: self.duck.position, settings.answers_kept)
        vault = vault_of(folder)
        sources = ChildSources(source_limits(settings))
        ports = Ports(
            self.store, self.tables, engine, sources, vault, clock, folder.resolve() / "syncs", rules_of(settings)
        )
        self.jobs = BackgroundJobs(clock, settings.syncs_at_once + OTHER_WORKERS, prepare=step_behind)
        notices = notices_of(settings)
        self.syncs = Syncs(ports, self.jobs, pace_of(settings), notices)
        self.uses = UseLog(self.store, clock, keep_ms=int(settings.uses_days * 86_400_000))
        self.retention = Retention(self.events, clock, settings.events_days)
        self.intake = intake_of(settings, clock)
        self.context = Context(
            engine=engine,
            events=self.events,
            tables=self.tables,
            lists=DuckLists(self.duck, own),
            store=self.store,
            log=self.log,
            clock=clock,
            limits=limits_of(settings),
            pepper=pepper_of(folder),
            vault=vault,
            uploads=folder / "uploads",
            sources=sources,
            syncs=self.syncs,
            notices=notices,
            uses=self.uses,
            traces=traces_of(folder, self.applier, self.intake),
            intake=self.intake,
            removed=self.retention.removed,
            sources_changed=self.materialiser.poke,
        )

    def start(self, *, serving: bool) -> None:
        """Recover what a crash may have left, then work in the background; only a server syncs by itself."""
        recover(self.context)
        self.materialiser.start()
        self.materialiser.poke()
        self.applier.start()
        every_s = self.settings.uses_flush_s
        self.jobs.repeat("uses", self.uses.flush, every_s, first_s=every_s, jitter_s=0.0)
        if serving:
            self.syncs.start()
            self._repeat_daily("rejected", partial(self.intake.expire, self.context.clock))
            self._repeat_daily("retention", self.retention.run)
            self._repeat_daily("segments", partial(renew_snapshots, self.context))

    def _repeat_daily(self, id: str, work: Callable[[], None]) -> None:
        self.jobs.repeat(id, work, EVERY_S, first_s=FIRST_S, jitter_s=FIRST_S)

    def stop(self) -> None:
        """Interrupt syncs, apply what was acknowledged, then let go of the folder."""
        self.syncs.stop()
        self.uses.flush()
        self.applier.stop()
        self.log.close()
        self.materialiser.stop()
        self.duck.checkpoint()
        self.duck.close()
        self.store.close()


def intake_of(settings: Settings, clock: SystemClock) -> Intake:
    """What the intake remembers between requests, from the settings."""
    folder, days, bytes_max = settings.data / "intake-rejected", settings.rejected_days, settings.rejected_bytes_max
    return Intake(
        tally=Tally(time.perf_counter),
        geo=Geo(settings.geo_database),
        samples=Samples(settings.samples_kept),
        rejected=RejectedStore(folder, days=days, bytes_max=bytes_max),
        events_days=settings.events_days,
        keep_ip=settings.keep_ip,
        new_id=clock.new_id,
    )


def traces_of(folder: Path, applier: Applier, intake: Intake) -> Traces:
    """Where lines about a person may lie beside the engine: acknowledged ones, and those that were never stored."""
    segments: Drop = partial(drop_from_folder, folder / "log" / "rejected")
    return Traces(applier.flush, {"rejected_segments": segments, **intake.traces()})


def rules_of(settings: Settings) -> Rules:
    """What a sync may do, from the settings."""
    return Rules(
        shrink_max=settings.sync_shrink_max,
        misfits_max=settings.sync_misfits_max,
        every_s=settings.sync_every_s,
        cloud_every_s=settings.cloud_sync_every_s,
        stale_after=settings.stale_after,
        budget=Budget(timeout_s=settings.source_timeout_s, rows_max=settings.query_rows_max),
    )


def pace_of(settings: Settings) -> Pace:
    """How syncs follow one another, from the settings."""
    return Pace(
        at_once=settings.syncs_at_once,
        attempts_max=settings.sync_attempts_max,
        retry_s=settings.sync_retry_s,
        jitter=settings.sync_jitter,
        runs_kept=settings.runs_kept,
    )


def source_limits(settings: Settings) -> SourceLimits:
    """Where sources may be and how much they may bring, from the settings."""
    return SourceLimits(
        hosts=tuple(settings.source_hosts),
        folders=tuple(folder.resolve() for folder in settings.source_folders),
        loopback=settings.source_loopback,
        bytes_max=settings.source_bytes_max,
        timeout_s=settings.source_timeout_s,
        silence_s=settings.source_silence_s,
    )


def notices_of(settings: Settings) -> Notices | None:
    """Who is told of states of sources and sent members of segments; None for nobody."""
    if not settings.webhook_url:
        return None
    from roster.sources.notice import Webhook  # a tenth of a second that only servers with a webhook pay

    return Webhook(settings.webhook_url, settings.webhook_secret)


def vault_of(folder: Path) -> AesVault:
    """Seals credentials under the server's secret."""
    return AesVault(pepper_of(folder), lambda: token_bytes(NONCE_BYTES))


def pepper_of(folder: Path) -> bytes:
    """The server secret that keys are hashed under."""
    return load_or_create_secret(folder / "secret", token_bytes(32))


def open_store(folder: Path, clock: SystemClock) -> Database:
    """Our own records of a data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Database.open(folder / "roster.sqlite", organisation_id_if_new=clock.new_id(), now_ms=clock.now_ms())


@contextmanager
def open_product(settings: Settings) -> Iterator[Context]:
    """The product on its data folder, for one command."""
    product = Product(settings, SystemClock())
    product.start(serving=False)
    try:
        yield product.context
        product.materialiser.wait_idle(timeout_s=600)
    finally:
        product.stop()


def build_server(settings: Settings) -> Starlette:
    """The HTTP application on its own product, which starts and stops with it."""
    from roster.http.app import DoorLimits, build_app
    from roster.http.intake_door import IntakeLimits

    product = Product(settings, SystemClock())

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        product.start(serving=True)
        yield
        product.stop()

    names = ("body_bytes_max", "rows_body_bytes_max", "event_body_bytes_max", "upload_part_bytes_max")
    limits = DoorLimits(
        body_bytes={name: getattr(settings, name) for name in names},
        rate_limits=settings.rate_limits,
        queries_at_once=settings.queries_at_once,
        threads=settings.threads,
        intake=IntakeLimits(
            bytes_at_once_max=settings.intake_bytes_at_once_max,
            body_timeout_s=settings.body_timeout_s,
            threads=settings.intake_threads,
        ),
    )
    return build_app(product.context, limits, lifespan)


def serve(settings: Settings) -> None:
    """Serve HTTP until told to stop."""
    import uvicorn

    configure_logs(settings.log_level)
    app = build_server(settings)
    gc.freeze()
    gc.set_threshold(100_000)  # decoding makes and drops many objects without circles: looking for these cost a third
    print(f"Roster serves {settings.data} at http://{settings.host}:{settings.port}", file=sys.stderr)  # noqa: T201
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=10,
    )


def configure_logs(level: str) -> None:
    """JSON lines on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def open_records(settings: Settings) -> Iterator[Records]:
    """Only our own records, which a running server shares: keys and tables can be looked at beside it."""
    clock = SystemClock()
    store = open_store(settings.data, clock)
    try:
        yield Records(store, clock, pepper_of(settings.data), vault_of(settings.data))
    finally:
        store.close()


def demo(settings: Settings, out: Console) -> None:
    """A believable product in a folder of its own, the main job done on it over HTTP, then serving on."""
    import shutil
    import threading

    from roster.demo.ports import free_port
    from roster.demo.show import Tour, give_tour
    from roster.demo.world import write_world

    port = free_port(settings.host, settings.port)
    folder = settings.data.with_name(f"{settings.data.name}-demo-{port}")
    shutil.rmtree(folder, ignore_errors=True)
    own = settings.model_copy(update={"data": folder, "port": port, "log_level": "warning"})
    clock = SystemClock()
    out.print(f"making a product in {folder} ...", highlight=False)
    world = write_world(folder / "world", seed=DEMO_SEED, now_ms=clock.now_ms())
    with open_product(own) as context:
        with show_progress(out) as report:
            load_events(context, world.events_path, {}, report)
        load_table(context, world.crm_path, "crm", "email")
        load_table(context, world.accounts_path, "accounts", "account_id")
        _, api_key = create_key(context.records, KeyKind.API, "demo")
        _, application_key = create_key(context.records, KeyKind.APPLICATION, "demo")
    tour = Tour(f"http://{own.host}:{own.port}", api_key, application_key, world.sample_user_id)
    threading.Thread(target=give_tour, args=(tour, out), name="tour", daemon=True).start()
    serve(own)


def local_url(settings: Settings) -> str:
    """Where commands on this machine find its server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def main() -> int:
    """The `roster` command."""
    configure_logs("warning")
    try:
        settings = read_settings()
    except Error as error:
        return tell(error)
    wiring = Wiring(
        open_product=lambda: open_product(settings),
        open_records=lambda: open_records(settings),
        serve=lambda: serve(settings),
        demo=lambda out: demo(settings, out),
        check=lambda: check(settings),
        url=local_url(settings),
        now_ms=SystemClock().now_ms,
        compact=lambda: compact(settings.data / "engine.duckdb", duck_limits(settings)),
    )
    return run_cli(build_cli(wiring))


def check(settings: Settings) -> list[tuple[str, str]]:
    """What the data folder holds and whether it holds together."""
    from roster.operations.check import look_over

    with open_product(settings) as context:
        return [("data folder", str(settings.data.resolve())), *look_over(context)]
