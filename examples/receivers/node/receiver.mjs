// A receiver of webhooks for Node.js 20.10 or later, with its own modules only.
//
//     $ WEBHOOK_SECRET=whsec_… node receiver.mjs
//
// docs/receivers.md has the variables that it reads. `verify` needs the body and the target as they came. Express has them,
// too, but express.json() leaves nothing of the body: use express.raw({ type: "application/json" }) on this route, before
// express.json() is used for others. Take req.originalUrl, since req.url lacks the path at which a router is mounted.

import { createHash, createHmac, createPublicKey, timingSafeEqual, verify as verifyByKey } from "node:crypto";
import { existsSync, linkSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";

// The header with the signature, what a signature begins with, the kind of key, the hash, whether id and time are signed.
const SCHEMES = {
  standard_webhooks_v1: ["webhook-signature", "v1,", "secret", "sha256", true],
  standard_webhooks_v1a: ["webhook-signature", "v1a,", "ed25519", null, true],
  rsa_sha256: ["webhook-signature-rsa", "", "rsa", "sha256", true],
  rsa_sha1: ["sign", "", "rsa", "sha1", false],
};
const [HEADER, PREFIX, KIND, HASH, IS_DATED] = SCHEMES[process.env.WEBHOOK_SCHEME ?? "standard_webhooks_v1"];
const TOLERANCE_S = Number(process.env.WEBHOOK_TOLERANCE_S ?? 300);
const MODE = process.env.WEBHOOK_MODE ?? "live";
const { CHECKOUT_ID, WEBHOOK_LOGIN } = process.env;
const TYPES = new Set(["payment.completed", "payment.failed", "refund.completed", "order.updated"]);
const MAX_BYTES = 1_000_000;

function readSecrets() {
  const texts = (process.env.WEBHOOK_SECRET ?? "").split(" ");
  const secrets = texts.map((text) => Buffer.from(text.replace(/^whsec_/, ""), "base64"));
  if (secrets.some((secret) => secret.length < 24)) {
    throw new Error("WEBHOOK_SECRET is not the whsec_… that the registration answered");
  }
  return secrets;
}

// The public keys of the file, PEM, one after the other.
function readPublicKeys() {
  const pems = readFileSync(process.env.WEBHOOK_PUBLIC_KEYS, "utf8").match(/-----BEGIN[^]*?-----END PUBLIC KEY-----/g);
  return pems.map((pem) => createPublicKey(pem)).filter((key) => key.asymmetricKeyType === KIND);
}

const KEYS = KIND === "secret" ? readSecrets() : readPublicKeys();
const sha256 = (text) => createHash("sha256").update(text).digest();

// The id by which the delivery is remembered; throws unless it is genuine.
function verify(headers, content) {
  let id = sha256(content).toString("hex");
  let signed = content;
  if (IS_DATED) {
    id = headers["webhook-id"];
    const timestamp = headers["webhook-timestamp"];
    if (!id || !(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_S)) {
      throw new Error("no id, too old, or from the future");
    }
    signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), content]);
  }
  for (const text of (headers[HEADER] ?? "").split(" ").filter((part) => part.startsWith(PREFIX))) {
    const signature = Buffer.from(text.slice(PREFIX.length), "base64");
    if (KEYS.some((key) => isSignature(signature, signed, key))) return id;
  }
  throw new Error("not signed by a known key");
}

function isSignature(signature, signed, key) {
  if (KIND !== "secret") return verifyByKey(HASH, signed, key, signature);
  const expected = createHmac(HASH, key).update(signed).digest();
  return signature.length === expected.length && timingSafeEqual(signature, expected);
}

// The content of a GET is its path and query, which begin with a slash; JSON never does.
function eventOf(content) {
  const text = content.toString();
  if (!text.startsWith("/")) return JSON.parse(text);
  return Object.fromEntries(new URLSearchParams(text.split("?").slice(1).join("?")));
}

// Yours: it may take its time, and must bear to be run again after a crash.
async function work(id, event) {
  if (isWanted(event)) {
    console.log("processed", id);
  }
}

function isWanted(event) {
  const ours = CHECKOUT_ID === undefined || event.data?.metadata?.checkoutId === CHECKOUT_ID;
  return TYPES.has(event.type) && (event.mode ?? MODE) === MODE && ours; // a GET does not say its mode
}

// Events wait in the directory inbox, a file each.
const waiting = [];

function remember(id, content) {
  const name = `inbox/${sha256(id).toString("hex")}`;
  const unfinished = `${name}.${process.pid}`;
  writeFileSync(unfinished, JSON.stringify({ id, content: content.toString() }), { flush: true });
  try {
    linkSync(unfinished, `${name}.json`); // fails for what came before
    waiting.push(name);
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  } finally {
    rmSync(unfinished);
  }
}

let working = false;
async function workOff() {
  if (working) return;
  working = true;
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    try {
      const { id, content } = JSON.parse(readFileSync(`${name}.json`));
      await work(id, eventOf(content));
      writeFileSync(`${name}.done`, "");
    } catch (error) {
      console.error(error); // it stays in the inbox until the next start
    }
  }
  working = false;
}

function receive(method, headers, content) {
  try {
    if (method === "POST" && content[0] === 0x2f) throw new Error("a GET that was sent again as a POST");
    if (headers[HEADER] === undefined && eventOf(content).type === "endpoint.ping") return 200;
    const login = `Basic ${Buffer.from(WEBHOOK_LOGIN ?? "").toString("base64")}`;
    if (WEBHOOK_LOGIN && !timingSafeEqual(sha256(headers.authorization ?? ""), sha256(login))) return 401;
    remember(verify(headers, content), content);
  } catch (error) {
    if (error.syscall) throw error; // not stored
    console.log("refused", error.message);
    return 400;
  }
  return 200;
}

const server = createServer(async (request, response) => {
  try {
    const chunks = [];
    let length = 0;
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      length += chunk.length;
      if (length > MAX_BYTES) return response.writeHead(413, { connection: "close" }).end();
      chunks.push(chunk);
    }
    const { method, url, headers } = request;
    const content = method === "GET" ? Buffer.from(url, "latin1") : Buffer.concat(chunks);
    response.writeHead(["GET", "POST"].includes(method) ? receive(method, headers, content) : 405).end();
  } catch (error) {
    console.error(error); // it will be sent again
    if (!response.headersSent) response.writeHead(500).end();
  }
  setImmediate(workOff);
});

mkdirSync("inbox", { recursive: true });
for (const file of readdirSync("inbox").filter((name) => name.endsWith(".json"))) {
  const name = `inbox/${file.slice(0, -".json".length)}`;
  if (!existsSync(`${name}.done`)) waiting.push(name);
}
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on port ${server.address().port}`);
  workOff();
});
