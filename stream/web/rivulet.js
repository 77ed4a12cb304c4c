// Rivulet in the browser: collects events, sends them in batches, keeps an anonymous id once that is allowed.
//
//   <script async src="https://events.example/v1/rivulet.js?key=KEY"></script>
//   <script>
//     window.rivulet = window.rivulet || [];
//     rivulet.push(["consent", { analytics_storage: "granted" }]);
//     rivulet.push(["view_item", { item_id: "tent" }]);
//   </script>
//
// Before consent was said nothing is stored and nothing leaves the page: up to 99 events wait for it. Denied, or with Do
// Not Track or Global Privacy Control: they are dropped, and an id from before is deleted. Events carry no time of this
// machine, whose clock may be wrong: the door's counts. They carry an id, so that what is sent again counts once.
//
// Served without comments and spaces (stream/web/snippet.py): comments have lines of their own, statements end with a
// semicolon, and where a space or a slash matters it is inside double quotes.
(() => {
  const d = document, n = navigator, s = d.currentScript, url = s.src.replace("rivulet.js", "events");
  const not = n.doNotTrack == 1 || window.doNotTrack == 1 || n.globalPrivacyControl;
  const early = window.rivulet || [];
  let queue = [], user, anon, said = {}, timer, busy, wait = 2e3;
  const random = () => Date.now().toString(16) + "-" + crypto.getRandomValues(new Uint32Array(3)).join("-");
  // A cookie, and not local storage, for the shop's own server to know whose list to fetch.
  const kept = () => (d.cookie.split("; ").find((c) => c.startsWith("rv_id=")) || "").slice(6);
  const keep = (v) => {
    anon = v;
    d.cookie = "rv_id=" + v + ";path=/;samesite=lax;max-age=" + (v ? 31536e3 : 0);
  };
  const ok = () => !not && said.analytics_storage == "granted";
  const id = () => {
    if (ok() && !anon) keep(kept() || random());
    return anon;
  };
  const add = (name, more) => {
    queue.push({event_name: name, event_id: random(), ...more});
    queue = queue.slice(-99);
  };
  // Who and with which consent is added when it leaves, since both may become known after it happened.
  const body = (part) => JSON.stringify({
    events: part.map((e) => ({...e, user_id: user, user_pseudo_id: anon, consent: said}))
  });
  const later = () => {
    timer = timer || setTimeout(flush, wait);
  };
  const flush = async () => {
    timer = 0;
    if (busy || !queue[0] || !id()) return;
    const part = queue.slice(0, 20);
    busy = 1;
    const r = await fetch(url, {method: "POST", body: body(part), keepalive: true}).catch(() => 0);
    busy = 0;
    if (!r || r.status == 429 || r.status > 499) wait = Math.min(wait * 2, 6e4);
    else {
      wait = 2e3;
      queue = queue.filter((e) => !part.includes(e));
      if (r.status > 399) console.warn(await r.text());
    }
    if (queue[0]) later();
  };
  // The page may be gone before an answer comes: what is under way is sent once more, its ids make it count once.
  const leave = () => {
    if (queue[0] && anon && n.sendBeacon(url, body(queue))) queue = [];
  };
  const consent = (c) => {
    said = {...said, ...c};
    if (said.analytics_storage != "denied") return;
    // Withdrawn: the door hears it once under the old id, for lists are kept under it.
    queue = [];
    anon = kept();
    if (anon) add("consent");
    leave();
    queue = [];
    keep("");
  };
  const push = (...calls) => calls.forEach(([name, more]) => {
    if (not) return;
    if (name == "consent") consent(more);
    else if (name == "user") user = more ? more + "" : null;
    else add(name, more);
    if (id()) later();
  });
  window.rivulet = {push, flush, id};
  if (not && kept()) keep("");
  d.addEventListener("visibilitychange", () => {
    if (d.hidden) id(), leave();
  });
  if (s.dataset.consent) consent({analytics_storage: s.dataset.consent});
  push(...early);
})();
