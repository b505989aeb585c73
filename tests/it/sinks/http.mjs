// A receiver of webhooks that takes effect once, as the sink `http` asks of one: it keeps an event
// under its Idempotency-Key and takes no second one, unless an operator sends it once more.
//
//   node http.mjs PORT FILE TOKEN BODY_BYTES_MAX
//
// An event is a line of FILE before it is answered, so that a kill takes nothing that was answered.

import { appendFileSync, existsSync, readFileSync, truncateSync } from "node:fs";
import { createServer } from "node:http";

const [port, file, token, bodyBytesMax] = process.argv.slice(2);
const known = new Set();

// A kill may have cut the last line, which nobody was told of.
const text = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
const whole = text.lastIndexOf("\n") + 1;
if (whole < text.length) truncateSync(file, whole);
for (const line of text.toString("utf8", 0, whole).split("\n")) {
    if (line) known.add(JSON.parse(line).key);
}

function answer(request, body) {
    const headers = request.headers;
    if (headers.authorization !== `Bearer ${token}`) return 401;
    if (request.method !== "POST") return 405;
    if (body.length > Number(bodyBytesMax)) return 413;
    const key = headers["idempotency-key"];
    if (known.has(key) && headers["forebay-pass"] !== "replay") return 200;
    const attribute = (name) => decodeURIComponent(headers[`ce-${name}`] ?? "");
    const row = {
        key,
        name: `${attribute("lane")} ${attribute("position")}`,
        event_id: attribute("eventid"),
        event_type: attribute("type"),
        source: attribute("source"),
        content_type: headers["content-type"],
    };
    appendFileSync(file, `${JSON.stringify(row)}\n`);
    known.add(key);
    return 204;
}

const server = createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => response.writeHead(answer(request, Buffer.concat(parts))).end());
});
server.keepAliveTimeout = 60_000;
server.listen(Number(port), "127.0.0.1");
