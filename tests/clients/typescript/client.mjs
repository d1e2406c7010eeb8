// Points the official TypeScript package at a server and guards its answers; knows no request body.

import { client, logger, v2 } from "@datadog/datadog-api-client";

const POLL_TIMEOUT_MS = 20_000;
const UNSTABLE = [
  "createConnection",
  "updateConnection",
  "deleteConnection",
  "listConnections",
  "getMapping",
  "queryUsers",
  "queryAccounts",
  "queryEventFilteredUsers",
  "getUserFacetInfo",
  "getAccountFacetInfo",
];

// The package warns of every operation that it calls unstable; its users have switched them on.
logger.setLevel("error");

export class Failure extends Error {}

export function require(truth, message) {
  if (!truth) throw new Failure(message);
}

export function say(text) {
  console.log(`ok   ${text}`);
}

export function same(left, right) {
  return JSON.stringify(left) === JSON.stringify(right);
}

export function environment(name) {
  if (process.env[name]) return process.env[name];
  console.error(`FAIL set the environment variable ${name}`);
  return process.exit(1);
}

export function openApis() {
  const authMethods = { apiKeyAuth: environment("DD_API_KEY"), appKeyAuth: environment("DD_APP_KEY") };
  const baseServer = new client.BaseServerConfiguration(environment("ROSTER_URL"), {});
  const configuration = client.createConfiguration({ baseServer, authMethods });
  for (const name of UNSTABLE) {
    require(`v2.${name}` in configuration.unstableOperations, `the package has no unstable operation ${name}`);
    configuration.unstableOperations[`v2.${name}`] = true;
  }
  return {
    audience: new v2.RumAudienceManagementApi(configuration),
    tables: new v2.ReferenceTablesApi(configuration),
    events: new v2.ProductAnalyticsApi(configuration),
  };
}

// The package marks what it could not decode: `_unparsed` on a model, or an UnparsedObject in its place.
export function findUnparsed(value, path = "") {
  if (value === null || typeof value !== "object" || value instanceof Date) return [];
  const here = value._unparsed === true || value.constructor?.name === "UnparsedObject" ? [path || "/"] : [];
  return here.concat(...Object.entries(value).map(([name, inner]) => findUnparsed(inner, `${path}/${name}`)));
}

export async function call(what, promise) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    const failure = new Failure(`${what}: ${error.message}`);
    failure.status = error.code;
    throw failure;
  }
  const unparsed = findUnparsed(answer);
  require(unparsed.length === 0, `${what}: the client could not parse ${unparsed.join(", ")}`);
  return answer;
}

export async function refused(what, promise) {
  return (await refusal(what, promise))[0];
}

// Status and body of an error. The package hands a body over as text when it is not the documented list of texts.
export async function refusal(what, promise) {
  try {
    await promise;
  } catch (error) {
    return [error.code, typeof error.body === "string" ? error.body : JSON.stringify(error.body)];
  }
  throw new Failure(`${what}: was accepted, an error was expected`);
}

export async function poll(read, good, what) {
  const stop = Date.now() + POLL_TIMEOUT_MS;
  for (;;) {
    const answer = await read();
    if (good(answer)) return answer;
    require(Date.now() < stop, `${what}: not within ${POLL_TIMEOUT_MS} ms, last answer ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
