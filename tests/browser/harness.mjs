// What the tests share: a broker with a subscriber of their own, and a browser that complains of
// everything a page must not do.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const HERE = import.meta.dirname;
export const LEVADA = process.env.LEVADA ?? resolve(process.env.CARGO_TARGET_DIR ?? join(HERE, "../../target"), "debug/levada");
export const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

/** Waits until `check` gives something, and gives it. */
export async function until(check, what, limit = 30_000) {
  const end = Date.now() + limit;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < end, `${what}: not within ${limit} ms`);
    await sleep(50);
  }
}

/** A subscriber whose answers a test chooses. */
export class Subscriber {
  #server;
  received = [];
  answer = () => ({ status: 200 });

  static async start() {
    const subscriber = new Subscriber();
    subscriber.#server = http.createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const got = { method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks), id: request.headers["ce-id"] };
      got.attempt = subscriber.received.filter((one) => one.id === got.id && one.url === got.url).length + 1;
      subscriber.received.push(got);
      const { status, headers = {}, body = "" } = await subscriber.answer(got);
      response.writeHead(status, headers).end(body);
    });
    subscriber.#server.listen(0, "127.0.0.1");
    await once(subscriber.#server, "listening");
    return subscriber;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** A broker on its own log, in its own directory. */
export class Broker {
  #child;
  #output = "";

  constructor(dir) {
    this.dir = dir;
  }

  /** `subscriptions`: name to what stands in `spec.delivery`, and `uri` and `channel`.
   * `journalDisk`: the size of a disk for the journal alone. */
  static async start(subscriptions, { journalDisk } = {}) {
    const broker = new Broker(await mkdtemp(join(tmpdir(), "levada-browser-")));
    broker.journalDisk = journalDisk;
    await broker.declare(subscriptions);
    await broker.run();
    return broker;
  }

  async declare(subscriptions) {
    const version = "messaging.knative.dev/v1beta1", kind = "KafkaChannel";
    const all = Object.entries(subscriptions).map(([name, one]) => [name, { channel: "orders", ordering: "none", ...one }]);
    const channels = [...new Set(all.map(([, { channel }]) => channel))];
    const documents = channels.map((name) => ({ apiVersion: version, kind, metadata: { name }, spec: { numPartitions: 1, replicationFactor: 1 } }));
    for (const [name, { uri, channel, ...delivery }] of all) {
      documents.push({
        apiVersion: "levada.dev/v1",
        kind: "Subscription",
        metadata: { name },
        spec: { channel: { apiVersion: version, kind, name: channel }, subscriber: { uri }, delivery },
      });
    }
    this.names = Object.keys(subscriptions);
    // JSON is YAML.
    await writeFile(join(this.dir, "resources.yaml"), documents.map((one) => JSON.stringify(one)).join("\n---\n"));
  }

  async run() {
    await rm(join(this.dir, "data/addresses.json"), { force: true });
    const command = [LEVADA, "serve", "--listen", this.at?.ingress ?? "127.0.0.1:0", "--admin-listen", this.at?.admin ?? "127.0.0.1:0", "--data-dir", join(this.dir, "data"), "--manifests", join(this.dir, "resources.yaml"), "--drain-timeout", "PT2S"];
    if (this.journalDisk) {
      const disk = join(this.dir, "data/journal");
      await mkdir(disk, { recursive: true });
      command.unshift("unshare", "--map-root-user", "--mount", "sh", "-c", `mount -t tmpfs -o size=${this.journalDisk} tmpfs "$0" && exec "$@"`, disk);
    }
    this.#child = spawn(command[0], command.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.on("data", (data) => { this.#output += data; });
    const addresses = await until(async () => {
      assert.equal(this.#child.exitCode, null, `the broker ended: ${this.#output}`);
      return readFile(join(this.dir, "data/addresses.json"), "utf8").then(JSON.parse).catch(() => null);
    }, "the broker's addresses");
    this.at = addresses; // the same after a restart
    this.ingress = `http://${addresses.ingress}`;
    this.admin = `http://${addresses.admin}`;
    for (const name of this.names) {
      await until(async () => {
        const answer = await fetch(`${this.admin}/v1/subscriptions/default/${name}`).catch(() => null);
        const resource = answer?.ok && (await answer.json());
        return resource && resource.status.conditions.some((one) => one.type === "Ready" && one.status === "True");
      }, `${name} is ready`);
    }
  }

  /** A path of its directory as the broker sees it, whose disks may be its own. */
  inside(path) {
    return join(`/proc/${this.pid}/root`, this.dir, path);
  }

  async end(signal = "SIGTERM") {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill(signal);
      await once(this.#child, "exit");
    }
  }

  async stop() {
    await this.end();
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Posts an event; its attributes in `attributes`. */
  async post(id, { channel = "orders", type = "order.created", data = '{"total": 7}', media = "application/json", headers = {} } = {}) {
    const answer = await fetch(`${this.ingress}/default/${channel}`, {
      method: "POST",
      headers: { "ce-specversion": "1.0", "ce-id": encodeAttribute(id), "ce-type": encodeAttribute(type), "ce-source": "/browser", "content-type": media, ...headers },
      body: data,
    });
    assert.equal(answer.status, 202, await answer.text());
  }

  /** Posts a batch of events with these ids. */
  async batch(ids, channel = "orders") {
    const event = (id) => ({ specversion: "1.0", id, type: "order.created", source: "/browser", datacontenttype: "application/json", data: { total: 7 } });
    const answer = await fetch(`${this.ingress}/default/${channel}`, { method: "POST", headers: { "content-type": "application/cloudevents-batch+json" }, body: JSON.stringify(ids.map(event)) });
    assert.equal(answer.status, 202, await answer.text());
  }

  /** The broker's process. */
  get pid() {
    return this.#child.pid;
  }

  /** The id of the message of the event at an offset of a subscription's channel, which has one
   * partition: made as the broker makes it, from uid and topic. */
  async address(subscription, offset) {
    const { metadata, status } = await (await fetch(`${this.admin}/v1/subscriptions/default/${subscription}`)).json();
    const space = Buffer.from("6ba7b8129dad11d180b400c04fd430c8", "hex"); // of object identifiers
    const hash = createHash("sha1").update(space).update(`${metadata.uid}\0${status.topic}`).digest().subarray(0, 8);
    hash[6] = (hash[6] & 0x0f) | 0x50; // version 5
    return `${hash.toString("hex")}-0-${offset}`;
  }

  /** Whether it keeps a journal: without one there are no messages to look at. */
  async hasJournal() {
    return !(await (await fetch(this.admin)).text()).includes("keeps no journal");
  }

  /** The address of the one message of an event, once it is in the journal. */
  async message(id) {
    return until(async () => {
      const answer = await fetch(`${this.admin}/messages?event_id=${encodeURIComponent(id)}`, { redirect: "manual" });
      return answer.status === 303 && answer.headers.get("location");
    }, `the message of ${id}`);
  }
}

/** Percent-encodes as CloudEvents over HTTP wants it. */
function encodeAttribute(text) {
  return [...text].map((c) => (/[\x21\x23\x24\x26-\x7e]/.test(c) ? c : [...Buffer.from(c)].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`).join(""))).join("");
}

let browser;
/** One browser for all. */
export async function launch() {
  browser ??= await chromium.launch({ executablePath: CHROMIUM, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
  return browser;
}

export async function close() {
  await browser?.close();
}

/** A page that notes what it must not do; `page.clean()` fails if it did. `expected`: what is no
 * fault on the console. */
export async function open(base, options = {}, expected = /status of 40[34]/) {
  const context = await (await launch()).newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  const faults = [];
  // A view that says 404 is one of ours, and Chromium tells of it on the console.
  page.on("console", (message) => { if (message.type() === "error" && !expected.test(message.text())) faults.push(message.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("dialog", (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!request.url().startsWith(base) && !request.url().startsWith("data:")) faults.push(`request to ${request.url()}`); });
  page.clean = () => assert.deepEqual(faults, []);
  page.at = (path) => page.goto(base + path);
  return page;
}

/** Whether anything is wider than the window. */
export async function sideways(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
