// What other sites, wrong names and hostile events must not achieve.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { once } from "node:events";
import { promisify } from "node:util";
import { Broker, Subscriber, close, open, sideways, until } from "./harness.mjs";

const PLAN = "/subscriptions/default/billing/dead-letters/plan";
let subscriber, broker;

before(async () => {
  subscriber = await Subscriber.start();
  broker = await Broker.start({ billing: { uri: subscriber.url, retry: 0 } });
});
after(async () => {
  await close();
  await broker.stop();
  subscriber.stop();
});

/** The status of a request with these headers. */
async function ask(method, path, headers = {}) {
  const { hostname, port } = new URL(broker.admin);
  const request = http.request({ hostname, port, method, path, headers });
  request.end();
  const [response] = await once(request, "response");
  response.resume();
  return response.statusCode;
}

test("another site changes nothing", async () => {
  const own = broker.admin;
  assert.equal(await ask("POST", PLAN), 303, "as curl sends it");
  assert.equal(await ask("POST", PLAN, { origin: own }), 303);
  for (const headers of [{ origin: "http://evil.example" }, { origin: "null" }, { "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "same-site" }]) {
    assert.equal(await ask("POST", PLAN, headers), 403, JSON.stringify(headers));
  }
  assert.equal(await ask("GET", "/", { host: "evil.example" }), 421);
  assert.equal(await ask("POST", PLAN, { host: "evil.example", origin: "http://evil.example" }), 421);
});

test("a form and a script of another site are refused", async (t) => {
  const evil = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    response.end(`<form method=post action="${broker.admin}${PLAN}"><button>win</button></form>`);
  });
  evil.listen(0, "127.0.0.1");
  await once(evil, "listening");
  t.after(() => { evil.closeAllConnections(); evil.close(); });
  const base = `http://127.0.0.1:${evil.address().port}`;
  const page = await open(base);
  await page.at("/");
  const tried = await page.evaluate((address) => fetch(address, { method: "POST", mode: "no-cors" }).then(() => "sent", () => "refused"), broker.admin + PLAN);
  assert.ok(["sent", "refused"].includes(tried));
  const [answer] = await Promise.all([page.waitForResponse((one) => one.url().startsWith(broker.admin) && one.request().isNavigationRequest()), page.click("button")]);
  assert.equal(answer.status(), 403);
});

test("every view keeps to its policy", async () => {
  for (const path of ["/", "/messages", "/dead-letters", "/subscriptions/default/billing", PLAN.replace("/plan", ""), "/channels/default/orders", "/messages/nothing"]) {
    const answer = await fetch(broker.admin + path);
    assert.match(answer.headers.get("content-security-policy"), /^default-src 'none'; script-src 'self'; style-src 'self'/, path);
    assert.doesNotMatch(await answer.text(), /\sstyle=|\son[a-z]+="/, path);
  }
});

const NASTY = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>javascript:alert(1)\u202e";

test("a hostile event is text, as a dead letter and as a message", async (t) => {
  subscriber.answer = () => ({ status: 503, headers: { "x-nasty": "<script>alert(2)</script>" }, body: `${NASTY}\u0000` });
  await broker.post(NASTY, { type: NASTY, media: "text/html", data: NASTY });
  for (const width of [1440, 390]) {
    const page = await open(broker.admin, { viewport: { width, height: 900 } });
    await until(async () => {
      await page.at("/subscriptions/default/billing/dead-letters");
      return (await page.locator("main").innerText()).includes("alert(1)");
    }, "the dead letter");
    assert.match(await page.title(), /^1 dead letter - default\/billing - Levada$/);
    assert.equal(await page.locator("main img, main script").count(), 0);
    assert.ok((await page.locator("main").innerText()).includes("\\u202e"));
    assert.equal(await sideways(page), 0);
    page.clean();
    await page.context().close();
  }
  if (!(await broker.hasJournal())) return t.skip("no journal");
  const address = await broker.message(NASTY);
  const page = await open(broker.admin);
  for (const path of [address, `${address}/logs`, "/messages"]) {
    await page.at(path);
    assert.equal(await page.locator("main img, main script").count(), 0);
    assert.ok((await page.locator("main").innerText()).includes("\\u202e"), path);
    assert.match(await page.title(), / - Levada$/);
  }
  page.clean();
});

test("the data of an event is downloaded and runs nothing", async (t) => {
  if (!(await broker.hasJournal())) return t.skip("no journal");
  const address = await broker.message(NASTY);
  const answer = await fetch(`${broker.admin}/v1${address}/content`);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-disposition"), /^attachment/);
  assert.match(answer.headers.get("content-security-policy"), /sandbox/);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  const page = await open(broker.admin);
  await page.at(address);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "download" }).click()]);
  assert.equal(await readFile(await download.path(), "utf8"), NASTY);
  assert.equal(new URL(page.url()).pathname, address);
  // Asked for by its address it is a download as well, which ends the navigation.
  await Promise.all([page.waitForEvent("download"), page.at(`/v1${address}/content`).catch(() => {})]);
  assert.equal(new URL(page.url()).pathname, address);
  page.clean();
});

