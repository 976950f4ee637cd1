// Keeps a page live: asks for its own address again and puts what changed into the regions marked
// data-live. Everything works without it.
(() => {
  "use strict";
  const doc = document, root = doc.documentElement;
  root.classList.add("on");
  const $ = (selector, from = doc) => from.querySelector(selector);
  const $$ = (selector, from = doc) => [...from.querySelectorAll(selector)];
  const every = Number(doc.body.dataset.every);
  const cookie = (name) => (doc.cookie.match(new RegExp("(?:^|; )" + name + "=([a-z]*)")) || [])[1];
  const keep = (name, value) => { doc.cookie = `${name}=${value}; path=/; max-age=31536000; SameSite=Strict`; };

  // ---- time -------------------------------------------------------------------------------
  let offset = 0; // the server's clock minus ours
  const now = () => Date.now() + offset;
  const heard = (serverTime) => {
    if (!serverTime) return;
    offset = serverTime - Date.now();
    const skew = $("#skew"), off = Math.abs(offset) > 2000;
    skew.hidden = !off;
    if (off) skew.textContent = ` · this browser's clock is ${spoken(Math.abs(offset))} ${offset < 0 ? "ahead of" : "behind"} the server's`;
    $("#as-of").dataset.t = serverTime;
    $("#as-of").textContent = clock(serverTime, false);
  };
  function spoken(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }
  function lasting(ms) {
    const s = Math.floor(ms / 1000);
    if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
    if (s < 60) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
    if (s < 3600) return s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s / 60} min`;
    return spoken(ms);
  }
  let local = cookie("zone") === "local";
  const pad = (number, width = 2) => String(number).padStart(width, "0");
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  function clock(ms, millis) {
    const zone = (time) => (local ? time - new Date(time).getTimezoneOffset() * 60000 : time);
    const at = new Date(zone(ms)), today = new Date(zone(now()));
    const same = at.toISOString().slice(0, 10) === today.toISOString().slice(0, 10);
    const date = same ? "" : `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} `;
    const text = `${date}${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${pad(at.getUTCSeconds())}`;
    return millis ? `${text}.${pad(at.getUTCMilliseconds(), 3)}` : text;
  }
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  function zones(from = doc) {
    for (const time of $$("time[data-t]", from)) put(time, clock(Number(time.dataset.t), "ms" in time.dataset));
    for (const zone of $$("[data-zone]", from)) put(zone, local ? "local" : "UTC");
  }
  function tick() {
    if (root.classList.contains("lost")) return; // what is not known does not count on
    const t = now();
    for (const node of $$("[data-ago]")) put(node, `${spoken(t - node.dataset.ago)} ago`);
    for (const node of $$("[data-due]")) {
      const left = node.dataset.due - t;
      put(node, left <= 0 ? "due now" : `in ${spoken(left + 999)}`);
    }
    for (const node of $$("[data-waited]")) {
      const bar = $("progress[data-from]", node.parentNode), most = bar ? bar.max : Infinity;
      const done = Math.min(t - node.dataset.waited, most);
      put(node, lasting(done));
      if (bar) bar.value = Math.max(0, done);
    }
  }

  // ---- what is said to a screen reader: at most once in 10 s ---------------------------------
  let said = 0, waiting = "";
  function say(text) {
    waiting = text;
    const wait = Math.max(0, said + 10000 - Date.now());
    setTimeout(() => {
      if (waiting !== text) return;
      said = Date.now();
      $("#said").textContent = text;
    }, wait);
  }

  // ---- live regions -----------------------------------------------------------------------
  const region = (id) => $(`[data-live="${CSS.escape(id)}"]`);
  const essence = (node) => { // without what only tells how time goes on
    const copy = node.cloneNode(true);
    for (const ticking of $$("[data-tick]", copy)) { ticking.textContent = ""; ticking.removeAttribute("value"); }
    for (const zoned of $$("time[data-t],[data-zone]", copy)) zoned.textContent = "";
    for (const details of $$("details", copy)) details.removeAttribute("open");
    return copy.innerHTML;
  };
  const shown = new Map(), pending = new Map();
  for (const node of $$("[data-live]")) shown.set(node.dataset.live, essence(node));
  function isHeld(node) {
    const active = doc.activeElement;
    if (active && active !== doc.body && node.contains(active)) return true;
    const selection = getSelection();
    if (selection && !selection.isCollapsed && selection.containsNode(node, true)) return true;
    if ($("dialog[open]", node) || $("input:checked", node)) return true;
    return "calm" in node.dataset && (scrollY > 40 || node.matches(":hover"));
  }
  const word = () => { const status = $(".big .st"); return status ? status.firstChild && status.textContent.trim().split(/[,:]/)[0] : ""; };
  function swap(node, fresh) {
    const open = new Map($$("details[data-key]", node).map((d) => [d.dataset.key, d.open]));
    const before = word();
    node.innerHTML = fresh.innerHTML;
    if (fresh.dataset.src) node.dataset.src = fresh.dataset.src;
    for (const details of $$("details[data-key]", node)) {
      if (open.has(details.dataset.key)) details.open = open.get(details.dataset.key);
    }
    shown.set(fresh.dataset.live, essence(fresh));
    zones(node);
    if (node.dataset.live === "head" && word() !== before) say(`now ${word().toLowerCase()}`);
  }
  function flush() {
    for (const [id, [fresh, companion]] of pending) {
      const node = region(id);
      if (!node || essence(fresh) === shown.get(id)) { pending.delete(id); continue; }
      if (isHeld(node)) continue;
      pending.delete(id);
      swap(node, fresh);
      const beside = companion && region(companion.dataset.live);
      if (beside) swap(beside, companion);
    }
  }
  function take(text, whole) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const companion = whole ? $("[data-live][data-src]", fresh) : null;
    for (const node of $$("[data-live]", fresh)) {
      if (node === companion) continue;
      pending.set(node.dataset.live, [node, "calm" in node.dataset ? companion : null]);
    }
    if (whole && fresh.title) doc.title = fresh.title;
    flush();
  }
  const tags = new Map();
  async function ask(source, whole) {
    const headers = tags.has(source) ? { "If-None-Match": tags.get(source) } : {};
    const answer = await fetch(source, { headers, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(8000) });
    if (answer.status === 304) { heard(Number(answer.headers.get("Levada-Time"))); return; }
    if (answer.status >= 500 && whole) throw new Error(String(answer.status));
    if (!answer.headers.get("ETag")) return;
    const text = await answer.text();
    tags.set(source, answer.headers.get("ETag"));
    heard(Number(answer.headers.get("Levada-Time")));
    take(text, whole);
  }
  let live = cookie("live") !== "off", timer = 0, asking = false, since = 0;
  async function poll() {
    clearTimeout(timer);
    if (!every || !live || doc.hidden || asking) return;
    asking = true;
    const slow = setTimeout(() => { for (const node of $$("[data-live]")) node.setAttribute("aria-busy", "true"); }, 1500);
    try {
      await ask(location.pathname + location.search, true);
      for (const node of $$("[data-src]")) await ask(node.dataset.src, false);
      const newer = $("[data-newer]");
      if (newer) say(`${newer.dataset.newer} newer messages`);
      lost(false);
    } catch (error) {
      lost(true);
    }
    clearTimeout(slow);
    for (const node of $$("[aria-busy]")) node.removeAttribute("aria-busy");
    asking = false;
    timer = setTimeout(poll, since ? Math.max(every, 2000) : every);
  }
  function lost(is) {
    if (is && !since) since = now();
    if (!is) since = 0;
    root.classList.toggle("lost", is);
    $("#offline").hidden = !is;
    if (is) put($("#offline"), `Not connected since ${clock(since, false)}, retrying`);
  }
  doc.addEventListener("visibilitychange", poll);
  setInterval(() => { tick(); flush(); }, 500);

  // ---- switches, copy, keys ---------------------------------------------------------------
  function switches() {
    const zone = $("#zone"), button = $("#live");
    zone.textContent = local ? "Local" : "UTC";
    zone.setAttribute("aria-pressed", String(local));
    button.textContent = live ? "Live" : "Paused";
    button.setAttribute("aria-pressed", String(live));
  }
  $("#zone").addEventListener("click", () => { local = !local; keep("zone", local ? "local" : "utc"); switches(); zones(); });
  $("#live").addEventListener("click", () => { live = !live; keep("live", live ? "on" : "off"); switches(); poll(); });
  doc.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const text = $("[data-copy]", button.parentNode);
    const full = $(".full", text) || text;
    try {
      await navigator.clipboard.writeText(full.textContent);
      button.classList.add("done");
      say("copied");
    } catch (error) { // no clipboard but on this machine or over https
      getSelection().selectAllChildren(text);
    }
    setTimeout(() => button.classList.remove("done"), 1500);
  });
  const help = $("#help"), letters = $("#letters");
  letters.checked = cookie("keys") !== "off";
  letters.addEventListener("change", () => keep("keys", letters.checked ? "on" : "off"));
  $("#keys").addEventListener("click", () => help.showModal());
  // What had the focus in it would go on swallowing keys.
  help.addEventListener("close", () => { if (help.contains(doc.activeElement)) doc.activeElement.blur(); });
  let before = "";
  function move(step) {
    const rows = $$("tr[data-row]").filter((row) => row.offsetParent !== null || row.getClientRects().length);
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.contains(doc.activeElement));
    const row = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
    const link = $("[data-open]", row) || $("a", row);
    if (link) link.focus();
  }
  const keys = {
    "/": () => { $("#q").focus(); $("#q").select(); },
    "?": () => help.showModal(),
    n: () => { const newer = $("[data-newer]"); if (newer) newer.click(); },
    j: () => move(1),
    k: () => move(-1),
    g: () => {},
  };
  const places = { o: "/", m: "/messages", d: "/dead-letters" };
  doc.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !letters.checked || help.open) return;
    if (event.target.closest("input,select,textarea,[contenteditable]")) return;
    const leader = before;
    before = event.key;
    if (leader === "g" && places[event.key]) { location.assign(places[event.key]); return; }
    const act = Object.hasOwn(keys, event.key) && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  offset = Number($("#as-of").dataset.now) - Date.now();
  switches();
  heard(Number($("#as-of").dataset.now));
  if (local) zones();
  if (location.hash.startsWith("#log-")) {
    const target = doc.getElementById(location.hash.slice(1));
    if (target) target.open = true;
  }
  if (every) timer = setTimeout(poll, every);
})();
