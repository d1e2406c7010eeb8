// Reads connections that carry rules of values with the official TypeScript package; the test has made them.

import * as bodies from "./bodies.mjs";
import { call, openApis, require, same } from "./client.mjs";

const { audience } = openApis();
const entity = "users";
const wanted = { "ruled-crm": ["ruled_level"], "ruled-shop": ["ruled_level", "ruled_score"] };

const listed = (await call("listConnections", audience.listConnections({ entity }))).data.attributes.connections;
const ruled = listed.filter(({ id }) => id in wanted);
const fields = Object.fromEntries(ruled.map((one) => [one.id, one.fields.map(({ id }) => id)]));
require(same(fields, wanted), `list connections: ${JSON.stringify(fields)}`);

const rows = (await call("getMapping", audience.getMapping({ entity }))).data.attributes.attributes;
const named = rows.map((row) => row.attribute).filter((name) => name.startsWith("@ruled"));
require(same(named, ["@ruled_level", "@ruled_score"]), `mapping: ${named}`);

const columns = ["user_id", "ruled_level", "@ruled_score"];
const body = bodies.queryUsers("user_id:ruled-*", columns);
const { hits } = (await call("queryUsers", audience.queryUsers({ body }))).data.attributes;
const values = hits.map((hit) => columns.map((name) => hit[name] ?? null));
require(same(values, [["ruled-1", "gold", 5], ["ruled-2", "iron", null]]), `query users: ${JSON.stringify(values)}`);
console.log("done");
