// Senders whose SDKs are receivers: each request is signed here as the sender documents it, and
// must please the SDK before it may be sent. Same shape as the senders of send.mjs.

import * as nodeCrypto from "node:crypto";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const { Webhook: Svix } = require("svix");
const { Mux } = require("@mux/mux-node");
const { verifyKey } = require("discord-interactions");
const twilio = require("twilio");
const plivo = require("plivo");
const { StreamChat } = require("stream-chat");
const { EventWebhook } = require("@sendgrid/eventwebhook");
const { verifySignature } = require("@vonage/jwt");
const messagebird = require("messagebird/lib/webhook-signature-jwt");

/** The URL that the senders of forms were given; the server knows it as `public_url`. */
const PUBLIC_URL = "https://hooks.example.com";

const nowSeconds = () => Math.floor(Date.now() / 1000);
const hmac = (secret, text, encoding) =>
  nodeCrypto.createHmac("sha256", secret).update(text).digest(encoding);
const form = (fields) => new URLSearchParams(fields).toString();
const fields = (body) => Object.fromEntries(new URLSearchParams(body));

const beside = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What Slack's SDK for Python signs; it also judges it. */
function slackSignature(secret, body, time) {
  const input = JSON.stringify({ secret, body, time });
  return execFileSync(beside(".venv/bin/python"), [beside("slack.py")], { input }).toString().trim();
}

const sha256 = (text) => nodeCrypto.createHash("sha256").update(text).digest("hex");

