// What became of an event: live, by search, in lists.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Broker, Subscriber, close, open, until } from "./harness.mjs";

let subscriber, broker, journal;
const LATER = 1_200; // an attempt takes so long that a page sees it due

before(async () => {
  subscriber = await Subscriber.start();
  const fast = { uri: `${subscriber.url}/fast` };
  broker = await Broker.start({
    billing: { uri: subscriber.url, channel: "flaky", retry: 3, backoffPolicy: "linear", backoffDelay: "PT3S" },
    one: fast, two: fast, three: fast,
    slow: { uri: `${subscriber.url}/slow`, channel: "slow", maxInFlight: 1 },
  });
  journal = await broker.hasJournal();
});
after(async () => {
  await close();
  await broker.stop();
  subscriber.stop();
});

for (const width of [1440, 390]) {
  test(`a page left open follows the message (${width} px)`, async (t) => {
    if (!journal) return t.skip("no journal");
    subscriber.answer = async ({ attempt }) => {
      if (attempt > 1) await new Promise((done) => setTimeout(done, LATER));
      return { status: attempt < 3 ? 503 : 200 };
    };
    const id = `flaky-${width}`;
    const page = await open(broker.admin, { viewport: { width, height: 900 } });
    await page.addInitScript(() => {
      const note = () => {
        for (const node of document.querySelectorAll(".big .st, .due")) (window.seen ??= new Set()).add(node.textContent.trim().replace(/\s+/g, " "));
      };
      new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
    });
    // The browser is up: the first retry waits only 3 s.
    await page.at("/");
    await broker.post(id, { channel: "flaky" });
    await page.at(await broker.message(id));
    await page.locator(".big .st", { hasText: "Delivered" }).waitFor({ timeout: 30_000 });
    const seen = [...(await page.evaluate(() => [...window.seen]))];
    for (const part of [/^Queued, retry 1\/3/, /^Queued, retry 2\/3/, /due now/, /^Delivered$/]) assert.ok(seen.some((text) => part.test(text)), `${part}: ${seen}`);
    assert.match(await page.title(), /^delivered - flaky-/);
    const ladder = page.locator(".ladder");
    assert.equal(await ladder.locator("b", { hasText: /^attempt \d$/ }).count(), 3);
    const waits = (await ladder.locator(".wait").allInnerTexts()).map((text) => /waited (\d+\.\d) s/.exec(text)?.[1]).filter(Boolean).map(Number);
    assert.equal(waits.length, 2);
    // 2 % or 100 ms, whichever is more, and what the page rounds away.
    for (const wait of waits) assert.ok(Math.abs(wait - 3) <= 0.2, `waited ${wait} s`);
    const statuses = (await page.locator(".statuses .st").allInnerTexts()).map((text) => text.trim());
    assert.deepEqual(statuses.slice(-5), ["Undelivered", "Queued", "Undelivered", "Queued", "Delivered"]);
    await page.getByRole("link", { name: "Logs 3" }).click();
    assert.equal(await page.locator("details.log").count(), 3);
    page.clean();
  });
}

test("a search finds one, many, or says why nothing", async (t) => {
  if (!journal) return t.skip("no journal");
  subscriber.answer = () => ({ status: 200 });
  await broker.post("three-ways");
  const page = await open(broker.admin);
  await until(async () => {
    await page.at("/messages?event_id=three-ways");
    return (await page.locator("tr[data-row]").count()) === 3;
  }, "three messages");
  await broker.post("only-one", { channel: "flaky" });
  await broker.message("only-one");
  for (const typed of ["only-one", "  only-one ", "\"only-one\"", "'only-one'"]) {
    await page.at("/");
    await page.keyboard.press("/");
    await page.keyboard.type(typed);
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/messages\/[0-9a-f]+-\d+-\d+$/);
  }
  await page.at("/messages?event_id=unknown");
  for (const cause of ["Older than the journal keeps", "journal had a gap", "not tried yet"]) assert.ok((await page.locator("main").innerText()).includes(cause), cause);
  page.clean();
});