test("an id of 100 KB and data that is no text leave the page whole", async (t) => {
  if (!(await broker.hasJournal())) return t.skip("no journal");
  subscriber.answer = () => ({ status: 200 });
  const id = "0123456789abcdef".repeat(6_400);
  const data = Buffer.from([0x7b, 0x00, 0xff, 0xfe, 0xc3, 0x28]);
  const event = { specversion: "1.0", id, type: "huge.id", source: "/browser", data_base64: data.toString("base64") };
  const taken = await fetch(`${broker.ingress}/default/orders`, { method: "POST", headers: { "content-type": "application/cloudevents+json" }, body: JSON.stringify(event) });
  assert.equal(taken.status, 202);
  for (const width of [1440, 390]) {
    const page = await open(broker.admin, { viewport: { width, height: 900 } });
    await until(async () => {
      await page.at("/messages?event_type=huge.id");
      return (await page.locator("tr[data-row]").count()) === 1;
    }, "its message");
    assert.equal(await sideways(page), 0);
    await page.locator("tr[data-row] th a").click();
    await page.locator("#event").waitFor();
    assert.equal(await sideways(page), 0);
    assert.match(await page.locator("pre.data.hex").innerText(), /^000000 {2}7b 00 ff fe c3 28 /);
    assert.ok((await page.title()).length < 200);
    assert.ok((await page.locator("h1").innerText()).length < 100);
    assert.ok((await page.content()).length < 60 << 10);
    page.clean();
  }
});

test("another site sends nothing again; a form without scripts does", async (t) => {
  if (!(await broker.hasJournal())) return t.skip("no journal");
  subscriber.answer = () => ({ status: 200 });
  await broker.post("again-1");
  const address = await broker.message("again-1");
  const sent = () => subscriber.received.filter((one) => one.id === "again-1").length;
  await until(async () => (await (await fetch(`${broker.admin}/v1${address}`)).json()).final, "it is delivered");
  for (const path of [`${address}/redeliver`, `/v1${address}/redeliver`]) {
    for (const headers of [{ origin: "http://evil.example" }, { origin: "null" }, { "sec-fetch-site": "cross-site" }]) {
      assert.equal(await ask("POST", path, headers), 403, `${path} ${JSON.stringify(headers)}`);
    }
    assert.equal(await ask("POST", path, { host: "evil.example" }), 421, path);
  }
  assert.equal(sent(), 1, "nothing was sent again");
  const page = await open(broker.admin, { javaScriptEnabled: false });
  await page.at(address);
  await page.locator("summary", { hasText: "Redeliver" }).click();
  await page.getByRole("button", { name: "Redeliver", exact: true }).click();
  await page.locator("p.done").waitFor();
  await until(() => sent() === 2, "it arrives again");
  assert.equal(await ask("POST", `/v1${address}/redeliver`), 202, "as curl sends it");
  await until(() => sent() === 3, "and once more");
  page.clean();
});

test("the copied command sends the same bytes", async (t) => {
  if (!(await broker.hasJournal())) return t.skip("no journal");
  const data = "it's \"$(id)\" `id` \\ \u0007\u001b[31m\ttab\nline é \u202e !";
  await broker.post("curl-1", { data, media: "text/plain" });
  const page = await open(broker.admin);
  await page.at(`${await broker.message("curl-1")}/logs`);
  await page.getByText("as curl").first().click();
  const command = await page.locator("pre.cmd").first().innerText();
  const sent = () => subscriber.received.filter((one) => one.id === "curl-1");
  const count = sent().length;
  await promisify(execFile)("sh", ["-c", command]);
  const all = await until(() => sent().length === count + 1 && sent(), "the command's request");
  assert.deepEqual(all.at(-1).body, Buffer.from(data));
  assert.deepEqual(all.at(-1).body, all[0].body);
  for (const name of ["ce-id", "ce-type", "ce-source", "content-type"]) assert.equal(all.at(-1).headers[name], all[0].headers[name], name);
  page.clean();
});
