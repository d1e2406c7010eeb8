// Runs the upstream scenarios with the official TypeScript package; writes what came of them as JSON.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

import { client, v2 } from "@datadog/datadog-api-client";

import { environment, findUnparsed, require, same } from "./client.mjs";

// The package does not export what turns JSON into its models and back.
const models = "@datadog/datadog-api-client/dist/packages/datadog-api-client-v2/models/ObjectSerializer.js";
const { ObjectSerializer } = createRequire(import.meta.url)(models);
const [requestsFile, outcomeFile] = process.argv.slice(2);
const requests = JSON.parse(readFileSync(requestsFile, "utf8"));

function method(operation) {
  return operation[0].toLowerCase() + operation.slice(1);
}

// A plain client of that server; only what the scenarios enable is enabled.
function configure(url) {
  const authMethods = { apiKeyAuth: environment("DD_API_KEY"), appKeyAuth: environment("DD_APP_KEY") };
  const configuration = client.createConfiguration({ baseServer: new client.BaseServerConfiguration(url, {}), authMethods });
  for (const { operation, unstable } of requests) {
    if (unstable) configuration.unstableOperations[`v2.${method(operation)}`] = true;
  }
  return configuration;
}

function sorted(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(sorted);
  return Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])]));
}

function typed({ title, body, model }) {
  const made = ObjectSerializer.deserialize(body, model, "");
  require(findUnparsed(made).length === 0, `${title}: the package does not know its own body`);
  const sent = JSON.parse(JSON.stringify(ObjectSerializer.serialize(made, model, "")));
  require(same(sorted(sent), sorted(body)), `${title}: would be sent as ${JSON.stringify(sent)}`);
  return made;
}

async function run(configuration, one) {
  const api = new v2[`${one.api}Api`](configuration);
  const parameters = { ...one.parameters };
  if (one.body !== null) parameters.body = typed(one);
  let answer;
  try {
    answer = await api[method(one.operation)](parameters);
  } catch (error) {
    if (!error.code) throw error;
    return { status: error.code, unparsed: findUnparsed(error.body), body: error.body };
  }
  const plain = one.answer ? ObjectSerializer.serialize(answer, one.answer, "") : answer;
  return { status: null, unparsed: findUnparsed(answer), body: plain ?? null };
}

const plain = configure(environment("ROSTER_URL"));
const stalled = configure(environment("ROSTER_STALLED_URL"));
const outcome = [];
for (const one of requests) outcome.push(await run(one.stalled ? stalled : plain, one));
writeFileSync(outcomeFile, JSON.stringify(outcome));
