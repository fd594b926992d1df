// A receiver of webhooks that does everything once, on Node's own server, pg and Postgres.
//
// DATABASE_URL names a database with the tables of schema.sql, WEBHOOK_SECRET is the endpoint's signing secret (whsec_…),
// and PORT is where it listens, on loopback: what faces the Internet is your proxy.
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const { createServer } = require("node:http");
const { Pool } = require("pg");

const { DATABASE_URL, WEBHOOK_SECRET, PORT } = process.env;
const secret = Buffer.from(WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const pool = new Pool({ connectionString: DATABASE_URL });
pool.on("error", (error) => console.error("an idle connection broke:", error.message));

const CLAIM = `insert into webhook_seen (id, forget_after)
  values ($1, greatest($2::text::timestamptz, now()) + interval '6 days') on conflict do nothing`;
const PROCESS = "insert into payment (order_number) values ($1)";

/** Whether one of the signatures is ours, and not older than five minutes. */
function isAuthentic(headers, body) {
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!/^\d{1,11}$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > 300) return false;
  const ours = createHmac("sha256", secret).update(`${headers["webhook-id"]}.${sentAt}.`).update(body).digest();
  return (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const theirs = Buffer.from(signature.replace(/^v1,/, ""), "base64");
    return signature.startsWith("v1,") && theirs.length === ours.length && timingSafeEqual(theirs, ours);
  });
}

/** Claims, processes and commits in one transaction; false if the webhook was claimed before. */
async function processOnce(headers, body) {
  const client = await pool.connect();
  try {
    await client.query("begin");
    const claimed = await client.query(CLAIM, [headers["webhook-id"], headers["posthaste-redelivery-until"]]);
    if (claimed.rowCount === 1) await client.query(PROCESS, [JSON.parse(body).order]);
    await client.query("commit");
    client.release();
    return claimed.rowCount === 1;
  } catch (error) {
    client.release(error); // closes the connection: Postgres rolls back
    throw error;
  }
}

async function receive(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isAuthentic(request.headers, body)) return response.writeHead(401).end("not signed by the sender");
  const isFirst = await processOnce(request.headers, body);
  response.writeHead(200).end(isFirst ? "processed" : "seen before");
}

const server = createServer((request, response) => {
  receive(request, response).catch((error) => {
    console.error(error);
    response.writeHead(500).end("try again");
  });
});
server.listen(Number(PORT), "127.0.0.1", () => console.log("listening"));