test("filters stand in the address", async (t) => {
  if (!journal) return t.skip("no journal");
  const page = await open(broker.admin);
  await page.at("/messages");
  await page.getByText("+ filter").click();
  await page.locator("[name=status]").selectOption("delivered");
  await page.locator("[name=subscription]").selectOption("default/one");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator(".chip").nth(1).waitFor();
  const rows = (one) => one.locator("tr[data-row] th a").allInnerTexts();
  const first = await rows(page);
  assert.ok(first.length > 0);
  await page.reload();
  assert.deepEqual(await rows(page), first);
  const other = await open(broker.admin);
  await other.goto(page.url());
  assert.deepEqual(await rows(other), first);
  await page.locator(".chip", { hasText: "subscription" }).click();
  assert.deepEqual(await page.locator(".chip").allInnerTexts(), ["status: delivered ×"]);
  await page.goBack();
  assert.equal(await page.locator(".chip").count(), 2);
  page.clean();
});

test("older pages are stable while events arrive", async (t) => {
  if (!journal) return t.skip("no journal");
  subscriber.answer = () => ({ status: 200 });
  const page = await open(broker.admin);
  const COUNT = 500;
  for (let n = 0; n < COUNT; n += 20) await Promise.all(Array.from({ length: 20 }, (_, m) => broker.post(`page-${n + m}`)));
  const here = "/messages?subscription=default%2Fone";
  await until(async () => {
    const { items } = await (await fetch(`${broker.admin}/v1/messages?subscription=default%2Fone&page_size=250`)).json();
    return items.some((one) => one.event.id.startsWith("page-4")) && (await untried(broker)) === 0;
  }, "all 500 are in the journal");
  await page.at(here);
  const head = page.locator("tr[data-row] th").first();
  await head.hover();
  const top = await head.innerText(), { y } = await head.boundingBox();
  const newer = page.locator("[data-newer]");
  for (let posted = 0; posted < 2; posted += 1) { // it grows
    await broker.post(`few-${posted}`);
    await page.locator(`[data-newer="${posted + 1}"]`).waitFor();
  }
  let arriving = true;
  const arrivals = (async () => { // some 200 a second
    for (let n = 0; arriving; n += 10) {
      await Promise.all([sleep(50), ...Array.from({ length: 10 }, (_, m) => broker.post(`new-${n + m}`))]);
    }
  })();
  await newer.getByText("200+ newer").waitFor();
  assert.equal(await head.innerText(), top, "nothing moves under the pointer");
  assert.equal((await head.boundingBox()).y, y);
  const met = await page.locator("tr[data-row] th").allInnerTexts();
  for (;;) {
    const older = page.getByRole("link", { name: "older ›" });
    if ((await older.count()) === 0) break;
    await older.click();
    await page.waitForLoadState();
    met.push(...(await page.locator("tr[data-row] th").allInnerTexts()));
  }
  arriving = false;
  await arrivals;
  assert.equal(new Set(met).size, met.length, "no row twice");
  const paged = met.filter((id) => id.startsWith("page-"));
  assert.equal(paged.length, COUNT, "no row missing");
  page.clean();
});

test("a message is found before its first attempt", async (t) => {
  if (!journal) return t.skip("no journal");
  let free;
  const held = new Promise((done) => { free = done; });
  t.after(free);
  subscriber.answer = async ({ url }) => { if (url === "/slow") await held; return { status: 200 }; };
  for (let n = 0; n < 4; n += 1) await broker.post(`wait-${n}`, { channel: "slow" });
  const page = await open(broker.admin);
  await page.at("/messages?subscription=default%2Fslow");
  await page.getByText("3 events wait for the first attempt").waitFor();
  await page.at(`/messages/${await broker.address("slow", 2)}`);
  await page.locator(".big .st", { hasText: "Queued" }).waitFor();
  assert.match(await page.title(), /^queued - wait-2/);
  assert.match(await page.locator(".ladder").innerText(), /accepted .* waits for its turn/s);
  await page.getByRole("link", { name: "Logs 0" }).click();
  await page.getByText(/No request was made yet/).waitFor();
  await page.at("/subscriptions/default/slow");
  await page.locator(".tiles div", { hasText: "never tried" }).getByText("3").waitFor();
  await page.getByText("Partitions of this node 1").click();
  assert.match(await page.locator("[data-live=partitions] tbody tr").innerText(), /reads/);
  await page.at(`/messages/${await broker.address("slow", 2)}`);
  free();
  await page.locator(".big .st", { hasText: "Delivered" }).waitFor();
  page.clean();
});

/** Events of all subscriptions that wait for their first attempt. */
async function untried(broker) {
  return (await (await fetch(`${broker.admin}/v1/messages?page_size=1`)).json()).page_info.untried;
}
