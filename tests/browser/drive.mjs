// Serves the page, visits it in one browser as several people at once, and prints what the browser saw.
// In: a JSON list of visits on standard input, arguments the browser's path and user agent. Out: a JSON list of what came.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { chromium } from "playwright-core";

const HERE = new URL(".", import.meta.url);
const TYPES = { html: "text/html", js: "text/javascript" };
const FLAGS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"];
const INTAKE = /ddforward=|\/api\/v2\/rum/;
const PAGE_WAIT_MS = 20_000;

/** The page under every path, the scripts of one SDK version under /sdk/, told apart by the port. */
async function serve(version) {
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://page").pathname;
    const file = path.startsWith("/sdk/")
      ? new URL(`node_modules/rum-v${version}/bundle/${path.slice(5)}`, HERE)
      : new URL(path === "/shop.js" ? "page/shop.js" : "page/index.html", HERE);
    response.setHeader("content-type", TYPES[file.pathname.split(".").at(-1)]);
    response.end(await readFile(file));
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return server;
}

/** Everything that a request of the SDK to the intake shows from inside the browser. */
function watch(context, seen) {
  const note = (request) => ({ verb: request.method(), url: request.url(), kind: request.resourceType() });
  context.on("request", (r) => INTAKE.test(r.url()) && seen.asked.push(note(r)));
  context.on("response", (r) => INTAKE.test(r.url()) && seen.answered.push({ ...note(r.request()), status: r.status() }));
  context.on("requestfailed", (r) => seen.failed.push({ ...note(r), why: r.failure().errorText }));
  context.on("console", (m) => ["error", "warning"].includes(m.type()) && seen.console.push(m.text()));
  context.on("weberror", (e) => seen.console.push(String(e.error())));
}

/** Waits until the SDK has taken note of the place. */
async function arrive(page, place) {
  await page.waitForFunction((part) => window.DD_RUM.getInternalContext()?.view.url.includes(part), place);
}

/** Waits until all that was sent is taken, what had to be sent again too, and nothing more comes for a moment. */
async function settle(page, seen, lost) {
  const end = Date.now() + PAGE_WAIT_MS;
  for (let quiet = 0, count = 0; quiet < 4; count = seen.asked.length) {
    if (Date.now() > end) throw new Error(`not settled: ${JSON.stringify(seen)}`);
    await page.waitForTimeout(100);
    const last = seen.answered.at(-1);
    const again = seen.answered.some((r) => r.status === 202 && r.url.includes("retry_count"));
    const done = last?.status === 202 && seen.asked.length === seen.answered.length && (again || !lost);
    quiet = done && seen.asked.length === count ? quiet + 1 : 0;
  }
}

async function visit(browser, asked) {
  const server = await serve(asked.version);
  const context = await browser.newContext();
  const seen = { name: asked.name, asked: [], answered: [], failed: [], console: [] };
  try {
    watch(context, seen);
    await context.addInitScript((told) => (window.asked = told), asked);
    const page = await context.newPage();
    page.setDefaultTimeout(PAGE_WAIT_MS);
    await page.goto(`http://127.0.0.1:${server.address().port}/?utm_source=mail&utm_campaign=spring#offers`);
    await arrive(page, "/?utm_source");
    await page.evaluate("signIn()");
    await page.evaluate("visit('/dashboard/123')");
    await arrive(page, "/dashboard/123");
    await page.click("#add");
    // The SDK waits a second for more clicks before it says that there was one.
    await page.waitForTimeout(1_500);
    await page.evaluate("visit('/orders/8f14e45f-ceea-467f-9a0b-3c2e8f1d2b7a/items/42')");
    await arrive(page, "/orders/");
    await page.evaluate("pay()");
    await page.evaluate("fill()");
    await settle(page, seen, asked.lost);
    // Away from the page: what is left goes by beacon.
    await page.goto("about:blank");
    await page.waitForTimeout(500);
  } finally {
    await context.close();
    server.close();
  }
  return seen;
}

const visits = JSON.parse(await text(process.stdin));
const [executablePath, agent] = process.argv.slice(2);
// Told to the whole browser: what is set for a page alone does not always reach its last requests.
const browser = await chromium.launch({ executablePath, args: [...FLAGS, `--user-agent=${agent}`] });
try {
  console.log(JSON.stringify(await Promise.all(visits.map((asked) => visit(browser, asked)))));
} finally {
  await browser.close();
}
