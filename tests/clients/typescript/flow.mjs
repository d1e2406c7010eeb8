// Runs the audience flow with the official TypeScript package against a running server.

import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import * as bodies from "./bodies.mjs";
import { Failure, call, openApis, poll, refused, require, same, say } from "./client.mjs";
import { checkChanges, checkCloud, checkRead, checkRecorded, listRows, readTable, upload } from "./tables.mjs";

const SCENARIO = JSON.parse(readFileSync(new URL("../scenario.json", import.meta.url), "utf8"));
const CONNECTION = "crm-integration";
const FIELDS = ["customer_tier", "lifetime_value", "nps_score"];
const entity = "users";

const { audience, tables, events } = openApis();

const ids = (answer) => answer.data.attributes.hits.map((hit) => hit.user_id.split("-")[0]);
const total = (answer) => answer.data.attributes.total;
const facet = (answer) => (answer.data.attributes.result.values ?? []).map(({ value, count }) => [value, count]);
const users = (...parts) => call("queryUsers", audience.queryUsers({ body: bodies.queryUsers(...parts) }));
const listed = async () =>
  (await call("listConnections", audience.listConnections({ entity }))).data.attributes.connections ?? [];

async function customAttributes() {
  const answer = await call("getMapping", audience.getMapping({ entity }));
  const rows = new Map(answer.data.attributes.attributes.map((row) => [row.attribute, row]));
  require(rows.get("user_id")?.isCustom === false, "mapping: user_id is not a built-in");
  return new Map([...rows].filter(([, row]) => row.isCustom));
}

async function clear() {
  for (const { id, fields } of await listed()) {
    if (id === CONNECTION || (fields ?? []).some((field) => FIELDS.includes(field.id))) {
      await call("deleteConnection", audience.deleteConnection({ entity, id }));
    }
  }
}

async function define(metadata) {
  for (const _ of [1, 2]) {
    const body = bodies.createConnection(CONNECTION, metadata);
    await call("createConnection", audience.createConnection({ entity, body }));
  }
  say("create connection, and the same again");
  for (const _ of [1, 2]) {
    await call("updateConnection", audience.updateConnection({ entity, body: bodies.updateConnection(CONNECTION) }));
  }
  say("update connection, and the same again");
  const found = (await listed()).find(({ id }) => id === CONNECTION);
  require(found, `list connections: ${CONNECTION} is not there`);
  require(found.join.attribute === "user_email" && found.join.type === "email", "list connections: join");
  require(found.createdAt instanceof Date && !Number.isNaN(found.createdAt.valueOf()), "list connections: created_at");
  const fields = Object.fromEntries(found.fields.map((field) => [field.id, field]));
  require(same(Object.keys(fields).sort(), FIELDS), `list connections: fields ${Object.keys(fields)}`);
  require(fields.nps_score.sourceName === "net_promoter_score", "list connections: source of nps_score");
  require(same(fields.lifetime_value.groups, ["Financial", "Metrics"]), "list connections: groups");
  say("list connections shows the updated definition");
  const rows = await customAttributes();
  const value = rows.get("@lifetime_value");
  require(FIELDS.every((name) => rows.has(`@${name}`)), `mapping: ${[...rows.keys()]}`);
  require(value.displayName === "Customer Lifetime Value (`USD`)", `mapping: ${value.displayName}`);
  say("mapping shows the custom attributes");
}

async function remove() {
  await call("deleteConnection", audience.deleteConnection({ entity, id: CONNECTION }));
  require(!(await listed()).some(({ id }) => id === CONNECTION), "delete connection: it is still listed");
  const left = await customAttributes();
  require(!FIELDS.some((name) => left.has(`@${name}`)), "delete connection: its fields are still in the mapping");
  const status = await refused("deleteConnection", audience.deleteConnection({ entity, id: CONNECTION }));
  require(status === 404, `second delete connection: expected 404, got ${status}`);
  say("delete connection");
}

