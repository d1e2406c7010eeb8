"""Owns the settings: one frozen value from a file and the environment. Every limit of Roster is here."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from limits import parse
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from roster.base.errors import Code, Error

SIZE = r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$"
RATE_LIMITS = {
    "audience_read": "6000/minute",
    "audience_write": "600/minute",
    "reference_tables_write": "600/minute",
    "events": "60000/minute",
}


class Settings(BaseSettings):
    """Read from `roster.toml` in the working folder, over it environment variables named ROSTER_<SETTING>."""

    model_config = SettingsConfigDict(env_prefix="ROSTER_", toml_file="roster.toml", frozen=True, extra="forbid")

    data: Path = Field(Path("roster-data"), description="folder of everything Roster keeps")
    host: str = Field("127.0.0.1", description="address the server listens on")
    port: int = Field(8126, ge=0, le=65535, description="port the server listens on")
    trusted_proxies: list[str] = Field(
        [], description="addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; empty: none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")

    engine_memory: str = Field("4GB", pattern=SIZE, description="memory ceiling of the engine")
    engine_threads: int = Field(2, ge=1, description="threads of the engine; no more than cores")
    engine_spill: str = Field("20GB", pattern=SIZE, description="ceiling of what the engine may spill to disk")

    answers_kept: int = Field(100, ge=0, description="answers to queries kept until the data changes")
    query_timeout_s: float = Field(30.0, gt=0, description="seconds one query may take")
    query_rows_max: int = Field(1_000_000, ge=1, description="rows one answer may have")
    query_reads_max: int = Field(0, ge=0, description="rows one query may read in the time it asks for; 0: any number")
    query_timeout_s_of: dict[str, float] = Field({}, description="seconds of a query for some API keys, by id")
    query_rows_max_of: dict[str, int] = Field({}, description="rows of an answer for some API keys, by id")
    query_reads_max_of: dict[str, int] = Field({}, description="rows a query may read for some API keys, by id")
    queries_at_once: int = Field(2, ge=1, description="queries that run at the same time; more wait")
    threads: int = Field(32, ge=1, description="other requests worked on at the same time")

    profiles_limit_default: int = Field(100, ge=1, description="rows of a profile page when none is asked for")
    profiles_limit_max: int = Field(10_000, ge=1, description="rows of a profile page at most")
    search_terms_max: int = Field(200, ge=1, description="terms of one search")
    alias_days: float = Field(30.0, ge=0, description="days a renamed field still answers to its old id")
    fields_max: int = Field(200, ge=1, description="fields of one connection")
    tables_max: int = Field(100, ge=1, description="reference tables")
    segments_max: int = Field(1000, ge=1, description="segments")
    segment_snapshots_days: float = Field(35.0, ge=0, description="days that it is kept who was in a segment; 0: none")
    queries_max: int = Field(1000, ge=1, description="saved queries")
    events_days: float = Field(
        457.0, gt=0, description="days that events are kept, and profiles that were not seen since"
    )
    geo_database: Path | None = Field(
        None, description="MMDB file that tells country and city of the addresses of SDK events; none: they have none"
    )
    keep_ip: bool = Field(False, description="whether the address an SDK event came from is kept as session.ip")
    samples_kept: int = Field(100, ge=0, description="newest events kept in memory to look at")
    rejected_days: float = Field(7.0, gt=0, description="days that events which were not taken are kept")
    rejected_bytes_max: int = Field(67_108_864, ge=65_536, description="bytes of events which were not taken")
    uses_days: float = Field(30.0, gt=0, description="days it is remembered who named an attribute")
    uses_flush_s: float = Field(5.0, gt=0, description="seconds between two writes of who named which attribute")

    body_bytes_max: int = Field(1_048_576, ge=1, description="bytes of a request body")
    rows_body_bytes_max: int = Field(1_048_576, ge=1, description="bytes of a body of table rows")
    event_body_bytes_max: int = Field(5_000_000, ge=1, description="bytes of an event body, unpacked")
    intake_bytes_at_once_max: int = Field(
        50_000_000, ge=1, description="bytes of event bodies in memory at once, packed and unpacked; more answer 429"
    )
    intake_threads: int = Field(64, ge=1, description="requests of events worked on at the same time")
    body_timeout_s: float = Field(30.0, gt=0, description="seconds that the body of an event request may take to come")
    upload_part_bytes_max: int = Field(67_108_864, ge=1, description="bytes of one part of an upload")
    upload_ttl_s: float = Field(300.0, gt=0, description="seconds the addresses of an upload are good for")
    snapshot_ttl_s: float = Field(600.0, gt=0, description="seconds the pages of a row listing stay as they were")

    source_hosts: list[str] = Field(
        [], description="hosts that sources may be read from: names, `*.name`, addresses or networks; empty: none"
    )
    source_folders: list[Path] = Field([], description="folders that source files may lie in; empty: none")
    source_loopback: bool = Field(False, description="whether sources may be on this machine's loopback addresses")
    source_bytes_max: int = Field(21_474_836_480, ge=1, description="bytes that one read of a source may bring")
    preview_timeout_s: float = Field(60.0, gt=0, description="seconds that a preview may take to read new sources")
    source_timeout_s: float = Field(3600.0, gt=0, description="seconds that one read of a source may take")
    source_silence_s: float = Field(120.0, gt=0, description="seconds that a source may send nothing")
    sync_every_s: int = Field(3600, ge=10, description="seconds between two syncs of a source that names no time")
    cloud_sync_every_s: int = Field(300, ge=10, description="seconds between two syncs of a cloud reference table")
    syncs_at_once: int = Field(1, ge=1, description="syncs that run at the same time; more wait")
    sync_attempts_max: int = Field(5, ge=1, description="tries of a sync before it waits for its next time")
    sync_retry_s: float = Field(10.0, gt=0, description="seconds before the first retry; each further one waits double")
    sync_jitter: float = Field(0.1, ge=0, le=1, description="share of its interval that a sync may begin later")
    sync_shrink_max: float = Field(
        0.5, ge=0, le=1, description="share of its rows that a source may lose in one sync unasked"
    )
    sync_misfits_max: float = Field(
        0.5, ge=0, le=1, description="share of a column's cells that may be no value of a field before it is paused"
    )
    stale_after: float = Field(3.0, ge=1, description="intervals without a good sync after which a source is stale")
    runs_kept: int = Field(100, ge=1, description="ended runs kept for each source")
    webhook_url: str = Field(
        "", description="address told when the state of a source changes, and sent segments on request; empty: none"
    )
    webhook_secret: str = Field("", description="secret that signs what the webhook is told (HMAC-SHA256)")

    log_bytes_max: int = Field(1_073_741_824, ge=1, description="bytes of events acknowledged but not yet applied")
    apply_interval_s: float = Field(0.2, gt=0, description="seconds between two batches of events")

    rate_limits: dict[str, str] = Field(
        RATE_LIMITS, description="requests a key may make, by bucket; a bucket left out keeps its default"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: list[str]) -> list[str]:
        try:
            return [str(ip_network(text)) for text in given]
        except ValueError as error:
            raise ValueError(f"{error}; give addresses or networks such as 10.0.0.0/8") from error

    @field_validator("rate_limits")
    @classmethod
    def _keep_defaults(cls, given: dict[str, str]) -> dict[str, str]:
        unknown = given.keys() - RATE_LIMITS.keys()
        if unknown:
            raise ValueError(f"unknown bucket {', '.join(sorted(unknown))}; known: {', '.join(RATE_LIMITS)}")
        for name, text in given.items():
            try:
                parse(text)
            except ValueError as error:
                raise ValueError(f"{name}: {text!r} is no limit such as 600/minute") from error
        return RATE_LIMITS | given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def read_settings() -> Settings:
    """The settings of this process. Error: INVALID with every wrong setting."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        hint = "see ROSTER_ variables and roster.toml; docs/reference/settings.md lists them"
        raise Error(Code.INVALID, f"wrong settings: {'; '.join(wrong)}", hint=hint) from error
