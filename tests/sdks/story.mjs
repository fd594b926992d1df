// The README's story as the JavaScript SDK tells it. Reads POSTHASTE_URL and TOKEN.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as wait } from "node:timers/promises";

import { ApiException, Svix, Webhook, WebhookVerificationError } from "svix";

const APP = "javascript";
const PATIENCE = 20_000;

const received = [];
const receiver = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  response.writeHead(204).end();
  received.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
});
receiver.listen(0, "127.0.0.1");
await once(receiver, "listening");
const url = `http://127.0.0.1:${receiver.address().port}/hook`;

/** Polls until `probe` brings something. */
async function eventually(what, probe) {
  for (const begun = Date.now(); Date.now() - begun < PATIENCE; await wait(50)) {
    const found = await probe();
    if (found) return found;
  }
  assert.fail(`waited in vain for ${what}`);
}

/** Awaits what must be refused with this status, and returns what the body says. */
async function refusal(status, call) {
  const error = await call.then(() => assert.fail("nothing was refused"), (error) => error);
  assert(error instanceof ApiException, String(error));
  assert.equal(error.code, status, JSON.stringify(error.body));
  return error.body;
}

/** The next webhook, whose signature must be one of this secret's. */
async function verified(secret) {
  const webhook = await eventually("a webhook", () => received.shift());
  new Webhook(secret).verify(webhook.body, webhook.headers);
  return webhook;
}

/** The attempts of a message, once there are so many. */
async function attempted(message, count) {
  return eventually(`${count} attempts of ${message}`, async () => {
    const { data } = await svix.messageAttempt.listByMsg(APP, message, { limit: 50 });
    assert(data.length <= count, JSON.stringify(data));
    return data.length === count && data.every((attempt) => attempt.status === 0) && data;
  });
}

const svix = new Svix(process.env.TOKEN, { serverUrl: process.env.POSTHASTE_URL });
const app = await svix.application.create({ name: "ACME", uid: APP });
assert.deepEqual([app.name, app.uid], ["ACME", APP]);
assert.equal((await svix.application.get(APP)).id, app.id);
assert.equal((await svix.application.getOrCreate({ name: "Another", uid: APP })).name, "ACME");
const endpoint = await svix.endpoint.create(APP, { url, uid: "main", description: "first" });
const { key: secret } = await svix.endpoint.getSecret(APP, "main");

// The same request twice is one message, and one webhook.
const paid = { eventType: "invoice.paid", payload: { order: 17 } };
const key = { idempotencyKey: "order-17-paid" };
const first = await svix.message.create(APP, paid, key);
assert.deepEqual(await svix.message.create(APP, paid, key), first);
const webhook = await verified(secret);
assert.equal(webhook.headers["webhook-id"], first.id);
assert.deepEqual(JSON.parse(webhook.body), { order: 17 });

// The same key with another request is a mistake that can be read.
const other = { eventType: "invoice.paid", payload: { order: 18 } };
const reused = await refusal(422, svix.message.create(APP, other, key));
assert(reused.detail.length === 1 && reused.detail[0].msg.includes("idempotency key"), JSON.stringify(reused));

const attempts = await attempted(first.id, 1);
assert.deepEqual([attempts[0].responseStatusCode, attempts[0].url], [204, url]);
const byEndpoint = await svix.messageAttempt.listByEndpoint(APP, endpoint.id, { limit: 5 });
assert.deepEqual(byEndpoint.data.map(({ id }) => id), [attempts[0].id]);
assert.equal((await svix.messageAttempt.get(APP, first.id, attempts[0].id)).endpointId, endpoint.id);
const listed = await svix.message.list(APP, { withContent: true });
assert.deepEqual(listed.data.map(({ id, payload }) => [id, payload]), [[first.id, { order: 17 }]]);

await svix.messageAttempt.resend(APP, first.id, "main");
assert.equal((await verified(secret)).headers["webhook-id"], first.id);
await attempted(first.id, 2);

// While a secret is rotated the old one signs, too.
await svix.endpoint.rotateSecret(APP, "main", {});
const { key: rotated } = await svix.endpoint.getSecret(APP, "main");
assert.notEqual(rotated, secret);
const second = await svix.message.create(APP, other);
const signed = await verified(rotated);
assert.equal(signed.headers["webhook-id"], second.id);
new Webhook(secret).verify(signed.body, signed.headers);
assert.throws(() => new Webhook(rotated).verify('{"order":19}', signed.headers), WebhookVerificationError);
await svix.endpoint.rotateSecret(APP, "main", { key: secret, gracePeriodSeconds: 0 });
assert.equal((await svix.endpoint.getSecret(APP, "main")).key, secret);

assert.equal((await svix.application.patch(APP, { name: "ACME Ltd" })).name, "ACME Ltd");
assert.equal((await svix.endpoint.patch(APP, "main", { disabled: true })).disabled, true);
const patched = await svix.endpoint.get(APP, endpoint.id);
assert.deepEqual([patched.disabled, patched.description], [true, "first"]);
const quiet = await svix.message.create(APP, { eventType: "invoice.paid", payload: { order: 20 } });
assert.deepEqual((await svix.messageAttempt.listByMsg(APP, quiet.id)).data, []);

assert.equal((await refusal(404, svix.endpoint.get(APP, "missing"))).code, "not_found");
assert((await refusal(409, svix.application.create({ name: "ACME", uid: APP }))).detail);
assert.equal((await refusal(422, svix.endpoint.create(APP, { url: "not a URL" }))).detail[0].loc.at(-1), "url");
await refusal(401, new Svix("not-a-token", { serverUrl: process.env.POSTHASTE_URL }).application.list());

await svix.endpoint.delete(APP, "main");
await refusal(404, svix.endpoint.get(APP, endpoint.id));
await svix.application.delete(APP);
await refusal(404, svix.application.get(app.id));
assert.deepEqual(received, [], "a webhook more than there should be");
receiver.close();
console.log("the story was told");
