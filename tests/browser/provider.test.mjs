// A provider takes a message first and tells later what became of it.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { Broker, Subscriber, close, open, sideways } from "./harness.mjs";

let subscriber, broker, journal;

/** Takes everything; what an event is called decides what is told of it. */
function provider({ method, url, id, attempt }) {
  if (method === "POST") return { status: 202, headers: { location: `/status/${id}` } };
  const fate = url.split("/").at(-1).split("-")[0];
  if (fate === "lost") return { status: 404, body: "who is that?" };
  const state = fate === "slow" && attempt === 1 ? "sending" : fate === "bounced" ? "hard_bounce" : "delivered";
  return { status: 200, headers: { "content-type": "application/json" }, body: JSON.stringify({ state }) };
}

before(async () => {
  subscriber = await Subscriber.start();
  subscriber.answer = provider;
  broker = await Broker.start({
    mail: { uri: `${subscriber.url}/send`, preset: "notification", statusCheck: { status: "/state", delivered: ["delivered"], bounced: ["hard_bounce"], undelivered: ["expired"] } },
  });
  journal = await broker.hasJournal();
});
after(async () => {
  await close();
  await broker.stop();
  subscriber.stop();
});

/** The page of an event's message once its status reads like this, and its statuses so far. */
async function told(page, id, status) {
  await page.at(await broker.message(id));
  await page.locator(".big .st", { hasText: status }).waitFor({ timeout: 30_000 });
  return (await page.locator(".statuses .st").allInnerTexts()).map((text) => text.trim());
}

for (const width of [1440, 390]) {
  test(`a message is sent, then what the provider says (${width} px)`, async (t) => {
    if (!journal) return t.skip("no journal");
    for (const fate of ["slow", "bounced", "lost"]) await broker.post(`${fate}-${width}`);
    const page = await open(broker.admin, { viewport: { width, height: 900 } });
    const delivered = await told(page, `slow-${width}`, /^\s*Delivered/);
    assert.deepEqual(delivered, ["Queued", "Sent", "Delivered"]);
    assert.equal(await page.locator(".ladder b", { hasText: /^check \d$/ }).count(), 2);
    await page.getByRole("link", { name: "Logs 3" }).click();
    const heads = await page.locator("details.log > summary").allInnerTexts();
    assert.match(heads[0], /check 2 .* 200/s);
    assert.match(heads[2], /attempt 1 .* 202/s);
    assert.match(await page.locator("details.log").first().innerText(), /GET http.*\/status\/slow-/s);

    assert.deepEqual(await told(page, `bounced-${width}`, "Bounced"), ["Queued", "Sent", "Bounced"]);
    assert.match(await page.title(), /^bounced - bounced-/);

    await told(page, `lost-${width}`, "no final status from provider");
    assert.match(await page.locator(".big").first().innerText(), /Sent.*last: HTTP 404/s);
    assert.equal(await sideways(page), 0);
    page.clean();
  });
}

test("what has bounced is in the list of what bounced", async (t) => {
  if (!journal) return t.skip("no journal");
  const page = await open(broker.admin);
  await page.at("/messages?status=bounced");
  const rows = await page.locator("tr[data-row]").allInnerTexts();
  assert.ok(rows.length >= 1 && rows.every((row) => /Bounced/.test(row)), String(rows));
  page.clean();
});
