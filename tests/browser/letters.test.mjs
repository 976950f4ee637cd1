// Dead letters: dry run, redrive, progress, a restart in the middle, a subscriber that still fails.
import { after, test } from "node:test";
import assert from "node:assert/strict";
import { Broker, Subscriber, close, open, until } from "./harness.mjs";

after(close);
const HERE = "/subscriptions/default/billing/dead-letters";

async function dead(t, count) {
  const subscriber = await Subscriber.start();
  subscriber.answer = () => ({ status: 503, body: "upstream timed out" });
  const broker = await Broker.start({ billing: { uri: subscriber.url, retry: 0 } });
  t.after(async () => { await broker.stop(); subscriber.stop(); });
  await Promise.all(Array.from({ length: count }, (_, n) => broker.post(`ord-${n + 1}`)));
  const letters = async () => (await (await fetch(`${broker.admin}/v1${HERE}?page_size=250`)).json()).items;
  await until(async () => (await letters()).length === count, "the dead letters");
  return { subscriber, broker, letters };
}

/** Asks for the plan until it tells of the attempts that failed, which are looked at once a second. */
async function planTelling(page, what) {
  await until(async () => {
    if (await page.locator("#plan").count() === 0) await page.getByRole("button", { name: "Dry run" }).click();
    else await page.reload();
    await page.locator("#plan").waitFor();
    return what.test(await page.locator("#plan").innerText());
  }, `a plan that says ${what}`);
}

test("what was counted is sent, also over a restart", async (t) => {
  const { subscriber, broker, letters } = await dead(t, 12);
  const page = await open(broker.admin, {}, /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/);
  await page.at("/dead-letters");
  await page.getByRole("link", { name: "look and redrive" }).click();
  await page.getByRole("checkbox", { name: "HTTP 503" }).check();
  await page.getByRole("button", { name: "Dry run" }).click();
  await page.getByRole("heading", { name: "Plan: 12 dead letters" }).waitFor();
  await planTelling(page, /100 % of the attempts .* still failed/s);

  await broker.post("late-1");
  await broker.post("late-2");
  await until(async () => (await letters()).length === 14, "two more die");
  subscriber.answer = () => ({ status: 200 });
  const before = subscriber.received.length;
  await page.locator("[name=rate]").fill("4");
  await page.getByRole("button", { name: "Redrive 12" }).click();
  await page.waitForURL(/\/redrives\//);
  await page.waitForFunction(() => document.querySelector("main progress").value >= 2);
  await broker.end();
  await page.locator("#offline").waitFor({ state: "visible" });
  assert.match(await page.locator("#offline").innerText(), /^Not connected since .*, retrying$/);
  await broker.run();
  await page.locator("#offline").waitFor({ state: "hidden" });
  await page.getByText("12/12 sent").waitFor({ timeout: 60_000 });
  await page.locator("[data-live=state]").getByText("done").waitFor();
  const sent = await until(() => {
    const ids = new Set(subscriber.received.slice(before).map((one) => one.id));
    return ids.size >= 12 && ids;
  }, "12 events arrive");
  assert.deepEqual([...sent].sort(), Array.from({ length: 12 }, (_, n) => `ord-${n + 1}`).sort());
  if (await broker.hasJournal()) {
    await page.getByRole("link", { name: "delivered 12" }).waitFor();
  }
  await page.getByRole("link", { name: "‹ Dead letters of default/billing" }).click();
  await page.locator("[data-live=sum]").getByText("2 open").waitFor();
  page.clean();
});

test("a redrive can be paused, resumed and cancelled", async (t) => {
  const { broker } = await dead(t, 6);
  const page = await open(broker.admin, { viewport: { width: 390, height: 844 } });
  await page.at(HERE);
  await page.getByRole("button", { name: "Dry run" }).click();
  await page.locator("[name=rate]").fill("1");
  await page.getByRole("button", { name: "Redrive 6" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Resume" }).waitFor();
  assert.match(await page.title(), /paused/);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator("[data-live=state]").getByText("cancelled").waitFor();
  page.clean();
});

test("a redrive to a subscriber that still fails pauses after 20, and loses nothing", async (t) => {
  const { subscriber, broker, letters } = await dead(t, 50);
  if (!(await broker.hasJournal())) return t.skip("no journal");
  const page = await open(broker.admin);
  await page.at(HERE);
  await planTelling(page, /100 % of the attempts .* still failed .*Try one first/s);
  const before = subscriber.received.length;
  await page.locator("[name=rate]").fill("");
  await page.getByRole("button", { name: "Redrive 50" }).click();
  await page.getByText("Paused by itself: 20 in a row failed, the last with http_503").waitFor();
  assert.match(await page.title(), /paused/);
  assert.equal(subscriber.received.length - before, 20, "no more than 20 are sent to a subscriber that fails");
  await page.getByRole("link", { name: "dead again 20" }).waitFor();
  // Nothing is lost: 20 of the 50 died again, 30 were not sent.
  const open_ = (all) => all.filter((letter) => !letter.sent_again);
  await until(async () => open_(await letters()).length === 50, "50 are open dead letters still");

  subscriber.answer = () => ({ status: 200 });
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("50/50 sent").waitFor();
  await page.locator("[data-live=state]").getByText("done").waitFor();
  await page.getByRole("link", { name: "delivered 30" }).waitFor();
  assert.equal(await page.getByText("Paused by itself").count(), 0);
  await page.at(HERE);
  await page.locator("[data-live=sum]").getByText("20 open").waitFor();
  page.clean();
});

test("without scripts a dry run and a redrive work", async (t) => {
  const { subscriber, broker } = await dead(t, 3);
  const page = await open(broker.admin, { javaScriptEnabled: false });
  await page.at("/");
  assert.equal(await page.getByRole("button", { name: "Live" }).count(), 0);
  subscriber.answer = () => ({ status: 200 });
  const before = subscriber.received.length;
  await page.at(HERE);
  await page.getByRole("button", { name: "Dry run" }).click();
  await page.getByRole("button", { name: "Try 1 first" }).click();
  await page.waitForURL(/\/redrives\//);
  await until(() => subscriber.received.length === before + 1, "one arrives");
  await until(async () => {
    // The page renews itself without scripts, too, and then the two meet.
    await page.reload().catch(() => {});
    return (await page.getByRole("link", { name: "Back to the plan" }).count()) > 0;
  }, "the redrive of one is done");
  await page.getByRole("link", { name: "Back to the plan" }).click();
  await page.getByRole("button", { name: /^Redrive / }).click();
  await until(() => subscriber.received.length === before + 3, "the others arrive, each once");
  page.clean();
});
