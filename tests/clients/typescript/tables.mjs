// Steps on reference tables with the official TypeScript package: rows, changes, tables of buckets, recorded errors.

import * as bodies from "./bodies.mjs";
import { call, refusal, refused, require, same, say } from "./client.mjs";

const ADDED_COLUMN = "seen_in";
const NOBODY = "00000000-0000-0000-0000-000000000000";
const PART_BYTES_MIN = 5_000_000;

// Uploads lines as a CSV file, cut into parts wherever that is; gives the id of the upload.
export async function upload(tables, tableName, lines, partCount = 1) {
  const content = new TextEncoder().encode(lines.map((line) => `${line.join(",")}\n`).join(""));
  const asked = bodies.createUpload(tableName, lines[0], partCount, Math.max(content.length, PART_BYTES_MIN));
  const { data } = await call("createReferenceTableUpload", tables.createReferenceTableUpload({ body: asked }));
  require(data.attributes.partUrls.length === partCount, `upload of ${partCount} parts: ${data.attributes.partUrls}`);
  const step = Math.ceil(content.length / partCount);
  for (const [at, partUrl] of data.attributes.partUrls.entries()) {
    const body = content.slice(at * step, (at + 1) * step);
    const put = await fetch(partUrl, { method: "PUT", body, headers: { "content-type": "text/csv" } });
    require(put.ok, `PUT of the part: ${put.status}`);
  }
  return data.id;
}

export async function readTable(tables, id) {
  return (await call("getTable", tables.getTable({ id }))).data.attributes;
}

// All rows in pages of a given size.
export async function listRows(tables, id, pageLimit) {
  let page = await call("listReferenceTableRows", tables.listReferenceTableRows({ id, pageLimit }));
  const rows = [...page.data];
  for (let pageContinuationToken; (pageContinuationToken = page.meta?.page?.nextContinuationToken); ) {
    require(page.links.first && page.links.self && page.links.next, `list rows: links ${JSON.stringify(page.links)}`);
    const rest = tables.listReferenceTableRows({ id, pageLimit, pageContinuationToken });
    page = await call("listReferenceTableRows", rest);
    rows.push(...page.data);
  }
  require(page.links.next === undefined, `list rows: a last page with a next one: ${page.links.next}`);
  return rows;
}

// Rows by key, with one key that no row has.
export async function checkRead(tables, id, columns, wanted, absent) {
  const rowId = [wanted[columns[0]], absent];
  const right = (rows) =>
    rows.length === 1 && columns.every((name) => rows[0].attributes.values[name] === wanted[name]);
  const byId = await call("getRowsByID", tables.getRowsByID({ id, rowId }));
  require(right(byId.data), `get rows by id: ${JSON.stringify(byId)}`);
  say("get rows by id");
  const batch = await call("batchRowsQuery", tables.batchRowsQuery({ body: bodies.batchRows(id, rowId) }));
  require(right(batch.included), `batch rows query: ${JSON.stringify(batch)}`);
  require(same(batch.data.relationships.rows.data.map((row) => row.id), rowId.slice(0, 1)), "batch rows query: ids");
  say("batch rows query");
}

// Words, then a column, then all rows by a new upload in two parts: those that it does not have are gone.
export async function checkChanges(tables, id, tableName, columns, replaced) {
  const change = (attributes) =>
    call("updateReferenceTable", tables.updateReferenceTable({ id, body: bodies.patchTable(attributes) }));
  const before = await readTable(tables, id);
  await change({ description: "Changed", tags: ["flow", "changed"] });
  const after = await readTable(tables, id);
  require(after.description === "Changed" && same(after.tags, ["flow", "changed"]), "update table: words");
  require(same(after.schema, before.schema) && after.rowCount === before.rowCount, "update table: rows or columns");
  const fields = [...before.schema.fields, { name: ADDED_COLUMN, type: "STRING" }];
  await change({ schema: { fields, primaryKeys: columns.slice(0, 1) } });
  const { schema } = await readTable(tables, id);
  require(same(schema.fields.map((f) => f.name), [...columns, ADDED_COLUMN]), "add a column");
  say("update the words of the table, add a column");
  const rows = replaced.map((row) => ({ ...row, [ADDED_COLUMN]: "Oslo" }));
  const lines = [[...columns, ADDED_COLUMN], ...rows.map((row) => Object.values(row))];
  await change({ fileMetadata: { uploadId: await upload(tables, tableName, lines, 2) } });
  const got = (await listRows(tables, id)).map((row) => row.attributes.values);
  const right = got.length === rows.length && rows.every((row, at) => same(Object.values(row), Object.values(got[at])));
  require(right, `rows after a new upload: ${JSON.stringify(got)}`);
  require((await readTable(tables, id)).rowCount === rows.length, "row count after a new upload");
}