async function runWaiting() {
  await clear();
  await define();
  const nowS = Math.floor(Date.now() / 1000);
  const seen = bodies.queryEventFilteredUsers("customer_tier:gold", "@type:view", nowS - 60, nowS, ["user_id"]);
  const accounts = bodies.queryAccounts("account_id:none-such", ["account_id"]);
  const found = await Promise.all([
    users("customer_tier:gold", ["user_id", "customer_tier"]),
    users("@customer_tier:gold", ["user_id", "@customer_tier"]),
    call("queryAccounts", audience.queryAccounts({ body: accounts })),
    call("queryEventFilteredUsers", audience.queryEventFilteredUsers({ body: seen })),
  ]);
  require(same(found.map(total), [0, 0, 0, 0]), `queries on a waiting connection: ${JSON.stringify(found)}`);
  say("queries on a waiting connection find nobody");
  const byTier = bodies.facetInfo("customer_tier", "*");
  const byAccount = bodies.facetInfo("account_id", "account_id:none-such");
  const facets = await Promise.all([
    call("getUserFacetInfo", audience.getUserFacetInfo({ body: byTier })),
    call("getAccountFacetInfo", audience.getAccountFacetInfo({ body: byAccount })),
  ]);
  require(same(facets.map(facet), [[], []]), `facets on a waiting connection: ${JSON.stringify(facets)}`);
  say("facets on a waiting connection are empty");
  await remove();
}

function makeWorld() {
  const run = randomBytes(4).toString("hex");
  const domain = `r${run}.example.com`;
  const email = (key) => `${key}@${domain}`;
  return {
    run,
    email,
    everyone: `user_email:*@${domain}`,
    tableName: `crm_integration_${run}`,
    applicationId: randomUUID(),
    account: { id: `acc-${run}`, name: `Account ${run}` },
    row: ([key, ...cells]) =>
      Object.fromEntries(SCENARIO.columns.map((name, at) => [name, [email(key), ...cells][at]])),
  };
}

async function createTable(world) {
  const lines = [SCENARIO.columns, ...SCENARIO.rows.map((row) => Object.values(world.row(row)))];
  const uploadId = await upload(tables, world.tableName, lines);
  say("upload the file of a reference table");
  const body = bodies.createTable(world.tableName, SCENARIO.columns, uploadId);
  const { id } = (await call("createReferenceTable", tables.createReferenceTable({ body }))).data;
  const table = await poll(() => readTable(tables, id), ({ status }) => status === "DONE", "the table is done");
  require(table.rowCount === SCENARIO.rows.length, `get table: ${JSON.stringify(table)}`);
  const all = await call("listTables", tables.listTables({ filterTableNameExact: world.tableName }));
  require(same(all.data.map((one) => one.id), [id]), `list tables: ${JSON.stringify(all)}`);
  say("create, get and list the reference table");
  return id;
}

async function sendEvents(world) {
  const sent = SCENARIO.people.flatMap(({ key, name, ordered }) => {
    const user = { id: `${key}-${world.run}`, email: world.email(key), name };
    const names = ordered ? ["signed_up", "order_placed"] : ["signed_up"];
    return names.map((event) => bodies.serverEvent(event, world.applicationId, user, world.account));
  });
  await Promise.all(sent.map((body) => call("submitEvent", events.submitProductAnalyticsEvent({ body }))));
  say(`submit ${sent.length} events`);
  const everyone = () => users(world.everyone, ["user_id"]);
  await poll(everyone, (answer) => total(answer) === SCENARIO.people.length, "users made by events");
  say("the users are there");
}

async function awaitLoyal(wanted, what) {
  const columns = ["user_id", "user_email", "user_name", ...FIELDS];
  const read = () => users(SCENARIO.search, columns, { field: "lifetime_value", order: "DESC" });
  const answer = await poll(read, (got) => same(ids(got), wanted), what);
  require(total(answer) === wanted.length, `${what}: total ${total(answer)}`);
  say(what);
  return answer;
}

function checkValues(world, answer) {
  const rows = new Map(SCENARIO.rows.map(([key, ...cells]) => [key.toLowerCase(), cells]));
  const names = new Map(SCENARIO.people.map(({ key, name }) => [key, name]));
  ids(answer).forEach((key, at) => {
    const hit = answer.data.attributes.hits[at];
    const got = ["user_email", "user_name", ...FIELDS].map((name) => hit[name]);
    const wanted = [world.email(key), names.get(key), ...rows.get(key)];
    require(same(got, wanted), `values of ${key}: expected ${wanted}, got ${got}`);
  });
  say("the values of the table are on the profiles");
}

