// By keyboard, for a screen reader, on a narrow window.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { Broker, Subscriber, close, open, sideways, until } from "./harness.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let subscriber, broker, journal, views;

before(async () => {
  subscriber = await Subscriber.start();
  subscriber.answer = ({ url }) => ({ status: url === "/bad" ? 503 : 200, body: "upstream timed out" });
  broker = await Broker.start({ billing: { uri: `${subscriber.url}/bad`, retry: 0 }, search: { uri: `${subscriber.url}/good` }, keys: { uri: `${subscriber.url}/good`, channel: "keys" } });
  journal = await broker.hasJournal();
  for (let n = 0; n < 5; n += 1) await broker.post(`ord-${n}`, { type: `com.example.${"a-long-name.".repeat(8)}created` });
  const letters = "/subscriptions/default/billing/dead-letters";
  await until(async () => (await (await fetch(`${broker.admin}/v1${letters}`)).json()).items.length === 5, "the dead letters");
  const plan = await fetch(`${broker.admin}${letters}/plan`, { method: "POST", redirect: "manual" });
  views = ["/", "/?show=attention", "/messages", "/messages?status=bounced&last=1h", "/messages?event_id=nothing", "/dead-letters", letters, plan.headers.get("location"), "/subscriptions/default/billing", "/channels/default/orders", "/messages/nothing"];
  const begun = await fetch(`${broker.admin}/v1${letters}/redrive`, { method: "POST", body: '{"event_id": "ord-4"}' });
  views.push(`/redrives/${(await begun.json()).id}`);
  if (journal) {
    const list = await (await fetch(`${broker.admin}/messages?event_id=ord-1&subscription=default%2Fbilling`)).text();
    const message = /"(\/messages\/[0-9a-f]{16}-\d+-\d+)"/.exec(list)[1];
    views.push(message, `${message}/logs`);
  }
});
after(async () => {
  await close();
  await broker.stop();
  subscriber.stop();
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing serious (${colorScheme})`, async () => {
    const page = await open(broker.admin, { colorScheme });
    for (const path of views) {
      await page.at(path);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      const bad = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
      assert.deepEqual(bad.map(({ id, nodes }) => [path, id, nodes[0].html, nodes[0].failureSummary]), []);
    }
    page.clean();
  });
}

for (const width of [320, 390, 720, 1440]) {
  test(`nothing scrolls sideways at ${width} px`, async () => {
    const page = await open(broker.admin, { viewport: { width, height: 700 } });
    for (const path of views) {
      await page.at(path);
      assert.equal(await sideways(page), 0, path);
    }
    page.clean();
  });
}

test("keys lead everywhere", async () => {
  const page = await open(broker.admin);
  await page.at("/");
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.waitForURL(/\/dead-letters$/);
  await page.keyboard.press("g");
  await page.keyboard.press("o");
  await page.waitForURL((url) => url.pathname === "/");
  await page.keyboard.press("j");
  await page.waitForFunction(() => document.activeElement.matches("tr[data-row] [data-open]"));
  await page.keyboard.press("j");
  const focused = await page.evaluate(() => document.activeElement.textContent);
  // A live update goes by: the region that holds the focus is left alone.
  await page.waitForResponse((answer) => new URL(answer.url()).pathname === "/" && answer.request().resourceType() === "fetch");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), focused);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/subscriptions\/default\//);
  await page.keyboard.press("?");
  await page.locator("#help").waitFor({ state: "visible" });
  await page.keyboard.press("Escape");
  // Closing it gives the focus back, which must not come after the next key.
  await page.waitForFunction(() => !document.querySelector("#help").contains(document.activeElement));
  await page.keyboard.press("/");
  await page.waitForFunction(() => document.activeElement.id === "q");
  await page.keyboard.type("gd?/");
  assert.equal(await page.locator("#q").inputValue(), "gd?/");
  page.clean();
});

test("by keys alone a message is found, looked at and sent again", async (t) => {
  if (!journal) return t.skip("no journal");
  await broker.post("by-keys", { channel: "keys" });
  const page = await open(broker.admin);
  const sent = () => subscriber.received.filter((one) => one.id === "by-keys").length;
  const address = await broker.message("by-keys");
  /** Tabs on until this has the focus. */
  const reach = async (selector) => {
    for (let n = 0; n < 60; n += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((it) => document.activeElement.matches(it), selector)) return;
    }
    assert.fail(`${selector} cannot be reached`);
  };
  await page.at("/");
  await page.keyboard.press("/");
  await page.keyboard.type("by-keys");
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === address);
  await reach(`a[href="${address}/logs"]`);
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === `${address}/logs`);
  await reach(`a[href="${address}"]`);
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === address);
  await page.locator(".big .st", { hasText: "Delivered" }).waitFor();
  await reach("details[data-key=redeliver] > summary");
  await page.keyboard.press("Enter");
  await reach("form.confirm button");
  await page.keyboard.press("Enter");
  await page.locator("p.done").waitFor();
  await until(() => sent() === 2, "it is sent again");
  await page.locator(".ladder .round", { hasText: "Round 2" }).waitFor();
  page.clean();
});

test("times are in the browser's zone when asked for, and it is said", async () => {
  const page = await open(broker.admin, { timezoneId: "Asia/Tokyo" });
  await page.at("/dead-letters");
  const time = page.locator("main time").first();
  const utc = await time.innerText();
  await page.getByRole("button", { name: "UTC" }).click();
  const local = await time.innerText();
  const hour = (text) => Number(/(\d\d):\d\d:\d\d$/.exec(text)[1]);
  assert.equal((hour(local) - hour(utc) + 24) % 24, 9);
  await page.reload();
  assert.equal(await time.innerText(), local);
  page.clean();
});