// Tables of buckets are there at once and tell back how they were declared; their rows are not written.
export async function checkCloud(tables, run) {
  for (const source of ["S3", "GCS", "AZURE"]) {
    const body = bodies.createCloudTable(`${source.toLowerCase()}_users_${run}`, source);
    const made = (await call("createReferenceTable", tables.createReferenceTable({ body }))).data;
    const { id } = made;
    checkMetadata(made.attributes, source, bodies.ACCESS_DETAILS, true);
    checkMetadata(await readTable(tables, id), source, bodies.ACCESS_DETAILS, true);
    if (source === "S3") {
      const filePath = "reference-tables/other.csv";
      const fileMetadata = { accessDetails: { awsDetail: { filePath } }, syncEnabled: false };
      const moved = bodies.patchTable({ fileMetadata });
      await call("updateReferenceTable", tables.updateReferenceTable({ id, body: moved }));
      const awsDetail = { ...bodies.ACCESS_DETAILS.awsDetail, filePath };
      checkMetadata(await readTable(tables, id), source, { ...bodies.ACCESS_DETAILS, awsDetail }, false);
    }
    const status = await refused("upsertRows", tables.upsertRows({ id, body: bodies.upsertRow("1", { name: "x" }) }));
    require(status === 409, `upsert rows of ${source}: expected 409, got ${status}`);
    await call("deleteTable", tables.deleteTable({ id }));
  }
  say("create, read, change and delete tables of buckets");
}

function checkMetadata({ source, status, fileMetadata }, wantedSource, details, syncEnabled) {
  require(source === wantedSource, `table of ${wantedSource}: ${source}`);
  require(["PROCESSING", "ERROR", "DONE"].includes(status), `table of ${source}: status ${status}`);
  const told = fileMetadata.accessDetails;
  const right = Object.entries(details).every(([detail, members]) =>
    Object.entries(members).every(([name, value]) => told[detail]?.[name] === value),
  );
  require(right, `table of ${source}: ${JSON.stringify(told)}`);
  require(fileMetadata.syncEnabled === syncEnabled, `table of ${source}: syncEnabled ${fileMetadata.syncEnabled}`);
}

// The errors whose bodies are recorded from the API are the same to the letter.
export async function checkRecorded(tables, run, wanted) {
  const body = bodies.createWithoutUpload(`none_${run}`);
  const refusals = {
    no_upload: await refusal("createReferenceTable", tables.createReferenceTable({ body })),
    no_uuid: await refusal("listReferenceTableRows", tables.listReferenceTableRows({ id: "not-a-valid-uuid" })),
    unknown: await refusal("listReferenceTableRows", tables.listReferenceTableRows({ id: NOBODY })),
  };
  for (const [name, got] of Object.entries(refusals)) {
    require(same(got, wanted[name]), `recorded error ${name}: ${JSON.stringify(got)}`);
  }
  const change = tables.updateReferenceTable({ id: NOBODY, body: bodies.patchTable({ tags: [] }) });
  require((await refused("updateReferenceTable", change)) === 404, "update an unknown table: expected 404");
  const query = tables.batchRowsQuery({ body: bodies.batchRows(NOBODY, ["a"]) });
  require((await refused("batchRowsQuery", query)) === 404, "rows of an unknown table: expected 404");
  say("errors as recorded, to the letter");
}
