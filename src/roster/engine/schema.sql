-- The engine's tables of events and of what is built from them. Every statement may be run again.
-- No keys and no indexes: they slow writing down, take memory, and full scans of few columns are fast.
-- events, users and accounts begin with the columns of model/schema.py, tested.

-- One row an event; event_id is its identity, rest whatever has no column. Sessions are rows of type session.
-- v is the version of a view; traits are what rest says of user and account, where it need not be taken apart;
-- digest is a number of event_id, to look identities up by.
CREATE TABLE IF NOT EXISTS events (
    "event_id" VARCHAR,
    "time" TIMESTAMP,
    "type" VARCHAR,
    "user_id" VARCHAR,
    "user_email" VARCHAR,
    "user_name" VARCHAR,
    "anonymous_id" VARCHAR,
    "account_id" VARCHAR,
    "account_name" VARCHAR,
    "session_id" VARCHAR,
    "view_id" VARCHAR,
    "view_name" VARCHAR,
    "view_url" VARCHAR,
    "loading_time" BIGINT,
    "time_spent" BIGINT,
    "action_type" VARCHAR,
    "action_name" VARCHAR,
    "event_name" VARCHAR,
    "application_id" VARCHAR,
    "application_name" VARCHAR,
    "country_code" VARCHAR,
    "city" VARCHAR,
    "region" VARCHAR,
    "device_type" VARCHAR,
    "os_name" VARCHAR,
    "os_version" VARCHAR,
    "browser_name" VARCHAR,
    "browser_version" VARCHAR,
    "service" VARCHAR,
    "env" VARCHAR,
    "version" VARCHAR,
    "rest" VARIANT,
    "resolved_user_id" VARCHAR,
    "v" BIGINT,
    "user_traits" VARCHAR,
    "account_traits" VARCHAR,
    "digest" UBIGINT
);

-- Which kinds of values were seen under a name in what events say of users and accounts.
CREATE TABLE IF NOT EXISTS trait_kinds (
    "entity" VARCHAR,
    "name" VARCHAR,
    "kind" VARCHAR
);

-- The paths, as lists of keys, at which the rest of an event was seen to hold an array; an empty one stands for all.
CREATE TABLE IF NOT EXISTS array_paths (
    "keys" VARCHAR[]
);

-- Who an anonymous id belongs to, and since when that user is known under it.
CREATE TABLE IF NOT EXISTS identities (
    "anonymous_id" VARCHAR,
    "user_id" VARCHAR,
    "since" TIMESTAMP
);

-- Sessions whose row in events is behind, and the times of the events that made it so.
CREATE TABLE IF NOT EXISTS stale_sessions (
    "session_id" VARCHAR,
    "since" TIMESTAMP,
    "until" TIMESTAMP
);

-- One row a session: between which times its events lie, and whether its row in events says that it goes on.
CREATE TABLE IF NOT EXISTS session_spans (
    "session_id" VARCHAR,
    "since" TIMESTAMP,
    "until" TIMESTAMP,
    "is_active" BOOLEAN
);

-- What views are merged from while partial updates of them count: the newest whole version and what came after.
CREATE TABLE IF NOT EXISTS view_parts (
    "view_id" VARCHAR,
    "v" BIGINT,
    "whole" BOOLEAN,
    "line" JSON
);

-- One row a user; `x_at` is the time of the event that x comes from.
CREATE TABLE IF NOT EXISTS users (
    "user_id" VARCHAR,
    "user_email" VARCHAR,
    "user_name" VARCHAR,
    "account_id" VARCHAR,
    "first_seen" TIMESTAMP,
    "last_seen" TIMESTAMP,
    "first_application_id" VARCHAR,
    "last_application_id" VARCHAR,
    "first_country_code" VARCHAR,
    "last_country_code" VARCHAR,
    "first_city" VARCHAR,
    "last_city" VARCHAR,
    "first_region" VARCHAR,
    "last_region" VARCHAR,
    "first_device_type" VARCHAR,
    "last_device_type" VARCHAR,
    "first_os_name" VARCHAR,
    "last_os_name" VARCHAR,
    "first_os_version" VARCHAR,
    "last_os_version" VARCHAR,
    "first_browser_name" VARCHAR,
    "last_browser_name" VARCHAR,
    "first_browser_version" VARCHAR,
    "last_browser_version" VARCHAR,
    "session_count" BIGINT,
    "events_count" BIGINT,
    "view_count" BIGINT,
    "action_count" BIGINT,
    "error_count" BIGINT,
    "avg_loading_time" DOUBLE,
    "traits" VARIANT,
    "user_email_at" TIMESTAMP,
    "user_name_at" TIMESTAMP,
    "account_id_at" TIMESTAMP,
    "first_application_id_at" TIMESTAMP,
    "last_application_id_at" TIMESTAMP,
    "first_country_code_at" TIMESTAMP,
    "last_country_code_at" TIMESTAMP,
    "first_city_at" TIMESTAMP,
    "last_city_at" TIMESTAMP,
    "first_region_at" TIMESTAMP,
    "last_region_at" TIMESTAMP,
    "first_device_type_at" TIMESTAMP,
    "last_device_type_at" TIMESTAMP,
    "first_os_name_at" TIMESTAMP,
    "last_os_name_at" TIMESTAMP,
    "first_os_version_at" TIMESTAMP,
    "last_os_version_at" TIMESTAMP,
    "first_browser_name_at" TIMESTAMP,
    "last_browser_name_at" TIMESTAMP,
    "first_browser_version_at" TIMESTAMP,
    "last_browser_version_at" TIMESTAMP,
    "loading_time_sum" HUGEINT,
    "loading_time_count" BIGINT,
    "traits_text" VARCHAR,
    "traits_text_at" TIMESTAMP
);

-- One row an account.
CREATE TABLE IF NOT EXISTS accounts (
    "account_id" VARCHAR,
    "account_name" VARCHAR,
    "first_seen" TIMESTAMP,
    "last_seen" TIMESTAMP,
    "user_count" BIGINT,
    "traits" VARIANT,
    "account_name_at" TIMESTAMP,
    "traits_text" VARCHAR,
    "traits_text_at" TIMESTAMP
);

-- Each pair of user and session once, as a 128-bit digest: what session_count counts.
CREATE TABLE IF NOT EXISTS user_sessions (
    "user_id" VARCHAR,
    "pair" UHUGEINT
);

-- Each pair of user and account once, with the times of its first and its latest event, and its digest.
CREATE TABLE IF NOT EXISTS user_accounts (
    "user_id" VARCHAR,
    "account_id" VARCHAR,
    "first_seen" TIMESTAMP,
    "last_seen" TIMESTAMP,
    "pair" UHUGEINT
);

-- Kept lists of keys of profiles, and since when each is kept: an empty one has no members.
CREATE TABLE IF NOT EXISTS static_lists (
    "list" VARCHAR,
    "entity" VARCHAR,
    "kept_at" TIMESTAMP
);

CREATE TABLE IF NOT EXISTS static_members (
    "list" VARCHAR,
    "key" VARCHAR
);

-- Numbers the engine remembers; applied_segment is the newest stored segment of the event log.
CREATE TABLE IF NOT EXISTS engine_state (
    "name" VARCHAR,
    "value" BIGINT
);

