// The official SDK of Standard Webhooks as a receiver of what the http sink sends. Every request
// must please it by each of the secrets, and not please it any more once it was altered.

import { createRequire } from "node:module";

const { Webhook } = createRequire(import.meta.url)("standardwebhooks");
const { secrets, requests } = JSON.parse(process.argv[2]);
const counts = { accepted: 0, refused: 0 };

const refuses = (webhook, body, headers) => {
  try {
    webhook.verify(body, headers);
  } catch {
    counts.refused += 1;
    return;
  }
  throw new Error(`an altered request was accepted: ${JSON.stringify({ body, headers })}`);
};

for (const { body, headers } of requests) {
  for (const secret of secrets) {
    const webhook = new Webhook(secret);
    webhook.verify(body, headers);
    counts.accepted += 1;
    refuses(webhook, `${body} `, headers);
    refuses(webhook, body, { ...headers, "webhook-id": `${headers["webhook-id"]}0` });
  }
}
console.log(
  `${requests.length} requests, ${counts.accepted} accepted, ${counts.refused} altered and refused`,
);