/** A token of HMAC-SHA256. */
function token(secret, claims) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${signed}.${hmac(secret, signed, "base64url")}`;
}

/** A private key of the same kind that is not the same. */
function otherKey(kind, options) {
  const { privateKey } = nodeCrypto.generateKeyPairSync(kind, options);
  return privateKey.export({ type: "pkcs8", format: "pem" });
}

export function judges(run) {
  return {
    svix: {
      eventId: `msg_${run}`,
      body: JSON.stringify({ type: "stream.started", timestamp: new Date().toISOString() }),
      async sign(body, secret, at) {
        const time = new Date((at ?? nowSeconds()) * 1000);
        return {
          "content-type": "application/json",
          "svix-id": this.eventId,
          "svix-timestamp": String(Math.floor(time.getTime() / 1000)),
          "svix-signature": new Svix(secret).sign(this.eventId, time, body),
        };
      },
      async check(body, headers, secret) {
        new Svix(secret).verify(body, headers);
        return true;
      },
      signature: "svix-signature",
    },
    mux: {
      eventId: `ev_${run}`,
      body: JSON.stringify({
        type: "video.live_stream.active",
        id: `ev_${run}`,
        created_at: new Date().toISOString(),
        environment: { name: "Production", id: "env1" },
      }),
      async sign(body, secret, at) {
        const time = at ?? nowSeconds();
        const header = `t=${time},v1=${hmac(secret, `${time}.${body}`, "hex")}`;
        return { "content-type": "application/json", "mux-signature": header };
      },
      async check(body, headers, secret) {
        const mux = new Mux({ tokenId: "none", tokenSecret: "none", webhookSecret: secret });
        await mux.webhooks.verifySignature(body, headers, secret);
        return true;
      },
      signature: "mux-signature",
    },
    discord: {
      eventId: run,
      body: JSON.stringify({ id: run, type: 2, application_id: "1", data: { name: "caf\u00e9" } }),
      async sign(body, secret, at) {
        const time = String(at ?? nowSeconds());
        const signature = nodeCrypto.sign(null, Buffer.from(time + body), secret);
        return {
          "content-type": "application/json",
          "x-signature-timestamp": time,
          "x-signature-ed25519": signature.toString("hex"),
        };
      },
      async check(body, headers, secret) {
        const key = nodeCrypto.createPublicKey(secret).export({ type: "spki", format: "der" });
        const [signature, time] = [headers["x-signature-ed25519"], headers["x-signature-timestamp"]];
        return verifyKey(body, signature, time, key.subarray(-32).toString("hex"));
      },
      other: () => otherKey("ed25519"),
      signature: "x-signature-ed25519",
    },
    slack: {
      eventId: `Ev${run}`,
      body: JSON.stringify({
        type: "event_callback",
        event_id: `Ev${run}`,
        event_time: nowSeconds(),
        team_id: "T1",
        event: { type: "message", text: "caf\u00e9" },
      }),
      async sign(body, secret, at) {
        const time = at ?? nowSeconds();
        return {
          "content-type": "application/json",
          "x-slack-request-timestamp": String(time),
          "x-slack-signature": slackSignature(secret, body, time),
        };
      },
      async check() {
        return true; // It was judged as it was signed.
      },
      signature: "x-slack-signature",
    },
    twilio: {
      eventId: `CA${run}`,
      body: form({
        CallSid: `CA${run}`,
        AccountSid: "AC1",
        CallStatus: "completed",
        To: "+1 555 0100",
        Body: "caf\u00e9 & more",
      }),
      async sign(body, secret) {
        const url = `${PUBLIC_URL}/twilio`;
        return {
          "content-type": "application/x-www-form-urlencoded",
          "x-twilio-signature": twilio.getExpectedTwilioSignature(secret, url, fields(body)),
        };
      },
      async check(body, headers, secret) {
        const signature = headers["x-twilio-signature"];
        return twilio.validateRequest(secret, signature, `${PUBLIC_URL}/twilio`, fields(body));
      },
      signature: "x-twilio-signature",
      unsignedTime: true,
    },
    plivo: {
      eventId: run,
      body: form({ CallUUID: run, Event: "Hangup", ParentAuthID: "MA1", From: "+1555" }),
      async sign(body, secret) {
        const sorted = Object.entries(fields(body)).sort(([a], [b]) => (a < b ? -1 : 1));
        const text = `${PUBLIC_URL}/plivo?${sorted.flat().join("")}.${run}`;
        return {
          "content-type": "application/x-www-form-urlencoded",
          "x-plivo-signature-v3-nonce": run,
          "x-plivo-signature-v3": hmac(secret, text, "base64"),
        };
      },
      async check(body, headers, secret) {
        const signature = headers["x-plivo-signature-v3"];
        const url = `${PUBLIC_URL}/plivo`;
        return plivo.validateV3Signature("POST", url, run, secret, signature, fields(body));
      },
      signature: "x-plivo-signature-v3",
      unsignedTime: true,
    },
    vonage: {
      eventId: run,
      body: JSON.stringify({ status: "answered", uuid: run, from: "15550100", text: "caf\u00e9" }),
      async sign(body, secret, at) {
        const iat = at ?? nowSeconds();
        const claims = { iat, jti: run, iss: "Vonage", api_key: "key", payload_hash: sha256(body) };
        const authorization = `Bearer ${token(secret, claims)}`;
        return { "content-type": "application/json", authorization };
      },
      async check(body, headers, secret) {
        return verifySignature(headers.authorization.slice("Bearer ".length), secret);
      },
      signature: "authorization",
    },
    messagebird: {
      eventId: run,
      body: JSON.stringify({ type: "message.created", message: { id: run, text: "caf\u00e9" } }),
      async sign(body, secret, at) {
        const nbf = at ?? nowSeconds();
        const claims = {
          iss: "MessageBird",
          nbf,
          exp: nbf + 60,
          jti: run,
          url_hash: sha256(`${PUBLIC_URL}/messagebird`),
          payload_hash: sha256(body),
        };
        const jwt = token(secret, claims);
        return { "content-type": "application/json", "messagebird-signature-jwt": jwt };
      },
      async check(body, headers, secret) {
        const key = nodeCrypto.createSecretKey(Buffer.from(secret));
        const jwt = headers["messagebird-signature-jwt"];
        await messagebird.verify(`${PUBLIC_URL}/messagebird`, Buffer.from(body), jwt, key);
        return true;
      },
      signature: "messagebird-signature-jwt",
    },
    getstream: {
      eventId: run,
      body: JSON.stringify({ type: "message.new", cid: "livestream:final", text: "\u26bd goal" }),
      async sign(body, secret) {
        return {
          "content-type": "application/json",
          "x-webhook-id": run,
          "x-api-key": "key",
          "x-signature": hmac(secret, body, "hex"),
        };
      },
      async check(body, headers, secret) {
        return new StreamChat("key", secret).verifyWebhook(body, headers["x-signature"]);
      },
      signature: "x-signature",
      unsignedTime: true,
    },
    sendgrid: {
      eventId: run,
      // As SendGrid writes its lists, with a line end.
      body: `[${JSON.stringify({ sg_event_id: run, event: "delivered", email: "a@b.c" })}]\r\n`,
      kept: JSON.stringify({ sg_event_id: run, event: "delivered", email: "a@b.c" }),
      async sign(body, secret) {
        const time = String(nowSeconds());
        const signature = nodeCrypto.sign("sha256", Buffer.from(time + body), secret);
        return {
          "content-type": "application/json",
          "x-twilio-email-event-webhook-timestamp": time,
          "x-twilio-email-event-webhook-signature": signature.toString("base64"),
        };
      },
      async check(body, headers, secret) {
        const judge = new EventWebhook();
        const key = nodeCrypto.createPublicKey(secret).export({ type: "spki", format: "der" });
        return judge.verifySignature(
          judge.convertPublicKeyToECDSA(key.toString("base64")),
          body,
          headers["x-twilio-email-event-webhook-signature"],
          headers["x-twilio-email-event-webhook-timestamp"],
        );
      },
      other: () => otherKey("ec", { namedCurve: "P-256" }),
      signature: "x-twilio-email-event-webhook-signature",
      unsignedTime: true,
    },
  };
}
