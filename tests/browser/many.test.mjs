// Many messages: how long the server takes, and what twenty open tabs cost.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Broker, Subscriber, close, launch, open, until } from "./harness.mjs";

/** More than one search walks, so that one for what is not there is cut. */
const EVENTS = Number(process.env.MESSAGES ?? 24_000);
/** What an answer may take on an idle machine, in ms, with a build that is not optimized. */
const SERVER = 100, PAINT = 500;

let subscriber, broker, journal;

before(async () => {
  subscriber = await Subscriber.start();
  subscriber.answer = () => ({ status: 503 });
  // Of a sandbox nobody is called: the messages are in the journal soon.
  broker = await Broker.start({ billing: { uri: subscriber.url, sandbox: true }, dead: { uri: subscriber.url, channel: "bad", retry: 0 } });
  journal = await broker.hasJournal();
  if (!journal) return;
  await Promise.all(Array.from({ length: 100 }, (_, n) => broker.post(`bad-${n}`, { channel: "bad", type: "rare" })));
  await until(async () => (await list("status=undelivered&page_size=250")).items.length === 100, "the dead letters");
  for (let n = 0; n < EVENTS; n += 100) await broker.batch(Array.from({ length: 100 }, (_, m) => `many-${n + m}`));
  const has = async () => (await (await fetch(`${broker.admin}/v1/health`)).json()).journal.messages;
  await until(async () => (await has()) >= EVENTS + 100, "the journal has all", 120_000);
});
after(async () => {
  await close();
  await broker.stop();
  subscriber.stop();
});

const list = async (query) => (await fetch(`${broker.admin}/v1/messages?${query}`)).json();

/** The least that an answer took, in ms: what the machine does besides is not meant. */
async function took(path) {
  let least = Infinity;
  for (let n = 0; n < 5; n += 1) {
    const begun = performance.now();
    const answer = await fetch(broker.admin + path);
    await answer.text();
    least = Math.min(least, performance.now() - begun);
  }
  return least;
}

test("every view answers soon, however many messages there are", async (t) => {
  if (!journal) return t.skip("no journal");
  // The oldest page, reached by cursors as a reader would.
  let cursor = "", pages = 0, seen = 0;
  for (;;) {
    const page = await list(`subscription=default%2Fbilling&page_size=250${cursor}`);
    pages += 1;
    seen += page.items.length;
    if (!page.page_info.after) break;
    cursor = `&after=${page.page_info.after}`;
  }
  assert.equal(seen, EVENTS, "the cursor leads over all of them, each once");
  assert.ok(pages >= EVENTS / 250);
  const message = (await list("page_size=1")).items[0].id;
  const views = ["/", "/messages", "/messages?subscription=default%2Fbilling", "/messages?status=undelivered", `/messages?subscription=default%2Fbilling${cursor}`, `/messages/${message}`, "/dead-letters", "/subscriptions/default/dead/dead-letters", "/subscriptions/default/billing"];
  for (const path of views) {
    const time = await took(path);
    assert.ok(time <= SERVER, `${path} took ${time} ms`);
  }
});

test("a search for what is not there says how far it came", async (t) => {
  if (!journal) return t.skip("no journal");
  const nothing = "event_type=rare&subscription=default%2Fbilling";
  const page = await list(nothing);
  assert.deepEqual(page.items, []);
  assert.ok(page.page_info.searched_to && page.page_info.after, JSON.stringify(page.page_info));
  const time = await took(`/messages?${nothing}`);
  assert.ok(time <= SERVER + 50, `it took ${time} ms`); // the walk itself may take 50 ms
  const view = await open(broker.admin);
  await view.at(`/messages?${nothing}`);
  await view.getByText(/Searched back to .*; nothing matches yet/).waitFor();
  // A busy machine comes less far in a step.
  const further = view.getByRole("link", { name: "Search further back" });
  const end = view.getByText("No message fits these filters");
  while ((await further.count()) > 0) {
    await further.click();
    await further.or(end).waitFor();
  }
  await end.waitFor();
  view.clean();
});

test("the first paint comes soon", async (t) => {
  if (!journal) return t.skip("no journal");
  const page = await open(broker.admin);
  for (const path of ["/", "/messages", "/dead-letters"]) {
    let least = Infinity;
    for (let n = 0; n < 5; n += 1) {
      await page.at(path);
      const paint = await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
      least = Math.min(least, await paint.jsonValue());
    }
    assert.ok(least <= PAINT, `${path} was painted after ${least} ms`);
  }
  page.clean();
});

test("twenty open tabs cost little", async (t) => {
  if (!journal) return t.skip("no journal");
  const context = await (await launch()).newContext();
  for (let n = 0; n < 20; n += 1) await (await context.newPage()).goto(`${broker.admin}/`);
  // Ticks of the process, 100 a second: its own time, whatever else the machine does.
  const ticks = async () => {
    const fields = (await readFile(`/proc/${broker.pid}/stat`, "utf8")).split(") ")[1].split(" ");
    return Number(fields[11]) + Number(fields[12]);
  };
  const alone = await cost(ticks, async () => { await context.setOffline(true); });
  const watched = await cost(ticks, async () => { await context.setOffline(false); });
  // 5 % of a core with an optimized build, which is some five times as fast.
  assert.ok(watched - alone <= 0.25, `20 tabs take ${((watched - alone) * 100).toFixed(1)} % of a core`);
  await context.close();
});

/** The share of a core that the broker takes over some seconds after `begin`. */
async function cost(ticks, begin) {
  const SECONDS = 8;
  await begin();
  await sleep(2000);
  const first = await ticks();
  await sleep(SECONDS * 1000);
  return ((await ticks()) - first) / 100 / SECONDS;
}
