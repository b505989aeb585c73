// Sends one event by each official SDK, again, and altered; prints what was answered as JSON.
//
//   node send.mjs '{"base": "http://127.0.0.1:7400", "secrets": {"livekit": "...", ...}}'
//
// Each SDK also checks what it has signed by its own receiver, so that a wrong sender here cannot
// pass for a wrong receiver there. Judging the answers is the caller's.

import * as nodeCrypto from "node:crypto";

// Node 18 has no global WebCrypto, which the LiveKit SDK expects; hence the late imports.
globalThis.crypto ??= nodeCrypto.webcrypto;
const { AccessToken, WebhookReceiver } = await import("livekit-server-sdk");
const { default: Stripe } = await import("stripe");
const octokit = await import("@octokit/webhooks-methods");
const { Webhook } = await import("standardwebhooks");
const { judges } = await import("./judges.mjs");

const STALE_SECONDS = 24 * 60 * 60;

const { base, secrets } = JSON.parse(process.argv[2]);
const run = nodeCrypto.randomUUID();
const nowSeconds = () => Math.floor(Date.now() / 1000);

/**
 * A sender: the path of its source, the event's id and body, how a body is signed (by a secret, at
 * a time; headers come back), and what its own SDK says of the result (throws or returns false).
 */
const senders = {
  livekit: {
    eventId: `EV_${run}`,
    body: JSON.stringify({
      event: "participant_joined",
      id: `EV_${run}`,
      createdAt: String(nowSeconds()),
      room: { sid: "RM_stage", name: "main stage" },
      participant: { sid: "PA_1", identity: "caf\u00e9" },
    }),
    async sign(body, secret, at) {
      // As LiveKit's server does: a token with the body's hash, and no grant.
      const token = new AccessToken("APIforebay", secret, { ttl: "5m" });
      token.sha256 = nodeCrypto.createHash("sha256").update(body).digest("base64");
      const jwt = at === undefined ? await token.toJwt() : expired(token, secret, at);
      return { "content-type": "application/webhook+json", authorization: jwt };
    },
    async check(body, headers, secret) {
      const event = await new WebhookReceiver("APIforebay", secret).receive(
        body,
        headers.authorization,
      );
      return event.id === this.eventId;
    },
    signature: "authorization",
  },
  stripe: {
    eventId: `evt_${run}`,
    body: JSON.stringify({
      id: `evt_${run}`,
      object: "event",
      type: "invoice.paid",
      created: nowSeconds(),
      data: { object: { id: "in_1", amount_paid: 4200, description: "\u20ac42" } },
    }),
    async sign(body, secret, at) {
      const header = Stripe.webhooks.generateTestHeaderString({
        payload: body,
        secret,
        timestamp: at ?? nowSeconds(),
      });
      return { "content-type": "application/json; charset=utf-8", "stripe-signature": header };
    },
    async check(body, headers, secret) {
      const header = headers["stripe-signature"];
      return Stripe.webhooks.constructEvent(body, header, secret).id === this.eventId;
    },
    signature: "stripe-signature",
  },
  github: {
    eventId: nodeCrypto.randomUUID(),
    body: JSON.stringify({ action: "opened", run, sender: { login: "octocat" } }),
    async sign(body, secret) {
      return {
        "content-type": "application/json",
        "x-github-event": "issues",
        "x-github-delivery": this.eventId,
        "x-hub-signature-256": await octokit.sign(secret, body),
      };
    },
    async check(body, headers, secret) {
      return octokit.verify(secret, body, headers["x-hub-signature-256"]);
    },
    signature: "x-hub-signature-256",
    unsignedTime: true,
  },
  "standard-webhooks": {
    eventId: `msg_${run}`,
    body: JSON.stringify({
      type: "stream.started",
      timestamp: new Date().toISOString(),
      data: { id: "str_1", title: "\u6771\u4eac" },
    }),
    async sign(body, secret, at) {
      const time = new Date((at ?? nowSeconds()) * 1000);
      return {
        "content-type": "application/json",
        "webhook-id": this.eventId,
        "webhook-timestamp": String(Math.floor(time.getTime() / 1000)),
        "webhook-signature": new Webhook(secret).sign(this.eventId, time, body),
      };
    },
    async check(body, headers, secret) {
      new Webhook(secret).verify(body, headers);
      return true;
    },
    signature: "webhook-signature",
  },
  ...judges(run),
};

/** A token that ended at `at`: the SDK will not make one, so the same claims are signed by hand. */
function expired(token, secret, at) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sha256: token.sha256, iss: "APIforebay", nbf: at - 300, exp: at };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  const mac = nodeCrypto.createHmac("sha256", secret).update(signed).digest("base64url");
  return `${signed}.${mac}`;
}

/** The body with a space before its last letter, which changes no JSON. */
function alter(body) {
  const end = body.trimEnd().length - 1;
  return `${body.slice(0, end)} ${body.slice(end)}`;
}

/** A secret of the same form and length that is not the same. */
function otherSecret(secret) {
  const at = secret.length - 8;
  return secret.slice(0, at) + (secret[at] === "A" ? "B" : "A") + secret.slice(at + 1);
}

/** The header with one letter in its second half changed for another. */
function bend(header) {
  const at = Math.floor(header.length * 0.75);
  return header.slice(0, at) + (header[at] === "a" ? "b" : "a") + header.slice(at + 1);
}

async function post(path, headers, body) {
  const answer = await fetch(`${base}${path}`, { method: "POST", headers, body });
  await answer.arrayBuffer();
  return answer.status;
}

/** Each way to alter a request that its receiver must see through. */
async function alterations(sender, headers, secret) {
  const { body } = sender;
  const missing = { ...headers };
  delete missing[sender.signature];
  const bent = { ...headers, [sender.signature]: bend(headers[sender.signature]) };
  const altered = [
    ["body altered", headers, alter(body)],
    ["body cut", headers, body.slice(0, -1)],
    ["signature altered", bent, body],
    ["signature missing", missing, body],
    ["another secret", await sender.sign(body, (sender.other ?? otherSecret)(secret)), body],
  ];
  if (!sender.unsignedTime) {
    const stale = await sender.sign(body, secret, nowSeconds() - STALE_SECONDS);
    altered.push(["stale", stale, body]);
  }
  return altered;
}

const report = [];
for (const [name, sender] of Object.entries(senders)) {
  const secret = secrets[name];
  const path = `/${name}`;
  const headers = await sender.sign(sender.body, secret);
  if (!(await sender.check(sender.body, headers, secret))) {
    throw new Error(`${name}: the SDK does not accept what it has signed`);
  }
  // The altered ones first: had one been stored, the true event after it would look like a twin.
  const altered = [];
  for (const [what, alteredHeaders, body] of await alterations(sender, headers, secret)) {
    altered.push({ what, status: await post(path, alteredHeaders, body) });
  }
  const first = await post(path, headers, sender.body);
  const again = await post(path, headers, sender.body);
  const kept = sender.kept ?? sender.body;
  report.push({ name, event_id: sender.eventId, body: kept, first, again, altered });
}
console.log(JSON.stringify(report));
