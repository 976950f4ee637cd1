// A journal that is locked, whose disk is full, and that comes back: deliveries go on.
import { after, test } from "node:test";
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdir, rm, writeFile } from "node:fs/promises";
import { Broker, Subscriber, close, open, until } from "./harness.mjs";

after(close);

/** Whether this machine lets a process mount a disk of its own. */
const canMount = spawnSync("unshare", ["--map-root-user", "--mount", "true"]).status === 0;
/** Attempts with an answer of this size, which is what is kept of one, soon fill what the journal
 * holds in memory, 64 MiB. */
const RETRIES = 79;
const LARGE = "x".repeat(4 << 10);

async function started(t, options) {
  const subscriber = await Subscriber.start();
  const broker = await Broker.start({ billing: { uri: subscriber.url, maxInFlight: 50, retry: RETRIES, backoffPolicy: "linear", backoffDelay: "PT0.001S" } }, options);
  t.after(async () => { await broker.stop(); subscriber.stop(); });
  return { subscriber, broker };
}

test("a locked journal holds nothing up", async (t) => {
  if (spawnSync("sqlite3", ["--version"]).status !== 0) return t.skip("sqlite3 is missing");
  const { subscriber, broker } = await started(t);
  if (!(await broker.hasJournal())) return t.skip("no journal");
  await broker.post("before");
  await broker.message("before");
  const files = (await readdir(`${broker.dir}/data/journal`)).filter((name) => /\.(db|sqlite)$/.test(name)).sort();
  const lock = spawn("sqlite3", [`${broker.dir}/data/journal/${files.at(-1)}`], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => lock.kill());
  lock.stdin.write("begin immediate; select 'locked';\n");
  await once(lock.stdout, "data");
  const page = await open(broker.admin);
  await page.at("/");
  for (let n = 0; n < 20; n += 1) { // what is told first is being written, the rest waits
    await broker.post(`locked-${n}`);
    await until(() => subscriber.received.at(-1).id === `locked-${n}`, "deliveries go on");
  }
  await page.getByText(/changes wait to be written/).waitFor();
  const told = page.locator("#as-of");
  const first = await told.innerText();
  await page.waitForFunction((text) => document.querySelector("#as-of").textContent !== text, first);
  lock.stdin.end("rollback;\n");
  await broker.message("locked-19");
  await page.getByText(/changes wait to be written/).waitFor({ state: "detached" });
  assert.match(await page.locator("[data-live=verdict]").innerText(), /no gaps/);
  page.clean();
});

test("a full disk costs the journal a gap, which is told with its count and span", async (t) => {
  if (!canMount) return t.skip("this needs unshare(1) and user namespaces");
  const { subscriber, broker } = await started(t, { journalDisk: "192m" });
  if (!(await broker.hasJournal())) return t.skip("no journal");
  await broker.post("before");
  await broker.message("before");
  const ballast = broker.inside("data/journal/ballast");
  const full = await writeFile(ballast, Buffer.alloc(256 << 20)).then(() => null, ({ code }) => code);
  assert.equal(full, "ENOSPC");
  const page = await open(broker.admin);
  await page.at("/");
  subscriber.answer = () => ({ status: 503, body: LARGE });
  const EVENTS = 250, ATTEMPTS = EVENTS * (RETRIES + 1);
  await Promise.all(Array.from({ length: EVENTS }, (_, n) => broker.post(`full-${n}`)));
  await until(() => subscriber.received.length >= ATTEMPTS, "deliveries go on", 120_000);
  subscriber.answer = () => ({ status: 200 });
  await page.getByText(/changes wait to be written/).waitFor();
  await rm(ballast);
  await broker.post("after");
  const gap = page.locator("p.gap").first();
  await gap.waitFor({ timeout: 60_000 });
  const [, count] = /missed ([\d,]+) changes? between [\d:]+ and [\d:]+\. Deliveries went on/.exec(await gap.innerText());
  assert.ok(Number(count.replace(",", "")) > 0);
  await page.at("/subscriptions/default/billing");
  await page.locator("p.gap").waitFor();
  await page.locator("svg.chart rect[fill='url(#p-gap)']").first().waitFor({ state: "attached" });
  page.clean();
});