async function checkQueries(world) {
  for (const { key, name } of SCENARIO.people) {
    const found = await users(world.everyone, ["user_id", "user_name"], { term: name.toUpperCase() });
    require(same(ids(found), [key]), `wildcardSearchTerm ${name.toUpperCase()}: ${ids(found)}`);
  }
  say("search by free text");
  const tiers = (term) => {
    const body = bodies.facetInfo("customer_tier", world.everyone, term);
    return call("getUserFacetInfo", audience.getUserFacetInfo({ body }));
  };
  const [all, one] = await Promise.all([tiers(), tiers("GOL")]);
  require(same(facet(all), SCENARIO.tiers), `facet of customer_tier: ${JSON.stringify(facet(all))}`);
  require(same(facet(one), SCENARIO.tiers.slice(0, 1)), `facet with termSearch: ${JSON.stringify(facet(one))}`);
  say("facets of a custom attribute");
  const nowS = Math.floor(Date.now() / 1000);
  const search = `@type:server AND @event.name:order_placed AND @application.id:${world.applicationId}`;
  const scope = `${world.everyone} AND customer_tier:gold`;
  const body = bodies.queryEventFilteredUsers(scope, search, nowS - 3600, nowS + 60, ["user_id", "customer_tier"]);
  const buyers = await call("queryEventFilteredUsers", audience.queryEventFilteredUsers({ body }));
  require(same(ids(buyers).sort(), SCENARIO.buyers), `event filtered users: ${JSON.stringify(buyers)}`);
  require(total(buyers) === SCENARIO.buyers.length, `event filtered users: total ${total(buyers)}`);
  say("event filtered users");
  await checkAccounts(world.account);
}

async function checkAccounts({ id, name }) {
  const query = bodies.queryAccounts(`account_id:${id}`, ["account_id", "account_name"]);
  const [hit, ...others] = (await call("queryAccounts", audience.queryAccounts({ body: query }))).data.attributes.hits;
  require(hit?.account_id === id && hit.account_name === name && others.length === 0, "query accounts");
  const body = bodies.facetInfo("account_name", `account_id:${id}`);
  const names = await call("getAccountFacetInfo", audience.getAccountFacetInfo({ body }));
  require(same(facet(names), [[name, 1]]), `facet of account_name: ${JSON.stringify(names)}`);
  say("accounts and their facets");
}

async function checkRows(world, id) {
  const keys = (await listRows(tables, id, 4)).map((row) => row.id);
  const wanted = SCENARIO.rows.map(([key]) => world.email(key)).sort();
  require(same(keys.sort(), wanted), `list rows in pages: expected ${wanted}, got ${keys}`);
  say("list rows, page by page");
  const changed = world.row(SCENARIO.upserted_row);
  await call("upsertRows", tables.upsertRows({ id, body: bodies.upsertRow(changed.email, changed) }));
  await awaitLoyal(SCENARIO.loyal_after_upsert, "upsert rows, and the profiles follow");
  await checkRead(tables, id, SCENARIO.columns, changed, world.email("nobody"));
  const gone = bodies.deleteRow(world.email(SCENARIO.deleted_row));
  await call("deleteRows", tables.deleteRows({ id, body: gone }));
  await awaitLoyal(SCENARIO.loyal_after_delete, "delete rows, and the profiles follow");
  const replaced = SCENARIO.replaced_rows.map((row) => world.row(row));
  await checkChanges(tables, id, world.tableName, SCENARIO.columns, replaced);
  await awaitLoyal(SCENARIO.loyal_after_replace, "replace all rows by a new upload, and the profiles follow");
}

async function runTable() {
  const world = makeWorld();
  await clear();
  const id = await createTable(world);
  await sendEvents(world);
  await define({ table_name: world.tableName });
  checkValues(world, await awaitLoyal(SCENARIO.loyal, "filter and sort by custom attributes"));
  await checkQueries(world);
  await checkRows(world, id);
  await remove();
  await call("deleteTable", tables.deleteTable({ id }));
  const status = await refused("getTable", tables.getTable({ id }));
  require(status === 404, `get a deleted table: expected 404, got ${status}`);
  say("delete the table");
  await checkCloud(tables, world.run);
  await checkRecorded(tables, world.run, SCENARIO.recorded_errors);
}

try {
  await runWaiting();
  await runTable();
  console.log("done typescript");
} catch (failure) {
  if (!(failure instanceof Failure)) throw failure;
  console.error(`FAIL ${failure.message}`);
  process.exitCode = 1;
}
