// What other sites, wrong names and hostile events must not achieve.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
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
    assert.match(await page.title(), /^1 dead letters - default\/billing - Levada$/);
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

test("the data of an event is never shown as a page of ours", async (t) => {
  if (!(await broker.hasJournal())) return t.skip("no journal");
  const answer = await fetch(`${broker.admin}/v1${await broker.message(NASTY)}/content`);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-disposition"), /^attachment/);
  assert.match(answer.headers.get("content-security-policy"), /sandbox/);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
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
